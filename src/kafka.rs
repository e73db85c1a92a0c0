//! What every Kafka client of ours has in common: its configuration, its metadata with a deadline,
//! making a topic.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::Client;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaConfRes;

use crate::config;

/// How long a command waits for a broker before it says that none answers.
pub const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// The configuration that consumer, producer and admin client begin with. What delivery depends on
/// is added by each, and cannot be among the user's properties.
pub fn client_config(config: &config::Kafka) -> ClientConfig {
    let config::Kafka { brokers, topic: _, group: _, properties } = config;
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers).set("client.id", "contentflow");
    // A producer's metadata request would otherwise create a topic whose name was mistyped, with
    // the broker's defaults.
    client.set("allow.auto.create.topics", "false");
    for (name, value) in properties {
        client.set(name, value);
    }
    client
}

/// What every consumer begins with, whether it joins the group or has its name for access rights
/// alone. Where it starts, and what a missing offset means, each adds itself.
pub fn consumer_config(config: &config::Kafka) -> ClientConfig {
    let mut client = client_config(config);
    client
        .set("group.id", &config.group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        // What a disk or a wire has changed must not pass for what was published.
        .set("check.crcs", "true");
    // The default of a second lets a fast consumer starve when its queue has run low.
    set_unless_asked(&mut client, config, &[("fetch.queue.backoff.ms", "5")]);
    // So that it is noticed when a topic is made again, see `made_again`.
    ask_for_ids(&mut client);
    client
}

/// What is only tuning, and the user may say otherwise, by either of its names.
pub fn set_unless_asked(
    client: &mut ClientConfig,
    config: &config::Kafka,
    defaults: &[(&str, &str)],
) {
    let alias = |name| match name {
        "message.timeout.ms" => "delivery.timeout.ms",
        "linger.ms" => "queue.buffering.max.ms",
        other => other,
    };
    let asked = |name| config.properties.contains_key(name);
    for (name, value) in defaults {
        if !asked(*name) && !asked(alias(name)) {
            client.set(*name, *value);
        }
    }
}

/// Asks librdkafka itself whether it knows a property and takes its value.
pub fn check_property(name: &str, value: &str) -> Result<(), String> {
    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) => Ok(()),
        Err(rdkafka::error::KafkaError::ClientConfig(_, description, _, _)) => Err(description),
        Err(other) => Err(other.to_string()),
    }
}

/// Whether librdkafka has a property of that name, whatever its values are.
pub fn knows_property(name: &str) -> bool {
    let set = ClientConfig::new().set(name, "").create_native_config();
    !matches!(
        set,
        Err(rdkafka::error::KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..))
    )
}

/// A failure to talk to the brokers.
#[derive(Debug, thiserror::Error)]
#[error("{}; {}", self.what(), self.remedy())]
pub enum KafkaError {
    /// Nothing answered in time.
    Unreachable {
        /// As configured.
        brokers: String,
        /// The last thing that librdkafka complained about.
        reason: String,
    },
    /// The properties contradict each other, so that no client could be made.
    Properties(String),
    /// The topic does not exist.
    MissingTopic(String),
    /// A topic could not be made.
    NotCreated {
        /// Its name.
        topic: String,
        /// What the broker says.
        reason: String,
    },
    /// The broker answered with an error.
    Refused(String),
}

impl KafkaError {
    /// What happened.
    pub fn what(&self) -> String {
        match self {
            KafkaError::Unreachable { brokers, reason } if reason.is_empty() => {
                format!("no broker answers at {brokers}")
            }
            KafkaError::Unreachable { brokers, reason } => {
                format!("no broker answers at {brokers}: {reason}")
            }
            KafkaError::Properties(reason) => format!("the Kafka client cannot be made: {reason}"),
            KafkaError::MissingTopic(topic) => format!("the topic {topic} does not exist"),
            KafkaError::NotCreated { topic, reason } => {
                format!("the topic {topic} could not be created: {reason}")
            }
            KafkaError::Refused(reason) => format!("the broker refuses: {reason}"),
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            KafkaError::Unreachable { reason, .. } if reason.contains("SSL") => {
                "check security.protocol and ssl.ca.location in [kafka.properties]"
            }
            KafkaError::Unreachable { reason, .. } if reason.contains("SASL") => {
                "check sasl.mechanism, sasl.username and sasl.password in [kafka.properties]"
            }
            KafkaError::Unreachable { .. } => {
                "start the broker, or set kafka.brokers (or KAFKA_BROKERS) to the address it advertises"
            }
            KafkaError::Properties(_) => "check [kafka.properties]",
            KafkaError::MissingTopic(_) => "create it, or set kafka.topic (for dead letters dead_letters.topic) to the one that is meant",
            KafkaError::NotCreated { .. } => "create it with the broker's own tools, or grant CREATE on it",
            KafkaError::Refused(_) => "grant what is missing, or look into the broker's log",
        }
        .to_owned()
    }

    /// True if it may pass by itself.
    pub fn is_outage(&self) -> bool {
        matches!(self, KafkaError::Unreachable { .. })
    }
}

