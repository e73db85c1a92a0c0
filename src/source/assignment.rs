//! The rebalance protocol, written where it bites: what happens when partitions come and go.
//!
//! - *Assigned*: read from the committed offset; without one from the earliest, because `latest` would skip what was published before us.
//!   An offset that retention has deleted, or past the end, is never skipped quietly.
//! - *Revoked*: finish what is in flight of them, commit, let go. It is the same protocol as at the end of a run.
//! - *Lost*: they may have another owner already; forget them and commit nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dataflows::planted::{Bug, is_planted};
use rdkafka::error::KafkaResult;
use tokio::time::Instant;

use super::client::Client;
use crate::commit::{Committer, Offsets};
use crate::config::OnDataLoss;
use crate::figures::polled::Place;
use crate::ingest::Ingest;
use crate::retry::Backoff;
use crate::shutdown::Abort;

/// How long a rebalance may ask for offsets before it gives up: well within `max.poll.interval.ms`.
const START: Duration = Duration::from_secs(60);

/// How long a revocation waits for a commit that is under way.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// What the poll loop and the client's callbacks share.
pub struct State {
    /// What has been read and is in flight.
    pub ingest: Ingest,
    /// What is durable.
    pub committer: Committer,
    /// Ends the run.
    pub abort: Arc<Abort>,
    on_data_loss: OnDataLoss,
    drain: Duration,
    partitions: BTreeMap<i32, Owned>,
    is_assigned: bool,
    is_leaving: bool,
}

/// A partition that is ours.
#[derive(Clone, Copy, Debug)]
struct Owned {
    start: i64,
    /// The high watermark when it was assigned.
    target: i64,
    reached_end: bool,
}

impl State {
    /// The state of a run before its first assignment. `drain` bounds how long a revocation waits for what is in flight.
    pub fn new(
        ingest: Ingest,
        committer: Committer,
        abort: Arc<Abort>,
        on_data_loss: OnDataLoss,
        drain: Duration,
    ) -> State {
        let partitions = BTreeMap::new();
        let (is_assigned, is_leaving) = (false, false);
        State { ingest, committer, abort, on_data_loss, drain, partitions, is_assigned, is_leaving }
    }

    /// Ends the work of this member: it commits nothing more but what it hands over, and asks for nothing more. Partitions can
    /// still come in while it leaves the group, but the group answers it no questions any more.
    pub fn leave(&mut self) {
        self.committer.close();
        self.is_leaving = true;
    }

    /// Whether the member is leaving the group.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// Notes that everything there is of a partition has been read.
    pub fn reached_end(&mut self, partition: i32) {
        if let Some(owned) = self.partitions.get_mut(&partition) {
            owned.reached_end = true;
        }
    }

    /// Whether all that was there when the partitions were assigned has been read.
    pub fn caught_up(&self) -> bool {
        let read_to =
            |partition: &i32| self.ingest.ranges().get(partition).map_or(0, |(_, last)| last + 1);
        let caught_up = |(partition, owned): (&i32, &Owned)| {
            owned.reached_end || owned.start >= owned.target || read_to(partition) >= owned.target
        };
        self.is_assigned && self.partitions.iter().all(caught_up)
    }

    /// How many offsets there were to read when the partitions were assigned.
    pub fn backlog(&self) -> u64 {
        self.partitions
            .values()
            .map(|owned| u64::try_from(owned.target - owned.start).unwrap_or(0))
            .sum()
    }

