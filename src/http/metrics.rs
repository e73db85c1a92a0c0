//! Every metric: its name, and where its value comes from. docs/metrics.md is the same list for
//! people.
//!
//! Labels are bounded: by what the program knows (outcomes, reasons, stages), by its threads, and
//! by the partitions that it has. An id, a message or an address is never one.

use dataflows::reject::Reason;

use super::exposition::{Exposition, Kind, Metric};
use super::process;
use super::watcher::Watcher;
use crate::figures::Server;
use crate::figures::calls::Health;
use crate::figures::histogram::float;
use crate::figures::lanes::Again;
use crate::figures::polled::Polled;
use crate::figures::workers::GraphStage;

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $unit:literal: $help:literal;)*) => {
        $(const $constant: Metric =
            Metric { name: $name, kind: Kind::$kind, unit: $unit, labels: &[$($label),*], help: $help };)*
        /// Every metric, in the order of the page.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    BUILD = Gauge "contentflow_build_info" ["version"] "": "1, with the version of the program.";
    READY = Gauge "contentflow_ready" [] "": "1 while it can make progress, else 0: what /readyz says.";
    READ = Counter "contentflow_records_read_total" [] "records": "Records read from the topic.";
    OUTCOMES = Counter "contentflow_records_total" ["outcome"] "records": "Records that are through, by what became of them.";
    REJECTED = Counter "contentflow_records_rejected_total" ["reason"] "records": "Rejected records that are through, by the reason.";
    DELETES = Counter "contentflow_cache_deletes_total" [] "keys": "DELs that the cache has answered.";
    KEYS_DELETED = Counter "contentflow_cache_keys_deleted_total" [] "keys": "DELs that found a key.";
    JOBS_REUSED = Counter "contentflow_jobs_reused_total" [] "jobs": "Jobs that were noticed for a second draft.";
    LATENCY = Histogram "contentflow_end_to_end_latency_seconds" [] "seconds": "From the record's timestamp to the answer to the DEL of its key.";
    DURATION = Histogram "contentflow_effect_duration_seconds" ["effect"] "seconds": "How long a server took for what it was asked, from a statement or pipeline to its answer.";
    BATCH = Histogram "contentflow_effect_batch_records" ["effect"] "records": "How much was in a batch: rows, keys or dead letters.";
    RETRIES = Counter "contentflow_effect_retries_total" ["effect", "cause"] "": "What was done again, because of an outage, a contended statement, or a row that was locked, changed or missing.";
    WAITING = Gauge "contentflow_effect_queue_batches" ["effect"] "batches": "Batches that wait for a lane.";
    LANES = Gauge "contentflow_effect_lanes" ["effect"] "lanes": "Lanes that work side by side, over all workers.";
    LANES_BUSY = Counter "contentflow_effect_busy_seconds_total" ["effect"] "seconds": "How long the lanes were at work, added up: its rate by the lanes is the part of their capacity.";
    UP = Gauge "contentflow_dependency_up" ["dependency"] "": "1 while the server answers or has not been asked, 0 while the work waits for it.";
    HELD = Gauge "contentflow_dependency_held_seconds" ["dependency"] "seconds": "For how long the work has waited for the server, 0 where it does not.";
    AWAKE = Counter "contentflow_worker_busy_seconds_total" ["worker"] "seconds": "How long the worker was at work on the graph.";
    STAGE_BUSY = Counter "contentflow_worker_stage_busy_seconds_total" ["worker", "stage"] "seconds": "How long the worker thread was at work in a stage; handing over and keeping track are in none.";
    STAGE_RECORDS = Counter "contentflow_worker_stage_records_total" ["worker", "stage"] "records": "What a stage has taken in on a worker: records to decode, events, rows, keys, dead letters.";
    QUEUE = Gauge "contentflow_worker_queue_chunks" ["worker"] "chunks": "Chunks of up to 512 records that wait for the worker.";
    WAITED = Counter "contentflow_source_waited_seconds_total" [] "seconds": "How long the poll thread was held back by what is behind it.";
    IDLED = Counter "contentflow_source_idle_seconds_total" [] "seconds": "How long the poll thread waited for records.";
    FETCHED = Gauge "contentflow_source_queue_records" [] "records": "Records that the Kafka client has fetched ahead.";
    KAFKA_ERRORS = Counter "contentflow_kafka_errors_total" [] "": "Errors that the Kafka client has reported.";
    COMMITS = Counter "contentflow_commits_total" ["result"] "": "Commits that the group has answered.";
    IN_FLIGHT = Gauge "contentflow_epochs_in_flight" [] "epochs": "Epochs that are closed and of which something has no outcome yet.";
    IN_FLIGHT_MAX = Gauge "contentflow_epochs_in_flight_limit" [] "epochs": "How many of those there may be, besides the ones in which an event is held, to be tried again: run.epochs_in_flight.";
    CLOSED = Counter "contentflow_epochs_closed_total" [] "epochs": "Epochs that were closed.";
    OLDEST = Gauge "contentflow_epoch_oldest_age_seconds" [] "seconds": "How long ago the oldest epoch that is not through was begun, 0 where there is none.";
    RECORDS_IN_FLIGHT = Gauge "contentflow_records_in_flight" [] "records": "Records read that have no outcome yet.";
    POSITION = Gauge "contentflow_partition_position" ["partition"] "offset": "The next offset to read.";
    COMMITTED = Gauge "contentflow_partition_committed" ["partition"] "offset": "The next offset to read after a crash.";
    END = Gauge "contentflow_partition_end" ["partition"] "offset": "The offset that the next record will have, as far as the client knows.";
    LAG = Gauge "contentflow_partition_lag_records" ["partition"] "records": "Offsets between the position and the end.";
    CONNECTIONS = Gauge "contentflow_http_connections" [] "connections": "Connections to this page and its like.";
    STARTED = Gauge "process_start_time_seconds" [] "seconds": "When the process began, in seconds since 1970.";
    CPU = Counter "process_cpu_seconds_total" [] "seconds": "The time of the process on all CPUs, for itself and inside the system.";
    RESIDENT = Gauge "process_resident_memory_bytes" [] "bytes": "The memory that the process has.";
}

