//! What every Kafka client of ours has in common: its configuration, its log, its errors, and the
//! questions that need no consumer.

use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaConfRes;

use crate::config;

pub mod admin;
mod client_log;
mod error;

pub use admin::{Admin, METADATA_TIMEOUT, check_consumer, check_producer, metadata};
pub use client_log::{
    ask_for_ids, changed_id, complain, is_debugged, log, log_what_was_asked, made_again, new_id,
};
pub use error::{KafkaError, creation_error, is_away};

/// The configuration that consumer, producer and admin client begin with. What delivery depends on
/// is added by each, and cannot be among the user's properties.
pub fn client_config(config: &config::Kafka) -> ClientConfig {
    let config::Kafka { brokers, topic: _, group: _, bulk_fetch_min: _, properties } = config;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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
