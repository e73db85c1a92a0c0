//! How the process ends before its time: the first cause wins, everyone hears of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why a run could not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A dependency is out, and `on_outage = "exit"`.
    Outage(String),
    /// Something is wrong that retries do not mend.
    Failure(String),
}

/// The place where the end of the run is announced.
#[derive(Debug, Default)]
pub struct Abort {
    raised: AtomicBool,
    cause: Mutex<Option<Cause>>,
}

impl Abort {
    /// Announces that a dependency is out.
    pub fn outage(&self, message: String) {
        self.raise(Cause::Outage(message));
    }

    /// Announces a failure.
    pub fn failure(&self, message: String) {
        self.raise(Cause::Failure(message));
    }

    fn raise(&self, cause: Cause) {
        let mut slot = self.cause.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slot.get_or_insert(cause);
        self.raised.store(true, Ordering::Release);
    }

    /// Whether the run is to end at once.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// The first cause.
    pub fn cause(&self) -> Option<Cause> {
        self.cause.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