impl Watcher {
    /// The page of metrics, as so many connections look at it.
    pub fn metrics(&self, connections: usize) -> String {
        let mut page = Exposition::default();
        let polled = self.figures.polled().clone();
        page.add(&BUILD, [([env!("CARGO_PKG_VERSION").to_owned()], 1.0)]);
        page.one(&READY, bit(self.not_ready().is_empty()));
        outcomes(&mut page, &polled);
        self.effects(&mut page);
        self.dependencies_of(&mut page);
        self.workers(&mut page, &polled);
        self.source(&mut page, &polled);
        self.partitions_of(&mut page, &polled);
        page.one(&CONNECTIONS, count(connections));
        let started = self.figures.started.duration_since(std::time::UNIX_EPOCH);
        page.one(&STARTED, started.unwrap_or_default().as_secs_f64());
        let used = process::used();
        page.one(&CPU, used.cpu_s);
        page.one(&RESIDENT, float(used.resident_bytes));
        page.text()
    }

    fn effects(&self, page: &mut Exposition) {
        let figures = &self.figures;
        page.histogram(&LATENCY, [([], figures.latency.counts())]);
        let of = |server: Server| ([server.effect().to_owned()], figures.lanes(server));
        let all = || Server::ALL.map(of).into_iter();
        page.histogram(&DURATION, all().map(|(name, lanes)| (name, lanes.durations.counts())));
        page.histogram(&BATCH, all().map(|(name, lanes)| (name, lanes.batches.counts())));
        let retries = all().flat_map(|([name], lanes)| {
            Again::ALL
                .map(|cause| ([name.clone(), cause.name().to_owned()], float(lanes.again(cause))))
        });
        page.add(&RETRIES, retries);
        page.add(&WAITING, all().map(|(name, lanes)| (name, float(lanes.waiting()))));
        page.add(&LANES, all().map(|(name, lanes)| (name, count(lanes.count()))));
        page.add(&LANES_BUSY, all().map(|(name, lanes)| (name, lanes.busy().as_secs_f64())));
    }

