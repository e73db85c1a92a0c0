//! Partitions whose backlog is fetched in bulk: ours, and paused in the client meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::error::KafkaResult;

use super::{EARLIEST, State};
use crate::bulk::{Bulk, Step, Stretch, Why};
use crate::ingest::Ingest;
use crate::source::client::Client;

impl State {
    /// The partitions of which at least so many offsets are to be read up to their end, as far as
    /// `end` tells.
    pub fn backlogs(
        &self,
        offsets_min: i64,
        mut end: impl FnMut(i32) -> Option<i64>,
    ) -> BTreeMap<i32, Stretch> {
        let next = self.next_offsets().into_iter().filter(|(_, next)| *next != EARLIEST);
        next.filter(|(partition, next)| {
            end(*partition).is_some_and(|end| end - next >= offsets_min)
        })
        .map(|(partition, next)| (partition, Stretch { next, to: None }))
        .collect()
    }

    /// Where a partition ended when it was assigned.
    pub fn end_when_assigned(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition)?.target
    }

    /// Whether partitions have come since it was noted last that it was looked at all of them.
    pub fn is_newly_assigned(&self) -> bool {
        self.is_newly_assigned
    }

    /// Notes that it was looked how much there is to read.
    pub fn note_looked_at(&mut self) {
        self.is_newly_assigned = false;
    }

    /// Whether any partition is fetched in bulk.
    pub fn is_in_bulk(&self) -> bool {
        !self.in_bulk.is_empty()
    }

    /// Has the client leave partitions alone that are fetched in bulk from now on.
    ///
    /// # Errors
    ///
    /// The client's.
    pub fn begin_bulk(
        &mut self,
        client: &impl Client,
        partitions: impl Iterator<Item = i32>,
    ) -> KafkaResult<()> {
        self.in_bulk.extend(partitions.map(|partition| (partition, 0)));
        let paused: Vec<i32> = self.in_bulk.keys().copied().collect();
        client.pause(&paused)
    }

    /// Takes in what was fetched in bulk.
    pub fn take_in_bulk(&mut self, bulk: &mut Bulk, patience: Duration) -> Step {
        let State { ingest, partitions, in_bulk, .. } = self;
        let wanted = |ingest: &Ingest, partition| {
            let owned = partitions.get(&partition).filter(|_| in_bulk.contains_key(&partition))?;
            Some(owned.next_offset(partition, ingest)..i64::MAX)
        };
        let step = bulk.step(ingest, patience, wanted, Ingest::epoch_is_full);
        if let Step::Took { partition, end, .. } = step
            && let Some(known) = in_bulk.get_mut(&partition)
        {
            *known = end;
        }
        step
    }

    /// The next offset to read of a partition that is fetched in bulk.
    pub fn next_in_bulk(&self, partition: i32) -> Option<i64> {
        let owned = self.partitions.get(&partition)?;
        self.in_bulk.contains_key(&partition).then(|| owned.next_offset(partition, &self.ingest))
    }

    /// Has the client read on what was fetched in bulk.
    ///
    /// # Errors
    ///
    /// The client's, if it cannot.
    pub fn end_bulk(&mut self, client: &impl Client, partition: i32, why: Why) -> KafkaResult<()> {
        if !self.in_bulk.contains_key(&partition) {
            return Ok(());
        }
        match why {
            Why::CaughtUp => tracing::debug!(partition, "bulk fetch: caught up"),
            Why::Corrupt(why) | Why::Unfit(why) | Why::Trouble(why) => {
                tracing::debug!(partition, why, "bulk fetch: the client goes on");
            }
            Why::Truncated { end } => {
                self.truncated(&format!("partition {partition} was cut at offset {end}"));
                self.given_up();
            }
        }
        self.give_back(client, &[partition])
    }

    /// Has the client read all of them on.
    ///
    /// # Errors
    ///
    /// The client's, if it cannot.
    pub fn end_all_bulk(&mut self, client: &impl Client) -> KafkaResult<()> {
        let all: Vec<i32> = self.in_bulk.keys().copied().collect();
        self.give_back(client, &all)
    }

    fn give_back(&mut self, client: &impl Client, partitions: &[i32]) -> KafkaResult<()> {
        self.in_bulk.retain(|partition, _| !partitions.contains(partition));
        if partitions.is_empty() || client.is_lost() {
            // They are another's already; the client is about to say so.
            return Ok(());
        }
        let mut offsets = self.next_offsets();
        offsets.retain(|partition, _| partitions.contains(partition));
        if let Err(error) = client.go_on_from(&offsets) {
            // One that stands still.
            tracing::debug!(%error, "taken up anew");
            client.take_up_anew(&self.next_offsets(), &offsets)?;
        }
        self.look_soon();
        client.resume(partitions)
    }
}
