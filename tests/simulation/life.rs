//! One life of one instance: the program's own graph, lanes, poll loop and rebalance protocol,
//! taken one step at a time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker as TaskWaker};
use std::time::Duration;

use contentflow::bulk::Why;
use contentflow::commit::{Commits, Committer};
use contentflow::config::{OnDataLoss, OnOutage, Run};
use contentflow::ingest::{Entrance, Ingest};
use contentflow::progress::{Progress, progress};
use contentflow::shutdown::Abort;
use contentflow::sink::outage::OutagePolicy;
use contentflow::sink::postgres::Retry;
use contentflow::sink::{Lane, Remote, dead_letter, postgres, redis, remote};
use contentflow::source::assignment::{HandOver, State};
use contentflow::source::client::Client;
use contentflow::source::{Source, SourceError, Turn, Until};
use contentflow::worker::{MakeEffects, build, report};
use crossbeam_channel::unbounded;
use dataflows::effect::Effect;
use dataflows::feed::Feed;
use dataflows::graph::{Invalidated, Rules};
use dataflows::latest::Group;
use dataflows::outcome::Settled;
use dataflows::peers::{Peers, Waker};
use dataflows::planted::{Bug, is_planted};
use dataflows::record::RawRecord;
use dataflows::reject::Rejected;
use dataflows::validate::DraftIdType;
use dataflows::written::Written;
use rdkafka::error::KafkaResult;
use timely::WorkerConfig;
use timely::communication::Allocator;
use timely::dataflow::operators::probe::Handle;
use timely::worker::Worker;

use super::history::Limits;
use super::log::{Polled, SimClient};
use super::servers::{Doom, Wire};
use super::world::{Shared, Violation, lock};

const NO_HEADERS: [(&str, Option<&[u8]>); 0] = [];

/// How often a record is tried again.
pub(crate) const RETRIES: u32 = 3;

/// A lane's task; none once it has ended.
type Task = Option<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// Makes the lanes of an instance, on simulated servers.
struct Servers {
    wire: Wire,
    lanes: usize,
    rows_max: usize,
    policy: OutagePolicy,
    tasks: Arc<Mutex<Vec<Task>>>,
}

impl Servers {
    fn start<R: 'static, A: 'static, F: Future<Output = ()> + Send + 'static>(
        &self,
        lanes: usize,
        waker: &Waker,
        serve: impl Fn(Lane<R, A>, Wire, OutagePolicy) -> F,
    ) -> Remote<R, A> {
        let (effect, lanes) = remote(lanes, waker);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in lanes {
            tasks.push(Some(Box::pin(serve(lane, self.wire.clone(), self.policy.clone()))));
        }
        effect
    }
}

impl MakeEffects for Servers {
    fn write(&self, waker: Waker) -> impl Effect<Request = Group, Answer = Written> + 'static {
        let retry = Retry { retries: RETRIES, backoff: Duration::from_millis(50) };
        let rows_max = self.rows_max;
        self.start(self.lanes, &waker, move |lane, wire, policy| {
            postgres::serve(lane, wire, rows_max, retry, policy)
        })
    }

    fn invalidate(
        &self,
        waker: Waker,
    ) -> impl Effect<Request = Settled, Answer = Invalidated> + 'static {
        let keys_max = self.rows_max;
        self.start(1, &waker, move |lane, wire, policy| {
            redis::serve(lane, wire, keys_max, None, policy)
        })
    }

    fn dead_letter(
        &self,
        waker: Waker,
    ) -> impl Effect<Request = Rejected, Answer = Rejected> + 'static {
        self.start(1, &waker, dead_letter::serve)
    }
}

/// A running instance.
pub(crate) struct Life {
    worker: Worker,
    probe: Handle<dataflows::Epoch>,
    progress: Arc<Progress>,
    tasks: Arc<Mutex<Vec<Task>>>,
    source: Source,
    state: State,
    client: SimClient,
    commits: Commits,
    hand_over: Option<(HandOver, Vec<i32>)>,
    /// Decides when something is fetched in bulk, if that is done at all. Apart from the world's
    /// chance, so that a seed still means what it meant.
    bulk: Option<fastrand::Rng>,
    /// Where each partition is that is fetched in bulk, or was when it went.
    fetched: BTreeMap<i32, i64>,
    stop: Arc<AtomicBool>,
}

