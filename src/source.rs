//! source: one thread that polls Kafka, feeds the workers, and commits what has come through.
//!
//! Everything that concerns offsets happens on this thread, the rebalance callback included (librdkafka runs it inside `poll`), so there is
//! nothing to race with: a commit is decided where the assignment is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Timestamp};
use rdkafka::types::RDKafkaErrorCode;

use dataflows::record::RawRecord;

use self::assignment::{Assignment, State};
use crate::config::Config;
use crate::headers;
use crate::ingest::Ingest;
use crate::shutdown::{Abort, Cause};

pub mod assignment;

/// How long the ingest may be full before the partitions are paused. Pausing throws away what was fetched ahead, so short waits just wait;
/// but a consumer that does not poll is taken for dead.
const WAIT_BEFORE_PAUSE: Duration = Duration::from_secs(1);

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
        "not drained within {0:?}: what was in flight will be read again; a larger run.drain_timeout_s gives it more time"
    )]
    Drain(Duration),
    /// Somebody called the run off.
    #[error("{}", match .0 { Cause::Outage(message) | Cause::Failure(message) => message })]
    CalledOff(Cause),
}

/// Polls until the end, and leaves everything that was read durable and committed.
///
/// # Errors
///
/// [`SourceError`].
pub fn poll(
    consumer: &BaseConsumer<Assignment>,
    until: &Until,
    config: &Config,
    on_progress: &mut dyn FnMut(&State),
) -> Result<(), SourceError> {
    let assignment = Arc::clone(consumer.context());
    let mut full_since: Option<Instant> = None;
    let mut paused = false;
    loop {
        let (is_full, patience) = {
            let mut state = assignment.state();
            tend(&mut state, &assignment.abort, false)?;
            on_progress(&state);
            if until.stop.load(Ordering::Relaxed) || (until.caught_up && state.caught_up()) {
                break;
            }
            (state.ingest.is_full(), state.ingest.patience())
        };
        if is_full {
            let since = *full_since.get_or_insert_with(Instant::now);
            if since.elapsed() < WAIT_BEFORE_PAUSE {
                assignment.state().ingest.wait(Duration::from_millis(20));
                continue;
            }
            if !paused {
                tracing::debug!("full for a while: partitions paused, polling goes on");
                paused = true;
            }
            // Again each time: partitions that came in meanwhile are not paused yet.
            consumer.pause(&consumer.assignment()?)?;
        } else {
            full_since = None;
            if std::mem::take(&mut paused) {
                consumer.resume(&consumer.assignment()?)?;
            }
        }
        match consumer.poll(patience) {
            None => {}
            Some(Ok(message)) => take_in(&mut assignment.state().ingest, &message),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                assignment.state().reached_end(partition)
            }
            Some(Err(error)) if is_out_of_range(&error) => assignment.out_of_range(consumer)?,
            Some(Err(error)) => judge(error, config)?,
        }
    }
    drain(consumer, config)
}

/// Stops reading, and waits until everything that was read is durable and committed.
fn drain(consumer: &BaseConsumer<Assignment>, config: &Config) -> Result<(), SourceError> {
    let assignment = Arc::clone(consumer.context());
    let since = Instant::now();
    assignment.state().ingest.end();
    consumer.pause(&consumer.assignment()?)?;
    while !assignment.state().ingest.is_drained() {
        if since.elapsed() > config.run.drain_timeout {
            return Err(SourceError::Drain(config.run.drain_timeout));
        }
        let mut state = assignment.state();
        tend(&mut state, &assignment.abort, false)?;
        state.ingest.wait(Duration::from_millis(5));
        drop(state);
        // Serves callbacks only: a record that comes after the pause is not taken in, and so not committed.
        if let Some(Err(error)) = consumer.poll(Duration::ZERO) {
            judge(error, config)?;
        }
    }
    let since = Instant::now();
    loop {
        let mut state = assignment.state();
        tend(&mut state, &assignment.abort, true)?;
        if state.committer.is_even() || since.elapsed() > LAST_COMMIT {
            return Ok(());
        }
        drop(state);
        if let Some(Err(error)) = consumer.poll(Duration::from_millis(10)) {
            judge(error, config)?;
        }
    }
}

/// Closes epochs, collects what has come through, and commits it.
fn tend(state: &mut State, abort: &Abort, at_once: bool) -> Result<(), SourceError> {
    if let Some(cause) = abort.cause() {
        return Err(SourceError::CalledOff(cause));
    }
    state.ingest.close_if_due();
    let offsets = state.ingest.collect()?;
    state.committer.note(offsets);
    Ok(state.committer.tend(at_once)?)
}

fn take_in(ingest: &mut Ingest, message: &BorrowedMessage<'_>) {
    let (timestamp_ms, stamped_by_topic) = match message.timestamp() {
        Timestamp::NotAvailable => (-1, false),
        Timestamp::CreateTime(ms) => (ms, false),
        Timestamp::LogAppendTime(ms) => (ms, true),
    };
    let record = RawRecord {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms,
        stamped_by_topic,
        key: message.key(),
        value: message.payload(),
    };
    let headers = headers::of(message).map(|header| match header {
        Ok(header) => (header.key.as_bytes(), header.value),
        Err(headers::Unreadable) => (headers::UNREADABLE_NAME, None),
    });
    ingest.push(record, headers);
}

/// Whether a partition stands still because its next record is not there any more.
fn is_out_of_range(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset)
}

/// What an error of the consumer means: most of them pass, some need a person.
fn judge(error: KafkaError, config: &Config) -> Result<(), SourceError> {
    let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
    let code = error.rdkafka_error_code();
    match code {
        _ if fatal => Err(error.into()),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            let topic = &config.kafka.topic;
            tracing::warn!(topic, "the topic does not exist (any more); waiting for it");
            Ok(())
        }
        Some(RDKafkaErrorCode::AutoOffsetReset) => {
            let message = format!(
                "an offset is out of range: {error}; see kafka-consumer-groups --reset-offsets"
            );
            Err(SourceError::CalledOff(Cause::Failure(message)))
        }
        // The client would go on behind it.
        Some(RDKafkaErrorCode::BadMessage) => {
            let message = format!(
                "records are corrupt: {error}; nothing behind them is committed. Mend the partition, or move the group past them \
                 with kafka-consumer-groups --reset-offsets"
            );
            Err(SourceError::CalledOff(Cause::Failure(message)))
        }
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
