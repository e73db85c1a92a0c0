//! A client for metadata and for making topics, and the complaints that say why it gets no answer.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::Client;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};

use super::client_config;
use super::error::{KafkaError, creation_error, is_away};
use crate::config;
use crate::lock::lock;

/// How long a command waits for a broker before it says that none answers.
pub const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// Remembers the last complaint of librdkafka, which knows why a broker cannot be reached, while
/// the call that fails says only "timed out".
#[derive(Clone, Default)]
pub struct Complaints(Arc<Mutex<String>>);

impl Complaints {
    fn last(&self) -> String {
        lock(&self.0).clone()
    }

    fn note(&self, complaint: &str) {
        // "[thrd:host:9092/bootstrap]: host:9092/bootstrap: Connect to ... failed: Connection
        // refused (after 0ms ...)"
        let text = complaint.rsplit_once("]: ").map_or(complaint, |(_, text)| text);
        let text = text.split_once("/bootstrap: ").map_or(text, |(_, text)| text);
        let text = text.split_once(" (after ").map_or(text, |(text, _)| text);
        *lock(&self.0) = text.to_owned();
    }
}

impl ClientContext for Complaints {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
        if facility == "FAIL" {
            self.note(message);
        }
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for Complaints {}

impl ProducerContext for Complaints {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, _opaque: ()) {}
}

/// Whether a consumer can be made of that configuration. Only then does librdkafka look at its
/// properties together. Nothing is sent.
pub fn check_consumer(config: &ClientConfig) -> Result<(), KafkaError> {
    let made: Result<BaseConsumer<_>, _> = config.create_with_context(Complaints::default());
    made.map(drop).map_err(creation_error)
}

/// The same for a producer.
pub fn check_producer(config: &ClientConfig) -> Result<(), KafkaError> {
    let made: Result<BaseProducer<_>, _> = config.create_with_context(Complaints::default());
    made.map(drop).map_err(creation_error)
}

/// A client for metadata and for making topics.
pub struct Admin {
    /// A producer, because it can be polled for the complaints, which an admin client cannot.
    client: BaseProducer<Complaints>,
    complaints: Complaints,
    config: ClientConfig,
    brokers: String,
}

impl Admin {
    /// Makes the client; nothing is sent yet.
    pub fn new(config: &config::Kafka) -> Result<Admin, KafkaError> {
        let brokers = config.brokers.clone();
        let complaints = Complaints::default();
        let mut config = client_config(config);
        config.set_log_level(RDKafkaLogLevel::Error);
        let client = config.create_with_context(complaints.clone()).map_err(creation_error)?;
        Ok(Admin { client, complaints, config, brokers })
    }

    /// The cluster's metadata, or one topic's. Blocks up to `deadline`.
    pub fn metadata(
        &self,
        topic: Option<&str>,
        deadline: Duration,
    ) -> Result<Metadata, KafkaError> {
        metadata(self.client.client(), topic, deadline).map_err(|code| match code {
            RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed => KafkaError::Refused(code.to_string()),
            _ => self.unreachable(),
        })
    }

    fn unreachable(&self) -> KafkaError {
        // The complaints wait in the client's queue until someone asks.
        self.client.poll(Duration::from_millis(100));
        KafkaError::Unreachable { brokers: self.brokers.clone(), reason: self.complaints.last() }
    }

