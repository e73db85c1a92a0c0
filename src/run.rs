//! run: the consumer, from the first connection to the report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dataflows::validate::DraftIdType;
use rdkafka::consumer::Consumer;
use tokio::runtime::Runtime;

use crate::check::{DraftTableError, draft_ids};
use crate::commit::Committer;
use crate::config::Config;
use crate::figures::Figures;
use crate::figures::polled::Teller;
use crate::ingest::Ingest;
use crate::kafka::creation_error;
use crate::progress::progress;
use crate::progress_bar::Bar;
use crate::report::Report;
use crate::shutdown::{Abort, Cause};
use crate::sink::dead_letter;
use crate::sink::outage::OutagePolicy;
use crate::sink::servers::Servers;
use crate::source::assignment::State;
use crate::source::client::Context;
use crate::source::consumer::subscribe;
use crate::source::{SourceError, Until, poll};
use crate::traces::Traces;
use crate::worker::{rules, start};

/// How long the end of a run waits for the answer to a commit that is still under way.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something is missing or wrong before the first record is read.
    #[error("{0}")]
    Start(String),
    /// A Kafka client cannot be made.
    #[error(transparent)]
    Client(#[from] crate::kafka::KafkaError),
    /// The type of the draft ids cannot be had.
    #[error(transparent)]
    Table(#[from] DraftTableError),
    /// The run could not go on.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The totals of the run do not add up.
    #[error(
        "the report does not add up: {read} records were read, but {outcomes} have an outcome: this is a defect of the program"
    )]
    Imbalance {
        /// Records read.
        read: u64,
        /// Outcomes.
        outcomes: u64,
    },
}

impl RunError {
    /// Whether a dependency is out, and `run.on_outage = "exit"` asks to leave it to somebody else.
    pub fn is_outage(&self) -> bool {
        matches!(self, RunError::Source(SourceError::CalledOff(Cause::Outage(_))))
    }
}

/// [`run`] with the table looked up, with a progress bar where the end is known, and with what goes
/// on noted for whoever watches.
///
/// # Errors
///
/// [`RunError`].
pub fn consume(
    config: &Arc<Config>,
    until: &Until,
    runtime: &Runtime,
    figures: Option<&Arc<Figures>>,
) -> Result<Report, RunError> {
    let draft_ids = runtime.block_on(draft_ids(&config.database))?;
    let mut bar = None;
    let teller = |figures: &Arc<Figures>| {
        Teller::new(Arc::clone(figures), Arc::clone(&until.stop), config.run.epochs_in_flight)
    };
    let mut teller = figures.map(teller);
    let mut on_progress = |state: &State| {
        teller.iter_mut().for_each(|teller| teller.tell(state));
        let backlog = state.backlog();
        if until.caught_up && backlog > 0 {
            let bar = bar.get_or_insert_with(|| Bar::new("records", backlog));
            bar.set(state.ingest.totals().records());
        }
    };
    let report = run(config, draft_ids, runtime, until, figures, &mut on_progress);
    bar.into_iter().for_each(Bar::finish);
    report
}

/// Runs until `until` says so, and reports.
///
/// # Errors
///
/// [`RunError`]. Nothing is committed past what is durable, so starting again goes on where this
/// run stopped.
pub fn run(
    config: &Arc<Config>,
    draft_ids: DraftIdType,
    runtime: &Runtime,
    until: &Until,
    figures: Option<&Arc<Figures>>,
    on_progress: &mut dyn FnMut(&State),
) -> Result<Report, RunError> {
    let began = Instant::now();
    let abort = Arc::new(Abort::default());
    let (on_outage, figures_too) = (config.run.on_outage, figures.cloned());
    let policy = OutagePolicy { on_outage, abort: Arc::clone(&abort), figures: figures_too };
    let producer = dead_letter::producer(config).map_err(creation_error)?;
    let (traces, tracer) = Traces::start(config).unzip();
    let servers = Servers::new(config, draft_ids, policy, runtime)
        .with_dead_letters(&producer)
        .traced(tracer);
    let (progress, watch) = progress();
    let progress = Arc::new(progress);
    let rules = rules(config, draft_ids);
    let workers = start(config.run.workers, rules, servers.clone(), &progress, figures.cloned());
    let entrances = workers.map_err(RunError::Start)?.leave_running();
    let ingest = Ingest::new(entrances, config.run.clone(), progress, watch);
    figures.into_iter().for_each(|figures| figures.watch_polling(ingest.turns()));
    let (committer, commits) = Committer::new();
    let (abort_too, stop) = (Arc::clone(&abort), Arc::clone(&until.stop));
    let state = State::new(ingest, committer, abort_too, stop, &config.run);
    let context = Context::new(config.kafka.clone(), state).watched(figures);
    let consumer = Arc::new(subscribe(config, context).map_err(creation_error)?);
    let commit_thread = commits.serve_on_thread(Arc::clone(&consumer));
    let polled = poll(&consumer, until, config, on_progress);
    if let Err(error) = &polled {
        // Leaving the group is a revocation: this one waits for nothing.
        abort.failure(error.to_string());
    }

    let mut state = consumer.context().state();
    state.leave();
    let (read, totals) = (state.ingest.read(), state.ingest.totals());
    let outcomes = totals.records();
    let mut grace = state.grace.clone();
    let report = Report::new(
        read,
        totals,
        began.elapsed().as_secs_f64(),
        config.run.workers,
        state.ingest.ranges(),
    );
    drop(state);
    // The last owner of the consumer leaves the group, however the run has ended: else the others
    // would wait for our session to time out. A commit that is never answered must not keep the
    // process.
    commit_thread.finish(LAST_WORD);
    drop(consumer);
    servers.finish(grace.left());
    traces.into_iter().for_each(Traces::finish);
    polled?;
    if !report.adds_up() {
        return Err(RunError::Imbalance { read, outcomes });
    }
    Ok(report)
}