/// How an instance is after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lived {
    /// It goes on.
    On,
    /// It has ended.
    Ended,
}

impl Life {
    pub(crate) fn begin(world: &Shared, instance: usize, limits: &Limits) -> Life {
        let mut worker = Worker::new(
            WorkerConfig::default(),
            Allocator::Thread(Default::default()),
            Some(std::time::Instant::now()),
        );
        let abort = Arc::new(Abort::default());
        let policy =
            OutagePolicy { on_outage: OnOutage::Wait, abort: Arc::clone(&abort), figures: None };
        let tasks = Arc::new(Mutex::new(Vec::new()));
        let wire = Wire { world: Arc::clone(world), instance };
        let servers = Servers {
            wire,
            lanes: limits.lanes,
            rows_max: limits.batch_rows,
            policy,
            tasks: Arc::clone(&tasks),
        };
        let rules = Rules {
            draft_ids: DraftIdType::Text { max_chars: None },
            dedupe_jobs: limits.dedupe_jobs,
            lanes: limits.lanes,
            rows_max: limits.batch_rows,
            keys_max: limits.batch_rows,
            compaction: None,
        };
        let (progress, watch) = progress();
        let progress = Arc::new(progress);
        let (queue, fed) = unbounded::<Feed>();
        let next = move || fed.try_recv().ok();
        let mut waker = None;
        let probe = build(&mut worker, &Peers::none(), next, rules, &servers, &progress, |it| {
            waker = Some(it);
        });
        let entrance = Entrance { queue, waker: waker.unwrap() };
        let run = settings(limits);
        let ingest = Ingest::new(vec![entrance], run.clone(), Arc::clone(&progress), watch);
        let (committer, commits) = Committer::new();
        let stop = Arc::new(AtomicBool::new(false));
        let state = State::new(ingest, committer, abort, Arc::clone(&stop), &run);
        let until = Until { stop: Arc::clone(&stop), caught_up: false };
        let member = lock(world).group.join();
        let client = SimClient {
            world: Arc::clone(world),
            instance,
            member: Cell::new(member),
            is_lost: Cell::new(false),
            paused: RefCell::default(),
        };
        let source = Source::new(&until);
        let mut bulk = lock(world).chance.clone().fork();
        Life {
            worker,
            probe,
            progress,
            tasks,
            source,
            state,
            client,
            commits,
            hand_over: None,
            bulk: bulk.bool().then_some(bulk),
            fetched: BTreeMap::new(),
            stop,
        }
    }

