//! One run of the graph over some epochs, to its end or to a crash.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataflows::compact::Compaction;
use dataflows::decode::{Decoded, decode};
use dataflows::feed::{Feed, feed};
use dataflows::graph::{Effects, Rules, graph};
use dataflows::held::Held;
use dataflows::ledger::Ledger;
use dataflows::outcome::Tally;
use dataflows::peers::{self, Peers, Step, Waker};
use dataflows::record::Chunk;
use dataflows::validate::DraftIdType;
use timely::worker::Worker;

use crate::bells::Bells;
use crate::servers::{Bury, Deed, Delete, Server, Write};
use crate::topic::Epoch;
use crate::turns::Turns;
use crate::world::{Stored, World};

/// How the graph is run. None of it may matter for what becomes of the records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub workers: usize,
    pub lanes: usize,
    pub rows_max: usize,
    pub keys_max: usize,
    pub dedupe_jobs: usize,
    pub epochs_in_flight: usize,
    /// Whether the workers take turns, so that the run can be repeated.
    pub in_turns: bool,
    /// Whether epochs are compacted, and how many drafts are passed on at a time then.
    pub compaction: Option<usize>,
    /// The order of the workers' turns and all that the servers leave to chance.
    pub seed: u64,
}

/// What a run has come to.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The offsets that could be committed.
    pub committed: BTreeMap<i32, i64>,
    pub totals: Tally,
}

/// What the workers share with whoever feeds them.
struct Ingest {
    setup: Setup,
    epochs: Vec<Epoch>,
    queues: Vec<VecDeque<(usize, Feed)>>,
    ledger: Ledger,
    passed: u64,
    created: usize,
    committed: BTreeMap<i32, i64>,
    world: Arc<Mutex<World>>,
}

/// Runs the graph until everything is through, or until the world crashes.
pub(crate) fn run(setup: &Setup, epochs: &[Epoch], world: &Arc<Mutex<World>>) -> Ran {
    let records = epochs.iter().flat_map(Epoch::records);
    lock(world).topic.extend(records.map(|record| (record.at(), record.clone())));
    let ingest = Arc::new(Mutex::new(Ingest::new(setup, epochs, world)));
    let turns = Arc::new(Turns::new(setup.workers, setup.in_turns, setup.seed));
    let bells = Bells::new(setup.workers);
    let company = bells.company();
    let (ingest_of_workers, turns_of_workers) = (Arc::clone(&ingest), Arc::clone(&turns));
    let guards = timely::execute(peers::config(setup.workers), move |worker| {
        let peers = Peers::of(worker.index(), company.clone());
        work(worker, &peers, &bells, &ingest_of_workers, &turns_of_workers);
    });
    guards.unwrap().join().into_iter().for_each(|ended| ended.unwrap());
    if let Some(failure) = turns.failure() {
        panic!("{failure}");
    }
    let ingest = lock(&ingest);
    Ran { committed: ingest.committed.clone(), totals: ingest.ledger.totals().clone() }
}

pub(crate) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(
    worker: &mut Worker,
    peers: &Peers,
    bells: &Bells,
    ingest: &Arc<Mutex<Ingest>>,
    turns: &Turns,
) {
    let me = worker.index();
    let Setup { lanes, rows_max, keys_max, dedupe_jobs, in_turns, seed, compaction, .. } =
        lock(ingest).setup;
    let draft_ids = DraftIdType::Text { max_chars: None };
    let compaction =
        compaction.map(|drafts_at_once| Compaction { held: Held::default(), drafts_at_once });
    let rules = Rules { draft_ids, dedupe_jobs, lanes, rows_max, keys_max, compaction };
    let world = Arc::clone(&lock(ingest).world);
    let (queue, book) = (Arc::clone(ingest), Arc::clone(ingest));
    let mut source = None;
    let probe = worker.dataflow(|scope| {
        let chunks =
            feed(scope, peers, move || lock(&queue).next(me), |waker| source = Some(waker));
        let of = (me, seed);
        let effects = Effects {
            write: |waker| server::<Write>(&world, waker, of, lanes, rows_max),
            invalidate: |waker| server::<Delete>(&world, waker, of, 1, keys_max),
            dead_letter: |waker| server::<Bury>(&world, waker, of, 1, rows_max),
        };
        graph(chunks, rules, peers, effects, move |epoch, tally| {
            lock(&book).ledger.settle(epoch, &tally);
        })
    });
    let source = source.unwrap();
    turns.work(me, || {
        if lock(ingest).may_go_on(me) {
            source.wake();
        }
        let step = peers.step(worker);
        let passed = lock(ingest).pass(probe.with_frontier(|frontier| frontier.first().copied()));
        let is_crashed = lock(&world).is_crashed();
        let goes_on = step != Step::Ended && !is_crashed;
        if passed || is_crashed {
            // Now others may be fed, or have to end as well.
            bells.ring();
        } else if !in_turns && matches!(step, Step::Idle(_)) {
            bells.sleep(me);
        }
        goes_on
    });
    // After a crash, or another worker's failure, nothing more may happen.
    worker.installed_dataflows().into_iter().for_each(|dataflow| worker.drop_dataflow(dataflow));
}

