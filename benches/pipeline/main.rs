//! The throughput of the pipeline beside the raw limits of its servers, measured in the same run.
//!
//! ```text
//! topic of events, table of drafts -> for each round: consume, delete, dataflow, bare UPDATE, end to end -> medians
//! ```
//!
//! Rates of different runs, let alone of different machines, cannot be compared: the ratio to the bare UPDATE of the
//! same round can. `BENCH_EVENTS` (1,000,000) and `BENCH_RUNS` (3) say how much is measured; KAFKA_BROKERS, DATABASE_URL
//! and REDIS_URL where. `BENCH_ONLY=poison` measures the pipeline on a database that refuses some of the rows. The
//! numbers also go to `bench.json` in the target directory.

use std::io::{self, Write};
use std::process::ExitCode;

mod settings;
mod servers;
mod events;
mod consume;
mod delete;
mod dataflow;
mod bare_update;
mod end_to_end;
mod process;
mod results;

use events::Events;
use results::Results;
use servers::Servers;
use settings::Settings;

fn main() -> ExitCode {
    // Cargo says so; whoever runs all targets as tests does not want ten minutes of load.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let is_poisoned = std::env::var("BENCH_ONLY").is_ok_and(|only| only == "poison");
    let bench = if is_poisoned { poisoned } else { bench };
    match Settings::read().and_then(|settings| bench(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn bench(settings: &Settings) -> anyhow::Result<()> {
    let results = on_servers(settings, measure)?;
    results.write(&mut io::stdout().lock())
}

/// Measures on servers that are cleared afterwards, whatever happened.
fn on_servers<T>(
    settings: &Settings,
    measure: impl FnOnce(&mut Servers, &Settings) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut servers = Servers::new(settings)?;
    let measured = measure(&mut servers, settings);
    say("clearing away");
    let cleared = servers.clear();
    let measured = measured?;
    cleared?;
    Ok(measured)
}

/// The whole pipeline where the database refuses some of the rows, beside a clean run: the rates, and their ratio to it.
fn poisoned(settings: &Settings) -> anyhow::Result<()> {
    let measured = on_servers(settings, measure_poisoned)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| refused of 5,000 rows | events/s, median | of a clean run |\n|---:|---:|---:|"
    )?;
    for (of_5000, rates, ratios) in measured {
        let (rate, ratio) = (results::median(&rates), results::median(&ratios));
        writeln!(out, "| {of_5000} | {rate:.0} | {ratio:.2} |")?;
    }
    Ok(())
}

type Rates = (u64, Vec<f64>, Vec<f64>);

fn measure_poisoned(servers: &mut Servers, settings: &Settings) -> anyhow::Result<Vec<Rates>> {
    let Settings { events, rounds, .. } = *settings;
    say(&format!("publishing {events} events"));
    servers.publish(events)?;
    let mut all: Vec<Rates> =
        [0, 1, 10, 500].map(|of_5000| (of_5000, Vec::new(), Vec::new())).into();
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        let mut clean = None;
        for (of_5000, rates, ratios) in &mut all {
            let rate = end_to_end::measure_poisoned(servers, events, *of_5000)?.events_per_s;
            let clean = *clean.get_or_insert(rate);
            rates.push(rate);
            ratios.push(rate / clean);
        }
    }
    Ok(all)
}

fn measure(servers: &mut Servers, settings: &Settings) -> anyhow::Result<Results> {
    let Settings { events: count, rounds, .. } = *settings;
    say(&format!("publishing {count} events"));
    servers.publish(count)?;
    let events = Events::generate(count)?;
    let mut results = Results::new(settings, servers);
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        results.note("consume_per_s", consume::measure(servers, count)?);
        results.note("delete_per_s", delete::measure(servers, count)?);
        let [one, two] = [1, 2].map(|workers| dataflow::measure(&servers.config, &events, workers));
        let (one, two) = (one?, two?);
        results.note("dataflow_per_s_w1", one.events_per_s);
        results.note("dataflow_per_s_w2", two.events_per_s);
        results.note("dataflow_cpu_us_w1", one.cpu_us_per_event);
        results.note("dataflow_cpu_us_w2", two.cpu_us_per_event);
        // By turns the one or the other comes first: what a round does to the machine hits both.
        let (bare, whole) = if round % 2 == 1 {
            let bare = bare_update::measure(servers, &events)?;
            (bare, end_to_end::measure(servers, count)?)
        } else {
            let whole = end_to_end::measure(servers, count)?;
            (bare_update::measure(servers, &events)?, whole)
        };
        results.note("bare_update_per_s", bare);
        results.note("end_to_end_per_s", whole.events_per_s);
        results.note("end_to_end_ratio", whole.events_per_s / bare);
        results.note("cpu_us_per_event", whole.cpu_us_per_event);
        results.note("peak_rss_mb", whole.peak_rss_mb);
    }
    Ok(results)
}

/// Progress goes to standard error, results to standard output.
fn say(line: &str) {
    // Nobody reads it: no reason to stop.
    drop(writeln!(io::stderr(), "{line}"));
}
