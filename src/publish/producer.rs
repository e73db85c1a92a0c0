//! The idempotent producer, and the count of what it got through.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::PublishError;
use crate::config::Kafka;
use crate::generate::{GeneratedEvent, Headers};
use crate::kafka;
use crate::lock::lock;

/// How long an event may wait for its acknowledgement. A healthy cluster takes milliseconds; a new
/// leader, seconds.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Beyond the client's own limit for an event.
const GRACE: Duration = Duration::from_secs(10);

/// Delivery reports are collected after so many events. One report stands for a whole batch.
const POLL_EVERY: u64 = 256;

/// While the client's queue is full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// How often delivery reports are collected while the next event is not due.
const REPORTS_EVERY: Duration = Duration::from_millis(5);

/// What sets this producer apart from the defaults, and why.
const PROPERTIES: [(&str, &str); 7] = [
    // Acknowledged by all in-sync replicas, in order and once, also after the client's own retries.
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // Batches of some thousand events; a single event is hardly delayed.
    ("linger.ms", "10"),
    // A broker holds a batch, not an event, against the topic's limit: small enough for topics that
    // allow little.
    ("batch.size", "131072"),
    // 64 MiB on the way: some seconds of a slow broker, and no gigabytes of memory.
    ("queue.buffering.max.kbytes", "65536"),
    ("queue.buffering.max.messages", "200000"),
    // The Java client's: all publishers put a draft's events into the same partition.
    ("partitioner", "murmur2_random"),
];

/// One event to publish.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The record's key: the draft's id.
    pub key: &'a str,
    /// The record's value.
    pub value: Option<&'a [u8]>,
    /// The record's headers.
    pub headers: Headers,
    /// The record's timestamp, milliseconds since the epoch.
    pub timestamp_ms: i64,
}

impl<'a> From<&'a GeneratedEvent> for Event<'a> {
    fn from(event: &'a GeneratedEvent) -> Event<'a> {
        let GeneratedEvent { key, value, headers, timestamp_ms, .. } = event;
        Event { key, value: value.as_deref(), headers, timestamp_ms: *timestamp_ms }
    }
}

/// What the brokers have acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Events.
    pub events: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// Publishes to the topic of the configuration.
pub struct Publisher {
    producer: BaseProducer<Deliveries>,
    deliveries: Deliveries,
    topic: String,
    sent: AtomicU64,
}

impl Publisher {
    /// A publisher for an existing topic.
    ///
    /// # Errors
    ///
    /// When no broker answers, the topic does not exist, or a property contradicts another one.
    pub fn new(config: &Kafka) -> Result<Publisher, PublishError> {
        kafka::Admin::new(config)?.partitions(&config.topic, kafka::METADATA_TIMEOUT)?;
        let mut client = kafka::client_config(config);
        kafka::set_unless_asked(&mut client, config, &PROPERTIES);
        let timeout = DELIVERY_TIMEOUT.as_millis().to_string();
        kafka::set_unless_asked(&mut client, config, &[("message.timeout.ms", &timeout)]);
        let deliveries = Deliveries::default();
        let producer =
            client.create_with_context(deliveries.clone()).map_err(kafka::creation_error)?;
        Ok(Publisher { producer, deliveries, topic: config.topic.clone(), sent: AtomicU64::new(0) })
    }

    /// Hands an event to the client. Waits while its queue is full.
    ///
    /// # Errors
    ///
    /// When the client refuses the event, or the brokers have refused one before.
    pub fn send(&self, event: &Event<'_>) -> Result<(), PublishError> {
        let headers = event.headers.iter();
        let headers = headers
            .fold(OwnedHeaders::new_with_capacity(event.headers.len()), |all, (key, value)| {
                all.insert(Header { key, value: Some(*value) })
            });
        let mut record = BaseRecord::to(&self.topic)
            .key(event.key)
            .timestamp(event.timestamp_ms)
            .headers(headers);
        record.payload = event.value;
        while let Err((error, back)) = self.producer.send(record) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(PublishError::Send {
                    source: error,
                    acknowledged: self.deliveries.acknowledged().events,
                });
            }
            record = back;
            self.producer.poll(FULL_QUEUE_PAUSE);
        }
        if self.sent.fetch_add(1, Ordering::Relaxed).is_multiple_of(POLL_EVERY) {
            self.producer.poll(Duration::ZERO);
            self.deliveries.check()?;
        }
        Ok(())
    }

    /// Waits, and collects delivery reports meanwhile. Not in the client's poll, which counts in
    /// milliseconds and spends what is left of one on looks at the clock: at a thousand events a
    /// second, all of the time.
    pub fn idle(&self, pause: Duration) {
        let until = Instant::now() + pause;
        loop {
            self.producer.poll(Duration::ZERO);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(REPORTS_EVERY));
        }
    }

    /// Waits until every event is acknowledged.
    ///
    /// # Errors
    ///
    /// When one is not: with how many failed, how many got through, and why the first one failed.
    pub fn finish(self) -> Result<Acknowledged, PublishError> {
        let deadline = DELIVERY_TIMEOUT + GRACE;
        let flushed = self.producer.flush(deadline);
        self.deliveries.check()?;
        let acknowledged = self.deliveries.acknowledged();
        if flushed.is_err() {
            let sent = self.sent.load(Ordering::Relaxed);
            return Err(PublishError::Silent {
                waiting: sent - acknowledged.events,
                seconds: deadline.as_secs(),
                acknowledged: acknowledged.events,
            });
        }
        Ok(acknowledged)
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// The sum of the delivery reports.
#[derive(Clone, Default)]
struct Deliveries(Arc<Reports>);

#[derive(Default)]
struct Reports {
    acknowledged: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<KafkaError>>,
}

impl Deliveries {
    fn acknowledged(&self) -> Acknowledged {
        let Reports { acknowledged, bytes, .. } = &*self.0;
        Acknowledged {
            events: acknowledged.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
        }
    }

    fn check(&self) -> Result<(), PublishError> {
        let first = lock(&self.0.first_failure).clone();
        match first {
            None => Ok(()),
            Some(reason) => Err(PublishError::Delivery {
                failed: self.0.failed.load(Ordering::Relaxed),
                acknowledged: self.acknowledged().events,
                reason,
            }),
        }
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
        match result {
            Ok(message) => {
                let bytes = message.key_len() + message.payload_len();
                self.0.bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
                self.0.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                self.0.failed.fetch_add(1, Ordering::Relaxed);
                let mut first = lock(&self.0.first_failure);
                first.get_or_insert_with(|| error.clone());
            }
        }
    }
}
