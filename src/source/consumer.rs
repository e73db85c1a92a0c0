//! The consumer of a run: how it is configured, and how it joins its group.

use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;

use super::client::{Context, KafkaClient};
use crate::config::{Config, Kafka};
use crate::figures::brokers;
use crate::kafka;

/// What the user's properties may say otherwise.
const UNLESS_ASKED: [(&str, &str); 3] = [
    ("partition.assignment.strategy", "cooperative-sticky"),
    // What is fetched ahead: half an epoch, a tenth of a second's work. The client's own 100,000
    // records and 64 MiB would have gone from the processor's caches by the time they are polled.
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "16384"),
];

/// How the consumer of a run is configured, and whoever reads as it does.
pub fn consumer_config(config: &Kafka) -> ClientConfig {
    let mut client = kafka::consumer_config(config);
    // Every start is given explicitly; an offset that turns out not to exist is an error, not a
    // jump.
    client.set("auto.offset.reset", "error");
    kafka::set_unless_asked(&mut client, config, &UNLESS_ASKED);
    client
}

/// A consumer that joins the group of that configuration.
pub(crate) fn subscribe(config: &Config, context: Context) -> KafkaResult<KafkaClient> {
    let mut client = consumer_config(&config.kafka);
    let interval = "statistics.interval.ms";
    if context.is_watched() && !config.kafka.properties.contains_key(interval) {
        client.set(interval, brokers::EVERY_MS);
    }
    let consumer: KafkaClient = client.create_with_context(context)?;
    consumer.subscribe(&[&config.kafka.topic])?;
    Ok(consumer)
}
