//! The whole program, as it is installed: another process, which reads the topic from its beginning
//! to its end.

use anyhow::ensure;
use serde::Deserialize;

use super::process::{Stopwatch, Usage};
use super::program;
use super::results::{ratio, us_per_event};
use super::servers::Servers;
use super::settings::WORKERS;

/// What the whole pipeline did.
pub(crate) struct EndToEnd {
    /// Events a second, from the first connection to the last commit.
    pub(crate) events_per_s: f64,
    /// Microseconds of CPU that the process took for each event.
    pub(crate) cpu_us_per_event: f64,
    /// Microseconds of CPU that the whole machine took for each event.
    pub(crate) machine_us_per_event: f64,
    /// The most memory that the process had.
    pub(crate) peak_rss_mb: f64,
}

#[derive(Deserialize)]
struct Report {
    applied: u64,
    rejected: u64,
    records_per_s: f64,
}

/// Runs the pipeline with so many workers over the whole topic and a fresh table.
pub(crate) fn measure(
    servers: &mut Servers,
    events: u64,
    workers: usize,
) -> anyhow::Result<EndToEnd> {
    measure_with(servers, events, workers, &[])
}

/// The same with more flags.
pub(crate) fn measure_with(
    servers: &mut Servers,
    events: u64,
    workers: usize,
    flags: &[&str],
) -> anyhow::Result<EndToEnd> {
    servers.refill(events)?;
    run(servers, events, workers, 0, flags)
}

/// The same where the table refuses so many of 5,000 drafts.
pub(crate) fn measure_poisoned(
    servers: &mut Servers,
    events: u64,
    of_5000: u64,
) -> anyhow::Result<EndToEnd> {
    servers.refill(events)?;
    let refused = servers.refuse(of_5000)?;
    run(servers, events, WORKERS, refused, &[])
}

fn run(
    servers: &mut Servers,
    events: u64,
    workers: usize,
    refused: u64,
    flags: &[&str],
) -> anyhow::Result<EndToEnd> {
    let group = servers.new_group();
    let workers = workers.to_string();
    let arguments =
        ["run", "--until-caught-up", "--report", "json", "--group", &group, "--workers", &workers];
    let watch = Stopwatch::start();
    let (report, Usage { cpu, peak_rss_kb }, logged) =
        program::run(servers, &servers.config.kafka.topic, &[&arguments, flags].concat())?;
    let machine_us_per_event = watch.stop(events).machine_us;
    let Report { applied, rejected, records_per_s } = report;
    ensure!(
        (applied, rejected) == (events - refused, refused),
        "{applied} of {events} events are applied, {rejected} are rejected: {}",
        logged.trim()
    );
    Ok(EndToEnd {
        events_per_s: records_per_s,
        cpu_us_per_event: us_per_event(cpu, events),
        machine_us_per_event,
        peak_rss_mb: ratio(peak_rss_kb, 1024),
    })
}
