//! The Kafka client as the source meets it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

use super::aside;
use super::assignment::{EARLIEST, State};
use crate::commit::Offsets;
use crate::config::Kafka;
use crate::figures::Figures;
use crate::kafka;
use crate::lock::lock;

/// The deadline of one question to the broker in a rebalance.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// What librdkafka says of a partition that has become shorter than it was read.
const TRUNCATION: &str = "log truncation detected";

/// What is asked of the client, besides polling it.
pub trait Client {
    /// Stops fetching from partitions.
    ///
    /// # Errors
    ///
    /// The client's.
    fn pause(&self, partitions: &[i32]) -> KafkaResult<()>;

    /// Goes on fetching.
    ///
    /// # Errors
    ///
    /// The client's.
    fn resume(&self, partitions: &[i32]) -> KafkaResult<()>;

    /// Reads on from other offsets in the partitions that have `moved`, of `all` that are ours.
    ///
    /// # Errors
    ///
    /// The client's.
    fn take_up_anew(&self, all: &Offsets, moved: &Offsets) -> KafkaResult<()>;

    /// Reads on from these offsets, of partitions that are paused.
    ///
    /// # Errors
    ///
    /// The client's, for one that stands still.
    fn go_on_from(&self, offsets: &Offsets) -> KafkaResult<()>;

    /// Commits, and waits for the coordinator's answer.
    ///
    /// # Errors
    ///
    /// The coordinator's refusal, or that it cannot be reached; then the commit may have come
    /// through all the same.
    fn commit(&self, offsets: &Offsets) -> KafkaResult<()>;

    /// The group's committed offset of each partition, if it has one.
    ///
    /// # Errors
    ///
    /// When the coordinator does not answer.
    fn committed(&self, partitions: &[i32]) -> KafkaResult<Vec<(i32, Option<i64>)>>;

    /// The first offset there is, and the one that the next record will have; or, where a
    /// transaction is open, the one where it begins.
    ///
    /// # Errors
    ///
    /// When the partition's leader does not answer.
    fn watermarks(&self, partition: i32) -> KafkaResult<(i64, i64)>;

    /// The offset that the next record will have, behind transactions that are open.
    ///
    /// # Errors
    ///
    /// When the partition's leader does not answer.
    fn end(&self, partition: i32) -> KafkaResult<i64>;

    /// All partitions that the topic has.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    fn partitions(&self) -> KafkaResult<Vec<i32>>;

    /// Whether a partition has a record from an offset on, or from its beginning, below another.
    ///
    /// # Errors
    ///
    /// When the partition's leader does not answer.
    fn has_records(&self, partition: i32, from: Option<i64>, to: i64) -> KafkaResult<bool>;

    /// Whether the partitions that are being taken away have an owner already.
    fn is_lost(&self) -> bool;

    /// Lets time pass.
    fn sleep(&self, time: Duration);
}

/// The real client's context: its callbacks, and the state that they share with the poll loop. All
/// of it runs on the poll thread.
pub struct Context {
    config: Kafka,
    state: Mutex<State>,
    made_again: AtomicBool,
    /// The topic's id, as the client writes it.
    topic_id: Mutex<Option<String>>,
    /// Whether the client has called back since this was set to false. A poll that does so may end
    /// with that, whatever waits behind it.
    pub(super) has_called_back: AtomicBool,
    /// Whether a broker has gone since this was asked last.
    has_lost_a_broker: AtomicBool,
    /// Whether somebody has asked for the client's own debug lines.
    debug: bool,
    figures: Option<Arc<Figures>>,
}

/// The real client.
pub type KafkaClient = BaseConsumer<Context>;

impl Context {
    /// The context of a consumer that is configured like that. The client's debug lines are passed
    /// on if that is asked for there.
    pub fn new(config: Kafka, state: State) -> Context {
        let debug = kafka::is_debugged(&config);
        let state = Mutex::new(state);
        Context {
            config,
            state,
            made_again: AtomicBool::default(),
            topic_id: Mutex::default(),
            has_called_back: AtomicBool::default(),
            has_lost_a_broker: AtomicBool::default(),
            debug,
            figures: None,
        }
    }

    /// The same, with what the client tells of the brokers noted.
    pub fn watched(self, figures: Option<&Arc<Figures>>) -> Context {
        Context { figures: figures.cloned(), ..self }
    }

