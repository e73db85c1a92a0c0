//! What the poll thread tells of itself: a copy, ten times a second at most, so that nobody who
//! looks ever holds it up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dataflows::Epoch;
use dataflows::outcome::Tally;

use super::Figures;
use crate::source::assignment::State;

/// How often it tells at most.
const EVERY: Duration = Duration::from_millis(100);

/// The poll thread at one moment.
#[derive(Clone, Debug, Default)]
pub struct Polled {
    /// Whether the group has given it its partitions, if only none.
    pub is_assigned: bool,
    /// Whether it has been asked to stop.
    pub is_draining: bool,
    /// Records read.
    pub read: u64,
    /// What became of those that are through.
    pub totals: Tally,
    /// The epoch that is being filled.
    pub open: Epoch,
    /// Epochs that are closed and not through.
    pub in_flight: usize,
    /// How many of those there may be.
    pub in_flight_max: usize,
    /// All epochs below this one are through.
    pub done_below: Epoch,
    /// When the oldest epoch that is not through was begun.
    pub oldest_since: Option<tokio::time::Instant>,
    /// How long it was held back by what is behind it.
    pub waited: Duration,
    /// How long it waited for records.
    pub idled: Duration,
    /// Chunks that wait for each worker.
    pub queues: Vec<usize>,
    /// By partition that is ours.
    pub partitions: BTreeMap<i32, PartitionProgress>,
    /// Commits that were answered, and those of them that failed.
    pub commits: (u64, u64),
}

/// How far a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionProgress {
    /// The next offset to read.
    pub position: i64,
    /// The next offset to read after a crash.
    pub committed: i64,
    /// Where it ended when it was assigned, or, while it is fetched in bulk, ends now.
    pub end: i64,
    /// Whether it is fetched in bulk; then the client does not hear where it ends.
    pub is_in_bulk: bool,
}

/// Tells what the poll thread does.
pub struct Teller {
    figures: Arc<Figures>,
    stop: Arc<AtomicBool>,
    in_flight_max: usize,
    last: Option<Instant>,
}

impl Teller {
    /// Tells it to these figures. `stop` says that the run is to end.
    pub fn new(figures: Arc<Figures>, stop: Arc<AtomicBool>, in_flight_max: usize) -> Teller {
        Teller { figures, stop, in_flight_max, last: None }
    }

    /// Tells, if it is time.
    pub fn tell(&mut self, state: &State) {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < EVERY) {
            return;
        }
        let (ingest, committer) = (&state.ingest, &state.committer);
        let polled = Polled {
            is_assigned: state.is_assigned(),
            is_draining: self.stop.load(Ordering::Relaxed),
            read: ingest.read(),
            totals: ingest.totals().clone(),
            open: ingest.epochs_closed(),
            in_flight: ingest.under_way().busy + ingest.under_way().held,
            in_flight_max: self.in_flight_max,
            done_below: ingest.done_below(),
            oldest_since: ingest.oldest_since(),
            waited: ingest.waited(),
            idled: ingest.idled(),
            queues: ingest.queues(),
            partitions: state.places(),
            commits: committer.answers(),
        };
        if self.figures.tell(polled) {
            self.last = Some(now);
        }
    }
}
