//! peers: how the workers of a process tell one another that there is something to do.
//!
//! Timely wakes every worker whenever another one has anything to say, and mostly that is how far
//! it has come: an event on one worker woke the other three or four times, for nothing. So a worker
//! sleeps where its owner has it sleep, and is woken by those who have something for it to do:
//! whoever feeds it, its effects, and a peer that has sent it records, or that has moved while it
//! waits for an epoch that is ending. What it has not been woken for it takes in when it is.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task;
use std::time::Duration;

use timely::scheduling::SyncActivator;
use timely::scheduling::activate::Activations;
use timely::worker::{ProgressMode, Worker};

use crate::Epoch;

/// Wakes an operator and its worker, from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    activator: SyncActivator,
    worker: task::Waker,
}

impl Waker {
    /// Wakes nobody: for those who have no worker.
    pub fn of_nobody() -> Waker {
        let activator = SyncActivator::new(Vec::new(), Activations::new(None).sync());
        Waker { activator, worker: task::Waker::noop().clone() }
    }

    /// Has the operator scheduled soon. When the worker is gone there is nobody to wake, and nothing
    /// to do about it.
    pub fn wake(&self) {
        let _worker_is_gone = self.activator.activate().is_err();
        self.worker.wake_by_ref();
    }
}

/// All workers of a process, as they know one another. A clone is the same ones.
#[derive(Clone, Debug)]
pub struct Company(Arc<[Member]>);

/// Each has its cache lines for itself.
#[derive(Debug)]
#[repr(align(128))]
struct Member {
    waker: task::Waker,
    /// Whether it waits for the end of an epoch, which any of the others may bring about.
    waits_for_epoch: AtomicBool,
    /// Whether it waits for the end of everything.
    waits_for_end: AtomicBool,
}

impl Company {
    /// The workers that are woken so, in their order.
    pub fn new(wakers: impl IntoIterator<Item = task::Waker>) -> Company {
        let member = |waker| Member {
            waker,
            waits_for_epoch: AtomicBool::new(false),
            waits_for_end: AtomicBool::new(false),
        };
        Company(wakers.into_iter().map(member).collect())
    }
}

/// How timely is to be set up for so many workers of one process.
pub fn config(workers: usize) -> timely::Config {
    let mut config = timely::Config::process(workers);
    // By default a worker keeps what it has to say until that could matter. To know when, it would
    // have to take in all that the others say: somebody would have to wake it for that.
    config.worker = config.worker.progress_mode(ProgressMode::Eager);
    config
}

/// What a step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There may be more to do.
    Worked,
    /// There is nothing to do until the worker is woken, or for so long.
    Idle(Option<Duration>),
    /// The worker's dataflows are at their end.
    Ended,
}

/// A worker among its peers. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Peers(Rc<State>);

#[derive(Debug)]
struct State {
    me: usize,
    all: Company,
    /// Which of them records were sent to since those were last woken.
    addressed: RefCell<Vec<bool>>,
    /// Whether epochs wait on this worker for their ends.
    has_open_epochs: Cell<bool>,
    /// All epochs below have ended for whoever feeds this worker...
    closed_below: Cell<Epoch>,
    /// ... and those below this one for all of the workers, as far as this one knows: nothing is
    /// under way any more that would have to be waited for.
    over_below: Cell<Epoch>,
}

impl Peers {
    /// The worker of that number.
    pub fn of(me: usize, all: Company) -> Peers {
        let addressed = RefCell::new(vec![false; all.0.len()]);
        Peers(Rc::new(State {
            me,
            all,
            addressed,
            has_open_epochs: Cell::new(false),
            closed_below: Cell::new(0),
            over_below: Cell::new(0),
        }))
    }

    /// A worker that sleeps, and is woken, as timely has it.
    pub fn none() -> Peers {
        Peers::of(0, Company::new([task::Waker::noop().clone()]))
    }

    /// What wakes an operator of this worker.
    pub fn waker(&self, activator: SyncActivator) -> Waker {
        Waker { activator, worker: self.0.all.0[self.0.me].waker.clone() }
    }

    /// Notes that something goes to the worker that a hash chooses.
    pub(crate) fn address(&self, hash: u64) {
        let mut addressed = self.0.addressed.borrow_mut();
        let workers = u64::try_from(addressed.len()).expect("a number of workers fits 64 bits");
        // As timely chooses it.
        let peer = if workers.is_power_of_two() { hash & (workers - 1) } else { hash % workers };
        addressed[usize::try_from(peer).expect("less than the number of workers")] = true;
    }

