//! What the lanes to one server have done: how long they were at work, with how much, and how often
//! again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::calls::Calls;
use super::histogram::Histogram;
use super::nanos;

use crate::lock::lock;

/// Bounds of how long a server takes for a batch, seconds: from a DEL of one key to the statement
/// timeout.
const CALL_S: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Bounds of how much is in a batch: up to the largest that can be configured.
const BATCH: [f64; 9] = [1.0, 10.0, 100.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 50_000.0];

/// Why something is done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The server was away.
    Outage,
    /// Another transaction was in the way of a statement.
    Contention,
    /// A row was locked, changed under our hands, or did not exist.
    Row,
}

impl Again {
    /// All causes.
    pub const ALL: [Again; 3] = [Again::Outage, Again::Contention, Again::Row];

    /// Its public name.
    pub fn name(self) -> &'static str {
        match self {
            Again::Outage => "outage",
            Again::Contention => "contention",
            Again::Row => "row",
        }
    }

    fn place(self) -> usize {
        match self {
            Again::Outage => 0,
            Again::Contention => 1,
            Again::Row => 2,
        }
    }
}

/// All lanes to one server.
#[derive(Debug)]
pub struct Lanes {
    clocks: Mutex<Vec<Arc<LaneClock>>>,
    waiting: Mutex<Vec<Arc<AtomicU64>>>,
    /// How much is in a batch.
    pub batches: Histogram,
    /// How long the server took for what it was asked, also where it refused.
    pub durations: Histogram,
    again: [AtomicU64; Again::ALL.len()],
    /// What it is being asked.
    pub calls: Calls,
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes {
            clocks: Mutex::default(),
            waiting: Mutex::default(),
            batches: Histogram::new(&BATCH),
            durations: Histogram::new(&CALL_S),
            again: Default::default(),
            calls: Calls::default(),
        }
    }
}

impl Lanes {
    /// Watches one more lane from now on, and how many batches wait for it and those that share its
    /// count.
    pub fn watch(&self, waiting: &Arc<AtomicU64>) -> Arc<LaneClock> {
        let clock = Arc::new(LaneClock::new());
        lock(&self.clocks).push(Arc::clone(&clock));
        let mut all = lock(&self.waiting);
        if !all.iter().any(|known| Arc::ptr_eq(known, waiting)) {
            all.push(Arc::clone(waiting));
        }
        clock
    }

    /// How many lanes there are.
    pub fn count(&self) -> usize {
        lock(&self.clocks).len()
    }

    /// How long all of them together were at work.
    pub fn busy(&self) -> Duration {
        lock(&self.clocks).iter().map(|clock| clock.busy()).sum()
    }

    /// How many batches wait for a lane.
    pub fn waiting(&self) -> u64 {
        lock(&self.waiting).iter().map(|waiting| waiting.load(Ordering::Relaxed)).sum()
    }

    /// Notes that something is done again.
    pub fn note_again(&self, cause: Again) {
        self.again[cause.place()].fetch_add(1, Ordering::Relaxed);
    }

    /// How often something was done again for that cause.
    pub fn again(&self, cause: Again) -> u64 {
        self.again[cause.place()].load(Ordering::Relaxed)
    }
}

/// The time at work of one lane. What goes on at the moment is in it: a lane that hangs is at work.
#[derive(Debug)]
pub struct LaneClock {
    began: Instant,
    busy: AtomicU64,
    /// Nanoseconds after `began`, and one more: 0 is for a lane that waits for a batch.
    since: AtomicU64,
}

impl LaneClock {
    fn new() -> LaneClock {
        LaneClock { began: Instant::now(), busy: AtomicU64::new(0), since: AtomicU64::new(1) }
    }

    /// The lane waits, until the result is dropped: by a batch, or by other work that is due.
    pub fn pause(&self) -> Pause<'_> {
        let since = self.since.swap(0, Ordering::Relaxed);
        if since > 0 {
            let time = (nanos(self.began.elapsed()) + 1).saturating_sub(since);
            self.busy.fetch_add(time, Ordering::Relaxed);
        }
        Pause(self)
    }

    fn busy(&self) -> Duration {
        let since = self.since.load(Ordering::Relaxed);
        let now =
            if since > 0 { (nanos(self.began.elapsed()) + 1).saturating_sub(since) } else { 0 };
        Duration::from_nanos(self.busy.load(Ordering::Relaxed) + now)
    }
}

/// A lane that waits.
#[derive(Debug)]
pub struct Pause<'a>(&'a LaneClock);

impl Pause<'_> {
    /// There is nothing more to come.
    pub fn for_good(self) {
        std::mem::forget(self);
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.since.store(nanos(self.0.began.elapsed()) + 1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_at_work_but_while_it_waits_also_if_it_never_comes_back() {
        let lanes = Lanes::default();
        let waiting = Arc::new(AtomicU64::new(3));
        let clocks = [lanes.watch(&waiting), lanes.watch(&waiting)];
        assert_eq!((lanes.count(), lanes.waiting()), (2, 3), "what two lanes share counts once");
        let (one, two) = (clocks[0].pause(), clocks[1].pause());
        let resting = lanes.busy();
        std::thread::sleep(Duration::from_millis(3));
        assert_eq!(lanes.busy(), resting);
        drop((one, two));
        std::thread::sleep(Duration::from_millis(3));
        assert!(lanes.busy() >= resting + Duration::from_millis(6), "both hang");
        let _waits = clocks[0].pause();
        assert!(lanes.busy() >= resting + Duration::from_millis(6), "it is not forgotten");
        clocks[1].pause().for_good();
        let ended = lanes.busy();
        std::thread::sleep(Duration::from_millis(3));
        assert_eq!(lanes.busy(), ended, "a lane that has ended is not at work");
    }
}
