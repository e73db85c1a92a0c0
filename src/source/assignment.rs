//! The rebalance protocol, written where it bites: what happens when partitions come and go.
//!
//! - *Assigned*: read from the committed offset; without one from the earliest, because `latest`
//!   would skip what was published before us. An offset that retention has deleted, or past the
//!   end, is never skipped quietly.
//! - *Revoked*: finish what is in flight of them, commit, let go. It is the same protocol as at the
//!   end of a run.
//! - *Lost*: they may have another owner already; forget them and commit nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dataflows::planted::{Bug, is_planted};
use rdkafka::error::{KafkaError, KafkaResult};
use tokio::time::Instant;

use super::client::Client;
use crate::commit::{Committer, Offsets};
use crate::config::{OnDataLoss, OnOutage, Run};
use crate::figures::polled::PartitionProgress;
use crate::ingest::Ingest;
use crate::kafka;
use crate::retry::Backoff;
use crate::shutdown::{Abort, Grace};

/// How long a rebalance asks the leaders for offsets, while nothing is read: longer than one that
/// has gone takes to be replaced.
const START: Duration = Duration::from_secs(15);

/// The start of a partition about which neither the group nor its leader has answered: librdkafka's
/// code for the earliest offset.
pub(super) const EARLIEST: i64 = -2;

/// How often a member without partitions asks how far the group is.
const ASK_GROUP: Duration = Duration::from_secs(2);

/// Where the group stands in each partition, if it has an offset for it.
type Committed = Vec<(i32, Option<i64>)>;

/// What the poll loop and the client's callbacks share.
pub struct State {
    /// What has been read and is in flight.
    pub ingest: Ingest,
    /// What is durable.
    pub committer: Committer,
    /// Ends the run.
    pub abort: Arc<Abort>,
    /// What a stop grants.
    pub grace: Grace,
    on_outage: OnOutage,
    on_data_loss: OnDataLoss,
    partitions: BTreeMap<i32, Owned>,
    /// When to take up all partitions anew, because one stands still once more.
    take_up_at: Option<Instant>,
    /// When to look whether the next record of each partition is there.
    look_at: Option<Instant>,
    /// When all partitions were taken up anew, because one stood still of which nothing had gone.
    stood_still: Option<Instant>,
    /// What the client has said of a partition that was cut.
    truncated: Option<String>,
    /// Where each partition of the topic ended when the group was asked first, and when it was
    /// asked last.
    ends: Offsets,
    asked_group: Option<Instant>,
    is_assigned: bool,
    is_leaving: bool,
    /// Partitions that are fetched in bulk, and paused in the client, which then does not hear where
    /// they end: by partition, where that is.
    in_bulk: Offsets,
    /// Whether partitions have come of which nobody has looked how much there is to read.
    is_newly_assigned: bool,
    /// Whether a partition was let go of before all that was read of it was committed.
    left_uncommitted: bool,
}

/// A partition that is ours.
#[derive(Clone, Copy, Debug)]
struct Owned {
    /// An offset, or [`EARLIEST`].
    start: i64,
    /// The high watermark when it was assigned, if its leader has told.
    target: Option<i64>,
    reached_end: bool,
}

impl Owned {
    /// The offset behind what has been read.
    fn next_offset(&self, partition: i32, ingest: &Ingest) -> i64 {
        let read = ingest.ranges().get(&partition).map(|(_, last)| last + 1);
        read.map_or(self.start, |read| read.max(self.start))
    }
}

/// What there is of a partition.
#[derive(Clone, Copy, Debug)]
struct There {
    /// The first offset.
    low: i64,
    /// Where what can be read ends: a transaction that is open is not read yet.
    high: i64,
    /// The offset that the next record will have.
    end: i64,
}

/// What there is of a partition that is to be read from an offset on. That of a group which was set
/// to the end lies behind the transactions that were open then, and past no end.
fn what_there_is(client: &impl Client, partition: i32, offset: i64) -> KafkaResult<There> {
    let (low, high) = client.watermarks(partition)?;
    let end = if offset > high { client.end(partition)?.max(high) } else { high };
    Ok(There { low, high, end })
}