    /// Notes that this worker is fed nothing any more that belongs to epochs below this one.
    pub(crate) fn close_below(&self, epoch: Epoch) {
        self.0.closed_below.set(epoch);
    }

    /// Notes that this worker is fed nothing any more: it waits for the end of everything.
    pub(crate) fn end(&self) {
        self.0.closed_below.set(Epoch::MAX);
    }

    /// Notes the first epoch that events may still come of, if they may come of any, and whether
    /// epochs wait on this worker for their ends.
    pub(crate) fn note_frontier(&self, first: Option<Epoch>, has_open_epochs: bool) {
        self.0.over_below.set(first.unwrap_or(Epoch::MAX));
        self.0.has_open_epochs.set(has_open_epochs);
    }

    /// A step of the worker.
    pub fn step(&self, worker: &mut Worker) -> Step {
        let me = &self.0.all.0[self.0.me];
        me.waits_for_epoch.store(self.0.has_open_epochs.get(), Ordering::Relaxed);
        me.waits_for_end.store(self.0.closed_below.get() == Epoch::MAX, Ordering::Relaxed);
        // Said before the step looks for what the others have sent: whoever sends later sees it.
        fence(Ordering::SeqCst);
        let goes_on = worker.step();
        // What was active in this step counts as well: nothing of it means that nothing was done.
        let idle = worker.activations().borrow().empty_for();
        if goes_on && idle != Some(Duration::ZERO) {
            return Step::Idle(idle);
        }
        self.wake_others();
        if goes_on { Step::Worked } else { Step::Ended }
    }

    /// Wakes those that this step may have brought something for.
    ///
    /// An epoch's end cannot have come nearer for anybody by what a worker does before it has
    /// closed that epoch: closing it will be news then. Nor by what it does once it knows that
    /// nothing is under way any more: whoever ended it has told the others, too.
    fn wake_others(&self) {
        let State { me, all, addressed, closed_below, over_below, .. } = &*self.0;
        let is_ending = over_below.get() < closed_below.get();
        // What was sent comes before the look at who waits.
        fence(Ordering::SeqCst);
        let mut addressed = addressed.borrow_mut();
        for (number, (member, addressed)) in all.0.iter().zip(&mut *addressed).enumerate() {
            let is_addressed = std::mem::take(addressed);
            let is_awaited = is_ending && member.waits_for_epoch.load(Ordering::Relaxed)
                || member.waits_for_end.load(Ordering::Relaxed);
            if number != *me && (is_addressed || is_awaited) {
                member.waker.wake_by_ref();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl task::Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Worker 0 of two, and how often a step of it has woken worker 1, which waits for an epoch.
    fn beside_one_that_waits() -> (Peers, impl Fn() -> usize) {
        let bells: [Arc<Bell>; 2] = Default::default();
        let company = Company::new(bells.clone().map(task::Waker::from));
        company.0[1].waits_for_epoch.store(true, Ordering::Relaxed);
        let peers = Peers::of(0, company);
        let same = peers.clone();
        (peers, move || {
            same.wake_others();
            assert_eq!(bells[0].0.load(Ordering::Relaxed), 0, "it is awake");
            bells[1].0.swap(0, Ordering::Relaxed)
        })
    }

    #[test]
    fn who_waits_for_an_epoch_is_woken_from_its_close_until_nothing_of_it_is_under_way() {
        let (peers, wakes) = beside_one_that_waits();
        assert_eq!(wakes(), 0, "epoch 0 is open here");
        peers.close_below(1);
        assert_eq!([wakes(), wakes()], [1, 1]);
        peers.note_frontier(Some(1), false);
        assert_eq!(wakes(), 0, "both know that it is over");
        peers.close_below(3);
        peers.note_frontier(Some(2), true);
        assert_eq!(wakes(), 1, "epoch 2 is ending");
        peers.note_frontier(None, false);
        assert_eq!(wakes(), 0);
        peers.end();
        assert_eq!(wakes(), 0);
    }

    #[test]
    fn who_is_sent_something_is_woken_once_and_who_is_at_its_end_for_everything() {
        let (peers, wakes) = beside_one_that_waits();
        (0..9).for_each(|hash| peers.address(2 * hash + 1));
        assert_eq!([wakes(), wakes()], [1, 0]);
        peers.address(4);
        assert_eq!(wakes(), 0, "that comes here");
        peers.0.all.0[1].waits_for_end.store(true, Ordering::Relaxed);
        assert_eq!([wakes(), wakes()], [1, 1]);
    }
}
