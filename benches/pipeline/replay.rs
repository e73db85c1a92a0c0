//! A replay of a topic with ten events a draft, as a process of its own: first over a table without images, then once more, when there is
//! nothing to change.

use std::io::{Read, Seek};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use contentflow::config::Kafka;
use contentflow::generate::Mix;
use contentflow::publish;
use serde::Deserialize;

use super::process::{Usage, wait};
use super::results::ratio;
use super::servers::{Servers, mix};
use super::settings::WORKERS;

/// Events for each draft.
pub(crate) const EVENTS_A_DRAFT: u64 = 10;

/// What a replay did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replayed {
    /// Events a second, from the first connection to the last DEL.
    pub(crate) events_per_s: f64,
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
    let mix = Mix { drafts: events / EVENTS_A_DRAFT, ..mix(events) };
    let published = publish::publish_generated(&topic(servers), mix, None, &mut |_sent| {})?;
    ensure!(published.events == events, "only {} events are published", published.events);
    Ok(())
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
    let mut log = tempfile::tempfile()?;
    let child = Command::new(env!("CARGO_BIN_EXE_contentflow"))
        .args(["replay", "--report", "json", "--workers", &WORKERS.to_string()])
        .envs(servers.environment.iter().map(|(name, value)| (name, value)))
        .env("CONTENTFLOW_KAFKA__TOPIC", &topic(servers).topic)
        .env("CONTENTFLOW_DEAD_LETTERS__TOPIC", &servers.config.dead_letters.topic)
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone()?)
        .spawn()
        .context("the program does not start")?;
    let (output, Usage { peak_rss_kb, .. }) = wait(child)?;
    let mut logged = String::new();
    log.rewind()?;
    log.read_to_string(&mut logged)?;
    ensure!(output.status.success(), "the program failed: {}", logged.trim());
    let report: Report = serde_json::from_slice(&output.stdout).context("the report")?;
    let Report { read, rows_written, records_per_s } = report;
    ensure!(read == events, "{read} of {events} events are read");
    let peak_rss_mb = ratio(peak_rss_kb, 1024);
    Ok((Replayed { events_per_s: records_per_s, peak_rss_mb }, rows_written))
}
