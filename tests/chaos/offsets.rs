//! What the group has committed, from outside of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use contentflow::config;
use contentflow::kafka::client_config;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::eventually;
use crate::ground::PARTITIONS;

/// Of one answer. While the broker is away there is none.
const ANSWER: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// A client that knows the group, and never joins it.
pub(crate) struct Offsets {
    client: BaseConsumer,
    topic: String,
}

impl Offsets {
    pub(crate) fn new(kafka: &config::Kafka) -> Result<Offsets> {
        let client = client_config(kafka).set("group.id", &kafka.group).create()?;
        Ok(Offsets { client, topic: kafka.topic.clone() })
    }

    fn all(&self) -> TopicPartitionList {
        let mut all = TopicPartitionList::new();
        all.add_partition_range(&self.topic, 0, PARTITIONS - 1);
        all
    }

    /// By partition; one without an offset is left out.
    pub(crate) fn committed(&self) -> Result<BTreeMap<i32, i64>> {
        let committed = self.client.committed_offsets(self.all(), ANSWER)?;
        let committed = committed.elements().into_iter().filter_map(|element| {
            let Offset::Offset(offset) = element.offset() else { return None };
            Some((element.partition(), offset))
        });
        Ok(committed.collect())
    }

    /// How many offsets are not committed.
    pub(crate) fn lag(&self) -> Result<i64> {
        let (committed, mut lag) = (self.committed()?, 0);
        for partition in 0..PARTITIONS {
            let (_, end) = self.client.fetch_watermarks(&self.topic, partition, ANSWER)?;
            lag += end - committed.get(&partition).unwrap_or(&0);
        }
        Ok(lag)
    }

    /// Sends the group, which has no member, back to the beginning.
    pub(crate) fn reset(&self) -> Result<()> {
        let mut all = self.all();
        all.set_all_offsets(Offset::Offset(0))?;
        // The broker takes a moment to notice that the last member has left.
        eventually("the offsets are reset", || self.client.commit(&all, CommitMode::Sync).is_ok())
    }
}

/// Watches the offsets and notes each that goes back.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Watch {
    pub(crate) fn start(kafka: &config::Kafka) -> Result<Watch> {
        let offsets = Offsets::new(kafka)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut highest, mut back) = (BTreeMap::<i32, i64>::new(), Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                // Without an answer nothing is known.
                let Ok(committed) = offsets.committed() else { continue };
                for (partition, was) in &highest {
                    let is = committed.get(partition);
                    if is.is_none_or(|is| is < was) {
                        back.push(format!("partition {partition} went from {was} back to {is:?}"));
                    }
                }
                highest.extend(committed);
            }
            back
        });
        Ok(Watch { stop, thread })
    }

    pub(crate) fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watch does not panic")
    }
}