    fn dependencies_of(&self, page: &mut Exposition) {
        let all = || self.dependencies().map(|it| ([it.name.to_owned()], it));
        page.add(&UP, all().map(|(name, it)| (name, bit(!it.is_held()))));
        let held = |health: &Health| match health {
            Health::Held { held, .. } => held.as_secs_f64(),
            Health::Unknown | Health::Up => 0.0,
        };
        page.add(&HELD, all().map(|(name, it)| (name, held(&it.health))));
    }

    fn workers(&self, page: &mut Exposition, polled: &Polled) {
        let all = || self.figures.workers().iter().enumerate();
        let name = |worker: usize| worker.to_string();
        page.add(&AWAKE, all().map(|(at, worker)| ([name(at)], worker.awake().as_secs_f64())));
        let by_stage = || {
            all().flat_map(|(at, worker)| {
                GraphStage::ALL.map(|stage| ([name(at), stage.name().to_owned()], worker, stage))
            })
        };
        let busy = by_stage().map(|(names, it, stage)| (names, it.busy(stage).as_secs_f64()));
        page.add(&STAGE_BUSY, busy);
        let records = by_stage().map(|(names, it, stage)| (names, float(it.records(stage))));
        page.add(&STAGE_RECORDS, records);
        let queues = polled.queues.iter().enumerate();
        page.add(&QUEUE, queues.map(|(at, chunks)| ([name(at)], count(*chunks))));
    }

    fn source(&self, page: &mut Exposition, polled: &Polled) {
        page.one(&WAITED, polled.waited.as_secs_f64());
        page.one(&IDLED, polled.idled.as_secs_f64());
        page.one(&FETCHED, float(self.figures.brokers.fetched()));
        page.one(&KAFKA_ERRORS, float(self.figures.brokers.errors()));
        let (answered, failed) = polled.commits;
        let results = [("ok", answered - failed), ("failed", failed)];
        page.add(&COMMITS, results.map(|(name, commits)| ([name.to_owned()], float(commits))));
        page.one(&IN_FLIGHT, count(polled.in_flight));
        page.one(&IN_FLIGHT_MAX, count(polled.in_flight_max));
        page.one(&CLOSED, float(polled.open));
        let oldest = polled.oldest_since.map(|since| since.elapsed().as_secs_f64());
        page.one(&OLDEST, oldest.unwrap_or_default());
        page.one(&RECORDS_IN_FLIGHT, float(polled.read.saturating_sub(polled.totals.records())));
    }

    fn partitions_of(&self, page: &mut Exposition, polled: &Polled) {
        let all = || polled.partitions.iter().map(|(number, place)| (*number, place));
        let mut add = |metric, value: &dyn Fn(i32, &_) -> i64| {
            let series =
                all().map(|(number, place)| ([number.to_string()], offset(value(number, place))));
            page.add(metric, series);
        };
        add(&POSITION, &|_, place| place.position);
        add(&COMMITTED, &|_, place| place.committed);
        add(&END, &|number, place| self.end(number, place));
        add(&LAG, &|number, place| self.end(number, place) - place.position);
    }
}

fn outcomes(page: &mut Exposition, Polled { read, totals, .. }: &Polled) {
    page.one(&READ, float(*read));
    let outcomes = [
        ("applied", totals.applied),
        ("duplicate", totals.duplicate),
        ("superseded", totals.superseded),
        ("skipped", totals.skipped),
        ("rejected", totals.rejected_total()),
    ];
    page.add(&OUTCOMES, outcomes.map(|(outcome, records)| ([outcome.to_owned()], float(records))));
    let reasons =
        Reason::ALL.map(|reason| ([reason.code().to_owned()], float(totals.rejected_for(reason))));
    page.add(&REJECTED, reasons);
    page.one(&DELETES, float(totals.deletes));
    page.one(&KEYS_DELETED, float(totals.keys_deleted));
    page.one(&JOBS_REUSED, float(totals.job_reused));
}

fn bit(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn count(count: usize) -> f64 {
    float(u64::try_from(count).unwrap_or(u64::MAX))
}

/// An offset, which is never negative but where it is not known.
fn offset(offset: i64) -> f64 {
    float(u64::try_from(offset).unwrap_or_default())
}
