//! What can go wrong when publishing.

use std::io;

use dataflows::reject::{Fault, Reason};
use rdkafka::error::KafkaError;

use crate::generate::MixError;
use crate::kafka;

/// A failure to publish.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The event breaks a rule; nothing was published.
    #[error("not published: {} ({})", .0.message, .0.reason.code())]
    Invalid(Fault),
    /// A line is not a valid event; those before it are published.
    #[error("line {line}: {} ({}); published {published} before it, nothing after it", .fault.message, .fault.reason.code())]
    Line {
        /// The line's number, from 1.
        line: u64,
        /// What is wrong with it.
        fault: Fault,
        /// How many events were published.
        published: u64,
    },
    /// The input ended with an error.
    #[error("cannot read the input: {source}; published {published} until then")]
    Input {
        /// What the system says.
        source: io::Error,
        /// How many events were published.
        published: u64,
    },
    /// The mix cannot be generated.
    #[error(transparent)]
    Mix(#[from] MixError),
    /// No broker, no topic, or no client.
    #[error(transparent)]
    Kafka(#[from] kafka::KafkaError),
    /// An event could not be handed to the client.
    #[error("the Kafka client takes no event: {source}; {acknowledged} events were acknowledged")]
    Send {
        /// What the client says.
        source: KafkaError,
        /// How many events were acknowledged until then.
        acknowledged: u64,
    },
    /// Events were not acknowledged.
    #[error(
        "{failed} events were not acknowledged, {acknowledged} were; the first failure: {reason}"
    )]
    Delivery {
        /// How many failed.
        failed: u64,
        /// How many were acknowledged.
        acknowledged: u64,
        /// What the client says about the first that failed.
        reason: KafkaError,
    },
    /// The brokers stopped answering.
    #[error("{waiting} events have no answer after {seconds} s, {acknowledged} were acknowledged")]
    Silent {
        /// How many are waiting.
        waiting: u64,
        /// How long was waited.
        seconds: u64,
        /// How many were acknowledged.
        acknowledged: u64,
    },
}

/// The fault of an event that is not ours.
pub(super) fn another_type() -> Fault {
    Fault::new(Reason::WrongType, "the event type is not ContentCreated: a consumer would skip it")
}
