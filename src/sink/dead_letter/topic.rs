//! The dead-letter topic itself, and the client that publishes to it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dataflows::reject::Rejected;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use tokio::sync::mpsc;

use super::{Form, Publish};
use crate::config::{Config, Kafka};
use crate::dead_letters::{DeadLetter, Reference};
use crate::kafka;
use crate::lock::lock;

/// What the user's properties may say otherwise.
const UNLESS_ASKED: [(&str, &str); 4] = [
    // How long the client tries to deliver before it reports a failure. Then we say what is held,
    // and try again.
    ("message.timeout.ms", "30000"),
    // What the source took must fit here as well: twice the largest value, for the headers.
    ("message.max.bytes", "2200000"),
    // A broker holds the whole batch against the topic's limit: small batches, so that only what is
    // large itself is refused.
    ("batch.size", "16384"),
    ("linger.ms", "5"),
];

/// The producer of the dead-letter topic, shared by all workers.
///
/// The client calls some errors fatal, such as that this user may not write: it takes no record any
/// more, whatever is mended after that. So another client has its place from then on.
pub struct DeadLetterProducer {
    config: ClientConfig,
    client: Mutex<Arc<BaseProducer<Deliveries>>>,
}

/// How long its thread waits for a report at a time. The client spends the last millisecond of each
/// wait with looks at the clock: with the tenth of a second of its own thread that is a hundredth
/// of a core, for a topic to which mostly nothing goes.
const WAIT: Duration = Duration::from_secs(1);

/// What became of one record of a batch.
type Report = (usize, Form, KafkaResult<()>);

/// Passes delivery reports on to whoever sent the record.
#[derive(Clone, Copy, Debug)]
pub struct Deliveries;

/// Which record of a batch a report is about, and where it goes.
#[derive(Debug)]
pub struct Delivery {
    index: usize,
    form: Form,
    reports: mpsc::UnboundedSender<Report>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::complain(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        let _gone = delivery.reports.send((delivery.index, delivery.form, result)).is_err();
    }
}

/// Makes the producer, and the thread that passes its reports on until nobody has the producer any
/// more.
///
/// # Errors
///
/// The client's error when `[kafka.properties]` contradict what delivery needs.
pub fn producer(config: &Config) -> KafkaResult<Arc<DeadLetterProducer>> {
    let config = producer_config(&config.kafka);
    let client = Mutex::new(start(&config)?);
    Ok(Arc::new(DeadLetterProducer { config, client }))
}

fn start(config: &ClientConfig) -> KafkaResult<Arc<BaseProducer<Deliveries>>> {
    let client: Arc<BaseProducer<Deliveries>> = Arc::new(config.create_with_context(Deliveries)?);
    let reporting = Arc::downgrade(&client);
    std::thread::spawn(move || {
        while let Some(client) = reporting.upgrade() {
            client.poll(WAIT);
        }
    });
    Ok(client)
}

impl DeadLetterProducer {
    fn current(&self) -> MutexGuard<'_, Arc<BaseProducer<Deliveries>>> {
        lock(&self.client)
    }

    /// What a client is done for, if it is: another one has its place after this.
    fn replace(&self, client: &Arc<BaseProducer<Deliveries>>) -> Option<RDKafkaErrorCode> {
        let (code, _) = client.client().fatal_error()?;
        let mut current = self.current();
        // Unless another lane was quicker.
        if Arc::ptr_eq(&current, client) {
            match start(&self.config) {
                Ok(new) => *current = new,
                // It has this place still, and is looked at again after the next try.
                Err(error) => {
                    tracing::warn!(%error, "there is no other client for the dead-letter topic")
                }
            }
        }
        Some(code)
    }
}

/// How the producer of the dead letters is configured.
pub fn producer_config(config: &Kafka) -> ClientConfig {
    let mut client = kafka::client_config(config);
    client.set("acks", "all").set("enable.idempotence", "true");
    kafka::set_unless_asked(&mut client, config, &UNLESS_ASKED);
    client
}

/// Whether the error is only a consequence of a fatal client error, reported for each queued
/// record, and not its cause.
fn is_aftermath(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fatal | RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight
    )
}

/// The real topic.
pub struct Topic {
    /// Names it.
    pub config: Arc<Config>,
    /// Publishes to it.
    pub producer: Arc<DeadLetterProducer>,
}

