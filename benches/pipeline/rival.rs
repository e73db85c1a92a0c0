//! The rival: the loop that a good engineer would write instead. Poll, parse, UPDATE, DEL, commit,
//! on as many threads as the pipeline has workers.
//!
//! It has no dedupe, no guard against older events or other writers, no dead letters, and ends at
//! the first error: what it saves is what the pipeline must be worth.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use contentflow::config::Kafka;
use contentflow::source::consumer::consumer_config;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::bare_update::Connection;
use super::events::{BATCH_ROWS, Batch, parse};
use super::process::{Stopwatch, Taken};
use super::servers::{PARTITIONS, Servers};
use super::settings::WORKERS;

/// Runs the loop over the whole topic and a fresh table.
pub(crate) fn measure(servers: &mut Servers, events: u64) -> anyhow::Result<Taken> {
    servers.refill(events)?;
    let kafka = Kafka { group: servers.new_group(), ..servers.config.kafka.clone() };
    let left = AtomicU64::new(events);
    let watch = Stopwatch::start();
    let workers = i32::try_from(WORKERS)?;
    std::thread::scope(|scope| {
        let (servers, kafka, left) = (&*servers, &kafka, &left);
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                let partitions = (0..PARTITIONS).filter(move |it| it % workers == worker);
                scope.spawn(move || work(servers, kafka, partitions, left))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a panic ends the bench"))
    })?;
    Ok(watch.stop(events))
}

fn work(
    servers: &Servers,
    kafka: &Kafka,
    partitions: impl Iterator<Item = i32>,
    left: &AtomicU64,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (rows, mut cache) = runtime.block_on(async {
        let cache = contentflow::redis::connect(&servers.config.cache).await?;
        anyhow::Ok((Connection::open(servers).await?, cache))
    })?;
    let consumer: BaseConsumer = consumer_config(kafka).create()?;
    let mut start = TopicPartitionList::new();
    for partition in partitions {
        start.add_partition_offset(&kafka.topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&start)?;
    while left.load(Ordering::Relaxed) > 0 {
        let (batch, next) = poll(&consumer, &kafka.topic)?;
        if batch.is_empty() {
            continue;
        }
        let events = batch.iter().map(|value| parse(value)).collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<&str> = events.iter().map(|event| event.event_draft_id).collect();
        let images = events.iter().map(|event| event.image_urls.get()).collect();
        let count = u64::try_from(ids.len())?;
        runtime.block_on(async {
            let keys: Vec<_> = ids.iter().map(|id| servers.config.cache.key.key(id)).collect();
            rows.update(&Batch { ids, images }).await?;
            delete(&mut cache, &keys).await
        })?;
        consumer.commit(&next, CommitMode::Async)?;
        left.fetch_sub(count, Ordering::Relaxed);
    }
    Ok(())
}

/// A batch of values, and the offsets behind them.
fn poll(
    consumer: &BaseConsumer,
    topic: &str,
) -> anyhow::Result<(Vec<Vec<u8>>, TopicPartitionList)> {
    let (mut values, mut next) = (Vec::with_capacity(BATCH_ROWS), TopicPartitionList::new());
    let mut offsets = vec![None; usize::try_from(PARTITIONS)?];
    while values.len() < BATCH_ROWS {
        match consumer.poll(Duration::from_millis(5)) {
            Some(Ok(message)) => {
                offsets[usize::try_from(message.partition())?] = Some(message.offset() + 1);
                values.push(message.payload().unwrap_or_default().to_vec());
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error.into()),
            None => break,
        }
    }
    for (partition, offset) in (0..).zip(offsets) {
        if let Some(offset) = offset {
            next.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        }
    }
    Ok((values, next))
}

/// One DEL of all the keys: the cheapest form there is.
async fn delete(
    cache: &mut contentflow::redis::CacheConnection,
    keys: &[String],
) -> anyhow::Result<()> {
    let found: u64 = redis::cmd("DEL").arg(keys).query_async(cache).await?;
    ensure!(usize::try_from(found)? <= keys.len(), "more keys are deleted than there are");
    Ok(())
}
