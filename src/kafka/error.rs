//! What goes wrong with the brokers, and what to do about it.

use rdkafka::error::RDKafkaErrorCode;

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
