//! The client library's own log: what of it is passed on, and what only it tells.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use crate::config;

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

/// The id by which the client knows a topic from now on, if a line of its log says so.
pub fn new_id<'a>(message: &'a str, topic: &str) -> Option<&'a str> {
    changed_id(message).filter(|(changed, ..)| *changed == topic).map(|(_, _, new)| new)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_id_of_a_topic_is_no_change() {
        let line = |topic: &str, old: &str| {
            format!("[thrd:main]: Topic {topic} changed id from {old} to x1vF0B7vQVSAS7Fvrkr8_A")
        };
        let (none, some) = ("AAAAAAAAAAAAAAAAAAAAAA", "PRv0Zz4lTcmUyHgOkGHRkQ");
        assert_eq!(made_again(&line("t", some)), Some("t"));
        assert_eq!(made_again(&line("tt", some)), Some("tt"));
        assert_eq!(made_again(&line("t", none)), None);
        assert_eq!(new_id(&line("t", none), "t"), Some("x1vF0B7vQVSAS7Fvrkr8_A"));
        assert_eq!(new_id(&line("tt", none), "t"), None);
        let other = "[thrd:main]: Topic t partition count changed from 1 to 2";
        assert_eq!(made_again(other), None);
    }
}
