//! The transactional producer behind `replay`: a record and its mark, both or neither.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::{DlqError, Letter, Origin, header, insert_text};
use crate::config::Config;
use crate::lock::lock;
use crate::{headers, kafka};

/// For one step of a transaction. A broker that is there answers in well under a second, and within
/// a few when it has to make its transaction log first.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the brokers keep a transaction open whose producer is gone: nobody reads past it as
/// long.
const TRANSACTION_TIMEOUT_MS: &str = "60000";

/// Far above any topic's limit: it is the broker that decides what it takes.
const MESSAGE_BYTES_MAX: &str = "100000000";

/// What the user's properties may say otherwise: a broker holds a batch, not a record, against the
/// topic's limit.
const UNLESS_ASKED: [(&str, &str); 1] = [("batch.size", "16384")];

/// Often enough that a full queue drains.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The original record of a dead letter.
pub(super) struct Outgoing {
    pub(super) letter: Letter,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    own_headers: OwnedHeaders,
    /// Where it is published, unless the key decides.
    partition: Option<i32>,
}

impl Outgoing {
    /// Copies key, value and own headers from `message`, which is the dead letter or the record
    /// itself. A header that cannot be read is left out.
    pub(super) fn new(
        letter: Letter,
        message: &BorrowedMessage<'_>,
        partition: Option<i32>,
    ) -> Outgoing {
        let own = headers::of(message).flatten().filter(|header| !header::is_added(header.key));
        Outgoing {
            letter,
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            own_headers: own.fold(OwnedHeaders::new(), OwnedHeaders::insert),
            partition,
        }
    }

    /// The size of key and value.
    pub(super) fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }

    /// The record as it was, but for two headers: how often it was replayed, and when it was first
    /// published.
    fn record(&self) -> BaseRecord<'_, [u8], [u8]> {
        let Letter { origin, replays, .. } = &self.letter;
        let headers =
            insert_text(self.own_headers.clone(), header::REPLAYS, &(replays + 1).to_string());
        let headers = insert_text(headers, header::TIMESTAMP, &origin.timestamp_ms.to_string());
        // The client takes 0 for "now", which would make the oldest record the newest.
        let timestamp_ms = if origin.timestamp_ms == 0 { 1 } else { origin.timestamp_ms };
        let mut record = BaseRecord::to(&origin.topic).headers(headers).timestamp(timestamp_ms);
        record.key = self.key.as_deref();
        record.payload = self.value.as_deref();
        record.partition = self.partition;
        record
    }

    /// The mark. It stands in its dead letter's partition, behind it, so that retention never
    /// deletes it first.
    fn mark<'a>(&self, dead_letters: &'a str, now: &str) -> BaseRecord<'a, [u8], [u8]> {
        let Origin { topic, partition, offset, timestamp_ms } = &self.letter.origin;
        let named = [
            (header::TOPIC, topic.clone()),
            (header::PARTITION, partition.to_string()),
            (header::OFFSET, offset.to_string()),
            (header::TIMESTAMP, timestamp_ms.to_string()),
            (header::REPLAYED, now.to_owned()),
        ];
        let headers = named
            .iter()
            .fold(OwnedHeaders::new(), |headers, (name, value)| insert_text(headers, name, value));
        BaseRecord::to(dead_letters).headers(headers).partition(self.letter.place.partition)
    }
}

/// Why a batch was not published. Its transaction is undone in any case.
pub(super) enum NotSent {
    /// A record was refused; another one might not be.
    Refused(String),
    /// Nothing more can be published.
    Failed(DlqError),
}

pub(super) struct Outbox {
    producer: BaseProducer<Deliveries>,
    deliveries: Deliveries,
    dead_letters: String,
}

