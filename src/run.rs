//! run: the consumer, from the first connection to the report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender};
use dataflows::effect::{Effect, Waker};
use dataflows::graph::{Invalidated, Rules};
use dataflows::latest::Group;
use dataflows::outcome::Settled;
use dataflows::reject::Rejected;
use dataflows::validate::DraftIdType;
use dataflows::written::Written;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use tokio::runtime::{Handle, Runtime};

use crate::check::draft_id_type;
use crate::commit::Committer;
use crate::config::{Config, Kafka};
use crate::figures::polled::Teller;
use crate::figures::{Figures, Server, brokers};
use crate::ingest::Ingest;
use crate::kafka::creation_error;
use crate::progress::progress;
use crate::progress_bar::Bar;
use crate::report::Report;
use crate::shutdown::{Abort, Cause};
use crate::sink::dead_letter::{DeadLetterProducer, Topic};
use crate::sink::outage::OutagePolicy;
use crate::sink::postgres::Retry;
use crate::sink::postgres::session::Session;
use crate::sink::redis::Connection;
use crate::sink::redis::second_delete::SecondDeletes;
use crate::sink::{Lane, Remote, dead_letter, postgres, redis, remote};
use crate::source::assignment::State;
use crate::source::client::{Context, KafkaClient};
use crate::source::{SourceError, Until, poll};
use crate::traces::spans::within;
use crate::traces::{Tracer, Traces, Work};
use crate::worker::{MakeEffects, Workers, start_measured};

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
    /// No session with the database.
    #[error(transparent)]
    Connect(#[from] crate::postgres::ConnectError),
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

/// What the table looks like, found out before anything is read.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// The rule for draft ids.
    pub draft_ids: DraftIdType,
}

impl Table {
    /// Looks the table up.
    ///
    /// # Errors
    ///
    /// [`RunError::Connect`] when it cannot be reached, [`RunError::Start`] when it has no usable
    /// id column.
    pub async fn look_up(config: &Config) -> Result<Table, RunError> {
        let start = |error: &dyn std::fmt::Display| RunError::Start(error.to_string());
        let client = crate::postgres::connect(&config.database).await?;
        let draft_ids =
            draft_id_type(&client, &config.database.table).await.map_err(|error| start(&error))?;
        Ok(Table { draft_ids })
    }

    /// The type of the id column, as SQL.
    pub fn id_type(&self) -> &'static str {
        match self.draft_ids {
            DraftIdType::Text { .. } => "text",
            DraftIdType::Uuid => "uuid",
            DraftIdType::BigInt => "int8",
            DraftIdType::Integer => "int4",
        }
    }
}

/// The effects on the three servers.
pub(crate) struct Servers {
    pub(crate) runtime: Handle,
    pub(crate) config: Arc<Config>,
    pub(crate) table: Table,
    pub(crate) producer: Arc<DeadLetterProducer>,
    pub(crate) second_deletes: Option<SecondDeletes>,
    pub(crate) policy: OutagePolicy,
    /// What their batches are traced with, if at all.
    pub(crate) tracer: Option<Tracer>,
}

impl MakeEffects for Servers {
    fn write(&self, waker: Waker) -> impl Effect<Request = Group, Answer = Written> + 'static {
        self.write_through(&waker, |session| session)
    }

    fn invalidate(
        &self,
        waker: Waker,
    ) -> impl Effect<Request = Settled, Answer = Invalidated> + 'static {
        let (effect, lanes) = remote(1, &waker);
        lanes.into_iter().for_each(|lane| self.serve_deletes(lane));
        effect
    }

    fn dead_letter(
        &self,
        waker: Waker,
    ) -> impl Effect<Request = Rejected, Answer = Rejected> + 'static {
        let (effect, lanes) = remote(1, &waker);
        lanes.into_iter().for_each(|lane| self.serve_dead_letters(lane));
        effect
    }
}