impl State {
    /// The state of a run before its first assignment. `stop` is set by a signal.
    pub fn new(
        ingest: Ingest,
        committer: Committer,
        abort: Arc<Abort>,
        stop: Arc<AtomicBool>,
        run: &Run,
    ) -> State {
        let (on_outage, on_data_loss) = (run.on_outage, run.on_data_loss);
        let partitions = BTreeMap::new();
        let (is_assigned, is_leaving) = (false, false);
        State {
            ingest,
            committer,
            abort,
            grace: Grace::new(stop, run.drain_timeout),
            on_outage,
            on_data_loss,
            partitions,
            take_up_at: None,
            look_at: None,
            stood_still: None,
            truncated: None,
            ends: Offsets::new(),
            asked_group: None,
            is_assigned,
            is_leaving,
            in_bulk: Offsets::new(),
            is_newly_assigned: false,
            left_uncommitted: false,
        }
    }

    /// Notes that nothing more is read.
    pub fn end_reading(&mut self) {
        self.ingest.end();
        // Whatever was let go of until now has gone on elsewhere, or here.
        self.left_uncommitted = false;
    }

    /// Whether all that had been read when reading ended is committed, of the partitions that have
    /// been let go of since as well.
    pub fn is_committed(&self) -> bool {
        self.committer.is_even() && !self.left_uncommitted
    }

    /// Ends the work of this member: it commits nothing more, and asks for nothing more. Partitions
    /// can still come in while it leaves the group, but the group answers it no questions any more.
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

    /// Whether all that was there when the partitions were assigned has been read. A member without
    /// partitions may get some as soon as others have let go of them: for it, all that there was
    /// must have been committed by the group.
    pub fn caught_up(&mut self, client: &impl Client) -> bool {
        if self.is_assigned && self.partitions.is_empty() {
            return self.group_caught_up(client);
        }
        let read_to =
            |partition: &i32| self.ingest.ranges().get(partition).map_or(0, |(_, last)| last + 1);
        let caught_up = |(partition, owned): (&i32, &Owned)| {
            let is_there = |target| owned.start >= target || read_to(partition) >= target;
            owned.reached_end || owned.target.is_some_and(is_there)
        };
        self.is_assigned && self.partitions.iter().all(caught_up)
    }

    /// Asks the group, if it is time; no answer is a no.
    fn group_caught_up(&mut self, client: &impl Client) -> bool {
        if self.asked_group.is_some_and(|at| at.elapsed() < ASK_GROUP) {
            return false;
        }
        let caught_up = self.ask_group(client).unwrap_or_else(|error| {
            tracing::warn!(%error, "how far the group is is not known yet, asking again");
            false
        });
        self.asked_group = Some(Instant::now());
        caught_up
    }

