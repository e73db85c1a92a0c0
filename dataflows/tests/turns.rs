//! One worker steps at a time, in an order that follows from the seed.
//!
//! Timely's workers are threads, and what the operating system makes of threads cannot be repeated.
//! Here each waits for its turn. The workers exchange messages only within a turn, so the whole run
//! follows from the seed. Or they are left to run as they like, which no seed can repeat, but which
//! is how they run in earnest.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Who steps next.
#[derive(Debug)]
pub(crate) struct Turns {
    order: Mutex<Order>,
    in_turns: bool,
    called: Vec<Condvar>,
}

#[derive(Debug)]
struct Order {
    chance: fastrand::Rng,
    working: Vec<usize>,
    next: usize,
    taken: usize,
    failure: Option<String>,
}

/// No run of these tests needs as many: one that takes them waits for something that never comes.
const TURNS_MAX: usize = 200_000;

impl Turns {
    pub(crate) fn new(workers: usize, in_turns: bool, seed: u64) -> Turns {
        let mut chance = fastrand::Rng::with_seed(seed);
        let next = chance.usize(..workers);
        let working = (0..workers).collect();
        Turns {
            order: Mutex::new(Order { chance, working, next, taken: 0, failure: None }),
            in_turns,
            called: (0..workers).map(|_| Condvar::new()).collect(),
        }
    }

    /// Takes the worker's turns until `turn` says that it has no more to do, or until another
    /// worker failed.
    pub(crate) fn work(&self, worker: usize, mut turn: impl FnMut() -> bool) {
        loop {
            let mut order = self.wait(worker);
            if order.failure.is_some() {
                break;
            }
            order.taken += 1;
            let stuck = self.in_turns && order.taken > TURNS_MAX;
            let order = self.in_turns.then_some(order);
            // A panic in a turn must reach the test, and end the other workers instead of leaving
            // them waiting.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                assert!(!stuck, "the graph waits for something that never comes");
                turn()
            }));
            let mut order = order.unwrap_or_else(|| self.lock());
            let goes_on = outcome.unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or(panic.downcast_ref::<&str>().map(ToString::to_string));
                order.failure = Some(text.unwrap_or_default());
                false
            });
            if !goes_on {
                order.working.retain(|other| *other != worker);
            }
            self.pass_on(&mut order);
            if !goes_on {
                break;
            }
        }
    }

    fn wait(&self, worker: usize) -> MutexGuard<'_, Order> {
        let must_wait =
            |order: &mut Order| self.in_turns && order.next != worker && order.failure.is_none();
        self.called[worker]
            .wait_while(self.lock(), must_wait)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_on(&self, order: &mut Order) {
        if order.failure.is_some() {
            self.called.iter().for_each(Condvar::notify_one);
        } else if !order.working.is_empty() {
            order.next = order.working[order.chance.usize(..order.working.len())];
            self.called[order.next].notify_one();
        }
    }

    /// What went wrong, if anything did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.lock().failure.take()
    }
}
