//! The snapshot: what `/status.json` and each event of `/events` hold. The names of its fields are
//! public.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use dataflows::reject::Reason;
use serde::Serialize;

use super::health::Dependency;
use super::history;
use super::watcher::Watcher;
use crate::clock::now_ms;
use crate::figures::calls::Health;
use crate::figures::letters::Letter;
use crate::figures::polled::{PartitionProgress, Polled};

mod journey;
mod limit;

use journey::{Stage, Worker, stages, workers};
use limit::Limit;

/// Everything that the page shows.
#[derive(Debug, Serialize)]
pub struct Snapshot<'a> {
    version: &'static str,
    topic: &'a str,
    group: &'a str,
    now_ms: i64,
    started_ms: u64,
    state: &'static str,
    ready: bool,
    not_ready: Vec<String>,
    stages: Vec<Stage>,
    workers: Vec<Worker>,
    epochs: Epochs,
    partitions: Vec<Partition>,
    outcomes: Outcomes,
    rejected_by_reason: BTreeMap<&'static str, u64>,
    dead_letters: Vec<Letter>,
    dependencies: Vec<Told>,
    limit: Limit,
    history: history::Told,
}

#[derive(Debug, Serialize)]
struct Epochs {
    open: u64,
    in_flight: usize,
    limit: usize,
    oldest_age_s: f64,
    done_below: u64,
    records_in_flight: u64,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: i32,
    position: i64,
    committed: i64,
    end: i64,
    lag: i64,
}

#[derive(Debug, Serialize)]
struct Outcomes {
    read: u64,
    applied: u64,
    duplicate: u64,
    superseded: u64,
    skipped: u64,
    rejected: u64,
    deletes: u64,
    keys_deleted: u64,
    job_reused: u64,
}

#[derive(Debug, Serialize)]
struct Told {
    name: &'static str,
    state: &'static str,
    since_s: f64,
    error: Option<String>,
    tries: u32,
    retry_in_s: Option<f64>,
}

impl Watcher {
    /// The snapshot of this moment.
    pub fn snapshot(&self) -> Snapshot<'_> {
        let Watcher { figures, facts, history, .. } = self;
        let polled = figures.polled().clone();
        let stretch = self.stretch();
        let not_ready = self.not_ready();
        let since_1970 = figures.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let reasons = Reason::ALL.map(|reason| (reason.code(), polled.totals.rejected_for(reason)));
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            topic: &facts.topic,
            group: &facts.group,
            now_ms: now_ms(),
            started_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            state: self.state(),
            ready: not_ready.is_empty(),
            not_ready,
            stages: stages(figures, &polled, &stretch),
            workers: workers(&polled, &stretch),
            epochs: epochs(&polled),
            partitions: self.partitions(&polled),
            outcomes: outcomes(&polled),
            rejected_by_reason: reasons.into_iter().filter(|(_, count)| *count > 0).collect(),
            dead_letters: figures.letters.newest(),
            dependencies: self.dependencies().map(told).collect(),
            limit: self.limit(&stretch),
            history: history.told(),
        }
    }

    fn partitions(&self, polled: &Polled) -> Vec<Partition> {
        let partition = |(partition, place): (&i32, &PartitionProgress)| {
            let end = self.end(*partition, place);
            let PartitionProgress { position, committed, .. } = *place;
            Partition { partition: *partition, position, committed, end, lag: end - position }
        };
        polled.partitions.iter().map(partition).collect()
    }
}

fn epochs(polled: &Polled) -> Epochs {
    let age = polled.oldest_since.map(|since| since.elapsed().as_secs_f64());
    Epochs {
        open: polled.open,
        in_flight: polled.in_flight,
        limit: polled.in_flight_max,
        oldest_age_s: rounded(age.unwrap_or_default()),
        done_below: polled.done_below.min(polled.open),
        records_in_flight: polled.read.saturating_sub(polled.totals.records()),
    }
}

fn outcomes(Polled { read, totals, .. }: &Polled) -> Outcomes {
    Outcomes {
        read: *read,
        applied: totals.applied,
        duplicate: totals.duplicate,
        superseded: totals.superseded,
        skipped: totals.skipped,
        rejected: totals.rejected_total(),
        deletes: totals.deletes,
        keys_deleted: totals.keys_deleted,
        job_reused: totals.job_reused,
    }
}

fn told(dependency: &Dependency) -> Told {
    let (error, tries, retry_in) = match &dependency.health {
        Health::Held { error, tries, retry_in, .. } => (Some(error.clone()), *tries, *retry_in),
        Health::Unknown | Health::Up => (None, 0, None),
    };
    Told {
        name: dependency.name,
        state: dependency.state(),
        since_s: rounded(dependency.lasting().as_secs_f64()),
        error,
        tries,
        retry_in_s: retry_in.map(|wait| rounded(wait.as_secs_f64())),
    }
}

/// With three digits after the point: nobody reads more.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
