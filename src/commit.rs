//! commit: sends what is durable to the group coordinator, one request at a time, from a thread of its own.
//!
//! Of its own, because a commit to a broker that hangs can block for longer than the poll thread may stay away, and the client
//! library reports nothing back from a commit that does not block. A commit that fails is never an error of the data: the offsets
//! are sent again, or the records are delivered again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use dataflows::ledger::NextOffset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

/// How often offsets are committed at most. It bounds what is delivered again after a crash, not what is lost: nothing is.
const INTERVAL: Duration = Duration::from_millis(250);

/// How long a revocation waits for a commit that is under way.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// What is durable, what was sent, and what was answered. The poll thread's end.
#[derive(Debug)]
pub struct Committer {
    topic: String,
    durable: BTreeMap<i32, i64>,
    committed: BTreeMap<i32, i64>,
    in_flight: Option<BTreeMap<i32, i64>>,
    last: Instant,
    requests: Option<Sender<TopicPartitionList>>,
    answers: Receiver<KafkaResult<()>>,
}

/// The commit thread's end.
#[derive(Debug)]
pub struct Commits {
    requests: Receiver<TopicPartitionList>,
    answers: Sender<KafkaResult<()>>,
}

impl Commits {
    /// Sends commits and reports their answers, until the committer is closed.
    pub fn serve<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>) {
        for offsets in &self.requests {
            if self.answers.send(consumer.commit(&offsets, CommitMode::Sync)).is_err() {
                return;
            }
        }
    }
}

impl Committer {
    /// The two ends for a topic.
    pub fn new(topic: String) -> (Committer, Commits) {
        let (requests_in, requests) = unbounded();
        let (answers_in, answers) = unbounded();
        let committer = Committer {
            topic,
            durable: BTreeMap::new(),
            committed: BTreeMap::new(),
            in_flight: None,
            last: Instant::now(),
            requests: Some(requests_in),
            answers,
        };
        (committer, Commits { requests, answers: answers_in })
    }

    /// Sends nothing any more, so that the commit thread can end.
    pub fn close(&mut self) {
        self.requests = None;
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
    /// The client's error when a list of offsets cannot be made.
    pub fn tend(&mut self, at_once: bool) -> KafkaResult<()> {
        if let Ok(answer) = self.answers.try_recv() {
            self.take(answer);
        }
        if self.in_flight.is_some() || self.durable == self.committed {
            return Ok(());
        }
        if at_once || self.last.elapsed() >= INTERVAL {
            let offsets = list(&self.topic, &self.durable)?;
            if self.requests.as_ref().is_some_and(|requests| requests.send(offsets).is_ok()) {
                self.in_flight = Some(self.durable.clone());
                self.last = Instant::now();
            }
        }
        Ok(())
    }

    fn take(&mut self, answer: KafkaResult<()>) {
        let sent = self.in_flight.take();
        match answer {
            Ok(()) => self.committed.extend(sent.unwrap_or_default()),
            Err(error) => tracing::warn!(%error, "offsets not committed, they are sent again"),
        }
    }

    /// Commits what is durable of some partitions and waits for the answer, because they are about to be another's.
    pub fn commit_now<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        partitions: &[i32],
    ) {
        // What is under way must not arrive after the partitions have changed hands.
        if self.in_flight.is_some() {
            match self.answers.recv_timeout(UNDER_WAY) {
                Ok(answer) => self.take(answer),
                Err(_) => tracing::warn!(
                    "a commit is not answered; the coordinator will refuse it once the group has moved on"
                ),
            }
        }
        let offsets: BTreeMap<i32, i64> = partitions
            .iter()
            .filter_map(|partition| Some((*partition, *self.durable.get(partition)?)))
            .filter(|(partition, offset)| self.committed.get(partition) != Some(offset))
            .collect();
        if offsets.is_empty() {
            return;
        }
        let sent =
            list(&self.topic, &offsets).and_then(|list| consumer.commit(&list, CommitMode::Sync));
        match sent {
            Ok(()) => self.committed.extend(offsets),
            // The next owner starts lower and finds duplicates.
            Err(error) => {
                tracing::warn!(%error, "offsets not committed before handing partitions over")
            }
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
