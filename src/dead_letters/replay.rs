//! `dlq replay`: dead letters become records of their own topic again.
//!
//! Each record and the mark that it was replayed are written in one transaction: either both stand
//! in their topics or neither. So a second replay takes only what is new, wherever the first one
//! died. The transactional id belongs to the dead-letter topic, and it is claimed before the marks
//! are read: a replay that is still running elsewhere can commit nothing after that, and what it
//! had committed is read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::ops::ControlFlow;

use rdkafka::message::{BorrowedMessage, Message};

use super::outbox::{NotSent, Outbox, Outgoing};
use super::{DlqError, Entry, Letter, Origin, Place, REPLAYS_MAX, Which, original};
use crate::config::Config;
use crate::printable::one_line;
use crate::scan::{Reader, Stretch, Stretches};

/// Records in one transaction: few enough that an open transaction never holds back readers for
/// long.
const BATCH_RECORDS_MAX: usize = 500;

/// Bytes in one transaction, by the same reason.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What became of the dead letters that a replay was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Published again.
    pub replayed: u64,
    /// Left alone: published again by an earlier replay.
    pub already: u64,
    /// Left alone: replayed as often as a record may be.
    pub refused: u64,
    /// Could not be published again; the output says why.
    pub failed: u64,
}

impl Replayed {
    /// Whether everything that was asked for is done, now or before. What was refused counts only
    /// where it was asked for by its place.
    pub fn is_success(&self, which: &Which) -> bool {
        let Replayed { replayed: _, already: _, refused, failed } = *self;
        failed == 0 && (refused == 0 || !matches!(which, Which::At(_)))
    }
}

/// Publishes the original records of dead letters to the topics that they came from, each once, and
/// waits until they are committed. What was replayed before is left alone, unless `again`.
///
/// Writes a line for each record that was refused or failed, and a summary.
///
/// # Errors
///
/// When the dead letters cannot be read, or the brokers fail: what was committed until then is
/// remembered, and the same command takes the rest.
pub fn replay(
    config: &Config,
    which: &Which,
    again: bool,
    out: &mut dyn Write,
) -> Result<Replayed, DlqError> {
    let reader = Reader::new(&config.kafka)?;
    let topic = &config.dead_letters.topic;
    // First what says clearly why it fails: a claim would only time out.
    reader.partitions(topic)?;
    let outbox = Outbox::claim(config)?;
    let plan = Plan::read(&reader, topic, which)?;
    if let (Which::At(place), true) = (which, plan.letters.is_empty()) {
        return Err(DlqError::NotThere { place: *place, topic: topic.clone() });
    }
    let mut sum = Replayed::default();
    let selected = plan.select(again, &mut sum, out)?;
    let mut run =
        Run { outbox, reader: Reader::new(&config.kafka)?, partitions: HashMap::new(), sum, out };
    run.publish_all(&reader, topic, &selected)?;
    let Run { sum, out, .. } = run;
    let Replayed { replayed, already, refused, failed } = sum;
    writeln!(
        out,
        "replayed {replayed}, already replayed {already}, refused after {REPLAYS_MAX} replays {refused}, failed {failed}"
    )?;
    Ok(sum)
}

/// The letters that are meant, one for each record, and how often each record has been replayed.
#[derive(Default)]
struct Plan {
    letters: BTreeMap<Place, Letter>,
    marks: HashMap<Origin, u32>,
}

