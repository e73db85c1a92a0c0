//! The rebalance protocol, written where it bites: what happens when partitions come and go.
//!
//! - *Assigned*: read from the committed offset; without one from the earliest, because `latest` would skip what was published before us.
//!   An offset that retention has deleted, or past the end, is never skipped quietly.
//! - *Revoked*: finish what is in flight of them, commit, let go. It is the same protocol as at the end of a run.
//! - *Lost*: they may have another owner already; forget them and commit nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

use crate::commit::Committer;
use crate::config::OnDataLoss;
use crate::ingest::Ingest;
use crate::retry::Backoff;
use crate::shutdown::Abort;

/// The deadline of one question to the broker in a rebalance.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a rebalance may ask for offsets before it gives up: well within `max.poll.interval.ms`.
const START: Duration = Duration::from_secs(60);

/// The consumer's context: its callbacks, and the state that they share with the poll loop. All of it runs on the poll thread.
pub struct Assignment {
    state: Mutex<State>,
    /// Ends the run.
    pub abort: Arc<Abort>,
    on_data_loss: OnDataLoss,
    drain: Duration,
}

/// What the poll loop and the callbacks share.
pub struct State {
    /// What has been read and is in flight.
    pub ingest: Ingest,
    /// What is durable.
    pub committer: Committer,
    topic: String,
    partitions: BTreeMap<i32, Owned>,
    assigned_once: bool,
}

/// A partition that is ours.
#[derive(Clone, Copy, Debug)]
struct Owned {
    start: i64,
    /// The high watermark when it was assigned.
    target: i64,
    reached_end: bool,
}

impl State {
    /// The state of a run before its first assignment.
    pub fn new(topic: String, ingest: Ingest, committer: Committer) -> State {
        State { ingest, committer, topic, partitions: BTreeMap::new(), assigned_once: false }
    }

    /// Notes that everything there is of a partition has been read.
    pub fn reached_end(&mut self, partition: i32) {
        if let Some(owned) = self.partitions.get_mut(&partition) {
            owned.reached_end = true;
        }
    }

    /// Whether all that was there when the partitions were assigned has been read.
    pub fn caught_up(&self) -> bool {
        let read_to =
            |partition: &i32| self.ingest.ranges().get(partition).map_or(0, |(_, last)| last + 1);
        let caught_up = |(partition, owned): (&i32, &Owned)| {
            owned.reached_end || owned.start >= owned.target || read_to(partition) >= owned.target
        };
        self.assigned_once && self.partitions.iter().all(caught_up)
    }

    /// How many offsets there were to read when the partitions were assigned.
    pub fn backlog(&self) -> u64 {
        self.partitions
            .values()
            .map(|owned| u64::try_from(owned.target - owned.start).unwrap_or(0))
            .sum()
    }

    /// The offset behind what has been read, by partition.
    fn next_offsets(&self) -> Vec<(i32, i64)> {
        let next = |(partition, owned): (&i32, &Owned)| {
            let read = self.ingest.ranges().get(partition).map(|(_, last)| last + 1);
            (*partition, read.map_or(owned.start, |read| read.max(owned.start)))
        };
        self.partitions.iter().map(next).collect()
    }

    fn let_go(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.ingest.forget(*partition);
            self.committer.forget(*partition);
            self.partitions.remove(partition);
        }
    }
}

impl Assignment {
    /// The context of a consumer. `drain` bounds how long a revocation waits for what is in flight.
    pub fn new(
        state: State,
        abort: Arc<Abort>,
        on_data_loss: OnDataLoss,
        drain: Duration,
    ) -> Assignment {
        Assignment { state: Mutex::new(state), abort, on_data_loss, drain }
    }