fn server<D: Deed>(
    world: &Arc<Mutex<World>>,
    waker: Waker,
    (worker, seed): (usize, u64),
    lanes: usize,
    rows_max: usize,
) -> Server<D> {
    let mut chance = fastrand::Rng::with_seed(seed ^ (D::SALT << 8));
    (0..worker).for_each(|_| chance = chance.fork());
    let lanes = (0..lanes).map(|_| Default::default()).collect();
    Server { world: Arc::clone(world), waker, chance, worker, rows_max, lanes }
}

impl Ingest {
    fn new(setup: &Setup, epochs: &[Epoch], world: &Arc<Mutex<World>>) -> Ingest {
        let mut queues: Vec<VecDeque<_>> = (0..setup.workers).map(|_| VecDeque::new()).collect();
        let mut ledger = Ledger::default();
        for (index, epoch) in epochs.iter().enumerate() {
            for part in &epoch.chunks {
                let mut chunk = Chunk::default();
                part.records.iter().for_each(|record| record.push_to(&mut chunk));
                queues[part.worker % setup.workers].push_back((index, Feed::Chunk(chunk)));
            }
            for record in epoch.records() {
                ledger.enter(index.try_into().unwrap(), record.partition, record.offset, 1);
            }
            queues.iter_mut().for_each(|queue| queue.push_back((index, Feed::CloseEpoch)));
        }
        queues.iter_mut().for_each(|queue| queue.push_back((epochs.len(), Feed::End)));
        Ingest {
            setup: *setup,
            epochs: epochs.to_vec(),
            queues,
            ledger,
            passed: 0,
            created: 0,
            committed: BTreeMap::new(),
            world: Arc::clone(world),
        }
    }

    /// Whether a worker's queue has more, of an epoch that may be open already.
    fn may_go_on(&self, worker: usize) -> bool {
        let passed = usize::try_from(self.passed).unwrap();
        let is_open =
            |epoch| epoch < passed + self.setup.epochs_in_flight || epoch == self.epochs.len();
        self.queues[worker].front().is_some_and(|(epoch, _)| is_open(*epoch))
    }

    fn next(&mut self, worker: usize) -> Option<Feed> {
        if !self.may_go_on(worker) {
            return None;
        }
        let (epoch, feed) = self.queues[worker].pop_front()?;
        let mut world = lock(&self.world);
        while self.created <= epoch && self.created < self.epochs.len() {
            for draft in &self.epochs[self.created].created {
                world.table.insert(draft.clone(), Stored::default());
            }
            self.created += 1;
        }
        Some(feed)
    }

    /// Notes how far the probe has come on one of the workers. Whether that is farther than before.
    fn pass(&mut self, frontier: Option<u64>) -> bool {
        let all = u64::try_from(self.epochs.len()).unwrap();
        let frontier = frontier.unwrap_or(all);
        let committable = self.ledger.pass(frontier).unwrap_or_else(|error| panic!("{error}"));
        self.committed.extend(committable);
        let world = lock(&self.world);
        let before = self.passed;
        while self.passed < frontier {
            for record in self.epochs[usize::try_from(self.passed).unwrap()].records() {
                let chunk = record.chunk();
                let skipped = matches!(
                    decode(chunk.record(0), DraftIdType::Text { max_chars: None }),
                    Decoded::Skipped
                );
                assert!(
                    skipped || world.finished.contains(&record.at()),
                    "the probe has passed {:?}, whose effects are not all answered",
                    record.at()
                );
            }
            self.passed += 1;
        }
        self.passed > before
    }
}
