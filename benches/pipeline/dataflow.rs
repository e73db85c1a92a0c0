//! The limit of the graph: everything from the first copy of a record to the end of its epoch, with effects that answer
//! at once and do nothing.

use std::sync::Arc;
use std::time::Duration;

use contentflow::config::Config;
use contentflow::ingest::Ingest;
use contentflow::progress::progress;
use contentflow::run::rules;
use contentflow::sink::nothing::Nothing;
use contentflow::worker::{Workers, start};
use dataflows::validate::DraftIdType;

use super::events::Events;
use super::process::{Stopwatch, Taken};

/// Feeds the events. The CPU is that of all threads, the one that feeds them included.
pub(crate) fn measure(config: &Config, events: &Events, workers: usize) -> anyhow::Result<Taken> {
    let (progress, watch) = progress();
    let progress = Arc::new(progress);
    let mut config = config.clone();
    config.run.workers = workers;
    let rules = rules(&config, DraftIdType::Text { max_chars: None });
    let started = start(workers, rules, Nothing, &progress).map_err(anyhow::Error::msg)?;
    let Workers { entrances, guards } = started;
    let mut ingest = Ingest::new(entrances, config.run, progress, watch);
    let watch = Stopwatch::start();
    let mut pushed = 0;
    for record in events.chunks.iter().flat_map(|chunk| chunk.records()) {
        ingest.push(record.raw(), record.headers());
        // The poll loop looks around as often.
        pushed += 1;
        if pushed % 64 > 0 && !ingest.epoch_is_full() {
            continue;
        }
        ingest.close_if_due();
        ingest.collect()?;
        while ingest.is_full() {
            ingest.wait(Duration::from_millis(20));
            ingest.collect()?;
            ingest.close_if_due();
        }
    }
    ingest.end();
    while !ingest.is_drained() {
        ingest.wait(Duration::from_millis(20));
        ingest.collect()?;
    }
    let taken = watch.stop(events.len());
    drop(guards);
    anyhow::ensure!(ingest.totals().applied == events.len(), "not every event came through");
    Ok(taken)
}
