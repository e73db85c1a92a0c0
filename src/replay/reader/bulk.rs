//! Partitions of a replay that are fetched in bulk: the client is assigned what is left of them.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use tokio::time::Instant;

use super::{PATIENCE, Reading, corrupt};
use crate::bulk::{self, Bulk, Step, Why, is_plain};
use crate::ingest::Ingest;
use crate::lock::lock;
use crate::scan::Stretch;
use crate::source::SourceError;

/// Lines of its log that the client may have to say before it is asked for records.
const LINES: usize = 1_000;

impl Reading<'_> {
    /// Fetches in bulk, where it is worth it.
    pub(super) fn begin_bulk(&mut self) -> Result<(), SourceError> {
        let kafka = &self.config.kafka;
        let Some(records_min) = kafka.bulk_fetch_min.filter(|_| is_plain(kafka)) else {
            return Ok(());
        };
        let Some(topic_id) = self.topic_id() else { return Ok(()) };
        let stretch = |(partition, stretch): (&i32, &Stretch)| {
            let next = self.next[partition];
            let is_worth_it = stretch.to - next >= records_min;
            is_worth_it.then_some((*partition, bulk::Stretch { next, to: Some(stretch.to) }))
        };
        let stretches: BTreeMap<_, _> = self.open.iter().filter_map(stretch).collect();
        if !stretches.is_empty() {
            self.in_bulk = stretches.keys().copied().collect();
            let bulk = Bulk::start(kafka, &topic_id, &stretches);
            self.bulk = Some(bulk.map_err(SourceError::Thread)?);
        }
        Ok(())
    }

    /// The topic's id, as the client writes it. Its line with that waits since the offsets were
    /// asked for. Nothing is assigned, so there are no records.
    fn topic_id(&self) -> Option<String> {
        let known = || lock(&self.reader.context().topic_id).clone();
        for _ in 0..LINES {
            if known().is_some() {
                break;
            }
            drop(self.reader.poll(Duration::ZERO));
        }
        known()
    }

    /// Takes in what was fetched in bulk. Returns whether anything is.
    pub(super) fn take_in_bulk(&mut self, ingest: &mut Ingest) -> Result<bool, SourceError> {
        let Some(bulk) = &mut self.bulk else { return Ok(false) };
        let (next, open, in_bulk) = (&self.next, &self.open, &self.in_bulk);
        let wanted = |_: &Ingest, partition| {
            let to = open.get(&partition).filter(|_| in_bulk.contains(&partition))?.to;
            Some(next[&partition]..to)
        };
        // What is held is looked at between two steps.
        match bulk.step(ingest, PATIENCE, wanted, |_| false) {
            Step::Nothing => {}
            Step::Took { partition, next, end: _ } => {
                self.heard = Instant::now();
                self.next.insert(partition, next);
            }
            Step::Over { partition, why } => self.end_bulk(partition, &why)?,
            Step::Ended => self.bulk = None,
        }
        Ok(self.bulk.is_some())
    }

    /// Notes that a partition was fetched to its end, or has the client read what is left of it.
    fn end_bulk(&mut self, partition: i32, why: &Why) -> Result<(), SourceError> {
        self.in_bulk.remove(&partition);
        let Some(stretch) = self.open.get(&partition) else { return Ok(()) };
        tracing::debug!(partition, ?why, "bulk fetch is over");
        match why {
            Why::Truncated { end } => {
                let before = self.next[&partition];
                return Err(SourceError::Cut { partition, end: *end, before });
            }
            Why::Corrupt(what) => {
                return Err(corrupt(&format!("partition {partition}: {what}")));
            }
            Why::CaughtUp | Why::Unfit(_) | Why::Trouble(_) => {}
        }
        if self.next[&partition] >= stretch.to {
            return self.reached_end(partition);
        }
        self.assign()
    }
}
