//! commit: sends what is durable to the group coordinator, asynchronously, one request at a time.
//!
//! A commit that fails is never an error of the data: the offsets are sent again, or the records are delivered again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use dataflows::ledger::NextOffset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};

/// How often offsets are committed at most. It bounds what is delivered again after a crash, not what is lost: nothing is.
const INTERVAL: Duration = Duration::from_millis(250);

/// What is durable, what was sent, and what was answered.
#[derive(Debug)]
pub struct Committer {
    topic: String,
    durable: BTreeMap<i32, i64>,
    committed: BTreeMap<i32, i64>,
    in_flight: Option<BTreeMap<i32, i64>>,
    last: Instant,
    answers: Receiver<KafkaResult<()>>,
}

/// Where the commit callback reports.
pub type Answers = Sender<KafkaResult<()>>;

impl Committer {
    /// A committer for a topic, and where to report the answers to its commits.
    pub fn new(topic: String) -> (Committer, Answers) {
        let (sender, answers) = unbounded();
        let committer = Committer {
            topic,
            durable: BTreeMap::new(),
            committed: BTreeMap::new(),
            in_flight: None,
            last: Instant::now(),
            answers,
        };
        (committer, sender)
    }

    /// Notes offsets that have become committable.
    pub fn note(&mut self, offsets: Vec<NextOffset>) {
        self.durable.extend(offsets);
    }

    /// Lets go of a partition that is no longer ours: the broker would accept a commit for it and move the offset back.
    pub fn forget(&mut self, partition: i32) {
        self.durable.remove(&partition);
        self.committed.remove(&partition);
        if let Some(sent) = &mut self.in_flight {
            sent.remove(&partition);
        }
    }

    /// Whether everything durable has been committed.
    pub fn is_even(&self) -> bool {
        self.in_flight.is_none() && self.durable == self.committed
    }

    /// Takes in answers, and sends what is durable if the last commit is answered and long enough ago.
    ///
    /// # Errors
    ///
    /// The client's error when it is of no use any more.
    pub fn tend<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>, at_once: bool) -> Result<(), KafkaError> {
        self.take_answers();
        if self.in_flight.is_some() || self.durable == self.committed {
            return Ok(());
        }
        if at_once || self.last.elapsed() >= INTERVAL {
            consumer.commit(&list(&self.topic, &self.durable)?, CommitMode::Async)?;
            self.in_flight = Some(self.durable.clone());
            self.last = Instant::now();
        }
        Ok(())
    }

    fn take_answers(&mut self) {
        for answer in self.answers.try_iter() {
            let sent = self.in_flight.take();
            match answer {
                Ok(()) => self.committed.extend(sent.unwrap_or_default()),
                Err(error) => tracing::warn!(%error, "offsets not committed, they are sent again"),
            }
        }
    }

    /// Commits what is durable of some partitions and waits for the answer, because they are about to be another's.
    pub fn commit_now<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>, partitions: &[i32]) {
        let offsets: BTreeMap<i32, i64> = partitions
            .iter()
            .filter_map(|partition| Some((*partition, *self.durable.get(partition)?)))
            .filter(|(partition, offset)| self.committed.get(partition) != Some(offset))
            .collect();
        if offsets.is_empty() {
            return;
        }
        let sent = list(&self.topic, &offsets).and_then(|list| consumer.commit(&list, CommitMode::Sync));
        match sent {
            Ok(()) => self.committed.extend(offsets),
            // The next owner starts lower and finds duplicates.
            Err(error) => tracing::warn!(%error, "offsets not committed before handing partitions over"),
        }
    }
}

fn list(topic: &str, offsets: &BTreeMap<i32, i64>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(list)
}