    /// Whether what the client tells is noted.
    pub fn is_watched(&self) -> bool {
        self.figures.is_some()
    }

    /// The shared state. Not to be held across a `poll`, which may call back.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether the topic has been made again, and where it begins is not known yet.
    pub(super) fn is_made_again(&self) -> bool {
        self.made_again.load(Ordering::Relaxed)
    }

    /// The id by which the client knows the topic, once it does.
    pub(super) fn topic_id(&self) -> Option<String> {
        lock(&self.topic_id).clone()
    }

    fn calls_back(&self) {
        self.has_called_back.store(true, Ordering::Relaxed);
    }

    /// Whether the topic has been made again. Then what is ours of it is read from its beginning,
    /// and what was just polled does not count: it is of the old topic, or from the middle of the
    /// new one.
    pub fn begins_anew(&self, client: &KafkaClient) -> bool {
        if !self.made_again.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.state();
        if state.owned().is_empty() {
            // It waits for the partitions: offsets of the old topic may still be committed.
            return false;
        }
        if client.is_lost() {
            // They are about to go; what comes then is told where it begins.
            return true;
        }
        match state.made_again(client) {
            Ok(()) => self.made_again.store(false, Ordering::Relaxed),
            Err(error) => {
                tracing::warn!(%error, "the topic was made again; where it begins is not known yet")
            }
        }
        true
    }

    /// Says that no broker is there, if one has gone since this was asked last and none answers. A
    /// connection that has been made again is no outage.
    pub fn outage(&self, client: &KafkaClient) -> Option<KafkaError> {
        if !self.has_lost_a_broker.swap(false, Ordering::Relaxed) {
            return None;
        }
        let metadata = kafka::metadata(client.client(), Some(&self.config.topic), ANSWER);
        metadata.err().filter(|code| kafka::is_away(*code)).map(KafkaError::MetadataFetch)
    }

    fn assigned(&self, client: &KafkaClient, partitions: &[i32]) -> KafkaResult<()> {
        let mut state = self.state();
        let starts = if state.is_leaving() { None } else { state.assigned(client, partitions)? };
        let starts = match starts {
            Some(starts) => list(&self.config.topic, starts)?,
            None => names(&self.config.topic, partitions),
        };
        match client.rebalance_protocol() {
            RebalanceProtocol::Cooperative => client.incremental_assign(&starts),
            RebalanceProtocol::Eager | RebalanceProtocol::None => client.assign(&starts),
        }
    }

    fn revoked(&self, client: &KafkaClient, partitions: &TopicPartitionList) -> KafkaResult<()> {
        let mut state = self.state();
        let mut hand_over = state.hand_over(client, numbers(partitions));
        while let Some(patience) = hand_over.turn(&mut state, client) {
            state.ingest.wait(patience);
        }
        match client.rebalance_protocol() {
            RebalanceProtocol::Cooperative => client.incremental_unassign(partitions),
            RebalanceProtocol::Eager | RebalanceProtocol::None => client.unassign(),
        }
    }
}

impl Client for KafkaClient {
    fn pause(&self, partitions: &[i32]) -> KafkaResult<()> {
        Consumer::pause(self, &names(&self.context().config.topic, partitions))
    }

    fn resume(&self, partitions: &[i32]) -> KafkaResult<()> {
        Consumer::resume(self, &names(&self.context().config.topic, partitions))
    }

    fn take_up_anew(&self, all: &Offsets, moved: &Offsets) -> KafkaResult<()> {
        let [all, moved] = [all, moved].map(|it| list(&self.context().config.topic, it.clone()));
        // A partition that stands still cannot be sought in; it is taken up anew.
        match self.rebalance_protocol() {
            RebalanceProtocol::Cooperative => {
                let moved = moved?;
                self.incremental_unassign(&moved)?;
                self.incremental_assign(&moved)
            }
            RebalanceProtocol::Eager | RebalanceProtocol::None => self.assign(&all?),
        }
    }

    fn go_on_from(&self, offsets: &Offsets) -> KafkaResult<()> {
        let topic = &self.context().config.topic;
        let seek = |(partition, offset): (&i32, &i64)| {
            self.seek(topic, *partition, Offset::from_raw(*offset), ANSWER)
        };
        offsets.iter().try_for_each(seek)
    }

