//! tune: which settings are fast here, measured on the user's own records, table and servers.
//!
//! ```text
//! newest records --> scan (which drafts?) --> a scratch copy of their rows
//!                        +--> for each settings that the search asks for: reset the copy, one trial
//!                                                         trial: reader -> ingest ==> the graph of a run -> copy, unread keys
//! ```
//!
//! A trial is the graph of a run, fed as a replay is: outside the consumer group, committing
//! nothing. What it writes goes to a copy of the table, what it deletes are keys that nobody reads,
//! and rejected records are counted and not published.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dataflows::outcome::Tally;
use dataflows::validate::DraftIdType;
use tokio::runtime::Runtime;

use self::effects::{Collecting, unread};
use self::error::TuneError;
use self::report::{Measured, TuneReport};
use self::scratch::Scratch;
use self::search::Search;
use self::settings::{Grid, Settings};
use self::trial::{Course, Trial};
use self::watch::Watch;
use crate::check::draft_ids;
use crate::config::{Config, OnOutage};
use crate::figures::Figures;
use crate::kafka::creation_error;
use crate::limit::Shares;
use crate::lock::lock;
use crate::replay::plan::{From, Plan, Scope, plan};
use crate::replay::reader::reader;
use crate::run::RunError;
use crate::sink::nothing::Nothing;
use crate::sink::outage::OutagePolicy;
use crate::sink::servers::Servers;

pub mod settings;
pub mod statistics;
pub mod search;
mod sample;
pub mod scratch;
mod effects;
mod trial;
mod watch;
pub mod report;
mod show;
pub mod chart;
pub mod error;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plans {
    /// What may be set.
    pub grid: Grid,
    /// How many records a trial has.
    pub records: u64,
    /// Whether rows are written and keys deleted; else only Kafka and the graph are measured.
    pub writes: bool,
    /// How long to measure; `None` is until it is certain.
    pub budget: Option<Duration>,
    /// Every point of the grid, and not only where a search leads.
    pub exhaustive: bool,
    /// For the order of the trials.
    pub seed: u64,
}

/// Measures, and reports.
///
/// # Errors
///
/// [`TuneError`]. The copy of the table is dropped then, too, if the database can be reached.
pub fn tune(
    config: &Config,
    plans: &Plans,
    stop: &Arc<AtomicBool>,
    runtime: &Runtime,
) -> Result<TuneReport, TuneError> {
    let began = Instant::now();
    let sample = sampled(config, plans.records)?;
    if !plans.writes {
        let draft_ids = DraftIdType::Text { max_chars: None };
        let course = Course { sample: &sample, draft_ids, stop };
        let scanned = scan(config, &course)?;
        let ground = Ground { config, course, scratch: None, runtime };
        let sample = Sample { tally: scanned.1, rows: 0, rowless: 0 };
        return ground.sweep(plans, Settings::of(config), sample, began);
    }
    let draft_ids = runtime.block_on(draft_ids(&config.database)).map_err(RunError::from)?;
    let course = Course { sample: &sample, draft_ids, stop };
    let (drafts, tally) = scan(config, &course)?;
    let scratch = runtime.block_on(Scratch::create(&config.database))?;
    let ground = Ground { config, course, scratch: Some(&scratch), runtime };
    let measured = ground.fill(&drafts).and_then(|rows| {
        let all = u64::try_from(drafts.len()).unwrap_or(u64::MAX);
        let sample = Sample { tally, rows, rowless: all.saturating_sub(rows) };
        let (grid, baseline) = ground.connectable(&plans.grid)?;
        ground.sweep(&Plans { grid, ..plans.clone() }, baseline, sample, began)
    });
    let copy = scratch.copy.clone();
    if let Err(error) = runtime.block_on(scratch.clear()) {
        tracing::error!(%copy, "the copy is left behind: {error}; the next tune drops it");
    }
    measured
}

/// The newest records of the topic.
fn sampled(config: &Config, records: u64) -> Result<Plan, TuneError> {
    let reader = reader(config).map_err(creation_error).map_err(RunError::Client)?;
    let whole = plan(config, &reader, &Scope { from: From::Beginning, partitions: None })?;
    let sample = sample::newest(&whole, records);
    match sample::offsets(&sample) {
        0 => Err(TuneError::Empty(config.kafka.topic.clone())),
        _ => Ok(sample),
    }
}

/// Reads the sample once, which warms the brokers up, and finds out which drafts it is about.
fn scan(config: &Config, course: &Course<'_>) -> Result<(Vec<String>, Tally), TuneError> {
    let drafts: Arc<Mutex<HashSet<String>>> = Arc::default();
    let (figures, abort) = (Arc::new(Figures::new(config.run.workers)), Arc::default());
    let effects = Collecting { drafts: Arc::clone(&drafts) };
    let trial = trial::run(config, course, effects, &figures, &abort)?.ok_or(TuneError::Stopped)?;
    let drafts = std::mem::take(&mut *lock(&drafts));
    if drafts.is_empty() {
        let (topic, records) = (config.kafka.topic.clone(), trial.tally.records());
        return Err(TuneError::NoEvent { topic, records });
    }
    Ok((drafts.into_iter().collect(), trial.tally))
}

/// What the records of the sample are.
struct Sample {
    tally: Tally,
    /// Drafts that have a row, and those that have none.
    rows: u64,
    rowless: u64,
}

