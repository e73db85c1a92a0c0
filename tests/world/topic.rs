//! The topics of a world: made, filled, read, and what the group has committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::cluster::{Cluster, SHARED, headers_of, options};
use super::{DEADLINE, PARTITIONS, Record, World, block_on, eventually};

/// An offset for each partition.
pub(crate) type Offsets = BTreeMap<i32, i64>;

/// A partition and an offset.
pub(crate) type Place = (i32, i64);

/// The topic of events and that of the dead letters.
pub(super) struct Topics {
    cluster: Arc<Cluster>,
    events: String,
    dead_letters: String,
    /// A client for the group's offsets. It never joins the group.
    group: BaseConsumer,
}

impl Topics {
    pub(super) fn create(name: &str) -> Topics {
        Topics::create_on(&SHARED, name)
    }

    fn create_on(cluster: &Arc<Cluster>, name: &str) -> Topics {
        let topics = Topics {
            cluster: Arc::clone(cluster),
            events: name.to_owned(),
            dead_letters: format!("{name}.dlq"),
            group: cluster.client().set("group.id", name).create().unwrap(),
        };
        cluster.create_topic(&topics.events, PARTITIONS, &[]);
        cluster.create_topic(&topics.dead_letters, 2, &[]);
        topics
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let Topics { cluster, events, dead_letters, group: _ } = self;
        cluster.discard_topics(&[events, dead_letters]);
        // A group that a killed process is still counted in goes by itself later.
        drop(block_on(cluster.admin.delete_groups(&[events], &options())));
    }
}

/// [`Cluster::create_topic`] on the cluster that all tests share, and so on.
pub(crate) fn create_topic(name: &str, partitions: i32, settings: &[(&str, &str)]) {
    SHARED.create_topic(name, partitions, settings);
}

/// Whether there is no such topic (any more).
pub(crate) fn is_gone(name: &str) -> bool {
    SHARED.is_gone(name)
}

pub(crate) fn delete_topic(name: &str) {
    SHARED.delete_topic(name);
}

/// Deletes topics when a test is over. What fails here is not what was tested.
pub(crate) fn discard_topics(names: &[&str]) {
    SHARED.discard_topics(names);
}

pub(crate) fn alter_topic(name: &str, setting: &str, value: &str) {
    SHARED.alter_topic(name, setting, value);
}

pub(crate) fn read(topic: &str) -> Vec<Record> {
    SHARED.read(topic)
}

pub(crate) fn await_transaction(id: &str) {
    SHARED.await_transaction(id);
}

/// A transaction with records in it, still open.
pub(crate) struct Transaction {
    cluster: Arc<Cluster>,
    id: String,
    producer: BaseProducer,
}

impl Transaction {
    pub(crate) fn commit(self) {
        self.producer.commit_transaction(DEADLINE).unwrap();
        self.cluster.await_transaction(&self.id);
    }

    pub(crate) fn abort(self) {
        self.producer.abort_transaction(DEADLINE).unwrap();
        self.cluster.await_transaction(&self.id);
    }
}

impl World {
    /// Moves the topics to another cluster. What was in them before stays behind.
    pub(crate) fn move_to(&mut self, cluster: &Arc<Cluster>) {
        self.topics = Topics::create_on(cluster, &self.name);
        self.set("kafka.brokers", cluster.brokers.clone());
    }

