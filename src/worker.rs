//! worker: one timely worker a thread, each with the whole graph.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::unbounded;
use dataflows::Epoch;
use dataflows::effect::{Effect, Waker};
use dataflows::feed::{Feed, feed};
use dataflows::graph::{Effects, Invalidated, Rules, graph};
use dataflows::latest::Group;
use dataflows::outcome::Settled;
use dataflows::reject::Rejected;
use dataflows::validate::DraftIdType;
use dataflows::written::Written;
use timely::communication::WorkerGuards;
use timely::dataflow::operators::probe::Handle;
use timely::scheduling::SyncActivator;
use timely::worker::Worker;

use crate::config::Config;
use crate::figures::Figures;
use crate::figures::workers::{GraphStage, OnWorker};
use crate::ingest::Entrance;
use crate::lock::lock;
use crate::progress::Progress;

/// How long a worker may sleep when nothing wakes it.
const NAP: Duration = Duration::from_millis(100);

/// How long an idle worker looks for work before it sleeps. Timely's own ten microseconds are for
/// workers that wait for each other; ours wait for servers, a hundred times as long.
const SPIN: Duration = Duration::from_micros(1);

/// Makes the effects of one worker. Called once on each.
pub trait MakeEffects: Send + Sync + 'static {
    /// Writes to the database.
    fn write(&self, waker: Waker) -> impl Effect<Request = Group, Answer = Written> + 'static;
    /// Deletes cache keys.
    fn invalidate(
        &self,
        waker: Waker,
    ) -> impl Effect<Request = Settled, Answer = Invalidated> + 'static;
    /// Publishes dead letters.
    fn dead_letter(
        &self,
        waker: Waker,
    ) -> impl Effect<Request = Rejected, Answer = Rejected> + 'static;
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

/// The running workers.
pub struct Workers {
    /// Where to feed each of them.
    pub entrances: Vec<Entrance>,
    /// Their threads. Dropping it waits for them.
    pub guards: WorkerGuards<()>,
}

impl Workers {
    /// Where to feed workers whose threads nobody waits for: the ledger says when all is done, and
    /// a worker that panics takes the process with it.
    pub fn leave_running(self) -> Vec<Entrance> {
        std::mem::forget(self.guards);
        self.entrances
    }
}

/// Starts the workers, with what they do noted if anybody wants to know.
///
/// # Errors
///
/// Timely's message when the threads can't be started.
pub fn start(
    workers: usize,
    rules: Rules,
    effects: impl MakeEffects,
    progress: &Arc<Progress>,
    figures: Option<Arc<Figures>>,
) -> Result<Workers, String> {
    let (queues, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded::<Feed>()).unzip();
    let receivers: Vec<_> =
        receivers.into_iter().map(|receiver| Mutex::new(Some(receiver))).collect();
    let (activators_in, activators) = unbounded();
    let progress = Arc::clone(progress);
    let mut config = timely::Config::process(workers);
    config.worker = config.worker.idle_spin(SPIN);
    let guards = timely::execute(config, move |worker| {
        let index = worker.index();
        if let Some(figures) = &figures {
            figures.watch(worker);
        }
        let queue = lock(&receivers[index]).take();
        let queue = queue.expect("each worker starts once");
        let announce = |activator| {
            activators_in.send((index, activator)).expect("the starter waits for all activators")
        };
        let on_worker = figures.as_ref().map(|figures| &figures.workers()[index]);
        let entered = figures.clone().map(|figures| {
            move |records| figures.workers()[index].enter(GraphStage::Decode, records)
        });
        let next = move || {
            let feed = queue.try_recv().ok()?;
            if let (Feed::Chunk(chunk), Some(entered)) = (&feed, &entered) {
                entered(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            }
            Some(feed)
        };
        let probe = build(worker, next, rules.clone(), &effects, &progress, announce);
        while worker.step_or_park(Some(NAP)) {
            report(&probe, &progress);
            on_worker.into_iter().for_each(OnWorker::turn);
        }
        report(&probe, &progress);
    })?;
    let mut activators: Vec<(usize, SyncActivator)> = activators.iter().take(workers).collect();
    activators.sort_unstable_by_key(|(index, _)| *index);
    let entrances = queues
        .into_iter()
        .zip(activators)
        .map(|(queue, (_, activator))| Entrance { queue, activator });
    Ok(Workers { entrances: entrances.collect(), guards })
}

/// Builds the graph on a worker. `announce` is told how to wake its source.
pub fn build(
    worker: &mut Worker,
    next: impl FnMut() -> Option<Feed> + 'static,
    rules: Rules,
    effects: &impl MakeEffects,
    progress: &Arc<Progress>,
    announce: impl FnOnce(SyncActivator),
) -> Handle<Epoch> {
    let progress = Arc::clone(progress);
    worker.dataflow::<Epoch, _, _>(|scope| {
        let chunks = feed(scope, next, announce);
        let effects = Effects {
            write: |waker| effects.write(waker),
            invalidate: |waker| effects.invalidate(waker),
            dead_letter: |waker| effects.dead_letter(waker),
        };
        graph(chunks, rules, effects, move |epoch, tally| progress.settle(epoch, tally))
    })
}

/// Reports how far the worker's probe has come.
pub fn report(probe: &Handle<Epoch>, progress: &Progress) {
    progress.advance(probe.with_frontier(|frontier| frontier.first().copied()));
}
