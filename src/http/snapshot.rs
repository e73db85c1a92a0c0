//! The snapshot: what `/status.json` and each event of `/events` hold. The names of its fields are public.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use dataflows::reject::Reason;
use serde::Serialize;

use super::health::Dependency;
use super::history;
use super::watcher::{Stretch, Watcher};
use crate::figures::calls::Health;
use crate::figures::histogram::float;
use crate::figures::lanes::Again;
use crate::figures::letters::{Letter, now_ms};
use crate::figures::polled::Polled;
use crate::figures::workers::Stage as OnWorkers;
use crate::figures::{Figures, Server};
use crate::limit::{self, percent};

/// Below this share of the busiest stage, with nothing waiting at the brokers, nothing limits.
const AT_EASE: f64 = 0.5;

/// Everything that the page shows.
#[derive(Debug, Serialize)]
pub struct Snapshot<'a> {
    version: &'static str,
    topic: &'a str,
    group: &'a str,
    now_ms: u64,
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
struct Stage {
    name: &'static str,
    label: &'static str,
    records_per_s: f64,
    busy: Option<f64>,
    queue: u64,
    errors: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    workers: Vec<StageOnWorker>,
}

#[derive(Debug, Serialize)]
struct StageOnWorker {
    worker: usize,
    busy: f64,
    records_per_s: f64,
}

#[derive(Debug, Serialize)]
struct Worker {
    worker: usize,
    busy: f64,
    records_per_s: f64,
    queue: usize,
    stages: BTreeMap<&'static str, f64>,
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

#[derive(Debug, Serialize)]
struct Limit {
    /// As `contentflow tune` calls it.
    stage: &'static str,
    /// The stage of the page that it is.
    node: &'static str,
    busy: f64,
    words: String,
    advice: String,
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
        let partition = |(partition, place): (&i32, &_)| {
            let end = self.end(*partition, place);
            let crate::figures::polled::Place { position, committed, end: _ } = *place;
            Partition { partition: *partition, position, committed, end, lag: end - position }
        };
        polled.partitions.iter().map(partition).collect()
    }

    fn limit(&self, stretch: &Stretch) -> Limit {
        let (capacity, shares) = (self.facts.capacity, stretch.shares);
        let (stage, busy) = shares.limit();
        if let Some(held) = self.dependencies().find(|dependency| dependency.is_held()) {
            let node = node_of(held.name);
            return Limit {
                stage: held.name,
                node,
                busy: 1.0,
                words: format!("Held: {}.", held.complaint().unwrap_or_default()),
                advice: "It goes on by itself when the server is back.".to_owned(),
            };
        }
        let (words, advice) = if busy < AT_EASE && self.backlog() == 0 {
            let share = percent(busy);
            let words = format!(
                "Nothing limits: the busiest stage, {}, is at work {share} of the time.",
                stage.name()
            );
            (words, "The pipeline keeps up with what is published.".to_owned())
        } else {
            let tune = "to a point that `contentflow tune` finds";
            let words = format!("The limit: {}", shares.words(capacity));
            (words, shares.remedy(capacity, self.facts.cores, tune))
        };
        Limit { stage: stage.name(), node: node(stage), busy: rounded(busy), words, advice }
    }
}

fn stages(figures: &Figures, polled: &Polled, stretch: &Stretch) -> Vec<Stage> {
    let shares = &stretch.shares;
    let (rejected_before, refused) = figures.letters.rejected();
    let outages = |server| figures.lanes(server).again(Again::Outage);
    let queued: usize = polled.queues.iter().sum();
    let stage = |name, label, rate: u64, busy: Option<f64>, queue, errors| Stage {
        name,
        label,
        records_per_s: rounded(stretch.rate(rate)),
        busy: busy.map(rounded),
        queue,
        errors,
        workers: Vec::new(),
    };
    let on_workers = |on: OnWorkers, label, queue, errors| {
        let (records, busy): (Vec<u64>, Vec<f64>) =
            (stretch.records(on).collect(), stretch.busy(on).collect());
        let mean = busy.iter().sum::<f64>() / float(u64::try_from(busy.len().max(1)).unwrap_or(1));
        let workers = busy.into_iter().zip(&records).enumerate();
        let workers = workers.map(|(worker, (busy, records))| StageOnWorker {
            worker,
            busy: rounded(busy),
            records_per_s: rounded(stretch.rate(*records)),
        });
        let whole = stage(on.name(), label, records.iter().sum(), Some(mean), queue, errors);
        Stage { workers: workers.collect(), ..whole }
    };
    let on_lanes = |on: OnWorkers, server, label, busy, errors| {
        let records = stretch.records(on).sum();
        stage(on.name(), label, records, Some(busy), figures.lanes(server).waiting(), errors)
    };
    use Server::{Cache, Database, DeadLetters};
    let queued = u64::try_from(queued).unwrap_or(u64::MAX);
    vec![
        stage(
            "source",
            "Kafka",
            stretch.read,
            Some(shares.source),
            figures.brokers.fetched(),
            figures.brokers.errors(),
        ),
        on_workers(OnWorkers::Decode, "Decode", queued, rejected_before),
        on_workers(OnWorkers::Dedupe, "Dedupe", 0, 0),
        on_workers(OnWorkers::Latest, "Latest", 0, 0),
        on_lanes(
            OnWorkers::Write,
            Database,
            "PostgreSQL",
            shares.database,
            refused + outages(Database),
        ),
        on_lanes(OnWorkers::Invalidate, Cache, "Redis", shares.cache, outages(Cache)),
        on_lanes(
            OnWorkers::DeadLetter,
            DeadLetters,
            "Dead letters",
            shares.dead_letters,
            outages(DeadLetters),
        ),
        stage("commit", "Commit", stretch.done, None, 0, polled.commits.1),
    ]
}

fn workers(polled: &Polled, stretch: &Stretch) -> Vec<Worker> {
    let busy = OnWorkers::ALL.map(|stage| (stage.name(), stretch.busy(stage).collect::<Vec<_>>()));
    let entered = stretch.records(OnWorkers::Decode);
    let all = stretch.awake().zip(entered).enumerate();
    all.map(|(worker, (awake, records))| Worker {
        worker,
        busy: rounded(awake),
        records_per_s: rounded(stretch.rate(records)),
        queue: polled.queues.get(worker).copied().unwrap_or_default(),
        stages: busy.iter().map(|(name, busy)| (*name, rounded(busy[worker]))).collect(),
    })
    .collect()
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

fn node(stage: limit::Stage) -> &'static str {
    match stage {
        limit::Stage::Source => "source",
        limit::Stage::Decode => "decode",
        limit::Stage::Exchange => "dedupe",
        limit::Stage::Database => "write",
        limit::Stage::Cache => "invalidate",
        limit::Stage::DeadLetters => "dead-letter",
    }
}

fn node_of(dependency: &str) -> &'static str {
    match Server::ALL.into_iter().find(|server| server.dependency() == dependency) {
        Some(server) => server.effect(),
        None => "source",
    }
}

/// With three digits after the point: nobody reads more.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
