//! A Kafka cluster and the clients of the tests for it: the one that all tests share, or a private
//! one.

use std::sync::{Arc, LazyLock, mpsc};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::metadata::MetadataPartition;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::topic::Place;
use super::{DEADLINE, Record, block_on, eventually, given};

/// The brokers, and one client of each kind for all tests: a client costs threads and connections.
pub(crate) struct Cluster {
    pub(crate) brokers: String,
    pub(super) admin: AdminClient<DefaultClientContext>,
    producer: ThreadedProducer<Receipts>,
}

/// The cluster that all tests share.
pub(super) static SHARED: LazyLock<Arc<Cluster>> =
    LazyLock::new(|| Arc::new(Cluster::at(&given("KAFKA_BROKERS"))));

impl Cluster {
    /// The cluster that these brokers belong to.
    pub(crate) fn at(brokers: &str) -> Cluster {
        let mut producer = client(brokers);
        producer.set("enable.idempotence", "true").set("linger.ms", "5");
        producer.set("compression.type", "zstd").set("partitioner", "murmur2_random");
        Cluster {
            brokers: brokers.to_owned(),
            admin: client(brokers).create().unwrap(),
            producer: producer.create_with_context(Receipts).unwrap(),
        }
    }

    pub(super) fn client(&self) -> ClientConfig {
        client(&self.brokers)
    }

    /// Makes a topic that keeps its records, however old.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        topic = topic.set("retention.ms", "-1");
        for (setting, value) in settings {
            topic = topic.set(setting, value);
        }
        for created in block_on(self.admin.create_topics([&topic], &options())).unwrap() {
            created.unwrap();
        }
        self.await_topic(name);
    }

    /// Waits until the broker knows the topic: the controller has answered before.
    fn await_topic(&self, name: &str) {
        eventually("the topic is there", || {
            let metadata = self.admin.inner().fetch_metadata(Some(name), DEADLINE).unwrap();
            let topic = &metadata.topics()[0];
            let is_led = |partition: &MetadataPartition| partition.error().is_none();
            topic.error().is_none() && topic.partitions().iter().all(is_led)
        });
    }

    pub(crate) fn delete_topic(&self, name: &str) {
        for deleted in block_on(self.admin.delete_topics(&[name], &options())).unwrap() {
            deleted.unwrap();
        }
    }

    /// Deletes topics; those that are gone already are fine.
    pub(crate) fn discard_topics(&self, names: &[&str]) {
        drop(block_on(self.admin.delete_topics(names, &options())));
    }

    /// Deletes a topic, and makes it again with these records.
    pub(crate) fn make_again_with(
        &self,
        name: &str,
        partitions: i32,
        records: impl IntoIterator<Item = Record>,
    ) {
        self.delete_topic(name);
        eventually("it can be made again", || self.is_gone(name));
        self.create_topic(name, partitions, &[]);
        // A client that has not known the old one.
        let published = Cluster::at(&self.brokers).publish_to(name, records);
        assert!(published.iter().all(Result::is_ok), "{published:?}");
    }

    /// Sets a topic's only setting that is not its default (but for retention).
    pub(crate) fn alter_topic(&self, name: &str, setting: &str, value: &str) {
        self.configure_topic(name, &[(setting, value)]);
    }

    /// Sets all of a topic's settings that are not their defaults (but for retention).
    pub(crate) fn configure_topic(&self, name: &str, settings: &[(&str, &str)]) {
        let altered = AlterConfig::new(ResourceSpecifier::Topic(name)).set("retention.ms", "-1");
        let altered = settings.iter().fold(altered, |all, (name, value)| all.set(name, value));
        for result in block_on(self.admin.alter_configs([&altered], &options())).unwrap() {
            result.unwrap();
        }
    }

    /// Publishes records and waits for all of them. The result is where they have come to stand.
    pub(crate) fn publish_to(
        &self,
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
            while let Err((error, back)) = self.producer.send(outgoing) {
                assert_eq!(
                    error.rdkafka_error_code(),
                    Some(RDKafkaErrorCode::QueueFull),
                    "{error}"
                );
                outgoing = back;
                std::thread::sleep(Duration::from_millis(5));
            }
            sent = index + 1;
        }
        drop(to);
        let mut places: Vec<Option<KafkaResult<Place>>> = vec![None; sent];
        for _ in 0..sent {
            let (index, place) =
                receipts.recv_timeout(DEADLINE).expect("every record has its receipt");
            places[index] = Some(place);
        }
        places.into_iter().map(Option::unwrap).collect()
    }

    /// All committed records of a topic, by partition and offset.
    pub(crate) fn read(&self, topic: &str) -> Vec<Record> {
        let mut client = self.client();
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

    /// Whether the broker knows no such topic.
    pub(crate) fn is_gone(&self, topic: &str) -> bool {
        let metadata = self.admin.inner().fetch_metadata(Some(topic), DEADLINE).unwrap();
        metadata.topics()[0].error().is_some()
    }

    /// The offset behind the last record, by partition.
    pub(crate) fn ends(&self, topic: &str) -> Vec<i64> {
        let metadata = self.admin.inner().fetch_metadata(Some(topic), DEADLINE).unwrap();
        let partitions = metadata.topics()[0].partitions().iter();
        let end = |partition: &MetadataPartition| {
            self.admin.inner().fetch_watermarks(topic, partition.id(), DEADLINE).unwrap().1
        };
        partitions.map(end).collect()
    }

    /// Gives a topic more partitions.
    pub(crate) fn add_partitions(&self, topic: &str, count: usize) {
        let more = NewPartitions::new(topic, count);
        for created in block_on(self.admin.create_partitions([&more], &options())).unwrap() {
            created.unwrap();
        }
    }

    /// Waits until the end of the last transaction with that id is written to its partitions: it is
    /// decided before, and only then can be seen. The next producer with the id is made to wait for
    /// just that.
    pub(crate) fn await_transaction(&self, id: &str) {
        let next: BaseProducer = self.client().set("transactional.id", id).create().unwrap();
        next.init_transactions(DEADLINE).unwrap();
    }
}

fn client(brokers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers);
    // A broker that comes back is found soon.
    client.set("reconnect.backoff.max.ms", "500");
    // What is larger uncompressed is for the broker to refuse, not for the client.
    client.set("message.max.bytes", "20000000");
    client
}

pub(super) fn options() -> AdminOptions {
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

pub(super) fn headers_of(record: &Record) -> OwnedHeaders {
    record.headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
        all.insert(Header { key, value: value.as_deref() })
    })
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
