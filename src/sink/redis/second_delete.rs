//! second delete: the same DELs once more, `cache.second_delete_after_ms` later, for readers that
//! take no lease.
//!
//! Such a reader can store what it read before our commit after our DEL. If it takes no longer than
//! the delay, the second DEL finds what it has stored. The offset does not wait for it: what is
//! pending lives in memory alone, a stop does it at once before the process leaves, and a crash
//! loses it. Then the time to live of the old value is its bound.
//!
//! One task for the whole process, with a connection of its own.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Connection, Keys};
use crate::config::Cache;
use crate::sink::outage::OutagePolicy;

/// Keys that wait at most: some 20 MB. When there are more, the oldest have their turn before their
/// time, and a lane that brings more of them waits for that. At 20,000 events a second that begins
/// with delays over ten seconds.
const KEYS_MAX: usize = 200_000;

/// Batches on their way from the lanes to the queue, which takes them as they come while it has
/// room.
const BATCHES_UNDER_WAY: usize = 8;

/// Keys that are deleted at once: a cluster that is far away, where each has a DEL of its own, takes
/// long for a batch, and at a stop it is seen by what has been deleted that it answers.
const KEYS_AT_ONCE: usize = 100;

/// Where the lanes leave what they have deleted once.
#[derive(Clone, Debug)]
pub struct SecondDeletes {
    after: Duration,
    patience: Duration,
    requests: mpsc::Sender<Request>,
    /// How many keys were brought and not deleted again yet.
    pending: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Request {
    Delete(Batch),
    /// Everything at once, then say so by dropping this.
    Finish(oneshot::Sender<()>),
}

/// The drafts of one pipeline, and when their second DEL is due.
#[derive(Debug)]
struct Batch {
    due: Instant,
    drafts: Vec<String>,
}

impl SecondDeletes {
    /// Starts the task, if the configuration asks for second deletes.
    pub fn start(runtime: &Handle, config: &Cache, policy: &OutagePolicy) -> Option<SecondDeletes> {
        let after = config.second_delete_after?;
        let (requests, queue) = mpsc::channel(BATCHES_UNDER_WAY);
        let pending = Arc::new(AtomicUsize::new(0));
        let eraser = Eraser { policy: policy.clone(), pending: Arc::clone(&pending) };
        runtime.spawn(eraser.serve(Connection::new(config.clone()), queue));
        Some(SecondDeletes { after, patience: config.timeout, requests, pending })
    }

    /// Notes drafts whose first DEL was answered just now.
    pub async fn note(&self, drafts: &[&str]) {
        let drafts: Vec<String> = drafts.iter().map(|draft| (*draft).to_owned()).collect();
        self.pending.fetch_add(drafts.len(), Ordering::Relaxed);
        let batch = Batch { due: Instant::now() + self.after, drafts };
        // A task that is gone is missed only on the way down.
        let _gone = self.requests.send(Request::Delete(batch)).await.is_err();
    }

