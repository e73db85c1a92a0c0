//! Partitions that stand still: the client has given them up, because their next record is not
//! there, or is taken to have done so.

use std::time::Duration;

use rdkafka::error::KafkaResult;
use tokio::time::Instant;

use super::{EARLIEST, Owned, START, State, There, what_there_is};
use crate::commit::Offsets;
use crate::config::OnDataLoss;
use crate::source::client::Client;

/// How long partitions that stand still are left alone between two looks at them.
pub(super) const AGAIN: Duration = Duration::from_secs(10);

/// How long nothing is done about partitions that are being taken away.
pub(super) const SHORTLY: Duration = Duration::from_secs(1);

impl State {
    /// Notes that the client has given a partition up, because its next record is not there. Which
    /// one, it does not say.
    pub fn given_up(&mut self) {
        let now = Instant::now();
        self.take_up_at = Some(self.take_up_at.map_or(now, |at| at.min(now)));
    }

    /// Notes that a partition was cut where it had been read already, as the client says: a broker
    /// that had less of it leads it now. What has come in its place since hides that.
    pub fn truncated(&mut self, reason: &str) {
        self.truncated = Some(reason.to_owned());
    }

    /// Goes on with partitions whose next record was not there. Where it has gone, with what there
    /// is, if that is not a reason to stop. What has been read of them is in flight all the same.
    ///
    /// # Errors
    ///
    /// The client's error when it cannot go on from there.
    pub(super) fn take_up(&mut self, client: &impl Client) -> KafkaResult<()> {
        self.end_all_bulk(client)?;
        let since = Instant::now();
        let (mut all, mut moved) = (self.next_offsets(), Offsets::new());
        let truncated = self.truncated.take();
        if all.is_empty() {
            return Ok(());
        }
        for (partition, next) in all.clone() {
            let Some(there) = self.what_there_is(client, partition, next, since) else {
                // If others have moved, it may be the one that was given up, and is left so.
                self.look_soon();
                continue;
            };
            let start = self.check(partition, next, there);
            if next > there.end {
                // The topic was made again: what is in flight has offsets of the old one.
                self.ingest.forget_range(partition);
                self.committer.forget(partition);
            }
            if start != next {
                self.partitions.entry(partition).and_modify(|owned| owned.start = start);
                all.insert(partition, start);
                moved.insert(partition, start);
            }
        }
        if moved.is_empty() {
            // As far as anybody knows, there is something again.
            let lately = self.stood_still.filter(|at| at.elapsed() < AGAIN);
            if let Some(reason) = truncated {
                let what = format!(
                    "records that had been read are not in the topic any more, and those in their place are not read: {reason}"
                );
                self.tell_loss(&what, "behind them");
            } else if let Some(at) = lately {
                self.take_up_at = Some(at + AGAIN);
                return Ok(());
            } else {
                self.stood_still = Some(Instant::now());
                tracing::warn!("a partition stands still, and nothing of it has gone: reading on");
            }
            moved.clone_from(&all);
        }
        if self.abort.is_raised() || self.is_put_off(client) {
            return Ok(());
        }
        client.take_up_anew(&all, &moved)
    }

    /// What there is of a partition, unless its leader does not answer or the others have taken too
    /// long.
    fn what_there_is(
        &self,
        client: &impl Client,
        partition: i32,
        offset: i64,
        since: Instant,
    ) -> Option<There> {
        self.ingest.turn();
        let is_time = since.elapsed() < START && !self.is_to_end();
        is_time.then(|| what_there_is(client, partition, offset).ok()).flatten()
    }

    /// Goes on fetching after a pause. The client's word of a partition that it has given up may be
    /// gone with what it had fetched before, so some time later, once all is taken in that it has,
    /// it is looked whether the next record of one is there. The client pauses by itself, too, when
    /// partitions come and go.
    ///
    /// # Errors
    ///
    /// The client's.
    pub fn resume(&mut self, client: &impl Client) -> KafkaResult<()> {
        self.look_soon();
        let mut owned = self.owned();
        owned.retain(|partition| !self.in_bulk.contains_key(partition));
        client.resume(&owned)
    }

    /// Has it looked some time later whether a partition stands still.
    pub(super) fn look_soon(&mut self) {
        self.look_at.get_or_insert_with(|| Instant::now() + AGAIN);
    }

