//! source: one thread that polls Kafka, feeds the workers, and commits what has come through.
//!
//! What is committed is decided on this thread, the rebalance callback included (librdkafka runs it
//! inside `poll`), so there is nothing to race with: the assignment is known where a commit is
//! decided. `commit` only sends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dataflows::record::RawRecord;
use rdkafka::Message;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Timestamp};
use rdkafka::types::RDKafkaErrorCode;
use tokio::time::Instant;

use self::assignment::State;
use self::backlog::Backlog;
use self::client::{Client, KafkaClient};
use crate::config::{Config, OnOutage};
use crate::headers;
use crate::ingest::Ingest;
use crate::shutdown::Cause;

pub mod consumer;
pub mod client;
pub mod assignment;
mod backlog;
mod aside;

/// How long the ingest may be full before the partitions are paused. Pausing throws away what was
/// fetched ahead, so short waits just wait; but a consumer that does not poll is taken for dead.
const WAIT_BEFORE_PAUSE: Duration = Duration::from_secs(1);

/// How many records are polled before the loop looks around, which costs more than a record: some
/// 50 microseconds' worth.
const RUN: usize = 64;

/// How long the last commit may take when the run ends.
const LAST_COMMIT: Duration = Duration::from_secs(10);

/// What ends a run.
#[derive(Debug)]
pub struct Until {
    /// Set by a signal: stop reading, finish what is in flight.
    pub stop: Arc<AtomicBool>,
    /// Stop at the high watermarks seen at the start.
    pub caught_up: bool,
}

/// Why the source gave up. Nothing past what was durable has been committed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The Kafka client is of no use any more.
    #[error("the kafka consumer failed: {0}; start again, it goes on from the committed offsets")]
    Kafka(#[from] KafkaError),
    /// The outcomes do not add up.
    #[error("{0}: this is a defect of the program; nothing of that epoch was committed")]
    Imbalance(#[from] dataflows::ledger::Imbalance),
    /// What was in flight did not come through in time.
    #[error(
        "not drained within {0:?}: what was in flight will be read again; a larger run.drain_timeout_s gives it more time, where no server was away"
    )]
    Drain(Duration),
    /// There can be no more threads.
    #[error("the thread that fetches in bulk cannot be started: {0}")]
    Thread(std::io::Error),
    /// Kafka has not taken the last commit.
    #[error(
        "everything that was read is written, but kafka has not taken its offsets: it will be read again, and recognised"
    )]
    NotCommitted,
    /// A partition has become shorter than it was.
    #[error(
        "partition {partition} ends at offset {end} now, and ended at {before} at the start: the topic was made again, or cut"
    )]
    Cut {
        /// The partition.
        partition: i32,
        /// The offset that the next record will have.
        end: i64,
        /// What that was when reading began.
        before: i64,
    },
    /// What is read now is another topic of the same name.
    #[error(
        "the topic {topic} was deleted and made again while it was read; nothing of the new one was taken in"
    )]
    MadeAgain {
        /// Its name.
        topic: String,
    },
    /// There is nothing more to be read, nor to be gone on with.
    #[error("the topic {topic} was deleted while it was read")]
    Deleted {
        /// Its name.
        topic: String,
    },
    /// Somebody called the run off.
    #[error("{}", match .0 { Cause::Outage(message) | Cause::Failure(message) => message })]
    CalledOff(Cause),
}

impl SourceError {
    /// Whether the offsets that were read belong to a topic that is gone, so that nothing can be
    /// gone on with from them.
    pub fn is_another_topic(&self) -> bool {
        matches!(
            self,
            SourceError::Cut { .. } | SourceError::MadeAgain { .. } | SourceError::Deleted { .. }
        )
    }
}

/// What the poll thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Polls for a record, so long.
    Poll(Duration),
    /// Waits for the workers, so long.
    Wait(Duration),
    /// Waits for the workers, so long, and polls for the sake of the client's callbacks: a record
    /// that comes after all is not taken in, and so not committed.
    Tend(Duration),
    /// Nothing more: everything that was read is durable and committed.
    Done,
}

/// How far the poll loop has come.
#[derive(Debug)]
enum Stage {
    Reading,
    /// Reading has ended; what was read is being finished.
    Draining,
    /// All that was read is durable.
    Committing(Instant),
}

/// The poll loop without its waiting: what to do next, decided from the state.
#[derive(Debug)]
pub struct Source {
    stop: Arc<AtomicBool>,
    stop_when_caught_up: bool,
    stage: Stage,
    full_since: Option<Instant>,
    is_paused: bool,
}

