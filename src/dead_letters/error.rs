//! What can go wrong with the dead letters.

use std::io;

use rdkafka::error::KafkaError;

use super::Place;
use crate::kafka;
use crate::scan::ScanError;

/// A failure to read or to replay dead letters.
#[derive(Debug, thiserror::Error)]
pub enum DlqError {
    /// A topic could not be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// No producer.
    #[error(transparent)]
    Kafka(#[from] kafka::KafkaError),
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
            DlqError::Scan(error) => error.is_outage(),
            DlqError::Kafka(error) => error.is_outage(),
            DlqError::Transaction { source, .. } => {
                source.rdkafka_error_code().is_some_and(kafka::is_away)
            }
            DlqError::NotThere { .. } | DlqError::Output(_) => false,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> Option<String> {
        match self {
            DlqError::Scan(error) => Some(error.remedy()),
            DlqError::Kafka(error) => Some(error.remedy()),
            DlqError::NotThere { .. } => {
                Some("`contentflow dlq list` shows where they are".to_owned())
            }
            DlqError::Transaction { remedy, .. } => Some((*remedy).to_owned()),
            DlqError::Output(_) => None,
        }
    }
}
