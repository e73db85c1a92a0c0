//! The figures: what the program counts about its own work, for whoever looks: `tune`, the page,
//! the metrics.
//!
//! Counted where it happens, once a batch, a statement or a turn, and never once a record; added up
//! and divided only when somebody asks. Where nobody may ask, nothing is counted.
//!
//! A stage is at work from the moment it has something to do until it waits for more:
//!
//! | stage | at work | its capacity |
//! |---|---|---|
//! | source | while the poll thread is neither held back by what is behind it nor waits for records | one thread |
//! | decode, dedupe, latest | in their operators, by timely's own log | the workers, shared by all that runs on them |
//! | write, invalidate, dead-letter | from a batch to the wait for the next one | the lanes of each |

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::time::{Duration, Instant, SystemTime};

use self::brokers::Brokers;
use self::lanes::Lanes;
use self::letters::Letters;
use self::polled::Polled;
use self::workers::OnWorker;
use histogram::Histogram;

use crate::lock::lock;

pub mod brokers;
pub mod calls;
pub mod histogram;
pub mod lanes;
pub mod letters;
pub mod polled;
pub mod workers;

/// What the effects talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// PostgreSQL, which takes the rows.
    Database,
    /// Redis, where keys are deleted.
    Cache,
    /// The dead-letter topic.
    DeadLetters,
}

impl Server {
    /// All three.
    pub const ALL: [Server; 3] = [Server::Database, Server::Cache, Server::DeadLetters];

    /// Its place among them.
    pub fn place(self) -> usize {
        match self {
            Server::Database => 0,
            Server::Cache => 1,
            Server::DeadLetters => 2,
        }
    }

    /// Its public name among the dependencies: in logs, errors and metrics, and on the page.
    pub fn name(self) -> &'static str {
        match self {
            Server::Database => "postgresql",
            Server::Cache => "redis",
            Server::DeadLetters => "dead-letters",
        }
    }

    /// The public name of what is done to it.
    pub fn effect(self) -> &'static str {
        match self {
            Server::Database => "write",
            Server::Cache => "invalidate",
            Server::DeadLetters => "dead-letter",
        }
    }
}

/// Bounds of the latency from a record's timestamp to the answer to its DEL, seconds: from a quiet
/// pipeline's milliseconds to a backlog.
const LATENCY_S: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 1_800.0, 7_200.0,
];

/// Everything that is counted in one process.
#[derive(Debug)]
pub struct Figures {
    /// When the process began to count.
    pub began: Instant,
    /// The same on the calendar.
    pub started: SystemTime,
    workers: Vec<OnWorker>,
    lanes: [Lanes; 3],
    /// From the record's timestamp to the answer to its DEL.
    pub latency: Histogram,
    /// The newest dead letters.
    pub letters: Letters,
    /// What the Kafka client says of the brokers.
    pub brokers: Brokers,
    polled: Mutex<Polled>,
    /// The turns of the poll thread.
    poll_turns: OnceLock<Arc<AtomicU64>>,
}

impl Figures {
    /// The figures of a process with so many workers.
    pub fn new(workers: usize) -> Figures {
        Figures {
            began: Instant::now(),
            started: SystemTime::now(),
            workers: (0..workers).map(|_| OnWorker::default()).collect(),
            lanes: Server::ALL.map(|_| Lanes::default()),
            latency: Histogram::new(&LATENCY_S),
            letters: Letters::default(),
            brokers: Brokers::default(),
            polled: Mutex::default(),
            poll_turns: OnceLock::new(),
        }
    }

    /// What each worker has done.
    pub fn workers(&self) -> &[OnWorker] {
        &self.workers
    }

    /// What the lanes to a server have done.
    pub fn lanes(&self, server: Server) -> &Lanes {
        &self.lanes[server.place()]
    }

    /// What the poll thread told last.
    pub fn polled(&self) -> MutexGuard<'_, Polled> {
        lock(&self.polled)
    }

    /// Takes in what the poll thread tells, unless somebody is looking just now: it does not wait.
    /// Whether it was taken in.
    pub fn tell(&self, polled: Polled) -> bool {
        let mut told = match self.polled.try_lock() {
            Ok(told) => told,
            Err(TryLockError::Poisoned(told)) => told.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        *told = polled;
        true
    }

    /// Watches the turns of the poll thread. The first call counts.
    pub fn watch_polling(&self, turns: Arc<AtomicU64>) {
        let _is_watched = self.poll_turns.set(turns).is_err();
    }

    /// How many turns the poll thread has taken; `None` before it has begun.
    pub fn poll_turns(&self) -> Option<u64> {
        self.poll_turns.get().map(|turns| turns.load(Ordering::Relaxed))
    }
}

/// Nanoseconds, for a counter that lasts for 584 years of work.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
