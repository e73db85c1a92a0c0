//! worker: one timely worker a thread, each with the whole graph and the lanes of its effects.
//!
//! Between its steps a worker sleeps in a tokio runtime of its own, where its lanes speak to the
//! servers: an answer goes from a lane to the graph and on to the next lane without waking another
//! thread, and who waits for one server does so in the same place as for all others.

use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker as TaskWaker};
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use dataflows::Epoch;
use dataflows::effect::Effect;
use dataflows::feed::{Feed, feed};
use dataflows::graph::{Effects, Invalidated, Rules, graph};
use dataflows::latest::Group;
use dataflows::outcome::Settled;
use dataflows::peers::{self, Company, Peers, Step, Waker};
use dataflows::reject::Rejected;
use dataflows::validate::DraftIdType;
use dataflows::written::Written;
use timely::communication::WorkerGuards;
use timely::dataflow::operators::probe::Handle;
use timely::logging::ParkEvent;
use timely::worker::Worker;
use tokio::runtime::{self, Runtime};
use tokio::sync::Notify;

use crate::config::Config;
use crate::figures::Figures;
use crate::figures::workers::{GraphStage, OnWorker};
use crate::ingest::Entrance;
use crate::lock::lock;
use crate::progress::Progress;

/// How long a worker may sleep when nothing wakes it.
const NAP: Duration = Duration::from_millis(100);

/// How long a worker works before its lanes have a turn, so that a server never waits long for the
/// next statement.
const TURN: Duration = Duration::from_micros(200);

/// Makes the effects of one worker. Called once on each, in the runtime of its lanes.
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
/// The message, timely's or the system's, when the threads or their runtimes can't be started.
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
    let runtimes: io::Result<Vec<_>> = (0..workers).map(|_| runtime()).collect();
    let runtimes = runtimes.map_err(|error| error.to_string())?;
    let beds: Vec<Arc<Bed>> = (0..workers).map(|_| Arc::default()).collect();
    let company = Company::new(beds.iter().map(|bed| TaskWaker::from(Arc::clone(bed))));
    let (wakers_in, wakers) = unbounded();
    let progress = Arc::clone(progress);
    let guards = timely::execute(peers::config(workers), move |worker| {
        let index = worker.index();
        if let Some(figures) = &figures {
            figures.watch(worker);
        }
        let once = "each worker starts once";
        let queue = lock(&receivers[index]).take().expect(once);
        let runtime = lock(&runtimes[index]).take().expect(once);
        let peers = Peers::of(index, company.clone());
        let announce =
            |waker| wakers_in.send((index, waker)).expect("the starter waits for all wakers");
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
        runtime.block_on(async {
            let probe = build(worker, &peers, next, rules.clone(), &effects, &progress, announce);
            let turned = || {
                report(&probe, &progress);
                on_worker.into_iter().for_each(OnWorker::turn);
            };
            work(worker, &peers, &beds[index], turned).await;
        });
    })?;
    let mut wakers: Vec<(usize, Waker)> = wakers.iter().take(workers).collect();
    wakers.sort_unstable_by_key(|(index, _)| *index);
    let entrances =
        queues.into_iter().zip(wakers).map(|(queue, (_, waker))| Entrance { queue, waker });
    Ok(Workers { entrances: entrances.collect(), guards })
}

/// Works, and leaves the thread to the lanes in between, until the dataflow is at its end.
async fn work(worker: &mut Worker, peers: &Peers, bed: &Bed, turned: impl Fn()) {
    let mut since = Instant::now();
    loop {
        let step = peers.step(worker);
        turned();
        match step {
            Step::Ended => return,
            Step::Worked if since.elapsed() < TURN => continue,
            Step::Worked => rest(worker, tokio::task::yield_now()).await,
            Step::Idle(until) => rest(worker, bed.sleep(until.map_or(NAP, |it| it.min(NAP)))).await,
        }
        since = Instant::now();
    }
}

/// Timely's log, from which the figures are made, has the worker's own time alone: what the lanes
/// do meanwhile is noted with them.
async fn rest(worker: &Worker, resting: impl Future<Output = ()>) {
    if let Some(log) = worker.logging().as_mut() {
        log.log(ParkEvent::park(None));
        log.flush();
    }
    resting.await;
    if let Some(log) = worker.logging().as_mut() {
        log.log(ParkEvent::unpark());
    }
}

/// A runtime for the lanes of one worker, on whose thread it runs.
fn runtime() -> io::Result<Mutex<Option<Runtime>>> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(Mutex::new(Some(runtime)))
}

/// Where a worker sleeps.
#[derive(Debug, Default)]
struct Bed(Notify);

impl Bed {
    /// Until the worker is woken, or for so long.
    async fn sleep(&self, at_most: Duration) {
        let _woken = tokio::time::timeout(at_most, self.0.notified()).await;
    }
}

impl Wake for Bed {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

/// Builds the graph on a worker. `announce` is told how to wake its source.
pub fn build(
    worker: &mut Worker,
    peers: &Peers,
    next: impl FnMut() -> Option<Feed> + 'static,
    rules: Rules,
    effects: &impl MakeEffects,
    progress: &Arc<Progress>,
    announce: impl FnOnce(Waker),
) -> Handle<Epoch> {
    let progress = Arc::clone(progress);
    worker.dataflow::<Epoch, _, _>(|scope| {
        let chunks = feed(scope, peers, next, announce);
        let effects = Effects {
            write: |waker| effects.write(waker),
            invalidate: |waker| effects.invalidate(waker),
            dead_letter: |waker| effects.dead_letter(waker),
        };
        graph(chunks, rules, peers, effects, move |epoch, tally| progress.settle(epoch, tally))
    })
}

/// Reports how far the worker's probe has come.
pub fn report(probe: &Handle<Epoch>, progress: &Progress) {
    progress.advance(probe.with_frontier(|frontier| frontier.first().copied()));
}