impl Outbox {
    /// Claims the dead letters of a topic for replaying. Another replay of the same topic can
    /// commit nothing from now on.
    pub(super) fn claim(config: &Config) -> Result<Outbox, DlqError> {
        let dead_letters = config.dead_letters.topic.clone();
        let mut client = kafka::client_config(&config.kafka);
        client.set("transactional.id", format!("{dead_letters}.replay"));
        client.set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS);
        // Within the transaction's. It has another name, and the client would take either.
        client.remove("delivery.timeout.ms");
        client.set("message.timeout.ms", STEP_TIMEOUT.as_millis().to_string());
        client.set("message.max.bytes", MESSAGE_BYTES_MAX);
        kafka::set_unless_asked(&mut client, &config.kafka, &UNLESS_ASKED);
        let deliveries = Deliveries::default();
        let producer: BaseProducer<_> =
            client.create_with_context(deliveries.clone()).map_err(kafka::creation_error)?;
        producer.init_transactions(STEP_TIMEOUT).map_err(|source| DlqError::Transaction {
            what: "cannot begin to replay",
            source,
            remedy: "check the brokers, and that this user may write with the transactional id \
                     that is the dead-letter topic's name with .replay after it",
        })?;
        Ok(Outbox { producer, deliveries, dead_letters })
    }

    /// Publishes records with their marks in one transaction, and waits for its commit.
    pub(super) fn publish(&self, batch: &[Outgoing]) -> Result<(), NotSent> {
        self.deliveries.forget();
        self.producer
            .begin_transaction()
            .map_err(|source| failed("cannot begin a transaction", source))?;
        let sent = self.send_all(batch).and_then(|()| self.commit());
        let Err(error) = sent else { return Ok(()) };
        let refusal = self.deliveries.refusal().or_else(|| refusal_of(&error));
        let aborted = self.producer.abort_transaction(STEP_TIMEOUT);
        match (refusal, aborted) {
            (Some(code), Ok(())) => Err(NotSent::Refused(code.to_string())),
            (_, Err(source)) => Err(failed("a transaction could not be undone", source)),
            (None, Ok(())) => Err(failed("a transaction could not be committed", error)),
        }
    }

    fn send_all(&self, batch: &[Outgoing]) -> Result<(), KafkaError> {
        let now = jiff::Timestamp::now().as_millisecond().to_string();
        for outgoing in batch {
            self.send(outgoing.record())?;
            self.send(outgoing.mark(&self.dead_letters, &now))?;
        }
        Ok(())
    }

    fn send(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<(), KafkaError> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(POLL_INTERVAL);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Asked again where the client says that this may help: a commit that had succeeded is
    /// answered the same way.
    fn commit(&self) -> Result<(), KafkaError> {
        match self.producer.commit_transaction(STEP_TIMEOUT) {
            Err(KafkaError::Transaction(error)) if error.is_retriable() => {
                self.producer.commit_transaction(STEP_TIMEOUT)
            }
            result => result,
        }
    }
}

fn failed(what: &'static str, source: KafkaError) -> NotSent {
    let code = source.rdkafka_error_code();
    let fenced = matches!(code, Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced));
    let remedy = if fenced {
        "another replay of the same dead letters has begun and takes what is left"
    } else {
        "what was committed is remembered: run the command again when the brokers are well"
    };
    NotSent::Failed(DlqError::Transaction { what, source, remedy })
}

/// Codes that say something about one record or one topic, not about the brokers.
fn refusal_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    error.rdkafka_error_code().filter(|code| is_refusal(*code))
}

fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
    )
}

/// Remembers why a record was refused: the transaction itself only says that it must be undone.
#[derive(Clone, Default)]
struct Deliveries(Arc<Mutex<Option<RDKafkaErrorCode>>>);

impl Deliveries {
    fn forget(&self) {
        *lock(&self.0) = None;
    }

    fn refusal(&self) -> Option<RDKafkaErrorCode> {
        *lock(&self.0)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        crate::kafka::complain(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result
            && let Some(code) = refusal_of(error)
        {
            *lock(&self.0) = Some(code);
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("dead_letters", &self.dead_letters).finish_non_exhaustive()
    }
}