impl Source {
    /// A loop that has not begun.
    pub fn new(until: &Until) -> Source {
        Source {
            stop: Arc::clone(&until.stop),
            stop_when_caught_up: until.caught_up,
            stage: Stage::Reading,
            full_since: None,
            is_paused: false,
        }
    }

    /// Closes epochs, collects what has come through, commits it, and says what to do next.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    pub fn turn(&mut self, state: &mut State, client: &impl Client) -> Result<Turn, SourceError> {
        if let Some(cause) = state.abort.cause() {
            return Err(SourceError::CalledOff(cause));
        }
        // Asked in each turn, because it counts from when the signal was seen first.
        let is_over = state.grace.is_over();
        state.tend(client)?;
        state.ingest.close_if_due();
        let offsets = state.ingest.collect()?;
        state.committer.note(offsets);
        state.committer.tend(matches!(self.stage, Stage::Committing(_)));
        match self.stage {
            Stage::Reading if self.is_to_end(state, client) => {
                state.end_reading();
                client.pause(&state.owned())?;
                self.stage = Stage::Draining;
                Ok(Turn::Tend(Duration::ZERO))
            }
            Stage::Reading => self.read(state, client),
            Stage::Draining if state.ingest.is_drained() => {
                self.stage = Stage::Committing(Instant::now());
                Ok(Turn::Tend(Duration::ZERO))
            }
            Stage::Draining if is_over => Err(SourceError::Drain(state.grace.granted())),
            Stage::Draining => Ok(Turn::Tend(Duration::from_millis(5))),
            Stage::Committing(since)
                if state.committer.is_even() || since.elapsed() > LAST_COMMIT =>
            {
                if state.is_committed() { Ok(Turn::Done) } else { Err(SourceError::NotCommitted) }
            }
            Stage::Committing(_) => Ok(Turn::Tend(Duration::from_millis(5))),
        }
    }

    fn is_to_end(&self, state: &mut State, client: &impl Client) -> bool {
        self.stop.load(Ordering::Relaxed) || (self.stop_when_caught_up && state.caught_up(client))
    }

    /// Reads on, or holds back while too much is in flight.
    fn read(&mut self, state: &mut State, client: &impl Client) -> Result<Turn, SourceError> {
        if state.ingest.is_full() {
            let since = *self.full_since.get_or_insert_with(Instant::now);
            if since.elapsed() < WAIT_BEFORE_PAUSE {
                return Ok(Turn::Wait(Duration::from_millis(20)));
            }
            if !self.is_paused {
                tracing::debug!("full for a while: partitions paused, polling goes on");
                self.is_paused = true;
            }
            // Again each time: partitions that came in meanwhile are not paused yet.
            client.pause(&state.owned())?;
        } else {
            self.full_since = None;
            if std::mem::take(&mut self.is_paused) {
                state.resume(client)?;
            }
        }
        Ok(Turn::Poll(state.ingest.patience()))
    }
}

/// Polls until the end, and leaves everything that was read durable and committed.
///
/// # Errors
///
/// [`SourceError`].
pub fn poll(
    client: &KafkaClient,
    until: &Until,
    config: &Config,
    on_progress: &mut dyn FnMut(&State),
) -> Result<(), SourceError> {
    let context = Arc::clone(client.context());
    let mut source = Source::new(until);
    let mut backlog = Backlog::new(&config.kafka);
    loop {
        let turn = {
            let mut state = context.state();
            let turn = source.turn(&mut state, client)?;
            on_progress(&state);
            if let Turn::Wait(patience) | Turn::Tend(patience) = turn {
                state.ingest.wait(patience);
            }
            turn
        };
        match turn {
            Turn::Poll(patience) => {
                if backlog.tend(client, config)? {
                    read(client, config, Duration::ZERO)?;
                    backlog.read(client, patience)?;
                } else {
                    read(client, config, patience)?;
                }
                check_brokers(client, config)?;
            }
            Turn::Tend(_) => drop(next(client, config, Duration::ZERO)?),
            Turn::Wait(_) => {}
            Turn::Done => return Ok(()),
        }
    }
}

/// Ends the run while no broker is there, if that is asked for.
fn check_brokers(client: &KafkaClient, config: &Config) -> Result<(), SourceError> {
    if config.run.on_outage == OnOutage::Wait {
        return Ok(());
    }
    let Some(error) = client.context().outage(client) else { return Ok(()) };
    let brokers = &config.kafka.brokers;
    let message =
        format!("kafka is out: no broker answers at {brokers}: {error}; start the broker");
    Err(SourceError::CalledOff(Cause::Outage(message)))
}

