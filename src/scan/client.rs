//! What the client says by itself while topics are read: above all, by which ids it knows them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use super::ScanError;
use crate::config;
use crate::kafka;
use crate::lock::lock;

/// Listens to the client.
#[derive(Default)]
pub(super) struct Context {
    /// Whether the user has asked for the lines that are for debugging.
    debug: bool,
    lines: AtomicU64,
    /// The id that each topic had at first. The client itself forgets it between two walks.
    ids: Mutex<BTreeMap<String, String>>,
    /// The first topic that has had another one since.
    made_again: OnceLock<String>,
}

impl Context {
    pub(super) fn of(config: &config::Kafka) -> Context {
        Context { debug: kafka::is_debugged(config), ..Context::default() }
    }

    /// How many lines have come so far.
    pub(super) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Fails once a topic has been made again. Then what is polled does not count: it is of the new
    /// topic, and may be from its middle.
    pub(super) fn check(&self) -> Result<(), ScanError> {
        match self.made_again.get() {
            Some(topic) => Err(ScanError::MadeAgain { topic: topic.clone() }),
            None => Ok(()),
        }
    }

    fn note_id(&self, topic: &str, id: &str) {
        let mut ids = lock(&self.ids);
        let first = ids.entry(topic.to_owned()).or_insert_with(|| id.to_owned());
        if first != id {
            self.made_again.get_or_init(|| topic.to_owned());
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.lines.fetch_add(1, Ordering::Relaxed);
        if let Some((topic, _old, new)) = kafka::changed_id(message) {
            self.note_id(topic, new);
        }
        if self.debug || !matches!(level, RDKafkaLogLevel::Debug) {
            tracing::debug!(target: "librdkafka", facility, "{message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for Context {}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "[thrd:main]: Topic t changed id from";
    const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn say(context: &Context, old: &str, new: &str) {
        context.log(RDKafkaLogLevel::Debug, "METADATA", &format!("{LINE} {old} to {new}"));
    }

    #[test]
    fn another_id_is_noticed_also_when_the_client_has_forgotten_the_first_one() {
        for forgotten in [false, true] {
            let context = Context::default();
            say(&context, NONE, "first");
            say(&context, NONE, "first");
            assert!(context.check().is_ok());
            say(&context, if forgotten { NONE } else { "first" }, "second");
            let error = context.check().unwrap_err();
            assert!(!error.is_outage());
            assert_eq!(
                error.to_string(),
                "the topic t was deleted and made again while it was read"
            );
        }
    }
}