    /// Does what is due by now for partitions that may stand still.
    ///
    /// # Errors
    ///
    /// The client's.
    pub fn tend(&mut self, client: &impl Client) -> KafkaResult<()> {
        let more_waits = self.ingest.more_waits();
        // What the client still has may have gone from the topic, and is not lost. But a partition
        // that was given up does not wait for as long as there is something of others.
        let patience = if more_waits { AGAIN } else { Duration::ZERO };
        let is_due = |at: &mut Instant, patience| *at + patience <= Instant::now();
        let is_to_take_up = self.take_up_at.take_if(|at| is_due(at, patience)).is_some();
        let is_to_look =
            !more_waits && self.look_at.take_if(|at| is_due(at, Duration::ZERO)).is_some();
        if (is_to_take_up || (is_to_look && self.is_one_out_of_range(client)))
            && !self.is_put_off(client)
        {
            return self.take_up(client);
        }
        Ok(())
    }

    /// Puts off what is to be done about partitions while they are being taken away: some are
    /// another's already, and the client would take it for our consent.
    fn is_put_off(&mut self, client: &impl Client) -> bool {
        let is_lost = client.is_lost();
        if is_lost {
            self.take_up_at = Some(Instant::now() + SHORTLY);
        }
        is_lost
    }

    fn is_one_out_of_range(&self, client: &impl Client) -> bool {
        let since = Instant::now();
        let known = self.next_offsets().into_iter().filter(|(_, next)| *next != EARLIEST);
        // One leader that does not answer has kept everybody waiting long enough.
        let mut told = known.map_while(|(partition, next)| {
            let there = self.what_there_is(client, partition, next, since)?;
            Some(next < there.low || next > there.end)
        });
        told.any(|is_out_of_range| is_out_of_range)
    }

    /// Reads all partitions from their beginning: the topic was deleted and made again. What is in
    /// flight has offsets of the old one.
    ///
    /// # Errors
    ///
    /// The client's error when the broker does not say what there is.
    pub fn made_again(&mut self, client: &impl Client) -> KafkaResult<()> {
        // All of them first: whoever is asked once more is to find everything as it was.
        let ask = |partition: &i32| {
            self.ingest.turn();
            Ok((*partition, client.watermarks(*partition)?))
        };
        let there: Vec<_> = self.partitions.keys().map(ask).collect::<KafkaResult<_>>()?;
        self.end_all_bulk(client)?;
        let (mut starts, mut corrected) = (Offsets::new(), Vec::new());
        for (partition, (low, high)) in there {
            let owned = Owned { start: low, target: Some(high), reached_end: false };
            self.partitions.insert(partition, owned);
            starts.insert(partition, low);
            if self.ingest.ranges().contains_key(&partition) {
                // A commit that was under way may have left an offset of the old topic behind.
                corrected.push((partition, low));
            }
            self.ingest.forget_range(partition);
            self.committer.forget(partition);
        }
        self.truncated = None;
        tracing::warn!("the topic was deleted and made again; reading it from its beginning");
        self.committer.note(corrected);
        client.take_up_anew(&starts, &starts)
    }

    /// The offset to go on from, unless the records there are gone.
    pub(super) fn check(
        &self,
        partition: i32,
        offset: i64,
        There { low, high: _, end }: There,
    ) -> i64 {
        let (lost, remedy) = if offset == EARLIEST {
            return offset;
        } else if offset < low {
            (low - offset, "were deleted by retention before they were read")
        } else if offset > end {
            (
                offset - end,
                "are missing: the offset to go on from lies past the end of the partition",
            )
        } else {
            return offset;
        };
        let from = format!("from the earliest offset, {low}");
        self.tell_loss(&format!("partition {partition}: {lost} records {remedy}"), &from);
        low
    }

    /// Says what is lost, and ends the run for it, unless it is to go on.
    fn tell_loss(&self, what: &str, from: &str) {
        match self.on_data_loss {
            OnDataLoss::Stop => self
                .abort
                .failure(format!("{what}; run.on_data_loss = \"continue\" goes on {from}")),
            OnDataLoss::Continue => tracing::error!("{what}; going on {from}"),
        }
    }
}