/// Remembers the last complaint of librdkafka, which knows why a broker cannot be reached, while
/// the call that fails says only "timed out".
#[derive(Clone, Default)]
pub struct Complaints(Arc<Mutex<String>>);

impl Complaints {
    fn last(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, complaint: &str) {
        // "[thrd:host:9092/bootstrap]: host:9092/bootstrap: Connect to ... failed: Connection
        // refused (after 0ms ...)"
        let text = complaint.rsplit_once("]: ").map_or(complaint, |(_, text)| text);
        let text = text.split_once("/bootstrap: ").map_or(text, |(_, text)| text);
        let text = text.split_once(" (after ").map_or(text, |(text, _)| text);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text.to_owned();
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

/// Passes a line of librdkafka's own log on to ours: it retries by itself, what needs a person
/// comes as an error.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    tracing::debug!(?level, facility, "{message}");
}

/// The same for an error of the client: it gets over it by itself, and what it means for a record
/// comes another way. Left alone, the client library would call it an error in words of its own.
pub fn complain(error: &rdkafka::error::KafkaError, reason: &str) {
    tracing::warn!(%error, reason, "kafka");
}

/// [`log`] for a client that [says more](ask_for_ids) than was asked for: its lines for debugging
/// only if `debug` asks for them.
pub fn log_what_was_asked(debug: bool, level: RDKafkaLogLevel, facility: &str, message: &str) {
    if debug || !matches!(level, RDKafkaLogLevel::Debug) {
        log(level, facility, message);
    }
}

/// Whether somebody has asked for the client's own lines for debugging.
pub fn is_debugged(config: &config::Kafka) -> bool {
    config.properties.contains_key("debug")
}

/// The topic of which a line of the client's log says that its id has changed from one to another.
/// Nothing else tells: a topic that is deleted and made again is read on from the old position. The
/// client fetches by the topic's id, and so finds out before the first record of the new topic; its
/// line, which comes with `debug = metadata`, stands in the queue before that record.
pub fn made_again(message: &str) -> Option<&str> {
    const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";
    let (topic, old, _new) = changed_id(message)?;
    (old != NONE).then_some(topic)
}

/// The topic of which a line of the client's log says that its id has changed, and the two ids. The
/// client begins with none, also when it takes up again a topic that it had let go.
pub fn changed_id(message: &str) -> Option<(&str, &str, &str)> {
    let (before, ids) = message.split_once(" changed id from ")?;
    let (_, topic) = before.rsplit_once("Topic ")?;
    let (old, new) = ids.split_once(" to ")?;
    Some((topic, old, new))
}

/// Has a client say by which ids it knows the topics. These lines come with metadata only, and
/// among those that are for debugging.
pub fn ask_for_ids(client: &mut ClientConfig) {
    let debug = client.get("debug");
    let debug = debug.map_or("metadata".to_owned(), |asked| format!("{asked},metadata"));
    client.set("debug", debug);
    client.set_log_level(RDKafkaLogLevel::Debug);
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

/// Whether a broker is away, or has no say at the moment.
pub fn is_away(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::BrokerNotAvailable
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::WaitingForCoordinator
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::FencedLeaderEpoch
            | RDKafkaErrorCode::UnknownLeaderEpoch
            | RDKafkaErrorCode::ReplicaNotAvailable
            | RDKafkaErrorCode::OffsetNotAvailable
            | RDKafkaErrorCode::KafkaStorageError
    )
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

/// What librdkafka says when a client cannot be made, without the values, among which may be a
/// password.
pub fn creation_error(error: rdkafka::error::KafkaError) -> KafkaError {
    KafkaError::Properties(match error {
        rdkafka::error::KafkaError::ClientConfig(_, _, name, _) => {
            format!("the property {name} is refused")
        }
        rdkafka::error::KafkaError::ClientCreation(reason) => reason,
        other => other.to_string(),
    })
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
    fn the_first_id_of_a_topic_is_no_change() {
        let line = |topic: &str, old: &str| {
            format!("[thrd:main]: Topic {topic} changed id from {old} to x1vF0B7vQVSAS7Fvrkr8_A")
        };
        let (none, some) = ("AAAAAAAAAAAAAAAAAAAAAA", "PRv0Zz4lTcmUyHgOkGHRkQ");
        assert_eq!(made_again(&line("t", some)), Some("t"));
        assert_eq!(made_again(&line("tt", some)), Some("tt"));
        assert_eq!(made_again(&line("t", none)), None);
        let other = "[thrd:main]: Topic t partition count changed from 1 to 2";
        assert_eq!(made_again(other), None);
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

    #[test]
    fn the_users_properties_reach_the_client_and_the_defaults_stay() {
        let mut config = Config::default().kafka;
        config.properties.insert("client.id".to_owned(), "mine".to_owned());
        let client = client_config(&config);
        assert_eq!(client.get("client.id"), Some("mine"));
        assert_eq!(client.get("bootstrap.servers"), Some("127.0.0.1:9092"));
        assert_eq!(client.get("allow.auto.create.topics"), Some("false"));
    }
}