impl Plan {
    fn read(reader: &Reader, topic: &str, which: &Which) -> Result<Plan, DlqError> {
        let mut plan = Plan::default();
        let mut seen = HashSet::new();
        reader.walk::<DlqError>(topic, &reader.everything(topic)?, |message| {
            match Entry::read(message) {
                Entry::Letter(letter) => {
                    if which.takes(&letter) && seen.insert(letter.origin.clone()) {
                        plan.letters.insert(letter.place, letter);
                    }
                }
                Entry::Mark(origin) => {
                    *plan.marks.entry(origin).or_default() += 1;
                }
                Entry::Stranger(place) => tracing::warn!(%place, topic, "not a dead letter"),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(plan)
    }

    fn select(
        self,
        again: bool,
        sum: &mut Replayed,
        out: &mut dyn Write,
    ) -> Result<BTreeMap<Place, Letter>, DlqError> {
        let Plan { letters, marks } = self;
        let mut selected = BTreeMap::new();
        for (place, mut letter) in letters {
            let since = marks.get(&letter.origin).copied().unwrap_or(0);
            if letter.replays < REPLAYS_MAX && since > 0 && !again {
                sum.already += 1;
                continue;
            }
            // Those that it came with, and those of the same letter.
            letter.replays = letter.replays.saturating_add(since);
            if letter.replays >= REPLAYS_MAX {
                sum.refused += 1;
                writeln!(
                    out,
                    "{}: refused, it has been replayed {} times",
                    name(&letter),
                    letter.replays
                )?;
            } else {
                selected.insert(place, letter);
            }
        }
        Ok(selected)
    }
}

struct Run<'a> {
    outbox: Outbox,
    /// A second reader: references are looked up while the first one walks.
    reader: Reader,
    /// How many partitions a topic has, or why that is not known.
    partitions: HashMap<String, Result<usize, String>>,
    sum: Replayed,
    out: &'a mut dyn Write,
}

impl Run<'_> {
    /// Walks the topic a second time, since the first time kept no values, over the stretches that
    /// hold the selection.
    fn publish_all(
        &mut self,
        walker: &Reader,
        topic: &str,
        selected: &BTreeMap<Place, Letter>,
    ) -> Result<(), DlqError> {
        let mut batch: Vec<Outgoing> = Vec::new();
        let mut remaining = selected.len();
        walker.walk::<DlqError>(topic, &stretches(selected), |message| {
            let place = Place { partition: message.partition(), offset: message.offset() };
            let Some(letter) = selected.get(&place) else {
                return Ok(ControlFlow::Continue(()));
            };
            remaining -= 1;
            match self.outgoing(letter, message)? {
                Ok(outgoing) => batch.push(outgoing),
                Err(why) => self.note_failure(letter, &why)?,
            }
            let bytes: usize = batch.iter().map(Outgoing::bytes).sum();
            if batch.len() >= BATCH_RECORDS_MAX || bytes >= BATCH_BYTES_MAX {
                self.publish(std::mem::take(&mut batch))?;
            }
            Ok(if remaining == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        self.publish(batch)
    }

    fn outgoing(
        &mut self,
        letter: &Letter,
        message: &BorrowedMessage<'_>,
    ) -> Result<Result<Outgoing, String>, DlqError> {
        let partitions = match self.partitions_of(&letter.origin.topic)? {
            Ok(partitions) => partitions,
            Err(why) => return Ok(Err(why)),
        };
        let partition =
            usize::try_from(letter.origin.partition).ok().filter(|own| *own < partitions);
        // With fewer partitions than it once had, the topic's own rule decides, by the key.
        let partition = partition.map(|_| letter.origin.partition);
        if letter.is_reference {
            return original::fetch(
                &self.reader,
                letter,
                message.payload().unwrap_or_default(),
                partition,
            );
        }
        Ok(Ok(Outgoing::new(letter.clone(), message, partition)))
    }

    fn partitions_of(&mut self, topic: &str) -> Result<Result<usize, String>, DlqError> {
        if let Some(known) = self.partitions.get(topic) {
            return Ok(known.clone());
        }
        let found = match self.reader.partitions(topic) {
            // Nothing is wrong with the letter.
            Err(error) if error.is_outage() => return Err(error.into()),
            found => found.map_err(|error| error.to_string()),
        };
        self.partitions.insert(topic.to_owned(), found.clone());
        Ok(found)
    }

    /// Publishes a batch in one transaction. If a record of it is refused, each gets a transaction
    /// of its own, so that the others are published nevertheless.
    fn publish(&mut self, batch: Vec<Outgoing>) -> Result<(), DlqError> {
        if batch.is_empty() {
            return Ok(());
        }
        match self.outbox.publish(&batch) {
            Ok(()) => {
                self.sum.replayed += u64::try_from(batch.len()).unwrap_or(u64::MAX);
                Ok(())
            }
            Err(NotSent::Refused(why)) => match <[Outgoing; 1]>::try_from(batch) {
                Ok([single]) => self.note_failure(&single.letter, &why),
                Err(batch) => batch.into_iter().try_for_each(|single| self.publish(vec![single])),
            },
            Err(NotSent::Failed(error)) => {
                writeln!(self.out, "replayed {} before this failed", self.sum.replayed)?;
                Err(error)
            }
        }
    }

    fn note_failure(&mut self, letter: &Letter, why: &str) -> Result<(), DlqError> {
        self.sum.failed += 1;
        writeln!(self.out, "{}: not replayed: {}", name(letter), one_line(why.as_bytes()))?;
        Ok(())
    }
}

/// From the first to the last selected letter of each partition.
fn stretches(selected: &BTreeMap<Place, Letter>) -> Stretches {
    let mut stretches = Stretches::new();
    for Place { partition, offset } in selected.keys() {
        let stretch = stretches.entry(*partition).or_insert(Stretch { from: *offset, to: *offset });
        stretch.to = *offset + 1;
    }
    stretches
}

/// A letter as the output names it.
fn name(letter: &Letter) -> String {
    let Origin { topic, partition, offset, timestamp_ms: _ } = &letter.origin;
    format!("{} ({} {partition}:{offset})", letter.place, one_line(topic.as_bytes()))
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;

    /// What becomes of the letter of a record that came with so many replays, and has been replayed
    /// so often since.
    fn selected(replays: u32, marks: u32, again: bool) -> (Replayed, Option<u32>, String) {
        let origin = Origin { topic: "t".to_owned(), partition: 0, offset: 7, timestamp_ms: 1 };
        let letter = Letter {
            place: Place { partition: 0, offset: 3 },
            origin: origin.clone(),
            reason: "not-json".to_owned(),
            message: String::new(),
            attempts: 0,
            stage: "accept".to_owned(),
            replays,
            is_reference: false,
            written_ms: None,
            size: None,
        };
        let mut plan = Plan { letters: [(letter.place, letter)].into(), ..Plan::default() };
        plan.marks.extend((marks > 0).then_some((origin, marks)));
        let (mut sum, mut out) = (Replayed::default(), Vec::new());
        let selected = plan.select(again, &mut sum, &mut out).unwrap();
        let replays = selected.values().next().map(|letter| letter.replays);
        (sum, replays, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_record_is_replayed_three_times_whoever_insists() {
        for (replays, marks) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)] {
            let (sum, selected, _) = selected(replays, marks, true);
            assert_eq!((sum, selected), (Replayed::default(), Some(replays + marks)));
        }
        for (replays, marks) in [(0, 3), (1, 2), (2, 1), (3, 0), (3, 1)] {
            let (sum, selected, text) = selected(replays, marks, true);
            assert_eq!((sum.refused, selected), (1, None), "{replays} and {marks}");
            assert!(
                text.contains(&format!("has been replayed {} times", replays + marks)),
                "{text}"
            );
        }
    }

    #[test]
    fn brokers_that_do_not_answer_are_no_fault_of_a_letter() {
        let cluster = MockCluster::new(1).unwrap();
        let mut config = Config::default();
        config.kafka.brokers = cluster.bootstrap_servers();
        let outbox = Outbox::claim(&config).unwrap();
        config.kafka.brokers = "127.0.0.1:1".to_owned();
        let (reader, mut out) = (Reader::new(&config.kafka).unwrap(), Vec::new());
        let (partitions, sum) = (HashMap::new(), Replayed::default());
        let mut run = Run { outbox, reader, partitions, sum, out: &mut out };
        assert!(run.partitions_of("t").unwrap_err().is_outage());
        assert!(run.partitions.is_empty(), "it is asked again");
    }

    #[test]
    fn a_record_that_was_replayed_is_left_alone_unless_somebody_insists() {
        for marks in [1, 3] {
            let (sum, selected, text) = selected(0, marks, false);
            assert_eq!((sum.already, sum.refused, selected), (1, 0, None));
            assert_eq!(text, "");
        }
        let (sum, ..) = selected(3, 1, false);
        assert_eq!(sum.refused, 1, "as often as a record may be");
    }
}