    fn ask_group(&mut self, client: &impl Client) -> KafkaResult<bool> {
        if self.ends.is_empty() {
            let end = |partition| {
                self.ingest.turn();
                Ok((partition, client.watermarks(partition)?.1))
            };
            self.ends = client.partitions()?.into_iter().map(end).collect::<KafkaResult<_>>()?;
        }
        let partitions: Vec<i32> = self.ends.keys().copied().collect();
        for (partition, committed) in client.committed(&partitions)? {
            self.ingest.turn();
            let end = self.ends[&partition];
            let is_there = committed.is_some_and(|offset| offset >= end) || end == 0;
            // What is left may be no records, and then nobody ever commits behind it.
            if !is_there && client.has_records(partition, committed, end)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many offsets there were to read when the partitions were assigned.
    pub fn backlog(&self) -> u64 {
        let left = |owned: &Owned| u64::try_from(owned.target? - owned.start).ok();
        self.partitions.values().filter_map(left).sum()
    }

    /// Takes partitions on, and says where to start in each; `None` when the run is to end before
    /// that is known. The coordinator is asked until it answers, unless outages are to end the run;
    /// if that takes longer than `max.poll.interval.ms`, the group assigns them once more. A
    /// partition without a leader begins where the group stands, and holds up no other.
    ///
    /// # Errors
    ///
    /// The client's, where it is no outage.
    pub fn assigned(
        &mut self,
        client: &impl Client,
        partitions: &[i32],
    ) -> KafkaResult<Option<Vec<(i32, i64)>>> {
        let Some(committed) = self.committed(client, partitions)? else { return Ok(None) };
        let starts = self.starts(client, committed);
        self.is_assigned = true;
        self.is_newly_assigned = true;
        for (partition, owned) in &starts {
            self.ingest.rewind(*partition, owned.start);
        }
        self.partitions.extend(&starts);
        if !is_planted(Bug::PauseIsKept) {
            // A partition that went away while it was paused comes back paused: in the client, a
            // pause outlives the assignment.
            client.resume(partitions)?;
        }
        self.look_soon();
        tracing::info!(partitions = %describe(partitions), "assigned");
        Ok(Some(starts.into_iter().map(|(partition, owned)| (partition, owned.start)).collect()))
    }

    /// Where the group stands in each partition.
    fn committed(
        &self,
        client: &impl Client,
        partitions: &[i32],
    ) -> KafkaResult<Option<Committed>> {
        let since = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(100));
        while !self.is_to_end() {
            self.ingest.turn();
            match client.committed(partitions) {
                Err(error) if self.is_worth_asking_again(&error, since) => {
                    tracing::warn!(%error, "where to start is not known yet, asking again");
                    client.sleep(backoff.next_wait());
                }
                Err(error) if is_outage(&error) => {
                    self.abort.outage(format!("kafka is out: {error}; check the brokers"));
                }
                answer => return answer.map(Some),
            }
        }
        Ok(None)
    }

    /// For some time whatever the coordinator says; then while it is away, if that is to be waited
    /// for.
    fn is_worth_asking_again(&self, error: &KafkaError, since: Instant) -> bool {
        since.elapsed() < START || (is_outage(error) && self.on_outage == OnOutage::Wait)
    }

    /// Where to start in each partition, and where it ends now. The leaders are asked for some
    /// time: the partitions that have one are not to wait for those that have none.
    fn starts(&self, client: &impl Client, committed: Committed) -> BTreeMap<i32, Owned> {
        let since = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(100));
        let (mut starts, mut open) = (BTreeMap::new(), committed);
        while !open.is_empty() {
            open.retain(|(partition, committed)| {
                self.ingest.turn();
                let is_time = since.elapsed() < START && !self.is_to_end();
                let ask = || what_there_is(client, *partition, committed.unwrap_or(EARLIEST));
                let owned = match is_time.then(ask) {
                    Some(Ok(there)) => self.within(*partition, *committed, there),
                    Some(Err(error)) => {
                        tracing::warn!(partition, %error, "where it begins is not known yet, asking again");
                        return true;
                    }
                    // If there is nothing any more at that offset, the client will say so.
                    None => Owned {
                        start: committed.unwrap_or(EARLIEST),
                        target: None,
                        reached_end: false,
                    },
                };
                starts.insert(*partition, owned);
                false
            });
            if !open.is_empty() {
                client.sleep(backoff.next_wait());
            }
        }
        starts
    }

    /// A partition of which it is known what there is.
    fn within(&self, partition: i32, committed: Option<i64>, there: There) -> Owned {
        let There { low, high, end: _ } = there;
        let earliest = if is_planted(Bug::ResetToLatest) { high } else { low };
        let start = committed.map_or(earliest, |offset| self.check(partition, offset, there));
        Owned { start, target: Some(high), reached_end: false }
    }

    /// Whether nothing is worth waiting for any more.
    fn is_to_end(&self) -> bool {
        self.grace.has_begun() || self.abort.is_raised()
    }

    /// The offset behind what has been read, by partition.
    fn next_offsets(&self) -> Offsets {
        let next = |(partition, owned): (&i32, &Owned)| {
            (*partition, owned.next_offset(*partition, &self.ingest))
        };
        self.partitions.iter().map(next).collect()
    }

    /// Whether the group has given us our partitions, if only none.
    pub fn is_assigned(&self) -> bool {
        self.is_assigned
    }

    /// How far each partition is that is ours.
    pub fn places(&self) -> BTreeMap<i32, PartitionProgress> {
        let place = |(partition, position)| {
            let Owned { start, target, .. } = self.partitions[&partition];
            let committed = self.committer.committed().get(&partition).copied().unwrap_or(start);
            let [position, committed] = [position, committed].map(|it: i64| it.max(0));
            let in_bulk = self.in_bulk.get(&partition).copied();
            let (end, is_in_bulk) = (in_bulk.max(target).unwrap_or(position), in_bulk.is_some());
            (partition, PartitionProgress { position, committed, end, is_in_bulk })
        };
        self.next_offsets().into_iter().map(place).collect()
    }

    /// The partitions that are ours.
    pub fn owned(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }
}

fn is_outage(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(kafka::is_away)
}

fn describe(partitions: &[i32]) -> String {
    partitions.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

mod bulk;
mod hand_over;
mod standstill;
#[cfg(test)]
mod tests;

pub use hand_over::HandOver;