    fn commit(&self, offsets: &Offsets) -> KafkaResult<()> {
        let offsets = offsets.iter().map(|(partition, offset)| (*partition, *offset));
        Consumer::commit(self, &list(&self.context().config.topic, offsets)?, CommitMode::Sync)
    }

    fn committed(&self, partitions: &[i32]) -> KafkaResult<Vec<(i32, Option<i64>)>> {
        let asked = names(&self.context().config.topic, partitions);
        let answer = self.committed_offsets(asked, ANSWER)?;
        told(&answer)
    }

    fn watermarks(&self, partition: i32) -> KafkaResult<(i64, i64)> {
        self.fetch_watermarks(&self.context().config.topic, partition, ANSWER)
    }

    fn end(&self, partition: i32) -> KafkaResult<i64> {
        aside::end(&self.context().config, partition)
    }

    fn partitions(&self) -> KafkaResult<Vec<i32>> {
        let topic = &self.context().config.topic;
        let metadata = kafka::metadata(self.client(), Some(topic), ANSWER);
        let metadata = metadata.map_err(KafkaError::MetadataFetch)?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        Ok(partitions.map(|partition| partition.id()).collect())
    }

    fn has_records(&self, partition: i32, from: Option<i64>, to: i64) -> KafkaResult<bool> {
        aside::has_records(&self.context().config, partition, (from.unwrap_or(EARLIEST), to))
    }

    fn is_lost(&self) -> bool {
        self.assignment_lost()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.calls_back();
        if kafka::made_again(message) == Some(&self.config.topic) {
            self.made_again.store(true, Ordering::Relaxed);
        }
        if let Some(id) = kafka::new_id(message, &self.config.topic) {
            *lock(&self.topic_id) = Some(id.to_owned());
        }
        kafka::log_what_was_asked(self.debug, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.calls_back();
        if error.rdkafka_error_code().is_some_and(kafka::is_away) {
            self.has_lost_a_broker.store(true, Ordering::Relaxed);
        }
        // The code is that of an offset out of range, which follows.
        if reason.contains(TRUNCATION) {
            self.state().truncated(reason);
        }
        // The end of a partition is news for the poll loop, and no error.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            kafka::complain(&error, reason);
            self.figures.iter().for_each(|figures| figures.brokers.note_error());
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.calls_back();
        if let Some(figures) = &self.figures {
            figures.brokers.note(&statistics, &self.config.topic);
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        client: &KafkaClient,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        self.calls_back();
        let done = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.assigned(client, &numbers(partitions))
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                self.revoked(client, partitions)
            }
            other => Err(KafkaError::Rebalance(other.into())),
        };
        if let Err(error) = done {
            let message = format!("the assignment of partitions failed: {error}; start again");
            self.state().abort.failure(message);
        }
    }
}

fn numbers(partitions: &TopicPartitionList) -> Vec<i32> {
    partitions.elements().iter().map(|element| element.partition()).collect()
}

/// What the coordinator says of each partition. Not to have been told is not to have none.
fn told(answer: &TopicPartitionList) -> KafkaResult<Vec<(i32, Option<i64>)>> {
    let told = |element: &TopicPartitionListElem<'_>| {
        element.error()?;
        let offset = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        Ok((element.partition(), offset))
    };
    answer.elements().iter().map(told).collect()
}

fn names(topic: &str, partitions: &[i32]) -> TopicPartitionList {
    let mut names = TopicPartitionList::new();
    for partition in partitions {
        names.add_partition(topic, *partition);
    }
    names
}

fn list(
    topic: &str,
    offsets: impl IntoIterator<Item = (i32, i64)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, partition, Offset::from_raw(offset))?;
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::config::Config;
    use crate::source::consumer::consumer_config;

    #[test]
    fn a_partition_of_which_the_coordinator_says_nothing_is_not_one_without_an_offset() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let kafka = Kafka { brokers: cluster.bootstrap_servers(), ..Config::default().kafka };
        let client: BaseConsumer = consumer_config(&kafka).create().unwrap();
        let ask = |partition| client.committed_offsets(names("t", &[partition]), ANSWER).unwrap();
        assert_eq!(told(&ask(0)), Ok(vec![(0, None)]));
        let unknown = RDKafkaErrorCode::UnknownTopicOrPartition;
        assert_eq!(told(&ask(7)), Err(KafkaError::OffsetFetch(unknown)));
    }
}
