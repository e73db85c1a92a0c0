//! replay: a topic once more, from its beginning to where it ends now, outside the consumer group.
//!
//! ```text
//! plan -> reader -> ingest ==> the graph of a run, in large epochs -> effects
//! ```
//!
//! It reads partitions that are assigned by hand and never commits: where the group stands is not
//! its business. An epoch is as large as the memory allows, so that of a draft's many events one is
//! written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dataflows::compact::Compaction;
use dataflows::graph::Rules;
use dataflows::held::Held;
use dataflows::validate::DraftIdType;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError as ClientError;
use tokio::runtime::Runtime;

use self::effects::Effects;
use self::plan::{Plan, Scope, plan};
use self::reader::{Reading, reader};
use self::recall::Recall;
use self::report::ReplayReport;
use crate::check::draft_ids;
use crate::commit::Offsets;
use crate::config::{Config, OnOutage, Run};
use crate::ingest::Ingest;
use crate::kafka::{KafkaError, creation_error};
use crate::progress::progress;
use crate::progress_bar::Bar;
use crate::report::Report;
use crate::run::RunError;
use crate::scan::SILENCE_MAX;
use crate::shutdown::Abort;
use crate::sink::dead_letter;
use crate::sink::outage::OutagePolicy;
use crate::sink::servers::Servers;
use crate::source::SourceError;
use crate::worker::{rules, start};

mod effects;
pub mod plan;
pub mod reader;
mod recall;
pub mod report;

/// What a replay does besides reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Publishes rejected records to the dead-letter topic.
    pub dead_letters: bool,
    /// Writes the images of the event that a row has once more.
    pub rewrite: bool,
    /// Finds out what a replay would do, and writes nothing.
    pub dry_run: bool,
}

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The topic cannot be asked for.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The topic has no such partition.
    #[error("the topic {topic} has no partition {partition}")]
    NoSuchPartition {
        /// The topic.
        topic: String,
        /// What was asked for.
        partition: i32,
        /// How many it has, counted from 0.
        count: i32,
    },
    /// An offset to go on from lies past the end.
    #[error("partition {partition} ends at offset {end}, before {offset}")]
    PastTheEnd {
        /// The partition.
        partition: i32,
        /// What was asked for.
        offset: i64,
        /// The offset that the next record will have.
        end: i64,
    },
    /// An offset to go on from has been deleted.
    #[error("partition {partition} begins at offset {low}: {} records from {offset} on were deleted by retention", low - offset)]
    Deleted {
        /// The partition.
        partition: i32,
        /// What was asked for.
        offset: i64,
        /// The first offset that there is.
        low: i64,
    },
    /// Where partitions begin and end cannot be found out.
    #[error("the offsets of {topic} cannot be had: {source}")]
    Offsets {
        /// The topic.
        topic: String,
        /// What the client says.
        source: ClientError,
    },
    /// It could not begin.
    #[error(transparent)]
    Run(#[from] RunError),
    /// It could not go on.
    #[error("{source}")]
    Interrupted {
        /// Why.
        source: SourceError,
        /// By partition, where another replay goes on.
        next: Offsets,
    },
}

