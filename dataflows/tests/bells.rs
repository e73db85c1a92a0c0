//! Where the workers sleep that do not take turns. Who forgets to wake one is found out: none is
//! woken by the clock.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use dataflows::peers::Company;

/// Nothing in these tests takes as long.
const FOR_EVER: Duration = Duration::from_secs(60);

/// The bells of all workers.
#[derive(Clone, Debug)]
pub(crate) struct Bells(Arc<[Arc<Bell>]>);

#[derive(Debug, Default)]
struct Bell {
    has_rung: Mutex<bool>,
    rings: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.has_rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.rings.notify_one();
    }
}

impl Bells {
    pub(crate) fn new(workers: usize) -> Bells {
        Bells((0..workers).map(|_| Arc::default()).collect())
    }

    /// The workers that these bells wake.
    pub(crate) fn company(&self) -> Company {
        Company::new(self.0.iter().map(|bell| Waker::from(Arc::clone(bell))))
    }

    /// Wakes all of them.
    pub(crate) fn ring(&self) {
        self.0.iter().for_each(|bell| Arc::clone(bell).wake());
    }

    /// Until the worker's bell rings, or has rung since the last time.
    pub(crate) fn sleep(&self, worker: usize) {
        let bell = &self.0[worker];
        let has_rung = bell.has_rung.lock().unwrap_or_else(PoisonError::into_inner);
        let slept = bell.rings.wait_timeout_while(has_rung, FOR_EVER, |has_rung| !*has_rung);
        let (mut has_rung, slept) = slept.unwrap_or_else(PoisonError::into_inner);
        assert!(!slept.timed_out(), "nobody wakes worker {worker}");
        *has_rung = false;
    }
}
