//! The topic, read beside the consumer group: how far the group has come, and every record.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use dataflows::record::{Chunk, Position, RawRecord};
use dataflows::reject::Stage;
use dataflows::verify::Beginning;
use rdkafka::message::BorrowedMessage;

use super::VerifyError;
use crate::config::Config;
use crate::dead_letters::Entry;
use crate::progress_bar::Bar;
use crate::scan::{Reader, ScanError, Stretch, Stretches};
use crate::source::{headers_of, record_of};

/// The topic and its dead letters.
pub(super) struct Topic<'a> {
    config: &'a Config,
    reader: Reader,
    whole_topic: bool,
    /// What a repair was refused, as the place and timestamp of its event: as good as a dead
    /// letter, which nobody has written yet.
    refused: Letters,
}

/// Partition, offset and timestamp of records that the database has refused: a topic that was made
/// again can have two for one place.
type Letters = BTreeSet<(i32, i64, i64)>;

/// Events that must have reached their rows: those below these offsets that no dead letter stands
/// for.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Where each partition begins.
    pub(super) beginning: Beginning,
    /// The first offset of each partition that nothing is promised of.
    pub(super) to: BTreeMap<i32, i64>,
    /// Those with a dead letter from the database. Most of them never reached their row, but a
    /// crash between the dead letter and the commit, or a replay, may have tried them again.
    letters: Letters,
}

impl Settled {
    /// Whether what is at that place must have reached its row.
    pub(super) fn has(&self, message: &BorrowedMessage<'_>) -> bool {
        self.has_record(&record_of(message))
    }

    fn has_record(&self, record: &RawRecord<'_>) -> bool {
        let RawRecord { partition, offset, timestamp_ms, stamped_by_topic, .. } = *record;
        // The letter has the first timestamp of a record that was replayed. One of another time is
        // from an earlier topic.
        let times =
            if stamped_by_topic { i64::MIN..=i64::MAX } else { timestamp_ms..=timestamp_ms };
        let letters = (partition, offset, *times.start())..=(partition, offset, *times.end());
        self.is_below(partition, offset) && self.letters.range(letters).next().is_none()
    }

    /// Whether an event at that place is settled, or as old as that.
    pub(super) fn is_below(&self, partition: i32, offset: i64) -> bool {
        self.to.get(&partition).is_some_and(|to| offset < *to)
    }
}

impl<'a> Topic<'a> {
    /// Nothing is read yet. `whole_topic`: also what the group has not committed must have reached
    /// its row.
    pub(super) fn open(config: &'a Config, whole_topic: bool) -> Result<Topic<'a>, VerifyError> {
        let (reader, refused) = (Reader::new(&config.kafka)?, Letters::new());
        Ok(Topic { config, reader, whole_topic, refused })
    }

    /// From now on, that event need not have reached its row: the database refuses it.
    pub(super) fn refuse(&mut self, at: Position) {
        self.refused.insert((at.partition, at.offset, at.timestamp_ms));
    }

    fn name(&self) -> &str {
        &self.config.kafka.topic
    }

    /// How far everything is settled now. Whatever is read of the table after this must hold it.
    pub(super) fn settled(&self) -> Result<Settled, VerifyError> {
        let watermarks = self.reader.watermarks(self.name())?;
        let committed = self.reader.committed(self.name(), watermarks.keys().copied())?;
        // A group without offsets and without members is not behind: the topic has been replayed
        // into the table, or never was.
        let whole_topic = self.whole_topic
            || (committed.is_empty() && self.reader.group_members(&self.config.kafka.group)? == 0);
        let settled = |(partition, stretch): (&i32, &Stretch)| {
            let to = if whole_topic { Some(stretch.to) } else { committed.get(partition).copied() };
            // Committed offsets past the end are those of a topic that was deleted.
            (*partition, to.unwrap_or(stretch.from).clamp(stretch.from, stretch.to))
        };
        Ok(Settled {
            beginning: watermarks.iter().map(|(partition, at)| (*partition, at.from)).collect(),
            to: watermarks.iter().map(settled).collect(),
            // After the offsets: a dead letter is acknowledged before its offset is committed.
            letters: self.letters()?,
        })
    }

    fn letters(&self) -> Result<Letters, VerifyError> {
        let topic = &self.config.dead_letters.topic;
        let mut letters = self.refused.clone();
        self.reader.walk::<ScanError>(topic, &self.reader.everything(topic)?, |message| {
            if let Entry::Letter(letter) = Entry::read(message)
                && letter.stage == Stage::Write.name()
                && letter.origin.topic == self.name()
            {
                let origin = letter.origin;
                letters.insert((origin.partition, origin.offset, origin.timestamp_ms));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(letters)
    }

    /// Where each partition ends now.
    pub(super) fn ends(&self) -> Result<BTreeMap<i32, i64>, VerifyError> {
        let watermarks = self.reader.watermarks(self.name())?;
        Ok(watermarks.into_iter().map(|(partition, stretch)| (partition, stretch.to)).collect())
    }

    /// Shows every record between these offsets to `visit`, with a progress bar.
    pub(super) fn read(
        &self,
        from: &BTreeMap<i32, i64>,
        to: &BTreeMap<i32, i64>,
        stop: &AtomicBool,
        mut visit: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<(), VerifyError> {
        let stretches: Stretches = to
            .iter()
            .map(|(partition, to)| {
                let from = from.get(partition).copied().unwrap_or(0);
                // A group that was set back has nothing new.
                (*partition, Stretch { from, to: from.max(*to) })
            })
            .collect();
        let records = |stretch: &Stretch| stretch.left_from(stretch.from);
        let mut bar = Bar::new("records", stretches.values().map(records).sum());
        let mut read = 0;
        let walked = self.reader.walk::<ScanError>(self.name(), &stretches, |message| {
            visit(message);
            read += 1;
            if read % 1_000 == 0 {
                bar.set(read);
                if stop.load(Ordering::Relaxed) {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        });
        bar.finish();
        walked?;
        if stop.load(Ordering::Relaxed) { Err(VerifyError::Interrupted) } else { Ok(()) }
    }
}

/// Copies a record to the end of a chunk.
pub(super) fn copy(message: &BorrowedMessage<'_>, chunk: &mut Chunk) {
    chunk.push_named(record_of(message), headers_of(message));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_of_a_place_counts_for_the_record_of_its_time() {
        let mut settled = Settled { to: [(0, 10)].into(), ..Settled::default() };
        // The topic was made again: the letters of both lie in one dead-letter topic.
        for timestamp_ms in [1_000, 2_000] {
            settled.letters.insert((0, 4, timestamp_ms));
        }
        let has = |offset, timestamp_ms, stamped_by_topic| {
            let record =
                RawRecord { offset, timestamp_ms, stamped_by_topic, ..RawRecord::default() };
            settled.has_record(&record)
        };
        assert!(!has(4, 1_000, false) && !has(4, 2_000, false), "both have a letter");
        assert!(has(4, 3_000, false), "its time is another's");
        assert!(!has(4, 3_000, true), "its time says nothing of it");
        assert!(has(3, 1_000, false) && has(5, 2_000, true) && !has(10, 1_000, false));
    }
}
