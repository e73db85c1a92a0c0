//! The topics of a world: made, filled, read, and what the group has committed.

use std::collections::BTreeMap;
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::metadata::MetadataPartition;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{DEADLINE, PARTITIONS, Record, World, block_on, eventually, given};

/// An offset for each partition.
pub(crate) type Offsets = BTreeMap<i32, i64>;

/// A partition and an offset.
pub(crate) type Place = (i32, i64);

fn client() -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", given("KAFKA_BROKERS"));
    // What is larger uncompressed is for the broker to refuse, not for the client.
    client.set("message.max.bytes", "20000000");
    client
}

static ADMIN: LazyLock<AdminClient<DefaultClientContext>> =
    LazyLock::new(|| client().create().unwrap());

/// One for all tests: a client costs threads and connections.
static PRODUCER: LazyLock<ThreadedProducer<Receipts>> = LazyLock::new(|| {
    let mut client = client();
    client.set("enable.idempotence", "true").set("linger.ms", "5");
    client.set("compression.type", "zstd").set("partitioner", "murmur2_random");
    client.create_with_context(Receipts).unwrap()
});

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(DEADLINE)).operation_timeout(Some(DEADLINE))
}

/// Tells publishers where their records have come to stand.
struct Receipts;

struct Receipt {
    index: usize,
    to: mpsc::Sender<(usize, KafkaResult<Place>)>,
}

impl ClientContext for Receipts {}

impl ProducerContext for Receipts {
    type DeliveryOpaque = Box<Receipt>;

    fn delivery(&self, result: &DeliveryResult<'_>, receipt: Box<Receipt>) {
        let place = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        // Whoever has given up waiting does not want to know.
        drop(receipt.to.send((receipt.index, place)));
    }
}

/// The topic of events and that of the dead letters.
pub(super) struct Topics {
    events: String,
    dead_letters: String,
    /// A client for the group's offsets. It never joins the group.
    group: BaseConsumer,
}

impl Topics {
    pub(super) fn create(name: &str) -> Topics {
        let topics = Topics {
            events: name.to_owned(),
            dead_letters: format!("{name}.dlq"),
            group: client().set("group.id", name).create().unwrap(),
        };
        create_topic(&topics.events, PARTITIONS, &[]);
        create_topic(&topics.dead_letters, 2, &[]);
        topics
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let Topics { events, dead_letters, group: _ } = self;
        // One that is gone already is fine, and a group that a killed process is still counted in goes by itself later.
        drop(block_on(ADMIN.delete_topics(&[events, dead_letters], &options())));
        drop(block_on(ADMIN.delete_groups(&[events], &options())));
    }
}

/// Makes a topic that keeps its records, however old.
pub(crate) fn create_topic(name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    topic = topic.set("retention.ms", "-1");
    for (setting, value) in settings {
        topic = topic.set(setting, value);
    }
    for created in block_on(ADMIN.create_topics([&topic], &options())).unwrap() {
        created.unwrap();
    }
    await_topic(name);
}

/// Waits until the broker knows the topic: the controller has answered before.
pub(crate) fn await_topic(name: &str) {
    eventually("the topic is there", || {
        let metadata = ADMIN.inner().fetch_metadata(Some(name), DEADLINE).unwrap();
        let topic = &metadata.topics()[0];
        let is_led = |partition: &MetadataPartition| partition.error().is_none();
        topic.error().is_none() && topic.partitions().iter().all(is_led)
    });
}

pub(crate) fn delete_topic(name: &str) {
    for deleted in block_on(ADMIN.delete_topics(&[name], &options())).unwrap() {
        deleted.unwrap();
    }
}

/// Sets a topic's only setting that is not its default (but for retention).
pub(crate) fn alter_topic(name: &str, setting: &str, value: &str) {
    let altered = AlterConfig::new(ResourceSpecifier::Topic(name));
    let altered = altered.set("retention.ms", "-1").set(setting, value);
    for result in block_on(ADMIN.alter_configs([&altered], &options())).unwrap() {
        result.unwrap();
    }
}