/// Takes in a run of records: one that comes within the patience, and what has been fetched
/// already.
fn read(client: &KafkaClient, config: &Config, mut patience: Duration) -> Result<(), SourceError> {
    for _ in 0..RUN {
        let asked = (!patience.is_zero()).then(Instant::now);
        let message = next(client, config, patience)?;
        let mut state = client.context().state();
        asked.into_iter().for_each(|asked| state.ingest.idle(asked.elapsed()));
        let Some(message) = message else {
            if client.context().has_called_back.load(Ordering::Relaxed) {
                // Something waits behind that; while a backlog is fetched in bulk, the next look may
                // be an epoch away.
                patience = Duration::ZERO;
                continue;
            }
            break;
        };
        if state.is_in_bulk() && state.next_in_bulk(message.partition()).is_some() {
            // The client had it already when that began.
            continue;
        }
        let ingest = &mut state.ingest;
        take_in(ingest, &message);
        if ingest.epoch_is_full() {
            break;
        }
        patience = Duration::ZERO;
    }
    Ok(())
}

/// The next record, if one comes within the patience, unless it does not count any more. Notes if
/// none waits. The client calls back meanwhile, so the state must not be held.
fn next<'a>(
    client: &'a KafkaClient,
    config: &Config,
    patience: Duration,
) -> Result<Option<BorrowedMessage<'a>>, SourceError> {
    let context = client.context();
    context.has_called_back.store(false, Ordering::Relaxed);
    let polled = client.poll(patience);
    if context.begins_anew(client) {
        return Ok(None);
    }
    match polled {
        Some(Ok(message)) => return Ok(Some(message)),
        // A callback may have taken a record's turn.
        None if context.has_called_back.load(Ordering::Relaxed) => {}
        None => context.state().ingest.none_waits(),
        Some(Err(KafkaError::PartitionEOF(partition))) => context.state().reached_end(partition),
        Some(Err(error)) if is_out_of_range(&error) => context.state().given_up(),
        Some(Err(error)) => judge(error, config)?,
    }
    Ok(None)
}

pub(crate) fn take_in(ingest: &mut Ingest, message: &BorrowedMessage<'_>) {
    ingest.push(record_of(message), headers_of(message));
}

/// A polled record without its headers.
pub(crate) fn record_of<'a>(message: &'a BorrowedMessage<'_>) -> RawRecord<'a> {
    let (timestamp_ms, stamped_by_topic) = match message.timestamp() {
        Timestamp::NotAvailable => (-1, false),
        Timestamp::CreateTime(ms) => (ms, false),
        Timestamp::LogAppendTime(ms) => (ms, true),
    };
    RawRecord {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms,
        stamped_by_topic,
        key: message.key(),
        value: message.payload(),
    }
}

/// Its headers, those with an unreadable name under a name that no reader takes for one.
pub(crate) fn headers_of<'a>(
    message: &'a BorrowedMessage<'_>,
) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
    headers::of(message).map(|header| match header {
        Ok(header) => (header.key.as_bytes(), header.value),
        Err(headers::Unreadable) => (headers::UNREADABLE_NAME, None),
    })
}

/// Whether a partition stands still because its next record is not there any more.
pub(crate) fn is_out_of_range(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset)
}

/// Whether the topic is not there (any more).
pub(crate) fn is_missing_topic(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))
}

/// Whether a batch is not what was written.
pub(crate) fn is_corrupt(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::BadMessage)
}

/// Ends a run at records that are corrupt.
fn corrupt(error: &dyn std::fmt::Display) -> SourceError {
    SourceError::CalledOff(Cause::Failure(format!(
        "records are corrupt: {error}; nothing behind them is committed. Mend the partition, or move the group past them \
         with kafka-consumer-groups --reset-offsets"
    )))
}

/// What an error of the consumer means, but for an offset out of range: most of them pass, some
/// need a person.
pub(crate) fn judge(error: KafkaError, config: &Config) -> Result<(), SourceError> {
    let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
    let code = error.rdkafka_error_code();
    match code {
        _ if fatal => Err(error.into()),
        _ if is_missing_topic(&error) => {
            let topic = &config.kafka.topic;
            tracing::warn!(topic, "the topic does not exist (any more); waiting for it");
            Ok(())
        }
        // The client would go on behind it.
        _ if is_corrupt(&error) => Err(corrupt(&error)),
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::Authentication,
        ) => Err(SourceError::CalledOff(Cause::Failure(format!(
            "kafka refuses access: {error}; check [kafka.properties] and the ACLs"
        )))),
        _ => {
            tracing::warn!(%error, "kafka");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
