//! commit: sends what is durable to the group coordinator, one request at a time, from a thread of
//! its own.
//!
//! Of its own, because a commit to a broker that hangs can block for longer than the poll thread
//! may stay away, and the client library reports nothing back from a commit that does not block. A
//! commit that fails is never an error of the data: the offsets are sent again, or the records are
//! delivered again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use dataflows::ledger::NextOffset;
use rdkafka::error::KafkaResult;
use tokio::time::Instant;

use crate::source::client::Client;

/// How often offsets are committed at most. It bounds what is delivered again after a crash, not
/// what is lost: nothing is.
const INTERVAL: Duration = Duration::from_millis(250);

/// By partition, the next offset to read.
pub type Offsets = BTreeMap<i32, i64>;

/// What is durable, what was sent, and what was answered. The poll thread's end.
#[derive(Debug)]
pub struct Committer {
    durable: Offsets,
    committed: Offsets,
    in_flight: Option<Offsets>,
    last: Instant,
    /// Whether the last commit has failed.
    has_failed: bool,
    requests: Option<Sender<Offsets>>,
    /// The other end of the requests, to take one back.
    taken_back: Receiver<Offsets>,
    answers: Receiver<KafkaResult<()>>,
    answered: (u64, u64),
}

/// The commit thread's end.
#[derive(Debug)]
pub struct Commits {
    /// What is to be committed, one request at a time.
    pub requests: Receiver<Offsets>,
    /// What the coordinator said to it.
    pub answers: Sender<KafkaResult<()>>,
}

/// The thread that commits.
#[derive(Debug)]
pub struct CommitThread {
    thread: JoinHandle<()>,
    /// Is disconnected when the thread ends.
    ended: Receiver<()>,
}

impl CommitThread {
    /// Waits for the end, which comes when the committer is closed and the last commit answered. A
    /// commit that is never answered must not keep the process.
    pub fn finish(self, patience: Duration) {
        if self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
            && self.thread.join().is_err()
        {
            tracing::error!("the commit thread has died");
        }
    }
}

impl Commits {
    /// [`Commits::serve`], on a thread of its own.
    pub fn serve_on_thread(self, client: Arc<impl Client + Send + Sync + 'static>) -> CommitThread {
        let (ends, ended) = bounded(0);
        let thread = std::thread::spawn(move || {
            self.serve(&*client);
            drop::<Sender<()>>(ends);
        });
        CommitThread { thread, ended }
    }

    /// Sends commits and reports their answers, until the committer is closed.
    pub fn serve(&self, client: &impl Client) {
        for offsets in &self.requests {
            if self.answers.send(client.commit(&offsets)).is_err() {
                return;
            }
        }
    }
}

impl Committer {
    /// The two ends.
    pub fn new() -> (Committer, Commits) {
        let (requests_in, requests) = unbounded();
        let (answers_in, answers) = unbounded();
        let committer = Committer {
            durable: Offsets::new(),
            committed: Offsets::new(),
            in_flight: None,
            last: Instant::now(),
            has_failed: false,
            requests: Some(requests_in),
            taken_back: requests.clone(),
            answers,
            answered: (0, 0),
        };
        (committer, Commits { requests, answers: answers_in })
    }

    /// Sends nothing any more, so that the commit thread can end.
    pub fn close(&mut self) {
        self.requests = None;
    }

    /// Notes offsets that have become committable.
    pub fn note(&mut self, offsets: Vec<NextOffset>) {
        self.durable.extend(offsets);
    }

    /// Lets go of a partition that is no longer ours: the broker would accept a commit for it and
    /// move the offset back.
    pub fn forget(&mut self, partition: i32) {
        self.durable.remove(&partition);
        self.committed.remove(&partition);
        if let Some(sent) = &mut self.in_flight {
            sent.remove(&partition);
        }
    }

    /// Takes back what the commit thread has not begun to send, so that it is not sent later.
    pub fn take_back(&mut self) {
        if self.taken_back.try_recv().is_ok() {
            self.in_flight = None;
        }
    }

    /// What the group has acknowledged, by partition.
    pub fn committed(&self) -> &Offsets {
        &self.committed
    }

    /// How many commits were answered, and how many of them had failed.
    pub fn answers(&self) -> (u64, u64) {
        self.answered
    }

    /// Whether everything durable has been committed.
    pub fn is_even(&self) -> bool {
        self.in_flight.is_none() && self.durable == self.committed
    }

    /// Takes in answers, and sends what is durable if the last commit is answered and long enough
    /// ago. `at_once` does not wait for that, unless the last one has failed: the next would be
    /// likely to do so too.
    pub fn tend(&mut self, at_once: bool) {
        if self.is_under_way() || self.durable == self.committed {
            return;
        }
        if (at_once && !self.has_failed) || self.last.elapsed() >= INTERVAL {
            let offsets = self.durable.clone();
            if self.requests.as_ref().is_some_and(|requests| requests.send(offsets).is_ok()) {
                self.in_flight = Some(self.durable.clone());
                self.last = Instant::now();
            }
        }
    }

    /// Takes in the answer to the last commit if there is one. Whether it is still to come.
    pub fn is_under_way(&mut self) -> bool {
        if let Ok(answer) = self.answers.try_recv() {
            let sent = self.in_flight.take();
            self.answered.0 += 1;
            self.answered.1 += u64::from(answer.is_err());
            self.has_failed = answer.is_err();
            match answer {
                Ok(()) => self.committed.extend(sent.unwrap_or_default()),
                Err(error) => tracing::warn!(%error, "offsets not committed, they are sent again"),
            }
        }
        self.in_flight.is_some()
    }
}
