//! The poll loop of a replay: partitions that are assigned by hand, each to its end, and no word to
//! the group.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::plan::Plan;
use crate::bulk::Bulk;
use crate::commit::Offsets;
use crate::config::{Config, OnDataLoss};
use crate::ingest::Ingest;
use crate::kafka::{self, METADATA_TIMEOUT};
use crate::lock::lock;
use crate::scan::Stretch;
use crate::shutdown::{Abort, Cause, Grace};
use crate::source::consumer::consumer_config;
use crate::source::{SourceError, is_corrupt, is_missing_topic, is_out_of_range, judge, take_in};

/// How long a poll waits for a record.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long the loop waits for the workers when it may not read on.
const WAIT: Duration = Duration::from_millis(5);

/// How long until partitions are taken up anew that stand still for no reason that can be seen.
const AGAIN: Duration = Duration::from_secs(1);

/// Records that are taken in between two looks at everything else.
const RECORDS_PER_TURN: usize = 1_000;

/// Bytes that are taken in between two looks at what is held: large records are few to a turn.
const BYTES_PER_LOOK: usize = 256 << 10;

/// Chunks that may wait for a worker: enough that none waits for the poll thread, and no more than
/// 16 MiB each.
const CHUNKS_QUEUED_MAX: usize = 64;

/// The Kafka client of a replay.
pub type Reader = BaseConsumer<Context>;

/// What the client says by itself.
#[derive(Clone, Debug)]
pub struct Context {
    topic: String,
    /// Whether somebody has asked for the client's own debug lines.
    debug: bool,
    made_again: Arc<AtomicBool>,
    deleted: Arc<AtomicBool>,
    /// The topic's id, as the client writes it, once it knows.
    topic_id: Arc<Mutex<Option<String>>>,
}

impl Context {
    fn of(config: &Config) -> Context {
        let debug = kafka::is_debugged(&config.kafka);
        Context {
            topic: config.kafka.topic.clone(),
            debug,
            made_again: Arc::default(),
            deleted: Arc::default(),
            topic_id: Arc::default(),
        }
    }

    /// Notes that the topic has been made again.
    pub fn note_another_topic(&self) {
        self.made_again.store(true, Ordering::Relaxed);
    }

    /// Notes that the topic has been deleted.
    pub fn note_deleted(&self) {
        self.deleted.store(true, Ordering::Relaxed);
    }

    /// Whether the topic has gone.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if it has. Where it was made again, what is polled does not count: it is of
    /// the new topic, and may be from its middle.
    pub fn check_topic(&self) -> Result<(), SourceError> {
        let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let topic = || self.topic.clone();
        if is_set(&self.made_again) {
            return Err(SourceError::MadeAgain { topic: topic() });
        }
        if is_set(&self.deleted) {
            return Err(SourceError::Deleted { topic: topic() });
        }
        Ok(())
    }

    /// Whether the topic has gone.
    pub fn is_topic_gone(&self) -> bool {
        self.check_topic().is_err()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if kafka::made_again(message) == Some(&self.topic) {
            self.note_another_topic();
        }
        if let Some(id) = kafka::new_id(message, &self.topic) {
            *lock(&self.topic_id) = Some(id.to_owned());
        }
        kafka::log_what_was_asked(self.debug, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            kafka::complain(&error, reason);
        }
    }
}

impl ConsumerContext for Context {}

/// A reader that is assigned nothing yet. The group's name in its configuration is for access
/// rights alone: it never joins the group, nor commits for it.
///
/// # Errors
///
/// The client's, when `[kafka.properties]` contradict each other.
pub fn reader(config: &Config) -> KafkaResult<Reader> {
    reader_beside(config, &Context::of(config))
}

/// Another reader of the same topic: what one of them notices of it, all of them know.
///
/// # Errors
///
/// The client's, when `[kafka.properties]` contradict each other.
pub fn reader_beside(config: &Config, context: &Context) -> KafkaResult<Reader> {
    consumer_config(&config.kafka).create_with_context(context.clone())
}

/// How a replay is going.
pub struct Reading<'a> {
    config: &'a Config,
    reader: &'a Reader,
    plan: Plan,
    /// By partition, the next offset to read.
    next: Offsets,
    /// By partition, the offset below which everything is durable.
    durable: Offsets,
    /// Partitions that have more to read.
    open: Plan,
    /// Those of them that are fetched in bulk, and by whom.
    in_bulk: BTreeSet<i32>,
    bulk: Option<Bulk>,
    /// How long the brokers may be silent before they are taken to be out, and since when they are.
    silence_max: Option<Duration>,
    heard: Instant,
    grace: Grace,
    abort: Arc<Abort>,
}

