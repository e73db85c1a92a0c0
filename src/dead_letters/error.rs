//! What can go wrong with the dead letters.

use std::io;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::Place;
use crate::kafka;

/// A failure to read or to replay dead letters.
#[derive(Debug, thiserror::Error)]
pub enum DlqError {
    /// No broker, no topic, or no client.
    #[error(transparent)]
    Kafka(#[from] kafka::KafkaError),
    /// A topic could not be read.
    #[error("the topic {topic} cannot be read: {source}")]
    Unreadable {
        /// Its name.
        topic: String,
        /// What the client says.
        source: KafkaError,
    },
    /// The brokers stopped answering.
    #[error("nothing came from the topic {topic} for {seconds} s")]
    Silent {
        /// Its name.
        topic: String,
        /// How long that was.
        seconds: u64,
    },
    /// There is no record at that place.
    #[error("no dead letter at {place} in the topic {topic}")]
    NotThere {
        /// Where it was looked for.
        place: Place,
        /// The topic's name.
        topic: String,
    },
    /// Replaying needs a transaction, and it could not be had or not be ended.
    #[error("{what}: {source}")]
    Transaction {
        /// What was tried.
        what: &'static str,
        /// What the client says.
        source: KafkaError,
        /// What to do.
        remedy: &'static str,
    },
    /// The result could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl DlqError {
    /// True if it may pass by itself.
    pub fn is_outage(&self) -> bool {
        match self {
            DlqError::Kafka(error) => error.is_outage(),
            DlqError::Unreadable { source, .. } => source.rdkafka_error_code().is_some_and(is_away),
            DlqError::Silent { .. } => true,
            DlqError::NotThere { .. } | DlqError::Transaction { .. } | DlqError::Output(_) => false,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> Option<String> {
        match self {
            DlqError::Kafka(error) => Some(error.remedy()),
            DlqError::Unreadable { .. } => {
                Some("grant READ on it, or look into the broker's log".to_owned())
            }
            DlqError::Silent { .. } => Some("check the brokers".to_owned()),
            DlqError::NotThere { .. } => {
                Some("`contentflow dlq list` shows where they are".to_owned())
            }
            DlqError::Transaction { remedy, .. } => Some((*remedy).to_owned()),
            DlqError::Output(_) => None,
        }
    }
}

/// Whether a broker is away, or has no say at the moment.
fn is_away(code: RDKafkaErrorCode) -> bool {
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
    )
}