    /// The cluster that the topics are on.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.topics.cluster
    }

    /// The topic of events.
    pub(crate) fn topic(&self) -> &str {
        &self.topics.events
    }

    pub(crate) fn dead_letter_topic(&self) -> &str {
        &self.topics.dead_letters
    }

    /// Publishes records to the topic. The result is where they have come to stand.
    pub(crate) fn publish(&self, records: impl IntoIterator<Item = Record>) -> Vec<Place> {
        self.cluster().publish_to(self.topic(), records).into_iter().map(Result::unwrap).collect()
    }

    /// Publishes records in a transaction, which is left open.
    pub(crate) fn begin(&self, records: impl IntoIterator<Item = Record>) -> Transaction {
        self.begin_for(60_000, records)
    }

    /// [`begin`](World::begin); the broker aborts the transaction if it is open for so long.
    pub(crate) fn begin_for(
        &self,
        timeout_ms: u32,
        records: impl IntoIterator<Item = Record>,
    ) -> Transaction {
        let id = format!("{}-{:08x}", self.name, fastrand::u32(..));
        let mut client = self.cluster().client();
        client.set("transactional.id", &id).set("transaction.timeout.ms", timeout_ms.to_string());
        let producer: BaseProducer = client.create().unwrap();
        producer.init_transactions(DEADLINE).unwrap();
        producer.begin_transaction().unwrap();
        for record in records {
            let mut outgoing = BaseRecord::<[u8], [u8]>::to(self.topic())
                .headers(headers_of(&record))
                .timestamp(record.timestamp_ms);
            outgoing.partition = record.partition;
            outgoing.key = record.key.as_deref();
            outgoing.payload = record.value.as_deref();
            assert!(producer.send(outgoing).is_ok());
        }
        // Written, not only queued: an abort of what was never sent would leave nothing to skip.
        producer.flush(DEADLINE).unwrap();
        Transaction { cluster: Arc::clone(&self.topics.cluster), id, producer }
    }

    /// The records of the topic.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.cluster().read(self.topic())
    }

    /// The records of the dead-letter topic, in the order of the records that they stand for; of
    /// two copies one.
    pub(crate) fn dead_letters(&self) -> Vec<Record> {
        let letters = self.cluster().read(self.dead_letter_topic()).into_iter().filter(|letter| {
            // Marks of a replay have no reason.
            letter.header("dlq.reason").is_some()
        });
        let by_origin: BTreeMap<Place, Record> =
            letters.map(|letter| (origin(&letter), letter)).collect();
        by_origin.into_values().collect()
    }

    /// The reason of each dead letter, by the record that it stands for.
    pub(crate) fn rejects(&self) -> BTreeMap<Place, String> {
        let reason = |letter: &Record| letter.header("dlq.reason").unwrap().to_owned();
        self.dead_letters().iter().map(|letter| (origin(letter), reason(letter))).collect()
    }

    /// What the group has committed. Partitions without an offset are left out.
    pub(crate) fn committed(&self) -> Offsets {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(self.topic(), 0, PARTITIONS - 1);
        let mut answer = None;
        eventually("the group's coordinator answers", || {
            let committed = self.topics.group.committed_offsets(list.clone(), DEADLINE);
            // A broker that has just started does not know yet that it coordinates the group.
            let code = committed.as_ref().err().and_then(KafkaError::rdkafka_error_code);
            let is_starting = code == Some(RDKafkaErrorCode::NotCoordinator)
                || code == Some(RDKafkaErrorCode::CoordinatorLoadInProgress);
            answer = Some(committed).filter(|_| !is_starting);
            answer.is_some()
        });
        let committed = answer.unwrap().unwrap();
        let committed = committed.elements().into_iter().filter_map(|element| {
            let Offset::Offset(offset) = element.offset() else { return None };
            Some((element.partition(), offset))
        });
        committed.collect()
    }

    /// Deletes the group, which nobody is a member of, with all its offsets.
    pub(crate) fn delete_group(&self) {
        let deleted = block_on(self.cluster().admin.delete_groups(&[&self.name], &options()));
        for deleted in deleted.unwrap() {
            deleted.unwrap();
        }
    }

    /// Commits an offset for the group, which nobody is a member of.
    pub(crate) fn commit(&self, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(self.topic(), partition, Offset::Offset(offset)).unwrap();
        self.topics.group.commit(&list, CommitMode::Sync).unwrap();
    }

    /// The offset behind the last record, of the partitions that have any.
    pub(crate) fn ends(&self) -> Offsets {
        let ends = (0..PARTITIONS).map(|partition| {
            let watermarks = self.topics.group.fetch_watermarks(self.topic(), partition, DEADLINE);
            (partition, watermarks.unwrap().1)
        });
        ends.filter(|(_, end)| *end > 0).collect()
    }

    /// Deletes the records of a partition below that offset, as retention does.
    pub(crate) fn delete_records(&self, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(self.topic(), partition, Offset::Offset(before)).unwrap();
        block_on(self.cluster().admin.delete_records(&list, &options())).unwrap();
    }
}

/// The place of the record that a dead letter stands for.
fn origin(letter: &Record) -> Place {
    let number = |name: &str| letter.header(name).unwrap().parse::<i64>().unwrap();
    (i32::try_from(number("dlq.partition")).unwrap(), number("dlq.offset"))
}
