//! One trial: the sample, once, through the graph of a run with some settings.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use dataflows::outcome::Tally;
use dataflows::validate::DraftIdType;

use crate::config::Config;
use crate::figures::Figures;
use crate::ingest::Ingest;
use crate::kafka::creation_error;
use crate::limit::{Capacity, Shares, Times};
use crate::progress::progress;
use crate::replay::plan::Plan;
use crate::replay::reader::{Reading, reader};
use crate::run::RunError;
use crate::scan::SILENCE_MAX;
use crate::shutdown::Abort;
use crate::source::SourceError;
use crate::worker::{MakeEffects, Workers, rules, start};

/// What every trial has in common.
pub(super) struct Course<'a> {
    pub(super) sample: &'a Plan,
    pub(super) draft_ids: DraftIdType,
    pub(super) stop: &'a Arc<AtomicBool>,
}

/// What a trial has come to.
pub(super) struct Trial {
    /// From the first record to the moment when everything was durable.
    pub(super) elapsed: Duration,
    pub(super) tally: Tally,
    pub(super) shares: Shares,
}

impl Trial {
    /// Records a second.
    pub(super) fn rate(&self) -> f64 {
        let records = u32::try_from(self.tally.records()).unwrap_or(u32::MAX);
        f64::from(records) / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// When what happened, on the poll thread.
struct Clock {
    first_record: Option<Instant>,
    /// The end of reading, and how long the poll thread had been held back until then, after the
    /// first record.
    read: Option<(Instant, Duration)>,
}

impl Clock {
    /// Looks up from polling.
    fn note(&mut self, reading: &Reading<'_>, ingest: &Ingest) {
        if self.first_record.is_none() && ingest.read() > 0 {
            self.first_record = Some(Instant::now());
        }
        if self.read.is_none_or(|_| !reading.is_complete()) {
            self.read = Some((Instant::now(), ingest.waited()));
        }
    }
}

/// Runs the sample through the graph, as `config` says, into these effects. `None` when it was
/// stopped on the way.
///
/// Every trial has a client of its own: what one has fetched ahead would be a gift to the next.
pub(super) fn run(
    config: &Config,
    course: &Course<'_>,
    effects: impl MakeEffects,
    figures: &Arc<Figures>,
    abort: &Arc<Abort>,
) -> Result<Option<Trial>, RunError> {
    let reader = reader(config).map_err(creation_error)?;
    let (progress, watch) = progress();
    let progress = Arc::new(progress);
    let rules = rules(config, course.draft_ids);
    let workers = config.run.workers;
    let started = start(workers, rules, effects, &progress, Some(Arc::clone(figures)));
    let Workers { entrances, guards } = started.map_err(RunError::Start)?;
    let mut ingest = Ingest::new(entrances, config.run.clone(), progress, watch);
    let (stop, abort) = (Arc::clone(course.stop), Arc::clone(abort));
    let mut reading =
        Reading::new(config, &reader, course.sample, stop, abort).giving_up_after(SILENCE_MAX);
    let mut clock = Clock { first_record: None, read: None };
    let read = reading.read(&mut ingest, &mut |reading, ingest| clock.note(reading, ingest));
    let end = Instant::now();
    if let Err(error) = read {
        // Workers whose effects wait for a server do not end. The process does, soon.
        std::mem::forget(guards);
        return match error {
            // Stopped, and a server takes its time.
            SourceError::Drain(_) => Ok(None),
            error => Err(error.into()),
        };
    }
    // The threads have nothing left to do, and have noted all that they did when they end.
    drop(guards);
    let tally = ingest.totals().clone();
    if tally.records() != ingest.read() {
        return Err(RunError::Imbalance { read: ingest.read(), outcomes: tally.records() });
    }
    if !reading.is_complete() {
        return Ok(None);
    }
    let first = clock.first_record.unwrap_or(end);
    let elapsed = end.duration_since(first);
    let source = clock.read.map_or(Duration::ZERO, |(read, waited)| {
        read.saturating_duration_since(first).saturating_sub(waited)
    });
    let shares = Shares::new(Times::of(figures, source), Capacity::of(config), elapsed);
    Ok(Some(Trial { elapsed, tally, shares }))
}
