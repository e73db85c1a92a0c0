//! What a server is being asked at the moment, so that one that does not answer is noticed long
//! before anybody gives it up.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::lock::lock;

/// How long an answer may take until the server passes for held, milliseconds: batches are answered
/// within a few hundred, and whoever looks wants to know before they wonder.
pub const PATIENCE: Duration = Duration::from_millis(2_000);

/// The calls to one server that are under way or will be repeated.
#[derive(Debug, Default)]
pub struct Calls(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    open: BTreeMap<u64, Open>,
    has_answered: bool,
}

#[derive(Debug)]
struct Open {
    /// When it was asked, this time.
    asked: Instant,
    failed: Option<Failed>,
}

#[derive(Clone, Debug)]
struct Failed {
    since: Instant,
    error: String,
    tries: u32,
    /// When it is asked again; `None` while it is being asked.
    again_at: Option<Instant>,
}

/// How a server is.
#[derive(Clone, Debug, PartialEq)]
pub enum Health {
    /// It has not been asked anything yet.
    Unknown,
    /// It has answered the last time, or has time to answer yet.
    Up,
    /// The work waits for it.
    Held {
        /// For how long already.
        held: Duration,
        /// Why.
        error: String,
        /// How often it was asked in vain.
        tries: u32,
        /// When it is asked again; `None` while it is being asked.
        retry_in: Option<Duration>,
    },
}

/// Names a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId(u64);

impl Calls {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }

    /// The server is asked.
    pub fn ask(&self) -> CallId {
        let mut inner = self.inner();
        inner.next += 1;
        let id = inner.next;
        inner.open.insert(id, Open { asked: Instant::now(), failed: None });
        CallId(id)
    }

    /// It did not answer, or could not do what it was asked; it is asked again after a wait.
    pub fn failed(&self, CallId(id): CallId, error: String, again_in: Duration) {
        let now = Instant::now();
        if let Some(open) = self.inner().open.get_mut(&id) {
            let (since, tries) = match &open.failed {
                Some(before) => (before.since, before.tries + 1),
                None => (open.asked, 1),
            };
            open.failed = Some(Failed { since, error, tries, again_at: Some(now + again_in) });
        }
    }

    /// It is asked again.
    pub fn ask_again(&self, CallId(id): CallId) {
        if let Some(open) = self.inner().open.get_mut(&id) {
            open.asked = Instant::now();
            if let Some(failed) = &mut open.failed {
                failed.again_at = None;
            }
        }
    }

    /// It has answered. Returns how long it took for that.
    pub fn answered(&self, CallId(id): CallId) -> Option<Duration> {
        let mut inner = self.inner();
        inner.has_answered = true;
        inner.open.remove(&id).map(|open| open.asked.elapsed())
    }

    /// Nobody waits for the answer any more.
    pub fn forget(&self, CallId(id): CallId) {
        self.inner().open.remove(&id);
    }

    /// How the server is, if an answer may take so long.
    pub fn health(&self, patience: Duration) -> Health {
        let now = Instant::now();
        let inner = self.inner();
        // The one that has waited longest speaks for all; one that has failed knows why.
        let failed = inner.open.values().filter_map(|open| open.failed.as_ref());
        if let Some(Failed { since, error, tries, again_at }) = failed.min_by_key(|it| it.since) {
            return Health::Held {
                held: now.duration_since(*since),
                error: error.clone(),
                tries: *tries,
                retry_in: again_at.map(|at| at.saturating_duration_since(now)),
            };
        }
        let oldest = inner.open.values().map(|open| now.duration_since(open.asked)).max();
        match oldest {
            Some(held) if held > patience => {
                let error = format!("no answer for {:.1} s", held.as_secs_f64());
                Health::Held { held, error, tries: 0, retry_in: None }
            }
            _ if inner.has_answered => Health::Up,
            _ => Health::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(5);

    #[test]
    fn a_server_that_does_not_answer_is_held_before_anybody_gives_it_up() {
        let calls = Calls::default();
        assert_eq!(calls.health(SOON), Health::Unknown);
        let call = calls.ask();
        std::thread::sleep(2 * SOON);
        let Health::Held { held, error, tries: 0, retry_in: None } = calls.health(SOON) else {
            panic!("{:?}", calls.health(SOON))
        };
        assert!(held > SOON && error == "no answer for 0.0 s", "{error}");
        assert_eq!(calls.health(Duration::from_secs(60)), Health::Unknown, "it has time yet");
        assert!(calls.answered(call).unwrap() >= 2 * SOON);
        assert_eq!(calls.health(SOON), Health::Up);
    }

    #[test]
    fn one_that_has_failed_stays_held_while_it_is_asked_again() {
        let calls = Calls::default();
        let call = calls.ask();
        calls.failed(call, "refused".to_owned(), Duration::from_secs(9));
        let held = |tries_now, waits| match calls.health(SOON) {
            Health::Held { error, tries, retry_in, .. } => {
                assert_eq!(
                    (error.as_str(), tries, retry_in.is_some()),
                    ("refused", tries_now, waits)
                );
            }
            other => panic!("{other:?}"),
        };
        held(1, true);
        calls.ask_again(call);
        held(1, false);
        calls.failed(call, "refused".to_owned(), SOON);
        held(2, true);
        let other = calls.ask();
        calls.answered(other);
        held(2, true);
        calls.forget(call);
        assert_eq!(calls.health(SOON), Health::Up);
    }
}
