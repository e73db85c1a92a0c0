//! How the process ends before its time: the first cause wins, everyone hears of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::lock::lock;

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
        let mut slot = lock(&self.cause);
        slot.get_or_insert(cause);
        self.raised.store(true, Ordering::Release);
    }

    /// Whether the run is to end at once.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// The first cause.
    pub fn cause(&self) -> Option<Cause> {
        lock(&self.cause).clone()
    }
}

/// The time that a stop grants: one for all that is left to do, counted from when its signal was
/// seen first.
#[derive(Clone, Debug)]
pub struct Grace {
    stop: Arc<AtomicBool>,
    granted: Duration,
    since: Option<Instant>,
}

impl Grace {
    /// So long, from when `stop` is set.
    pub fn new(stop: Arc<AtomicBool>, granted: Duration) -> Grace {
        Grace { stop, granted, since: None }
    }

    /// All of it.
    pub fn granted(&self) -> Duration {
        self.granted
    }

    /// Whether the signal has come.
    pub fn has_begun(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// What is left of it. Where no signal has come, nobody waits for the end but for its own sake.
    pub fn left(&mut self) -> Duration {
        if !self.has_begun() {
            return self.granted;
        }
        self.granted.saturating_sub(self.since.get_or_insert_with(Instant::now).elapsed())
    }

    /// Whether nothing is left of it.
    pub fn is_over(&mut self) -> bool {
        self.left().is_zero()
    }
}

/// How long behind a signal another one is taken for the same.
const ECHO: Duration = Duration::from_millis(100);

/// Sets `stop` on the first SIGTERM or SIGINT; ends the process at once on the second.
pub(crate) fn stop_on_signals(runtime: &Runtime, stop: Arc<AtomicBool>) {
    runtime.spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!(
                "signals cannot be handled; a kill loses nothing, but drains nothing either"
            );
            return;
        };
        let mut signal = async || {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        signal().await;
        tracing::info!("stopping: finishing what is in flight");
        stop.store(true, Ordering::Relaxed);
        // Some send one signal twice: to the process, and to its group.
        let _one_signal = tokio::time::timeout(ECHO, async {
            loop {
                signal().await
            }
        })
        .await;
        signal().await;
        tracing::warn!("second signal: stopping at once; what was in flight will be read again");
        std::process::exit(1);
    });
}