/// What the trials happen on.
struct Ground<'a> {
    config: &'a Config,
    course: Course<'a>,
    /// The copy of the table that is written to, if anything is to be written.
    scratch: Option<&'a Scratch>,
    runtime: &'a Runtime,
}

impl Ground<'_> {
    fn is_stopped(&self) -> bool {
        self.course.stop.load(Ordering::Relaxed)
    }

    /// Fills the copy. Returns the number of its rows.
    fn fill(&self, drafts: &[String]) -> Result<u64, TuneError> {
        let Some(scratch) = self.scratch else { return Ok(0) };
        let fill = scratch.fill(drafts, self.course.draft_ids.sql(), || self.is_stopped());
        match self.runtime.block_on(fill)? {
            _ if self.is_stopped() => Err(TuneError::Stopped),
            0 => {
                let table = self.config.database.table.to_string();
                let drafts = u64::try_from(drafts.len()).unwrap_or(u64::MAX);
                Err(TuneError::NoRow { table, drafts })
            }
            rows => Ok(rows),
        }
    }

    /// What of a grid the database has connections for, and what to compare it with: what is
    /// configured, or the point closest to that where there are too few for it.
    fn connectable(&self, grid: &Grid) -> Result<(Grid, Settings), TuneError> {
        let (mut grid, present) = (grid.clone(), Settings::of(self.config));
        let Some(scratch) = self.scratch else { return Ok((grid, present)) };
        let free = self.runtime.block_on(scratch.free_connections())?;
        let most = usize::try_from(free).unwrap_or(usize::MAX);
        for (axis, value) in grid.fit(most) {
            let (section, key) = axis.key();
            tracing::warn!(
                "{section}.{key} = {value} is left out: it would take more connections than the {free} that the database has left"
            );
        }
        let needed = u64::try_from(grid.connections_max()).unwrap_or(u64::MAX);
        if needed > free {
            return Err(TuneError::Connections { needed, free });
        }
        let baseline = grid.baseline(present, most);
        if baseline != present {
            let needed = present.connections();
            tracing::warn!(
                "what is configured is left out: it would take {needed} connections, and the database has {free} left"
            );
        }
        Ok((grid, baseline))
    }

    /// One trial, from a fresh copy on.
    fn trial(&self, settings: Settings) -> Result<Option<Trial>, TuneError> {
        let mut config = settings.apply(self.config);
        // Somebody waits for the end, and a server that is away cannot be measured.
        config.run.on_outage = OnOutage::Exit;
        // Nobody else writes to the copy, so that only drafts without a row would be looked for
        // again: a second, in trials of two.
        config.run.retries = 0;
        let (figures, abort) = (Arc::new(Figures::new(config.run.workers)), Arc::default());
        let Some(scratch) = self.scratch else {
            return Ok(trial::run(&config, &self.course, Nothing, &figures, &abort)?);
        };
        self.runtime.block_on(scratch.reset())?;
        config.database.table = scratch.copy.clone();
        config.cache.key = unread(&config.cache.key);
        let policy = OutagePolicy {
            on_outage: OnOutage::Exit,
            abort: Arc::clone(&abort),
            figures: Some(Arc::clone(&figures)),
        };
        let config = Arc::new(config);
        // Dead letters are only counted: they belong to the run.
        let servers = Servers::new(&config, self.course.draft_ids, policy, self.runtime);
        let trial = trial::run(&config, &self.course, servers.clone(), &figures, &abort);
        if trial.is_ok() {
            servers.finish(config.run.drain_timeout);
        }
        Ok(trial?)
    }

    /// Measures what the search asks for, until it has enough or the budget is used up.
    fn sweep(
        &self,
        plans: &Plans,
        baseline: Settings,
        sample: Sample,
        began: Instant,
    ) -> Result<TuneReport, TuneError> {
        let mut search = Search::new(plans.grid.clone(), baseline, plans.exhaustive, plans.seed);
        let mut shares: BTreeMap<Settings, Vec<Shares>> = BTreeMap::new();
        let mut watch = Watch::new(plans);
        // A warm-up, of which nothing is noted.
        if self.trial(plans.grid.nearest(baseline))?.is_none() {
            return Err(TuneError::Stopped);
        }
        watch.warmed_up()?;
        while !self.is_stopped() && watch.has_time() {
            let Some(settings) = search.next(watch.used()) else { break };
            watch.show(settings);
            let Some(trial) = self.trial(settings)? else { break };
            watch.ended();
            search.note(settings, trial.rate());
            shares.entry(settings).or_default().push(trial.shares);
        }
        watch.finish();
        let choice = search.choice().ok_or(TuneError::Stopped)?;
        let measured = search.rates().into_iter().map(|(settings, rates)| {
            let shares = Shares::mean(&shares[&settings]);
            Measured { settings, rates, shares }
        });
        Ok(TuneReport {
            topic: self.config.kafka.topic.clone(),
            table: self.scratch.map(|_| self.config.database.table.to_string()),
            tally: sample.tally,
            rows: sample.rows,
            rowless: sample.rowless,
            present: Settings::of(self.config),
            choice,
            measured: measured.collect(),
            trials: watch.trials(),
            unmeasured: search.unmeasured(),
            drift: search.drift(),
            was_stopped: self.is_stopped(),
            seed: plans.seed,
            elapsed: began.elapsed(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        })
    }
}
