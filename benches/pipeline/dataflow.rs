//! The limit of the graph, with effects that answer at once and do nothing: everything from the
//! first copy of a record to the end of its epoch, and the workers by themselves, whom nobody keeps
//! waiting.

use std::sync::Arc;
use std::time::Duration;

use contentflow::config::Config;
use contentflow::ingest::{CHUNK_RECORDS, Ingest};
use contentflow::progress::{Progress, Watch, progress};

use contentflow::sink::nothing::Nothing;
use contentflow::worker::{Workers, rules, start};
use dataflows::Epoch;
use dataflows::feed::Feed;
use dataflows::record::Chunk;
use dataflows::validate::DraftIdType;

use super::events::Events;
use super::process::{Stopwatch, Taken};

/// Feeds the events. The CPU is that of all threads, the one that feeds them included.
pub(crate) fn measure(config: &Config, events: &Events, workers: usize) -> anyhow::Result<Taken> {
    let (workers, progress, watch) = started(config, workers)?;
    let Workers { entrances, guards } = workers;
    let mut ingest = Ingest::new(entrances, config.run.clone(), progress, watch);
    let watch = Stopwatch::start();
    let mut pushed = 0;
    let mut before = None;
    let mut encoded = String::new();
    for record in events.chunks.iter().flat_map(|chunk| chunk.records()) {
        // As in a backlog, where the bytes are at hand that the headers are read from: any will do
        // that are the same for the same.
        if before.is_none_or(|before| !record.shares_headers(&before)) {
            encoded = format!("{:?}", record.headers().collect::<Vec<_>>());
        }
        before = Some(record);
        ingest.push_encoded(record.raw(), encoded.as_bytes(), record.headers());
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

/// Feeds chunks that are there already, as many epochs at a time as a run has under way.
pub(crate) fn measure_workers(
    config: &Config,
    events: &Events,
    workers: usize,
) -> anyhow::Result<Taken> {
    let chunks = of_a_run(events);
    let (workers, progress, news) = started(config, workers)?;
    let Workers { entrances, guards } = workers;
    let in_flight = Epoch::try_from(config.run.epochs_in_flight)?;
    let (mut epoch, mut records, mut applied) = (0, 0, 0);
    let watch = Stopwatch::start();
    for (chunk, entrance) in chunks.into_iter().zip(entrances.iter().cycle()) {
        records += chunk.len();
        entrance.send(Feed::Chunk(chunk));
        if records >= config.run.epoch_records {
            entrances.iter().for_each(|entrance| entrance.send(Feed::CloseEpoch));
            (epoch, records) = (epoch + 1, 0);
        }
        while progress.done_below() + in_flight < epoch {
            news.wait(Duration::from_millis(20), |_epoch, tally| applied += tally.applied);
        }
    }
    entrances.iter().for_each(|entrance| entrance.send(Feed::End));
    while progress.done_below() < Epoch::MAX {
        news.wait(Duration::from_millis(20), |_epoch, tally| applied += tally.applied);
    }
    let taken = watch.stop(events.len());
    news.settled(|_epoch, tally| applied += tally.applied);
    drop(guards);
    anyhow::ensure!(applied == events.len(), "not every event came through");
    Ok(taken)
}

/// Two graphs of one worker each, which have nothing to tell each other: what two cores give at
/// most. Returns their rates together.
pub(crate) fn measure_apart(config: &Config, events: &Events) -> anyhow::Result<f64> {
    let (one, other) = events.chunks.split_at(events.chunks.len() / 2);
    let halves = [one, other].map(|chunks| Events { chunks: chunks.to_vec() });
    std::thread::scope(|scope| {
        let threads =
            halves.each_ref().map(|half| scope.spawn(|| measure_workers(config, half, 1)));
        let rates = threads.map(|it| it.join().expect("a panic ends the bench"));
        rates.into_iter().try_fold(0.0, |sum, rate| Ok(sum + rate?.per_s))
    })
}

/// The events in chunks as large as those of a run.
fn of_a_run(events: &Events) -> Vec<Chunk> {
    let mut chunks = vec![Chunk::default()];
    for record in events.chunks.iter().flat_map(|chunk| chunk.records()) {
        let last = chunks.last_mut().expect("there is one from the beginning");
        last.push(record.raw(), record.headers());
        if last.len() >= CHUNK_RECORDS {
            let next = last.another();
            chunks.push(next);
        }
    }
    chunks
}

/// Workers that have begun, and what they tell.
fn started(config: &Config, workers: usize) -> anyhow::Result<(Workers, Arc<Progress>, Watch)> {
    let (progress, watch) = progress();
    let progress = Arc::new(progress);
    let mut config = config.clone();
    config.run.workers = workers;
    let rules = rules(&config, DraftIdType::Text { max_chars: None });
    let workers = start(workers, rules, Nothing, &progress, None).map_err(anyhow::Error::msg)?;
    Ok((workers, progress, watch))
}