    /// The number of partitions of `topic`. Blocks up to `deadline`.
    pub fn partitions(&self, topic: &str, deadline: Duration) -> Result<usize, KafkaError> {
        let metadata = self.metadata(Some(topic), deadline)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found
            .map(|found| (found.error().map(RDKafkaErrorCode::from), found.partitions().len()))
        {
            None
            | Some((
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic),
                _,
            )) => Err(KafkaError::MissingTopic(topic.to_owned())),
            Some((Some(code), _)) => Err(KafkaError::Refused(format!("{topic}: {code}"))),
            Some((None, partitions)) => Ok(partitions),
        }
    }

    /// Makes `topic` with the broker's own replication factor unless it exists. True if it was
    /// made.
    pub async fn ensure_topic(&self, topic: &str, partitions: i32) -> Result<bool, KafkaError> {
        let not_created =
            |reason: String| KafkaError::NotCreated { topic: topic.to_owned(), reason };
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        let options = AdminOptions::new()
            .request_timeout(Some(METADATA_TIMEOUT))
            .operation_timeout(Some(METADATA_TIMEOUT));
        let client: AdminClient<Complaints> =
            self.config.create_with_context(self.complaints.clone()).map_err(creation_error)?;
        let results = client.create_topics([&new], &options).await;
        let results = results.map_err(|error| match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::BrokerTransportFailure,
            ) => self.unreachable(),
            _ => not_created(error.to_string()),
        })?;
        match results.into_iter().next() {
            Some(Ok(_)) => Ok(true),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(not_created(code.to_string())),
            None => Err(not_created("the broker said nothing about it".to_owned())),
        }
    }

    /// Whether the broker keeps of `topic` only the newest record of each key. `None` where it does
    /// not say, as to a user who may not ask.
    pub async fn is_compacted(&self, topic: &str) -> Option<bool> {
        let client: AdminClient<Complaints> =
            self.config.create_with_context(self.complaints.clone()).ok()?;
        let options = AdminOptions::new().request_timeout(Some(METADATA_TIMEOUT));
        let answer = client.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
        let settings = answer.ok()?.into_iter().next()?.ok()?;
        let policy = settings.get("cleanup.policy")?.value.as_ref()?;
        Some(policy.split(',').any(|it| it.trim() == "compact"))
    }

    /// Deletes topics; one that does not exist is as good as deleted.
    pub async fn delete_topics(&self, topics: &[&str]) -> Result<(), KafkaError> {
        let client: AdminClient<Complaints> =
            self.config.create_with_context(self.complaints.clone()).map_err(creation_error)?;
        let options = AdminOptions::new()
            .request_timeout(Some(METADATA_TIMEOUT))
            .operation_timeout(Some(METADATA_TIMEOUT));
        let results = client.delete_topics(topics, &options).await;
        for result in results.map_err(|error| KafkaError::Refused(error.to_string()))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => {
                    return Err(KafkaError::Refused(format!("{topic} is not deleted: {code}")));
                }
            }
        }
        Ok(())
    }

    /// How many processes are in the consumer group. Blocks up to [`METADATA_TIMEOUT`].
    pub fn group_members(&self, group: &str) -> Result<usize, KafkaError> {
        let groups = self.client.client().fetch_group_list(Some(group), METADATA_TIMEOUT);
        let groups = groups.map_err(|error| match error.rdkafka_error_code() {
            Some(code) if !is_away(code) => {
                KafkaError::Refused(format!("the group {group}: {code}"))
            }
            _ => self.unreachable(),
        })?;
        Ok(groups.groups().iter().map(|group| group.members().len()).sum())
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

/// Metadata from any client. Blocks up to `deadline`.
pub fn metadata<C: ClientContext>(
    client: &Client<C>,
    topic: Option<&str>,
    deadline: Duration,
) -> Result<Metadata, RDKafkaErrorCode> {
    client
        .fetch_metadata(topic, deadline)
        .map_err(|error| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_complaint_is_kept_without_what_surrounds_it() {
        let complaints = Complaints::default();
        complaints.note(
            "[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection \
             refused (after 0ms in state CONNECT)",
        );
        assert_eq!(complaints.last(), "Connect to ipv4#127.0.0.1:1 failed: Connection refused");
    }

    #[test]
    fn no_broker_is_an_outage_that_says_what_to_do() {
        let mut config = Config::default().kafka;
        config.brokers = "127.0.0.1:1".to_owned();
        let error =
            Admin::new(&config).unwrap().metadata(None, Duration::from_secs(1)).unwrap_err();
        assert!(error.is_outage());
        let message = error.to_string();
        assert!(message.starts_with("no broker answers at 127.0.0.1:1: "), "{message}");
        assert!(message.contains("refused; start the broker, or set kafka.brokers"), "{message}");
    }
}