/// Publishes records and waits for all of them. The result is where they have come to stand.
pub(crate) fn publish_to(
    topic: &str,
    records: impl IntoIterator<Item = Record>,
) -> Vec<KafkaResult<Place>> {
    let (to, receipts) = mpsc::channel();
    let mut sent = 0;
    for (index, record) in records.into_iter().enumerate() {
        let headers = headers_of(&record);
        let receipt = Box::new(Receipt { index, to: to.clone() });
        let mut outgoing = BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, receipt)
            .headers(headers)
            .timestamp(record.timestamp_ms);
        outgoing.partition = record.partition;
        outgoing.key = record.key.as_deref();
        outgoing.payload = record.value.as_deref();
        while let Err((error, back)) = PRODUCER.send(outgoing) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
            outgoing = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        sent = index + 1;
    }
    drop(to);
    let mut places: Vec<Option<KafkaResult<Place>>> = vec![None; sent];
    for _ in 0..sent {
        let (index, place) = receipts.recv_timeout(DEADLINE).expect("every record has its receipt");
        places[index] = Some(place);
    }
    places.into_iter().map(Option::unwrap).collect()
}

fn headers_of(record: &Record) -> OwnedHeaders {
    record.headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
        all.insert(Header { key, value: value.as_deref() })
    })
}

/// All committed records of a topic, by partition and offset.
pub(crate) fn read(topic: &str) -> Vec<Record> {
    let mut client = client();
    client.set("group.id", "reader").set("enable.auto.commit", "false");
    client.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "10");
    let consumer: BaseConsumer = client.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).unwrap();
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut open, mut records, since) = (list.count(), Vec::new(), Instant::now());
    while open > 0 {
        assert!(since.elapsed() < DEADLINE, "{topic} cannot be read to its end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => records.push(read_back(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => panic!("{topic}: {error}"),
            None => {}
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

fn read_back(message: &impl Message) -> Record {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let headers = headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)));
    Record {
        partition: Some(message.partition()),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.collect(),
    }
}

/// A transaction with records in it, still open.
pub(crate) struct Transaction {
    id: String,
    producer: BaseProducer,
}

impl Transaction {
    pub(crate) fn commit(self) {
        self.producer.commit_transaction(DEADLINE).unwrap();
        await_transaction(&self.id);
    }

    pub(crate) fn abort(self) {
        self.producer.abort_transaction(DEADLINE).unwrap();
        await_transaction(&self.id);
    }
}

/// Waits until the end of the last transaction with that id is written to its partitions: it is decided before, and only
/// then can be seen. The next producer with the id is made to wait for just that.
pub(crate) fn await_transaction(id: &str) {
    let next: BaseProducer = client().set("transactional.id", id).create().unwrap();
    next.init_transactions(DEADLINE).unwrap();
}

impl World {
    /// The topic of events.
    pub(crate) fn topic(&self) -> &str {
        &self.topics.events
    }

    pub(crate) fn dead_letter_topic(&self) -> &str {
        &self.topics.dead_letters
    }

    /// Publishes records to the topic. The result is where they have come to stand.
    pub(crate) fn publish(&self, records: impl IntoIterator<Item = Record>) -> Vec<Place> {
        publish_to(self.topic(), records).into_iter().map(Result::unwrap).collect()
    }

    /// Publishes records in a transaction, which is left open.
    pub(crate) fn begin(&self, records: impl IntoIterator<Item = Record>) -> Transaction {
        let id = format!("{}-{:08x}", self.name, fastrand::u32(..));
        let producer: BaseProducer = client().set("transactional.id", &id).create().unwrap();
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
        Transaction { id, producer }
    }

    /// The records of the topic.
    pub(crate) fn records(&self) -> Vec<Record> {
        read(self.topic())
    }

    /// The records of the dead-letter topic, in the order of the records that they stand for; of two copies one.
    pub(crate) fn dead_letters(&self) -> Vec<Record> {
        let letters = read(self.dead_letter_topic()).into_iter().filter(|letter| {
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
        let committed = self.topics.group.committed_offsets(list, DEADLINE).unwrap();
        let committed = committed.elements().into_iter().filter_map(|element| {
            let Offset::Offset(offset) = element.offset() else { return None };
            Some((element.partition(), offset))
        });
        committed.collect()
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
        block_on(ADMIN.delete_records(&list, &options())).unwrap();
    }
}

/// The place of the record that a dead letter stands for.
fn origin(letter: &Record) -> Place {
    let number = |name: &str| letter.header(name).unwrap().parse::<i64>().unwrap();
    (i32::try_from(number("dlq.partition")).unwrap(), number("dlq.offset"))
}