impl Publish for Topic {
    async fn publish(
        &mut self,
        batch: &[Rejected],
        letters: &[(usize, Form)],
    ) -> Vec<(usize, Form, KafkaError)> {
        let (reports, mut reported) = mpsc::unbounded_channel();
        let client = Arc::clone(&self.producer.current());
        let mut failed = Vec::new();
        for (index, form) in letters {
            if let Err(error) =
                self.enqueue(&client, &batch[*index], (*index, *form), &reports).await
            {
                failed.push((*index, *form, error));
            }
        }
        drop(reports);
        while let Some((index, form, result)) = reported.recv().await {
            failed.extend(result.err().map(|error| (index, form, error)));
        }
        if let Some(cause) = self.producer.replace(&client) {
            let is_unsaid =
                |error: &KafkaError| error.rdkafka_error_code().is_some_and(is_aftermath);
            let unsaid = failed.iter_mut().filter(|(_, _, error)| is_unsaid(error));
            unsaid.for_each(|(_, _, error)| *error = KafkaError::MessageProduction(cause));
        }
        failed
    }
}

impl Topic {
    async fn enqueue(
        &self,
        client: &BaseProducer<Deliveries>,
        rejected: &Rejected,
        (index, form): (usize, Form),
        reports: &mpsc::UnboundedSender<Report>,
    ) -> KafkaResult<()> {
        let record = rejected.record();
        let letter = DeadLetter {
            reason: rejected.fault.reason,
            message: &rejected.fault.message,
            topic: &self.config.kafka.topic,
            partition: record.partition(),
            offset: record.offset(),
            timestamp_ms: rejected.timestamp_ms(),
            attempts: rejected.attempts,
            stage: rejected.stage.name(),
            key: record.key(),
            value: record.value(),
            headers: record.headers(),
        };
        loop {
            let delivery = Box::new(Delivery { index, form, reports: reports.clone() });
            let sent = match form {
                Form::Whole => {
                    self.produce(client, record.key(), record.value(), letter.headers(), delivery)
                }
                Form::Reference => {
                    let Reference { key, value, headers } = letter.reference();
                    self.produce(client, key, Some(&value), headers, delivery)
                }
            };
            match sent {
                // The client's queue is full: it empties by itself.
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                other => return other,
            }
        }
    }

    fn produce(
        &self,
        client: &BaseProducer<Deliveries>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: OwnedHeaders,
        delivery: Box<Delivery>,
    ) -> KafkaResult<()> {
        let mut message =
            BaseRecord::with_opaque_to(&self.config.dead_letters.topic, delivery).headers(headers);
        message.key = key;
        message.payload = value;
        client.send::<[u8], [u8]>(message).map_err(|(error, _)| error)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::super::tests::rejects;
    use super::super::told;
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_producer_that_is_done_for_is_followed_by_another_one() {
        let cluster = MockCluster::new(1).unwrap();
        let mut config = Config::default();
        config.kafka.brokers = cluster.bootstrap_servers();
        cluster.create_topic(&config.dead_letters.topic, 1, 1).unwrap();
        let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
        cluster.request_errors(RDKafkaApiKey::InitProducerId, &[refusal]);
        let batch = rejects();
        let producer = producer(&config).unwrap();
        let mut topic = Topic { config: Arc::new(config), producer };

        let failed = topic.publish(&batch, &[(0, Form::Whole)]).await;
        let code = failed[0].2.rdkafka_error_code();
        assert_eq!(code, Some(RDKafkaErrorCode::ClusterAuthorizationFailed));
        let told = told(&failed[0].2);
        assert!(told.contains("grant this user WRITE on the dead-letter topic"), "{told}");
        let failed = topic.publish(&batch, &[(0, Form::Whole)]).await;
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn the_producer_is_tuned_as_the_user_asks_by_either_name_of_a_property() {
        let mut config = Config::default().kafka;
        assert_eq!(producer_config(&config).get("linger.ms"), Some("5"));
        for (name, value) in [
            ("message.max.bytes", "20000000"),
            ("batch.size", "1000"),
            ("delivery.timeout.ms", "5000"),
            ("queue.buffering.max.ms", "0"),
        ] {
            config.properties.insert(name.to_owned(), value.to_owned());
        }
        let client = producer_config(&config);
        for (name, value) in &config.properties {
            assert_eq!(client.get(name), Some(value.as_str()));
        }
        // The client has one value for both names, and would take either.
        assert_eq!((client.get("message.timeout.ms"), client.get("linger.ms")), (None, None));
        assert_eq!(client.get("acks"), Some("all"));
    }
}
