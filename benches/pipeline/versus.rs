//! This build beside others of the same program: each round runs all of them, a run and then two replays, in an order that moves on by one.
//! What a change has won is told by the rounds, not by two numbers of different hours.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use contentflow::tune::statistics::median;

use super::end_to_end::{self, EndToEnd};
use super::replay::{self, Replayed};
use super::servers::Servers;
use super::settings::{Settings, WORKERS};

/// One number of a build, and its unit.
type Column = (&'static str, &'static str, usize);

const COLUMNS: [Column; 9] = [
    ("run", "events/s", 0),
    ("CPU", "us/event", 2),
    ("memory", "MiB", 0),
    ("replay", "events/s", 0),
    ("CPU", "us/event", 2),
    ("memory", "MiB", 0),
    ("nothing to change", "events/s", 0),
    ("CPU", "us/event", 2),
    ("memory", "MiB", 0),
];

/// The programs, and what each round measured of them: a row a program.
pub(crate) struct Versus {
    programs: Vec<PathBuf>,
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
    super::say(&format!("publishing {} and {} events", settings.events, settings.replay_events));
    servers.publish(settings.events)?;
    replay::publish(servers, settings.replay_events)?;
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
                line(&programs[program], &rows[program])
            ));
        }
        rounds.push(rows);
    }
    Ok(Versus { programs, rounds })
}

fn measure_one(servers: &mut Servers, settings: &Settings) -> anyhow::Result<Vec<f64>> {
    let run = end_to_end::measure(servers, settings.events, WORKERS)?;
    let EndToEnd { events_per_s, cpu_us_per_event, peak_rss_mb, .. } = run;
    let mut row = vec![events_per_s, cpu_us_per_event, peak_rss_mb];
    for replayed in replay::measure(servers, settings.replay_events)? {
        let Replayed { events_per_s, cpu_us_per_event, peak_rss_mb, .. } = replayed;
        row.extend([events_per_s, cpu_us_per_event, peak_rss_mb]);
    }
    Ok(row)
}

fn line(program: &Path, values: &[f64]) -> String {
    let cells: Vec<String> = COLUMNS
        .iter()
        .zip(values)
        .map(|((name, unit, digits), value)| format!("{name} {value:.digits$} {unit}"))
        .collect();
    format!("{}: {}", program.display(), cells.join(", "))
}

impl Versus {
    /// Each number of each round, the medians, and the medians of the others' ratios to this build.
    pub(crate) fn write(&self, out: &mut impl Write) -> anyhow::Result<()> {
        for (place, (name, unit, digits)) in COLUMNS.into_iter().enumerate() {
            if place % 3 == 0 {
                writeln!(out, "\n{name}")?;
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