/// Replays, and reports. Ends early, with everything that was read durable, when `stop` is set.
///
/// # Errors
///
/// [`ReplayError`].
pub fn replay(
    config: &Arc<Config>,
    scope: &Scope,
    options: Options,
    stop: &Arc<AtomicBool>,
    runtime: &Runtime,
) -> Result<ReplayReport, ReplayError> {
    let began = Instant::now();
    let reader = reader(config).map_err(creation_error)?;
    let plan = plan(config, &reader, scope)?;
    let draft_ids = runtime.block_on(draft_ids(&config.database)).map_err(RunError::from)?;
    let abort = Arc::new(Abort::default());
    let servers = servers(config, draft_ids, options, &abort, runtime)?;
    let rows = Arc::new(AtomicU64::new(0));
    let recall = Recall::start(config, draft_ids, reader.context(), &abort);
    let effects = Effects { servers: servers.clone(), options, rows: Arc::clone(&rows), recall };
    let (progress, watch) = progress();
    let progress = Arc::new(progress);
    let held = Held::default();
    let rules = Rules {
        compaction: Some(compaction(config, &held)),
        // An epoch is nearly all of it, and what it had before, its rows know. A dry run has no
        // rows to ask.
        dedupe_jobs: if options.dry_run { config.run.dedupe_jobs } else { 0 },
        ..rules(config, draft_ids)
    };
    let workers = start(config.run.workers, rules, effects, &progress, None);
    let entrances = workers.map_err(RunError::Start)?.leave_running();
    let mut ingest = Ingest::new(entrances, large_epochs(&config.run), progress, watch)
        .within(held.clone(), config.replay.memory_bytes);

    let mut reading = Reading::new(config, &reader, &plan, Arc::clone(stop), abort);
    if config.run.on_outage == OnOutage::Exit {
        reading = reading.giving_up_after(SILENCE_MAX);
    }
    let read = read(&mut reading, &mut ingest, &plan, &held);
    let next = reading.durable().clone();
    servers.finish(reading.grace_left());
    read.map_err(|source| ReplayError::Interrupted { source, next: next.clone() })?;

    let rows = rows.load(Ordering::Relaxed);
    Ok(ReplayReport {
        report: report(&ingest, config.run.workers, options, began)?,
        dry_run: options.dry_run,
        rows_written: if options.dry_run { 0 } else { rows },
        rows_to_write: options.dry_run.then_some(rows),
        epochs: ingest.epochs_closed(),
        complete: reading.is_complete(),
        next,
    })
}

fn servers(
    config: &Arc<Config>,
    draft_ids: DraftIdType,
    options: Options,
    abort: &Arc<Abort>,
    runtime: &Runtime,
) -> Result<Servers, RunError> {
    let (on_outage, abort) = (config.run.on_outage, Arc::clone(abort));
    let policy = OutagePolicy { on_outage, abort, figures: None };
    let servers = Servers::new(config, draft_ids, policy, runtime);
    if !options.dead_letters {
        return Ok(servers);
    }
    let producer = dead_letter::producer(config).map_err(creation_error)?;
    Ok(servers.with_dead_letters(&producer))
}

/// Reads to the end, and shows how far it is.
fn read(
    reading: &mut Reading<'_>,
    ingest: &mut Ingest,
    plan: &Plan,
    held: &Held,
) -> Result<(), SourceError> {
    let offsets = plan.values().map(|stretch| stretch.left_from(stretch.from)).sum();
    let mut bar = Bar::new("records", offsets);
    let mut shown_mib = 0;
    let read = reading.read(ingest, &mut |reading, _| {
        bar.set(reading.offsets_read());
        let held_mib = held.bytes() >> 20;
        if held_mib != shown_mib {
            shown_mib = held_mib;
            bar.say(&format!("{held_mib} MiB to write"));
        }
    });
    bar.finish();
    read
}

/// What a run would report as well.
fn report(
    ingest: &Ingest,
    workers: usize,
    options: Options,
    began: Instant,
) -> Result<Report, RunError> {
    let (read, totals) = (ingest.read(), ingest.totals());
    let elapsed_s = began.elapsed().as_secs_f64();
    let mut report = Report::new(read, totals, elapsed_s, workers, ingest.ranges());
    if !report.adds_up() {
        return Err(RunError::Imbalance { read, outcomes: totals.records() });
    }
    if !options.dead_letters {
        report.rejects = "reported only, see --dead-letters";
    }
    Ok(report)
}

/// The limits of a replay's epochs: one at a time, and as large as the memory allows.
fn large_epochs(run: &Run) -> Run {
    Run {
        epoch_records: usize::MAX,
        epoch_bytes: usize::MAX,
        linger: Duration::MAX,
        epochs_in_flight: 1,
        ..run.clone()
    }
}

/// Passes on as many drafts at a time as fill one batch of each lane.
fn compaction(config: &Config, held: &Held) -> Compaction {
    let lanes = config.database.connections;
    let drafts = lanes * config.database.batch_rows;
    // Hashes spread unevenly: a little less than all, or a lane would get a batch and a tiny one.
    let drafts_at_once = if lanes == 1 { drafts } else { (drafts - drafts / 16).max(1) };
    Compaction { held: held.clone(), drafts_at_once }
}
