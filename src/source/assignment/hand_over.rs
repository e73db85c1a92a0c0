//! The other half of a rebalance: what is done before partitions are another's.

use std::time::Duration;

use dataflows::planted::{Bug, is_planted};
use tokio::time::Instant;

use super::{State, describe};
use crate::source::client::Client;

/// How long a revocation waits for the commits that it sends, and for one that is under way. The
/// client library joins the group again only when the last of them is answered.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// Letting go of partitions.
#[derive(Debug)]
pub struct HandOver {
    going: Vec<i32>,
    is_lost: bool,
    since: Instant,
    /// When all that was in flight had come through, or was given up.
    finished: Option<Instant>,
}

impl HandOver {
    /// Takes it a step further. Returns how long to wait for the workers before the next step;
    /// `None` when it is done.
    pub fn turn(&mut self, state: &mut State, client: &impl Client) -> Option<Duration> {
        let wait = Some(Duration::from_millis(10));
        self.is_lost |= client.is_lost();
        let is_to_finish = !self.is_lost && !state.abort.is_raised();
        if is_to_finish {
            match state.ingest.collect() {
                Ok(offsets) => state.committer.note(offsets),
                Err(imbalance) => {
                    state.abort.failure(imbalance.to_string());
                    return wait;
                }
            }
            // A stop grants no more because partitions go meanwhile.
            let is_over = state.grace.is_over() || self.since.elapsed() > state.grace.granted();
            if !state.ingest.is_drained() && !is_over {
                return wait;
            }
        }
        // What is under way must not be sent after the partitions have changed hands: as a member
        // of the next generation we would be believed. The commit thread sends, because a
        // coordinator that hangs would keep this one for longer than it may stay away.
        let finished = *self.finished.get_or_insert_with(Instant::now);
        if finished.elapsed() < UNDER_WAY && !state.abort.is_raised() {
            let is_to_wait = if is_to_finish {
                state.committer.tend(true);
                !state.committer.is_even()
            } else {
                state.committer.is_under_way()
            };
            if is_to_wait {
                return wait;
            }
        }
        state.committer.take_back();
        if is_to_finish {
            tracing::info!(partitions = %describe(&self.going), "revoked");
        }
        state.let_go(&self.going);
        None
    }
}

impl State {
    /// Begins to let go of partitions that the group takes away.
    pub fn hand_over(&mut self, client: &impl Client, going: Vec<i32>) -> HandOver {
        let is_lost = client.is_lost();
        if is_lost {
            tracing::warn!(partitions = %describe(&going), "lost: what is in flight of them is not committed");
        } else {
            self.ingest.close_epoch();
        }
        HandOver { going, is_lost, since: Instant::now(), finished: None }
    }

    /// Whether more was read of a partition of ours than is committed.
    fn is_uncommitted(&self, partition: i32) -> bool {
        let Some(owned) = self.partitions.get(&partition) else { return false };
        let committed = self.committer.committed().get(&partition).copied();
        let read = self.ingest.ranges().get(&partition);
        read.is_some_and(|(_first, last)| *last >= committed.unwrap_or(owned.start))
    }

    pub(super) fn let_go(&mut self, partitions: &[i32]) {
        let had_some = !self.partitions.is_empty();
        for partition in partitions {
            self.left_uncommitted |= self.is_uncommitted(*partition);
            if !is_planted(Bug::CommitRevoked) && !is_planted(Bug::EpochlessTracker) {
                self.ingest.forget(*partition);
            }
            if !is_planted(Bug::CommitRevoked) {
                self.committer.forget(*partition);
            }
            self.partitions.remove(partition);
            self.in_bulk.remove(partition);
        }
        self.look_soon();
        if had_some && self.partitions.is_empty() {
            // In the middle of a rebalance: what we get next is not known yet, and so not read.
            self.is_assigned = false;
        }
    }
}
