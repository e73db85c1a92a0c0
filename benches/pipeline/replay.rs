//! A replay of a topic with ten events a draft, as a process of its own: first over a table without
//! images, then once more, when there is nothing to change.

use anyhow::ensure;
use contentflow::config::Kafka;
use contentflow::generate::Mix;
use serde::Deserialize;

use super::process::Stopwatch;
use super::program;
use super::results::{ratio, us_per_event};
use super::say;
use super::servers::{self, Servers, mix};
use super::settings::WORKERS;

/// Events for each draft.
pub(crate) const EVENTS_A_DRAFT: u64 = 10;

/// What a replay did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replayed {
    /// Events a second, from the first connection to the last DEL.
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
    read: u64,
    rows_written: u64,
    records_per_s: f64,
}

/// Publishes the events, once.
pub(crate) fn publish(servers: &Servers, events: u64) -> anyhow::Result<()> {
    say(&format!("publishing {events} events for the replay"));
    servers::publish(&topic(servers), Mix { drafts: events / EVENTS_A_DRAFT, ..mix(events) })
}

/// Replays them over a fresh table, and again.
pub(crate) fn measure(servers: &Servers, events: u64) -> anyhow::Result<[Replayed; 2]> {
    let drafts = events / EVENTS_A_DRAFT;
    servers.refill(drafts)?;
    let (first, rows) = run(servers, events)?;
    ensure!(rows == drafts, "{rows} rows of {drafts} are written");
    let (again, rows) = run(servers, events)?;
    ensure!(rows == 0, "{rows} rows are written once more");
    Ok([first, again])
}

fn topic(servers: &Servers) -> Kafka {
    Kafka { topic: servers.replay_topic(), ..servers.config.kafka.clone() }
}

fn run(servers: &Servers, events: u64) -> anyhow::Result<(Replayed, u64)> {
    let workers = WORKERS.to_string();
    let arguments = ["replay", "--report", "json", "--workers", &workers];
    let watch = Stopwatch::start();
    let (report, usage, _log) = program::run(servers, &topic(servers).topic, &arguments)?;
    let machine_us_per_event = watch.stop(events).machine_us;
    let Report { read, rows_written, records_per_s } = report;
    ensure!(read == events, "{read} of {events} events are read");
    let peak_rss_mb = ratio(usage.peak_rss_kb, 1024);
    let cpu_us_per_event = us_per_event(usage.cpu, events);
    let replayed = Replayed {
        events_per_s: records_per_s,
        cpu_us_per_event,
        machine_us_per_event,
        peak_rss_mb,
    };
    Ok((replayed, rows_written))
}