impl Servers {
    /// Writes through tables that are made of sessions, one for each lane.
    pub(crate) fn write_through<T: postgres::table::Table + 'static>(
        &self,
        waker: &Waker,
        table: impl Fn(Session) -> T,
    ) -> Remote<Group, Written> {
        let Servers { runtime, config, policy, .. } = self;
        let (effect, lanes) = remote(config.database.connections, waker);
        let retry = Retry { retries: config.run.retries, backoff: config.run.retry_backoff };
        for mut lane in lanes {
            lane.jobs.watch(policy.figures.as_ref(), Server::Database);
            let spans = lane.trace(self.tracer.as_ref(), Work::Write);
            let session = Session::new(config.database.clone(), self.table.id_type());
            let rows_max = config.database.batch_rows;
            let serve = postgres::serve(lane, table(session), rows_max, retry, policy.clone());
            runtime.spawn(within(spans, serve));
        }
        effect
    }

    /// Has a lane delete its keys.
    pub(crate) fn serve_deletes(&self, mut lane: Lane<Settled, Invalidated>) {
        lane.jobs.watch(self.policy.figures.as_ref(), Server::Cache);
        let spans = lane.trace(self.tracer.as_ref(), Work::Invalidate);
        let connection = Connection::new(self.config.cache.clone());
        let second = self.second_deletes.clone();
        let keys_max = self.config.cache.batch_keys;
        let serve = redis::serve(lane, connection, keys_max, second, self.policy.clone());
        self.runtime.spawn(within(spans, serve));
    }

    /// Has a lane publish its dead letters.
    pub(crate) fn serve_dead_letters(&self, mut lane: Lane<Rejected, Rejected>) {
        lane.jobs.watch(self.policy.figures.as_ref(), Server::DeadLetters);
        let spans = lane.trace(self.tracer.as_ref(), Work::DeadLetter);
        let topic =
            Topic { config: Arc::clone(&self.config), producer: Arc::clone(&self.producer) };
        self.runtime.spawn(within(spans, dead_letter::serve(lane, topic, self.policy.clone())));
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
    let table = runtime.block_on(Table::look_up(config))?;
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
    let report = run(config, table, runtime, until, figures, &mut on_progress);
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
    table: Table,
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
    let second_deletes = SecondDeletes::start(runtime.handle(), &config.cache, &policy);
    let (traces, tracer) = Traces::start(config).unzip();
    let servers = Servers {
        runtime: runtime.handle().clone(),
        config: Arc::clone(config),
        table,
        producer: Arc::clone(&producer),
        second_deletes: second_deletes.clone(),
        policy,
        tracer,
    };
    let (progress, watch) = progress();
    let progress = Arc::new(progress);
    let rules = rules(config, table.draft_ids);
    let workers = start_measured(config.run.workers, rules, servers, &progress, figures.cloned());
    let Workers { entrances, guards } = workers.map_err(RunError::Start)?;
    // Never waited for: the run ends when the ledger says so. A worker that panics takes the
    // process with it.
    std::mem::forget(guards);
    let ingest = Ingest::new(entrances, config.run.clone(), progress, watch);
    figures.into_iter().for_each(|figures| figures.watch_polling(ingest.turns()));
    let (committer, commits) = Committer::new();
    let (abort_too, stop) = (Arc::clone(&abort), Arc::clone(&until.stop));
    let state = State::new(ingest, committer, abort_too, stop, &config.run);
    let context = Context::new(config.kafka.clone(), state).watched(figures);
    let consumer = Arc::new(consumer(config, context).map_err(creation_error)?);
    let committing = Arc::clone(&consumer);
    let (last_word, committed) = crossbeam_channel::bounded(0);
    let commit_thread = std::thread::spawn(move || {
        commits.serve(&*committing);
        drop::<Sender<()>>(last_word);
    });
    let polled = poll(&consumer, until, config, on_progress);
    if let Err(error) = &polled {
        // Leaving the group is a revocation: this one waits for nothing.
        abort.failure(error.to_string());
    }

    let mut state = consumer.context().state();
    state.leave();
    let (read, totals) = (state.ingest.read(), state.ingest.totals());
    let outcomes = totals.records();
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
    if committed.recv_timeout(LAST_WORD) == Err(RecvTimeoutError::Disconnected)
        && commit_thread.join().is_err()
    {
        tracing::error!("the commit thread has died");
    }
    drop(consumer);
    if let Some(second_deletes) = second_deletes {
        runtime.block_on(second_deletes.finish(config.run.drain_timeout));
    }
    traces.into_iter().for_each(Traces::finish);
    polled?;
    if !report.adds_up() {
        return Err(RunError::Imbalance { read, outcomes });
    }
    Ok(report)
}

/// What the graph is to do, as a run is configured.
pub fn rules(config: &Config, draft_ids: DraftIdType) -> Rules {
    Rules {
        draft_ids,
        dedupe_jobs: config.run.dedupe_jobs.div_ceil(config.run.workers),
        lanes: config.database.connections,
        rows_max: config.database.batch_rows,
        keys_max: config.cache.batch_keys,
        compaction: None,
    }
}

fn consumer(config: &Config, context: Context) -> Result<KafkaClient, KafkaError> {
    let mut client = consumer_config(&config.kafka);
    let interval = "statistics.interval.ms";
    if context.is_watched() && !config.kafka.properties.contains_key(interval) {
        client.set(interval, brokers::EVERY_MS);
    }
    let consumer: KafkaClient = client.create_with_context(context)?;
    consumer.subscribe(&[&config.kafka.topic])?;
    Ok(consumer)
}

/// What the user's properties may say otherwise.
const UNLESS_ASKED: [(&str, &str); 3] = [
    ("partition.assignment.strategy", "cooperative-sticky"),
    // What is fetched ahead: half an epoch, a tenth of a second's work. The client's own 100,000
    // records and 64 MiB would have gone from the processor's caches by the time they are polled.
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "16384"),
];

/// How the consumer of a run is configured.
pub fn consumer_config(config: &Kafka) -> ClientConfig {
    let mut client = crate::kafka::consumer_config(config);
    // Every start is given explicitly; an offset that turns out not to exist is an error, not a
    // jump.
    client.set("auto.offset.reset", "error");
    crate::kafka::set_unless_asked(&mut client, config, &UNLESS_ASKED);
    client
}

/// Sets `stop` on the first SIGTERM or SIGINT; ends the process at once on the second.
pub fn stop_on_signals(runtime: &Runtime, stop: Arc<AtomicBool>) {
    runtime.spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!(
                "signals cannot be handled; a kill loses nothing, but drains nothing either"
            );
            return;
        };
        for again in [false, true] {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            if again {
                tracing::warn!(
                    "second signal: stopping at once; what was in flight will be read again"
                );
                std::process::exit(1);
            }
            tracing::info!("stopping: finishing what is in flight");
            stop.store(true, Ordering::Relaxed);
        }
    });
}
