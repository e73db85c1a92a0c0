//! Questions about a partition that the consumer's own client cannot answer: each is put by a client
//! of its own, which belongs to no group and is gone with the answer. They are seldom asked.

use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::client::ANSWER;
use crate::config::Kafka;
use crate::source::consumer::consumer_config;

/// The offset that the next record will have, behind transactions that are open still. A consumer
/// of what is committed is told where the first of these begins.
pub(super) fn end(config: &Kafka, partition: i32) -> KafkaResult<i64> {
    let client: BaseConsumer =
        consumer_config(config).set("isolation.level", "read_uncommitted").create()?;
    Ok(client.fetch_watermarks(&config.topic, partition, ANSWER)?.1)
}

/// Whether a partition has a record from one offset on, below another one: between them there may
/// be nothing but the marks of transactions, and what these have taken back.
pub(super) fn has_records(
    config: &Kafka,
    partition: i32,
    (from, to): (i64, i64),
) -> KafkaResult<bool> {
    // What retention has deleted is none either.
    let client: BaseConsumer =
        consumer_config(config).set("auto.offset.reset", "earliest").create()?;
    let mut start = TopicPartitionList::new();
    start.add_partition_offset(&config.topic, partition, Offset::from_raw(from))?;
    client.assign(&start)?;
    let since = Instant::now();
    while let Some(left) = ANSWER.checked_sub(since.elapsed()) {
        match client.poll(left) {
            Some(Ok(message)) => return Ok(message.offset() < to),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(false),
            // It goes on trying by itself.
            Some(Err(error)) => tracing::debug!(%error, "kafka"),
            None => {}
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
}