    /// Asks the instance to end.
    pub(crate) fn terminate(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Each of the process's threads does a little.
    pub(crate) fn turn(&mut self) -> Lived {
        {
            let mut world = lock(&self.client.world);
            world.group.heartbeat(self.client.member.get());
        }
        if self.poll_lanes() == Lived::Ended {
            return Lived::Ended;
        }
        self.worker.step();
        report(&self.probe, &self.progress);
        self.commit_thread();
        self.poll_thread()
    }

    fn poll_lanes(&self) -> Lived {
        let mut context = Context::from_waker(TaskWaker::noop());
        for slot in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let Some(task) = slot else { continue };
            match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut context))) {
                Ok(std::task::Poll::Pending) => {}
                Ok(std::task::Poll::Ready(())) => *slot = None,
                Err(panic) if !panic.is::<Doom>() => std::panic::resume_unwind(panic),
                Err(_) if is_planted(Bug::PanicSwallowed) => *slot = None,
                // As the panic hook does.
                Err(_) => return Lived::Ended,
            }
        }
        Lived::On
    }

    fn commit_thread(&self) {
        if lock(&self.client.world).chance.bool()
            && let Ok(offsets) = self.commits.requests.try_recv()
        {
            drop(self.commits.answers.send(self.client.commit(&offsets)));
        }
    }

    fn poll_thread(&mut self) -> Lived {
        if let Some((hand_over, going)) = &mut self.hand_over {
            if hand_over.turn(&mut self.state, &self.client).is_none() {
                let mut world = lock(&self.client.world);
                world.group.revoked(self.client.member.get(), going);
                if self.client.is_lost.replace(false) {
                    self.client.member.set(world.group.join());
                }
                self.hand_over = None;
            }
            return Lived::On;
        }
        let turn = match self.source.turn(&mut self.state, &self.client) {
            Ok(Turn::Done) => return self.end(),
            Ok(Turn::Wait(_)) => return Lived::On,
            Ok(turn) => turn,
            // It gives up what is in flight, or its commit, as it says it will.
            Err(SourceError::Drain(_) | SourceError::NotCommitted) => return Lived::Ended,
            Err(error) => return self.fail(&error.to_string()),
        };
        let member = self.client.member.get();
        let is_reading = matches!(turn, Turn::Poll(_));
        if is_reading && let Err(error) = self.begin_or_end_bulk() {
            return self.fail(&error.to_string());
        }
        let (state, fetched) = (&self.state, &self.fetched);
        let bulk = |partition| {
            let is_wanted = is_reading && state.next_in_bulk(partition).is_some();
            fetched.get(&partition).copied().filter(|_| is_wanted)
        };
        let polled = lock(&self.client.world).poll(member, &self.client.paused.borrow(), bulk);
        match polled {
            Polled::Nothing => self.state.ingest.none_waits(),
            Polled::Records(indices) => {
                let records = Arc::clone(&lock(&self.client.world).records);
                if is_reading {
                    let taken = indices.into_iter().map(|index| records[index].raw());
                    taken.for_each(|record| self.take_in(record));
                }
            }
            Polled::Assign(partitions) => match self.state.assigned(&self.client, &partitions) {
                Ok(starts) => {
                    let starts = starts.unwrap_or_default();
                    lock(&self.client.world).group.assigned(member, &starts);
                }
                Err(error) => return self.fail(&error.to_string()),
            },
            Polled::Revoke(partitions) => self.begin_hand_over(partitions),
            Polled::Lost => {
                self.client.is_lost.set(true);
                let all = lock(&self.client.world).group.partitions();
                self.begin_hand_over(all);
            }
        }
        Lived::On
    }

    fn take_in(&mut self, record: RawRecord<'_>) {
        let RawRecord { partition, offset, .. } = record;
        if self.state.next_in_bulk(partition).is_some() {
            self.fetched.insert(partition, offset + 1);
        }
        self.state.ingest.push(record, NO_HEADERS.into_iter());
    }

    /// In some histories, some partitions are fetched in bulk for a while.
    fn begin_or_end_bulk(&mut self) -> KafkaResult<()> {
        let Some(chance) = &mut self.bulk else { return Ok(()) };
        let (state, client) = (&mut self.state, &self.client);
        if !state.is_in_bulk() {
            self.fetched.clear();
        }
        let some = chance.i32(0..4);
        match chance.u8(0..8) {
            0 if self.fetched.is_empty() => {
                let end = |partition| client.watermarks(partition).ok().map(|(_low, high)| high);
                let backlogs = state.backlogs(1, end);
                let some = backlogs.into_iter().filter(|(partition, _)| *partition != some);
                self.fetched = some.map(|(partition, stretch)| (partition, stretch.next)).collect();
                state.begin_bulk(client, self.fetched.keys().copied())
            }
            1 => state.end_bulk(client, some, Why::CaughtUp),
            2 if some == 0 => state.end_all_bulk(client),
            _ => Ok(()),
        }
    }

    fn begin_hand_over(&mut self, going: Vec<i32>) {
        let hand_over = self.state.hand_over(&self.client, going.clone());
        self.hand_over = Some((hand_over, going));
    }

    fn end(&self) -> Lived {
        let (read, outcomes) = (self.state.ingest.read(), self.state.ingest.totals().records());
        if read != outcomes {
            return self.fail(&format!("{read} records were read, {outcomes} have an outcome"));
        }
        lock(&self.client.world).group.leave(self.client.member.get());
        Lived::Ended
    }

    fn fail(&self, what: &str) -> Lived {
        lock(&self.client.world).violate(Violation::Failure, what.to_owned());
        Lived::Ended
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        for dataflow in self.worker.installed_dataflows() {
            self.worker.drop_dataflow(dataflow);
        }
    }
}

fn settings(limits: &Limits) -> Run {
    Run {
        workers: 1,
        on_outage: OnOutage::Wait,
        on_data_loss: OnDataLoss::Stop,
        epoch_records: limits.epoch_records,
        epoch_bytes: 1 << 20,
        linger: Duration::ZERO,
        epochs_in_flight: limits.epochs_in_flight,
        dedupe_jobs: limits.dedupe_jobs,
        retries: RETRIES,
        retry_backoff: Duration::from_millis(50),
        drain_timeout: Duration::from_secs(20),
    }
}
