//! The stages of the journey and the workers that they run on, as they have been for the last two
//! seconds.

use std::collections::BTreeMap;

use serde::Serialize;

use super::rounded;
use crate::figures::histogram::float;
use crate::figures::lanes::Again;
use crate::figures::polled::Polled;
use crate::figures::workers::GraphStage;
use crate::figures::{Figures, Server};
use crate::http::watcher::Stretch;

#[derive(Debug, Serialize)]
pub(super) struct Stage {
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
pub(super) struct StageOnWorker {
    worker: usize,
    busy: f64,
    records_per_s: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Worker {
    worker: usize,
    busy: f64,
    records_per_s: f64,
    queue: usize,
    stages: BTreeMap<&'static str, f64>,
}

/// The stages, in the order of the journey.
pub(super) fn stages(figures: &Figures, polled: &Polled, stretch: &Stretch) -> Vec<Stage> {
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
    let on_workers = |on: GraphStage, label, queue, errors| {
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
    let on_lanes = |on: GraphStage, server, label, busy, errors| {
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
        on_workers(GraphStage::Decode, "Decode", queued, rejected_before),
        on_workers(GraphStage::Dedupe, "Dedupe", 0, 0),
        on_workers(GraphStage::Latest, "Latest", 0, 0),
        on_lanes(
            GraphStage::Write,
            Database,
            "PostgreSQL",
            shares.database,
            refused + outages(Database),
        ),
        on_lanes(GraphStage::Invalidate, Cache, "Redis", shares.cache, outages(Cache)),
        on_lanes(
            GraphStage::DeadLetter,
            DeadLetters,
            "Dead letters",
            shares.dead_letters,
            outages(DeadLetters),
        ),
        stage("commit", "Commit", stretch.done, None, 0, polled.commits.1),
    ]
}

/// The workers.
pub(super) fn workers(polled: &Polled, stretch: &Stretch) -> Vec<Worker> {
    let busy = GraphStage::ALL.map(|stage| (stage.name(), stretch.busy(stage).collect::<Vec<_>>()));
    let entered = stretch.records(GraphStage::Decode);
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