    /// The shared state. Not to be held across a `poll`, which may call back.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assigned(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &TopicPartitionList,
    ) -> KafkaResult<()> {
        let mut state = self.state();
        state.assigned_once = true;
        let mut starts = TopicPartitionList::new();
        for (partition, owned) in self.starts(consumer, &state.topic, partitions)? {
            starts.add_partition_offset(&state.topic, partition, Offset::Offset(owned.start))?;
            state.partitions.insert(partition, owned);
        }
        tracing::info!(partitions = %describe(&numbers(partitions)), "assigned");
        // A partition that went away while it was paused comes back paused: in the client, a pause outlives the assignment.
        consumer.resume(partitions)?;
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&starts),
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(&starts),
        }
    }

    /// Where to start in each partition, asked for patiently: a broker that restarts must not cost us the assignment.
    fn starts(
        &self,
        consumer: &BaseConsumer<Self>,
        topic: &str,
        partitions: &TopicPartitionList,
    ) -> KafkaResult<Vec<(i32, Owned)>> {
        let since = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(100));
        loop {
            match self.try_starts(consumer, topic, partitions) {
                Err(error) if since.elapsed() < START && !self.abort.is_raised() => {
                    tracing::warn!(%error, "where to start is not known yet, asking again");
                    std::thread::sleep(backoff.next_wait());
                }
                answer => return answer,
            }
        }
    }

    fn try_starts(
        &self,
        consumer: &BaseConsumer<Self>,
        topic: &str,
        partitions: &TopicPartitionList,
    ) -> KafkaResult<Vec<(i32, Owned)>> {
        let committed = consumer.committed_offsets(partitions.clone(), ANSWER)?;
        let mut starts = Vec::new();
        for element in committed.elements() {
            let partition = element.partition();
            let (low, high) = consumer.fetch_watermarks(topic, partition, ANSWER)?;
            let start = match element.offset() {
                Offset::Offset(offset) => self.check(partition, offset, low, high),
                _ => low,
            };
            starts.push((partition, Owned { start, target: high, reached_end: false }));
        }
        Ok(starts)
    }

    /// Finds the partitions whose next record has gone while they were ours, and goes on with what there is of them, if that is
    /// not a reason to stop. What has been read of them is in flight all the same.
    ///
    /// # Errors
    ///
    /// The client's error when the broker does not say what there is.
    pub fn out_of_range(&self, consumer: &BaseConsumer<Self>) -> KafkaResult<()> {
        let mut state = self.state();
        let (mut all, mut moved) = (TopicPartitionList::new(), TopicPartitionList::new());
        for (partition, next) in state.next_offsets() {
            let (low, high) = consumer.fetch_watermarks(&state.topic, partition, ANSWER)?;
            let start = self.check(partition, next, low, high);
            all.add_partition_offset(&state.topic, partition, Offset::Offset(start))?;
            if start != next {
                moved.add_partition_offset(&state.topic, partition, Offset::Offset(start))?;
            }
            if next > high {
                // The topic was made again: what is in flight has offsets of the old one.
                state.ingest.forget(partition);
                state.committer.forget(partition);
            }
        }
        // A partition that stands still cannot be sought in; it is taken up anew.
        match consumer.rebalance_protocol() {
            _ if moved.count() == 0 || self.abort.is_raised() => Ok(()),
            RebalanceProtocol::Cooperative => {
                consumer.incremental_unassign(&moved)?;
                consumer.incremental_assign(&moved)
            }
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(&all),
        }
    }

    /// The offset to go on from, unless the records there are gone.
    fn check(&self, partition: i32, offset: i64, low: i64, high: i64) -> i64 {
        let (lost, remedy) = if offset < low {
            (low - offset, "were deleted by retention before they were read")
        } else if offset > high {
            (
                offset - high,
                "are missing: the offset to go on from lies past the end of the partition",
            )
        } else {
            return offset;
        };
        let what = format!("partition {partition}: {lost} records {remedy}");
        match self.on_data_loss {
            OnDataLoss::Stop => self.abort.failure(format!(
                "{what}; run.on_data_loss = \"continue\" goes on from the earliest offset, {low}"
            )),
            OnDataLoss::Continue => {
                tracing::error!(partition, lost, "{what}; going on from the earliest offset")
            }
        }
        low
    }

    fn revoked(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &TopicPartitionList,
    ) -> KafkaResult<()> {
        let going = numbers(partitions);
        let mut state = self.state();
        if consumer.assignment_lost() {
            tracing::warn!(partitions = %describe(&going), "lost: what is in flight of them is not committed");
        } else {
            self.finish(consumer, &mut state, &going);
            tracing::info!(partitions = %describe(&going), "revoked");
        }
        state.let_go(&going);
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
        }
    }

    /// Waits, within bounds, until all that was read is through, and commits what concerns the partitions that go.
    fn finish(&self, consumer: &BaseConsumer<Self>, state: &mut State, going: &[i32]) {
        let since = Instant::now();
        state.ingest.close_epoch();
        loop {
            match state.ingest.collect() {
                Ok(offsets) => state.committer.note(offsets),
                Err(imbalance) => return self.abort.failure(imbalance.to_string()),
            }
            if state.ingest.is_drained() || self.abort.is_raised() || since.elapsed() > self.drain {
                break;
            }
            state.ingest.wait(Duration::from_millis(10));
        }
        if !self.abort.is_raised() {
            state.committer.commit_now(consumer, going);
        }
    }
}

impl ClientContext for Assignment {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is news for the poll loop, and no error.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::warn!(%error, reason, "kafka");
        }
    }
}

impl ConsumerContext for Assignment {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let done = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.assigned(consumer, partitions)
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                self.revoked(consumer, partitions)
            }
            other => Err(KafkaError::Rebalance(other.into())),
        };
        if let Err(error) = done {
            self.abort
                .failure(format!("the assignment of partitions failed: {error}; start again"));
        }
    }
}

fn numbers(partitions: &TopicPartitionList) -> Vec<i32> {
    partitions
        .elements()
        .iter()
        .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
        .collect()
}

fn describe(partitions: &[i32]) -> String {
    partitions.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}
