//! The limit of the Kafka client: every record is polled, its bytes are counted, and nothing else
//! is done.

use std::time::Duration;

use anyhow::{bail, ensure};
use contentflow::config::Kafka;
use contentflow::source::consumer::consumer_config;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::process::{Stopwatch, Taken};
use super::servers::Servers;

/// A broker on the same machine is not silent for so long.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Reads a whole topic.
pub(crate) fn measure(servers: &mut Servers, topic: &str, events: u64) -> anyhow::Result<Taken> {
    let (group, topic) = (servers.new_group(), topic.to_owned());
    let kafka = Kafka { group, topic, ..servers.config.kafka.clone() };
    let consumer: BaseConsumer = consumer_config(&kafka).create()?;
    let metadata = consumer.fetch_metadata(Some(&kafka.topic), SILENCE_MAX)?;
    let mut start = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        start.add_partition_offset(&kafka.topic, partition.id(), Offset::Beginning)?;
    }
    let watch = Stopwatch::start();
    consumer.assign(&start)?;
    let (mut records, mut bytes) = (0, 0);
    while records < events {
        match consumer.poll(SILENCE_MAX) {
            Some(Ok(message)) => {
                records += 1;
                bytes += message.payload().map_or(0, <[u8]>::len);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error.into()),
            None => bail!("only {records} of {events} records can be read"),
        }
    }
    let taken = watch.stop(records);
    ensure!(bytes > 0, "the records are empty");
    Ok(taken)
}
