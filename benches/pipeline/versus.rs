//! This build beside others of the same program: each round measures all of them, a run, two
//! replays, and 1,000 events a second, in an order that moves on by one. What a change has won is
//! told by the rounds, not by two numbers of different hours.
//!
//! `BENCH_ONLY=versus,latency` compares nothing but that; so do `whole` and `replay`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use contentflow::tune::statistics::median;

use super::end_to_end::{self, EndToEnd};
use super::latency::{self, AtRate};
use super::replay::{self, Replayed};
use super::servers::Servers;
use super::settings::{Settings, WORKERS};

/// One number of a build: the heading that it stands under, its unit, and how many digits of it
/// mean something.
type Column = (&'static str, &'static str, usize);

const RUN: [Column; 3] = bulk("run");
const REPLAY: [Column; 3] = bulk("replay");
const AGAIN: [Column; 3] = bulk("nothing to change");
const AT_RATE: [Column; 3] = {
    let name = "1,000 events/s, p50, p99 and CPU";
    [(name, "ms", 2), (name, "ms", 2), (name, "us/event", 0)]
};

const fn bulk(name: &'static str) -> [Column; 3] {
    [(name, "events/s", 0), (name, "us/event", 2), (name, "MiB", 0)]
}

/// The programs, and what each round measured of them: a row a program.
pub(crate) struct Versus {
    programs: Vec<PathBuf>,
    columns: Vec<Column>,
    rounds: Vec<Vec<Vec<f64>>>,
}

/// Measures this build and `settings.others`.
pub(crate) fn measure(servers: &mut Servers, settings: &Settings) -> anyhow::Result<Versus> {
    let mut programs = vec![PathBuf::from(env!("CARGO_BIN_EXE_contentflow"))];
    programs.extend(settings.others.iter().map(PathBuf::from));
    ensure!(
        programs.len() > 1,
        "OTHERS names no other build of the program: its path, or several with commas between"
    );
    if let Some(missing) = programs.iter().find(|program| !program.exists()) {
        anyhow::bail!("{} does not exist", missing.display());
    }
    let columns = compared(settings);
    if asks_for(settings, "whole") {
        servers.publish(settings.events)?;
        // The first run behind the publishing is slower than all others, whichever build it is of.
        end_to_end::measure(servers, settings.events, WORKERS)?;
    }
    if asks_for(settings, "replay") {
        replay::publish(servers, settings.replay_events)?;
        replay::measure(servers, settings.replay_events)?;
    }
    if asks_for(settings, "latency") {
        latency::warm_up(servers)?;
    }
    let mut rounds = Vec::new();
    for round in 0..usize::try_from(settings.rounds)? {
        let mut rows = vec![Vec::new(); programs.len()];
        for turn in 0..programs.len() {
            let program = (round + turn) % programs.len();
            servers.program = programs[program].clone();
            rows[program] = measure_one(servers, settings)?;
            super::say(&format!(
                "round {}: {}",
                round + 1,
                line(&programs[program], &columns, &rows[program])
            ));
        }
        rounds.push(rows);
    }
    Ok(Versus { programs, columns, rounds })
}

/// What is named beside `versus`; everything where nothing is.
fn asks_for(settings: &Settings, name: &str) -> bool {
    let narrowed = ["whole", "replay", "latency"].iter().any(|name| settings.asks_for(name));
    !narrowed || settings.asks_for(name)
}

fn compared(settings: &Settings) -> Vec<Column> {
    let parts = [("whole", &RUN[..]), ("replay", &[REPLAY, AGAIN].concat()), ("latency", &AT_RATE)];
    let asked = parts.into_iter().filter(|(name, _)| asks_for(settings, name));
    asked.flat_map(|(_, columns)| columns.to_vec()).collect()
}

fn measure_one(servers: &mut Servers, settings: &Settings) -> anyhow::Result<Vec<f64>> {
    let mut row = Vec::new();
    if asks_for(settings, "whole") {
        let run = end_to_end::measure(servers, settings.events, WORKERS)?;
        let EndToEnd { events_per_s, cpu_us_per_event, peak_rss_mb, .. } = run;
        row.extend([events_per_s, cpu_us_per_event, peak_rss_mb]);
    }
    if asks_for(settings, "replay") {
        for replayed in replay::measure(servers, settings.replay_events)? {
            let Replayed { events_per_s, cpu_us_per_event, peak_rss_mb, .. } = replayed;
            row.extend([events_per_s, cpu_us_per_event, peak_rss_mb]);
        }
    }
    if asks_for(settings, "latency") {
        servers.refill(servers.drafts())?;
        let AtRate { latency, cpu_us_per_event } = latency::measure(servers, 1_000)?;
        row.extend([latency.p50_ms, latency.p99_ms, cpu_us_per_event]);
    }
    Ok(row)
}

fn line(program: &Path, columns: &[Column], values: &[f64]) -> String {
    let (mut text, mut heading) = (format!("{}", program.display()), "");
    for ((name, unit, digits), value) in columns.iter().zip(values) {
        if *name != heading {
            text.push_str(&format!("; {name}:"));
            heading = name;
        }
        text.push_str(&format!(" {value:.digits$} {unit}"));
    }
    text
}

impl Versus {
    /// Each number of each round, the medians, and the medians of the others' ratios to this build.
    pub(crate) fn write(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let mut heading = "";
        for (place, (name, unit, digits)) in self.columns.iter().enumerate() {
            if *name != heading {
                writeln!(out, "\n{name}")?;
                heading = name;
            }
            for (program, path) in self.programs.iter().enumerate() {
                let values: Vec<f64> =
                    self.rounds.iter().map(|rows| rows[program][place]).collect();
                let ratios: Vec<f64> =
                    self.rounds.iter().map(|rows| rows[program][place] / rows[0][place]).collect();
                let rounds: Vec<String> =
                    values.iter().map(|value| format!("{value:.digits$}")).collect();
                writeln!(
                    out,
                    "  {:>12.digits$} {unit:<9} {:>5.2}  of {}  {}",
                    median(&values),
                    median(&ratios),
                    rounds.join(" "),
                    path.display()
                )?;
            }
        }
        Ok(())
    }
}