impl<'a> Reading<'a> {
    /// A replay that has not begun.
    pub fn new(
        config: &'a Config,
        reader: &'a Reader,
        plan: &Plan,
        stop: Arc<AtomicBool>,
        abort: Arc<Abort>,
    ) -> Reading<'a> {
        let starts: Offsets = plan.iter().map(|(partition, it)| (*partition, it.from)).collect();
        let mut open = plan.clone();
        open.retain(|_, stretch| stretch.from < stretch.to);
        Reading {
            config,
            reader,
            plan: plan.clone(),
            next: starts.clone(),
            durable: starts,
            open,
            in_bulk: BTreeSet::new(),
            bulk: None,
            silence_max: None,
            heard: Instant::now(),
            grace: Grace::new(stop, config.run.drain_timeout),
            abort,
        }
    }

    /// Brokers without a record or an end of a partition for so long end it as an outage; else they
    /// are waited for.
    pub fn giving_up_after(self, silence: Duration) -> Reading<'a> {
        Reading { silence_max: Some(silence), ..self }
    }

    /// By partition, the offset to go on from: everything below it is durable.
    pub fn durable(&self) -> &Offsets {
        &self.durable
    }

    /// Whether all that was planned is durable.
    pub fn is_complete(&self) -> bool {
        self.open.is_empty()
    }

    /// How many of the planned offsets have been passed.
    pub fn offsets_read(&self) -> u64 {
        let read = |(partition, stretch): (&i32, &Stretch)| {
            let is_open = self.open.contains_key(partition);
            let left = if is_open { stretch.left_from(self.next[partition]) } else { 0 };
            stretch.left_from(stretch.from) - left
        };
        self.plan.iter().map(read).sum()
    }

    /// What is left of the time that a stop grants.
    pub fn grace_left(&mut self) -> Duration {
        self.grace.left()
    }

    /// Reads to the end, or until it is to stop, and leaves everything that was read durable.
    ///
    /// # Errors
    ///
    /// [`SourceError`]. What [`Reading::durable`] says holds then, too.
    pub fn read(
        &mut self,
        ingest: &mut Ingest,
        on_progress: &mut dyn FnMut(&Reading<'_>, &Ingest),
    ) -> Result<(), SourceError> {
        self.begin_bulk()?;
        self.assign()?;
        self.heard = Instant::now();
        while !self.open.is_empty() && !self.grace.has_begun() {
            self.turn(ingest)?;
            on_progress(self, ingest);
            if is_to_wait(ingest) {
                ingest.wait(WAIT);
                // They were not asked.
                self.heard = Instant::now();
            } else {
                let patience = if self.take_in_bulk(ingest)? { Duration::ZERO } else { PATIENCE };
                self.poll(ingest, patience)?;
                self.check_silence()?;
            }
        }
        self.reader.unassign()?;
        ingest.end();
        while !ingest.is_drained() {
            if self.grace.is_over() {
                return Err(SourceError::Drain(self.grace.granted()));
            }
            ingest.wait(WAIT);
            self.turn(ingest)?;
            on_progress(self, ingest);
        }
        self.durable.clone_from(&self.next);
        Ok(())
    }

    fn turn(&mut self, ingest: &mut Ingest) -> Result<(), SourceError> {
        if let Some(cause) = self.abort.cause() {
            return Err(SourceError::CalledOff(cause));
        }
        self.reader.context().check_topic()?;
        ingest.close_if_due();
        self.durable.extend(ingest.collect()?);
        Ok(())
    }

    fn poll(&mut self, ingest: &mut Ingest, mut patience: Duration) -> Result<(), SourceError> {
        let mut unseen = 0;
        for turn in 0..RECORDS_PER_TURN {
            let polled = self.reader.poll(patience);
            self.reader.context().check_topic()?;
            let Some(polled) = polled else {
                ingest.none_waits();
                return Ok(());
            };
            // Of the first only: a look at the clock takes as long as much of the rest.
            if turn == 0 && polled.is_ok() {
                self.heard = Instant::now();
            }
            patience = Duration::ZERO;
            match polled {
                Ok(message) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(stretch) = self.open.get(&partition) else { continue };
                    if offset < stretch.to {
                        take_in(ingest, &message);
                        self.next.insert(partition, offset + 1);
                        unseen += message.payload_len();
                    }
                    if offset + 1 >= stretch.to {
                        // What lies between the last record and the end is no record.
                        self.next.insert(partition, stretch.to);
                        self.reached_end(partition)?;
                    }
                }
                // Not to the end: behind it there may be a transaction that is open still, and will
                // be there for the next replay.
                Err(KafkaError::PartitionEOF(partition)) => {
                    if !self.is_over(partition)? {
                        return self.take_up_anew();
                    }
                    self.heard = Instant::now();
                    self.reached_end(partition)?;
                }
                Err(error) if is_out_of_range(&error) => self.out_of_range()?,
                // The offsets of the plan are those of a topic that is gone.
                Err(error) if is_missing_topic(&error) => self.reader.context().note_deleted(),
                Err(error) if is_corrupt(&error) => {
                    return Err(corrupt(&error));
                }
                Err(error) => judge(error, self.config)?,
            }
            if self.open.is_empty() {
                return Ok(());
            }
            if unseen >= BYTES_PER_LOOK {
                unseen = 0;
                if is_to_wait(ingest) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether a partition that has come to its end is over. Before its planned end, either there
    /// are no more records in it, or it is another one by now, or nobody tells.
    fn is_over(&self, partition: i32) -> Result<bool, SourceError> {
        let Some(stretch) = self.open.get(&partition) else { return Ok(true) };
        if self.next[&partition] < stretch.to {
            let Some((_, end)) = self.watermarks(partition)? else { return Ok(false) };
            check_end(partition, *stretch, end)?;
        }
        Ok(true)
    }

    /// Where a partition begins and ends; `None` while the brokers are away.
    fn watermarks(&self, partition: i32) -> Result<Option<(i64, i64)>, SourceError> {
        let topic = &self.config.kafka.topic;
        match self.reader.fetch_watermarks(topic, partition, METADATA_TIMEOUT) {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_missing_topic(&error) => {
                self.reader.context().note_deleted();
                self.reader.context().check_topic()?;
                Ok(None)
            }
            Err(error) if error.rdkafka_error_code().is_some_and(kafka::is_away) => {
                tracing::warn!(partition, %error, "kafka: where the partition ends is not known");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Has the client begin once more, after a while, where it stands still. What it had to say of
    /// a partition it says again then.
    fn take_up_anew(&self) -> Result<(), SourceError> {
        std::thread::sleep(AGAIN);
        self.assign()
    }

    fn check_silence(&self) -> Result<(), SourceError> {
        match self.silence_max {
            Some(silence) if self.heard.elapsed() > silence => {
                Err(SourceError::CalledOff(silent_for(silence)))
            }
            _ => Ok(()),
        }
    }

    fn reached_end(&mut self, partition: i32) -> Result<(), SourceError> {
        if self.open.remove(&partition).is_some() {
            let mut done = TopicPartitionList::new();
            done.add_partition(&self.config.kafka.topic, partition);
            // What comes after the end is not fetched either.
            self.reader.pause(&done)?;
        }
        Ok(())
    }

    /// Records that were there when the replay began have been deleted before they were read, or
    /// their partition has been.
    fn out_of_range(&mut self) -> Result<(), SourceError> {
        let mut has_moved = false;
        for (partition, stretch) in &self.open {
            // Nobody tells of the others either.
            let Some((low, end)) = self.watermarks(*partition)? else { break };
            check_end(*partition, *stretch, end)?;
            let next = self.next[partition];
            if next >= low {
                continue;
            }
            let lost = low.min(stretch.to) - next;
            let what = format!(
                "partition {partition}: {lost} records were deleted by retention before they were read"
            );
            if self.config.run.on_data_loss == OnDataLoss::Stop {
                let remedy = "run.on_data_loss = \"continue\" goes on with what there is";
                return Err(SourceError::CalledOff(Cause::Failure(format!("{what}; {remedy}"))));
            }
            tracing::error!(partition, lost, "{what}; going on from the earliest offset");
            self.next.insert(*partition, low);
            has_moved = true;
        }
        if !has_moved {
            // The broker knows better by now, or is away. The client cannot take a partition up
            // anew that it is about to let go.
            return self.take_up_anew();
        }
        self.assign()
    }

    fn assign(&self) -> Result<(), SourceError> {
        let mut list = TopicPartitionList::new();
        for partition in self.open.keys().filter(|it| !self.in_bulk.contains(it)) {
            let next = Offset::Offset(self.next[partition]);
            list.add_partition_offset(&self.config.kafka.topic, *partition, next)?;
        }
        Ok(self.reader.assign(&list)?)
    }
}

/// Ends a replay at records that are corrupt.
fn corrupt(error: &dyn std::fmt::Display) -> SourceError {
    SourceError::CalledOff(Cause::Failure(format!(
        "records are corrupt: {error}; mend the partition, or replay from behind them with --from-offsets"
    )))
}

/// Whether what was read has to get on before there may be more.
fn is_to_wait(ingest: &Ingest) -> bool {
    ingest.is_full() || ingest.chunks_queued() >= CHUNKS_QUEUED_MAX
}

/// The brokers are taken to be out.
pub(super) fn silent_for(silence: Duration) -> Cause {
    Cause::Outage(format!(
        "kafka is out: neither a record nor the end of a partition for {} s; check the brokers",
        silence.as_secs()
    ))
}

/// What comes behind an earlier end some day is another record than what was planned to be read.
fn check_end(partition: i32, stretch: Stretch, end: i64) -> Result<(), SourceError> {
    if end < stretch.to {
        return Err(SourceError::Cut { partition, end, before: stretch.to });
    }
    Ok(())
}

mod bulk;
#[cfg(test)]
mod tests;