    /// Does all that is pending at once. Gives up when the cache has answered nothing for as long as
    /// an answer may take, and in any case after `left`, for a stop has an end.
    pub async fn finish(self, left: Duration) {
        let (done, is_done) = oneshot::channel();
        let finished = async {
            if self.requests.send(Request::Finish(done)).await.is_ok() {
                // It is dropped, not sent: an error is the answer.
                let _dropped = is_done.await.is_err();
            }
        };
        tokio::select! {
            biased;
            () = finished => {}
            () = nothing_falls(&self.pending, self.patience) => {
                let (keys, within) = (self.pending.load(Ordering::Relaxed), self.patience);
                tracing::warn!(keys, ?within, "second deletes given up: no answer from the cache, and we are leaving");
            }
            () = tokio::time::sleep(left) => {
                let (keys, within) = (self.pending.load(Ordering::Relaxed), left);
                tracing::warn!(keys, ?within, "second deletes given up: not finished in time, and we are leaving");
            }
        }
    }
}

/// Until it has not fallen for so long.
async fn nothing_falls(pending: &AtomicUsize, patience: Duration) {
    let mut before = usize::MAX;
    loop {
        let now = pending.load(Ordering::Relaxed);
        if now >= before {
            return;
        }
        before = now;
        tokio::time::sleep(patience).await;
    }
}

struct Eraser {
    policy: OutagePolicy,
    pending: Arc<AtomicUsize>,
}

impl Eraser {
    async fn serve(self, mut keys: impl Keys, mut requests: mpsc::Receiver<Request>) {
        let mut queue = Queue::new(KEYS_MAX);
        loop {
            let due = queue.due();
            if due.is_none() && queue.finish.is_some() {
                return;
            }
            let is_due = tokio::time::sleep_until(due.unwrap_or_else(Instant::now));
            tokio::select! {
                biased;
                () = is_due, if due.is_some() => {
                    let Some(batch) = queue.pop() else { continue };
                    let mut deleting = pin!(self.delete(batch, &mut keys));
                    // A connection that is slow, or away for a moment, keeps no lane waiting while
                    // there is room.
                    loop {
                        tokio::select! {
                            biased;
                            () = &mut deleting => break,
                            Some(request) = requests.recv(), if !queue.is_overfull() => queue.take(request),
                        }
                    }
                }
                request = requests.recv() => match request {
                    Some(request) => queue.take(request),
                    None => return,
                },
            }
        }
    }

    async fn delete(&self, batch: Batch, keys: &mut impl Keys) {
        for drafts in batch.drafts.chunks(KEYS_AT_ONCE) {
            let drafts: Vec<&str> = drafts.iter().map(String::as_str).collect();
            super::delete(keys, &drafts, &self.policy).await;
            self.pending.fetch_sub(drafts.len(), Ordering::Relaxed);
        }
    }
}

/// What is pending, in the order in which it came, which is the order in which it is due.
struct Queue {
    began: Instant,
    keys_max: usize,
    keys: usize,
    batches: VecDeque<Batch>,
    overfull_was_said: bool,
    /// Everything is due. Dropped when it is done.
    finish: Option<oneshot::Sender<()>>,
}

impl Queue {
    fn new(keys_max: usize) -> Queue {
        let began = Instant::now();
        let batches = VecDeque::new();
        Queue { began, keys_max, keys: 0, batches, overfull_was_said: false, finish: None }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Delete(batch) => self.push(batch),
            Request::Finish(done) => self.finish = Some(done),
        }
    }

    fn push(&mut self, batch: Batch) {
        self.keys += batch.drafts.len();
        self.batches.push_back(batch);
        if self.is_overfull() && !self.overfull_was_said {
            self.overfull_was_said = true;
            let keys_max = self.keys_max;
            tracing::warn!(
                keys_max,
                "more second deletes are pending than there is room for: they come before their time"
            );
        }
    }

    fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.keys -= batch.drafts.len();
        Some(batch)
    }

    /// When the next batch is to be deleted.
    fn due(&self) -> Option<Instant> {
        let next = self.batches.front()?;
        let at_once = self.finish.is_some() || self.is_overfull();
        Some(if at_once { self.began } else { next.due })
    }

    fn is_overfull(&self) -> bool {
        self.keys > self.keys_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OnOutage;
    use crate::redis::CacheError;
    use crate::shutdown::Abort;

    /// A cluster that is far away, but well: so long a key.
    struct Distant(Duration);

    impl Keys for Distant {
        async fn delete(&mut self, drafts: &[&str]) -> Result<u64, CacheError> {
            let drafts = u32::try_from(drafts.len()).unwrap();
            tokio::time::sleep(self.0 * drafts).await;
            Ok(0)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn f7_at_a_stop_a_batch_that_takes_long_is_not_given_up_while_it_goes_on() {
        let patience = Duration::from_secs(5);
        let policy = OutagePolicy {
            on_outage: OnOutage::Wait,
            abort: Arc::new(Abort::default()),
            figures: None,
        };
        let (requests, queue) = mpsc::channel(BATCHES_UNDER_WAY);
        let pending = Arc::new(AtomicUsize::new(0));
        let eraser = Eraser { policy, pending: Arc::clone(&pending) };
        let left = Arc::clone(&pending);
        let second = SecondDeletes { after: 100 * patience, patience, requests, pending };
        let drafts: Vec<String> = (0..1_000).map(|number| format!("d{number}")).collect();
        second.note(&drafts.iter().map(String::as_str).collect::<Vec<_>>()).await;

        // Twenty seconds for all of them.
        let erased = eraser.serve(Distant(Duration::from_millis(20)), queue);
        tokio::select! {
            () = second.finish(Duration::from_secs(30)) => {}
            () = async { erased.await; std::future::pending().await } => {}
        }

        assert_eq!(left.load(Ordering::Relaxed), 0);
    }

    fn batch(due: Instant, drafts: &[&str]) -> Batch {
        Batch { due, drafts: drafts.iter().map(|draft| (*draft).to_owned()).collect() }
    }

    #[tokio::test(start_paused = true)]
    async fn f7_at_a_stop_a_cache_that_answers_has_the_time_that_it_takes() {
        let patience = Duration::from_secs(5);
        // Batches of ten keys, each of which takes four seconds, of a cache that dies or does not.
        let finish = async |batches: usize, answered: usize| {
            let (requests, mut queue) = mpsc::channel(1);
            let pending = Arc::new(AtomicUsize::new(10 * batches));
            let left = Arc::clone(&pending);
            let second = SecondDeletes { after: patience, patience, requests, pending };
            let slow = async {
                let done = queue.recv().await;
                for _ in 0..answered {
                    tokio::time::sleep(Duration::from_secs(4)).await;
                    left.fetch_sub(10, Ordering::Relaxed);
                }
                if answered < batches {
                    std::future::pending::<()>().await;
                }
                drop(done);
            };
            let began = Instant::now();
            tokio::select! {
                () = second.finish(Duration::from_secs(30)) => {}
                () = async { slow.await; std::future::pending().await } => {}
            }
            (began.elapsed().as_secs(), left.load(Ordering::Relaxed))
        };
        assert_eq!(finish(6, 6).await, (24, 0), "all of them, long after the patience with one");
        assert_eq!(finish(6, 0).await, (5, 60), "it answers nothing");
        assert_eq!(finish(6, 2).await, (15, 40), "it does not answer any more");
        assert_eq!(finish(60, 60).await, (30, 530), "a stop has an end");
    }

    #[test]
    fn f7_second_deletes_wait_for_their_time_unless_there_is_no_room_or_it_ends() {
        let mut queue = Queue::new(3);
        assert_eq!(queue.due(), None);
        let [first, second] = [10, 20].map(|seconds| Instant::now() + Duration::from_secs(seconds));
        queue.push(batch(first, &["a", "b"]));
        queue.push(batch(second, &["c"]));
        assert_eq!(queue.due(), Some(first));
        queue.push(batch(second, &["d"]));
        assert!(queue.due().unwrap() <= Instant::now(), "four keys are one too many");
        assert_eq!(queue.pop().unwrap().drafts, ["a", "b"]);
        assert_eq!(queue.due(), Some(second));
        assert_eq!(queue.pop().unwrap().drafts, ["c"]);
        assert_eq!(queue.pop().unwrap().drafts, ["d"]);
        assert!(queue.pop().is_none() && queue.keys == 0);

        queue.push(batch(second, &["e"]));
        queue.take(Request::Finish(oneshot::channel().0));
        assert!(queue.due().unwrap() <= Instant::now(), "at once");
    }
}