    /// Takes partitions on, and says where to start in each. Asks patiently: a broker that restarts must not cost us the
    /// assignment.
    ///
    /// # Errors
    ///
    /// The client's, when the broker has not answered for a minute.
    pub fn assigned(
        &mut self,
        client: &impl Client,
        partitions: &[i32],
    ) -> KafkaResult<Vec<(i32, i64)>> {
        self.is_assigned = true;
        let since = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(100));
        let starts = loop {
            match self.starts(client, partitions) {
                Err(error) if since.elapsed() < START && !self.abort.is_raised() => {
                    tracing::warn!(%error, "where to start is not known yet, asking again");
                    client.sleep(backoff.next_wait());
                }
                answer => break answer?,
            }
        };
        self.partitions.extend(&starts);
        if !is_planted(Bug::PauseIsKept) {
            // A partition that went away while it was paused comes back paused: in the client, a pause outlives the assignment.
            client.resume(partitions)?;
        }
        tracing::info!(partitions = %describe(partitions), "assigned");
        Ok(starts.into_iter().map(|(partition, owned)| (partition, owned.start)).collect())
    }

    fn starts(
        &self,
        client: &impl Client,
        partitions: &[i32],
    ) -> KafkaResult<BTreeMap<i32, Owned>> {
        let mut starts = BTreeMap::new();
        for (partition, committed) in client.committed(partitions)? {
            self.ingest.turn();
            let (low, high) = client.watermarks(partition)?;
            let earliest = if is_planted(Bug::ResetToLatest) { high } else { low };
            let start =
                committed.map_or(earliest, |offset| self.check(partition, offset, low, high));
            starts.insert(partition, Owned { start, target: high, reached_end: false });
        }
        Ok(starts)
    }

    /// Finds the partitions whose next record has gone while they were ours, and goes on with what there is of them, if that is
    /// not a reason to stop. What has been read of them is in flight all the same.
    ///
    /// # Errors
    ///
    /// The client's error when the broker does not say what there is.
    pub fn out_of_range(&mut self, client: &impl Client) -> KafkaResult<()> {
        let (mut all, mut moved) = (Offsets::new(), Offsets::new());
        for (partition, next) in self.next_offsets() {
            let (low, high) = client.watermarks(partition)?;
            let start = self.check(partition, next, low, high);
            all.insert(partition, start);
            if start != next {
                moved.insert(partition, start);
            }
            if next > high {
                // The topic was made again: what is in flight has offsets of the old one.
                self.ingest.forget_range(partition);
                self.committer.forget(partition);
            }
        }
        if moved.is_empty() || self.abort.is_raised() {
            return Ok(());
        }
        client.take_up_anew(&all, &moved)
    }

    /// Reads all partitions from their beginning: the topic was deleted and made again. What is in flight has offsets of the old one.
    ///
    /// # Errors
    ///
    /// The client's error when the broker does not say what there is.
    pub fn made_again(&mut self, client: &impl Client) -> KafkaResult<()> {
        let (mut starts, mut corrected) = (Offsets::new(), Vec::new());
        for (partition, owned) in &mut self.partitions {
            let (low, high) = client.watermarks(*partition)?;
            *owned = Owned { start: low, target: high, reached_end: false };
            starts.insert(*partition, low);
            if self.ingest.ranges().contains_key(partition) {
                // A commit that was under way may have left an offset of the old topic behind.
                corrected.push((*partition, low));
            }
            self.ingest.forget_range(*partition);
            self.committer.forget(*partition);
        }
        tracing::warn!("the topic was deleted and made again; reading it from its beginning");
        self.committer.note(corrected);
        client.take_up_anew(&starts, &starts)
    }

    /// The offset behind what has been read, by partition.
    fn next_offsets(&self) -> Offsets {
        let next = |(partition, owned): (&i32, &Owned)| {
            let read = self.ingest.ranges().get(partition).map(|(_, last)| last + 1);
            (*partition, read.map_or(owned.start, |read| read.max(owned.start)))
        };
        self.partitions.iter().map(next).collect()
    }

    /// Whether the group has given us our partitions, if only none.
    pub fn is_assigned(&self) -> bool {
        self.is_assigned
    }

    /// How far each partition is that is ours.
    pub fn places(&self) -> BTreeMap<i32, Place> {
        let place = |(partition, position)| {
            let Owned { start, target: end, .. } = self.partitions[&partition];
            let committed = self.committer.committed().get(&partition).copied().unwrap_or(start);
            (partition, Place { position, committed, end })
        };
        self.next_offsets().into_iter().map(place).collect()
    }

    /// The partitions that are ours.
    pub fn owned(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    /// The offset to go on from, unless the records there are gone.
    fn check(&self, partition: i32, offset: i64, low: i64, high: i64) -> i64 {
        let (lost, remedy) = if offset < low {
            (low - offset, "were deleted by retention before they were read")
        } else if offset > high {
            (
                offset - high,
                "are missing: the offset to go on from lies past the end of the partition",
            )
        } else {
            return offset;
        };
        let what = format!("partition {partition}: {lost} records {remedy}");
        match self.on_data_loss {
            OnDataLoss::Stop => self.abort.failure(format!(
                "{what}; run.on_data_loss = \"continue\" goes on from the earliest offset, {low}"
            )),
            OnDataLoss::Continue => {
                tracing::error!(partition, lost, "{what}; going on from the earliest offset")
            }
        }
        low
    }

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

    fn let_go(&mut self, partitions: &[i32]) {
        let had_some = !self.partitions.is_empty();
        for partition in partitions {
            if !is_planted(Bug::CommitRevoked) && !is_planted(Bug::EpochlessTracker) {
                self.ingest.forget(*partition);
            }
            if !is_planted(Bug::CommitRevoked) {
                self.committer.forget(*partition);
            }
            self.partitions.remove(partition);
        }
        if had_some && self.partitions.is_empty() {
            // In the middle of a rebalance: what we get next is not known yet, and so not read.
            self.is_assigned = false;
        }
    }
}

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
    /// Takes it a step further. Returns how long to wait for the workers before the next step; `None` when it is done.
    pub fn turn(&mut self, state: &mut State, client: &impl Client) -> Option<Duration> {
        let wait = Some(Duration::from_millis(10));
        let is_to_finish = !self.is_lost && !state.abort.is_raised();
        if is_to_finish {
            match state.ingest.collect() {
                Ok(offsets) => state.committer.note(offsets),
                Err(imbalance) => {
                    state.abort.failure(imbalance.to_string());
                    return wait;
                }
            }
            if !state.ingest.is_drained() && self.since.elapsed() <= state.drain {
                return wait;
            }
        }
        // What is under way must not be sent after the partitions have changed hands: as a member of the next generation we
        // would be believed.
        let finished = *self.finished.get_or_insert_with(Instant::now);
        if state.committer.is_under_way()
            && finished.elapsed() < UNDER_WAY
            && !state.abort.is_raised()
        {
            return wait;
        }
        if is_to_finish {
            state.committer.commit_now(client, &self.going);
            tracing::info!(partitions = %describe(&self.going), "revoked");
        }
        state.let_go(&self.going);
        None
    }
}

fn describe(partitions: &[i32]) -> String {
    partitions.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}
