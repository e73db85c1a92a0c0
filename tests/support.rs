//! For tests that call the library itself; `world` is for those that start the program.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use contentflow::config::{Config, Overrides};
use contentflow::kafka::client_config;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::world::{DEADLINE, discard_topics, given};

/// A part of the servers that no other test uses.
pub(crate) struct Corner {
    pub(crate) config: Config,
    /// The same configuration for a process of its own.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) runtime: tokio::runtime::Runtime,
    topics: RefCell<Vec<String>>,
}

/// Leaves nothing behind, so that a server can take many runs. What fails here is not what was
/// tested.
impl Drop for Corner {
    fn drop(&mut self) {
        let topics = self.topics.take();
        discard_topics(&topics.iter().map(String::as_str).collect::<Vec<_>>());
        let drop_table = format!("DROP TABLE IF EXISTS {}", self.config.database.table.sql());
        self.runtime.block_on(async {
            if let Ok(client) = contentflow::postgres::connect(&self.config.database).await {
                drop(client.batch_execute(&drop_table).await);
            }
        });
    }
}

/// A record with everything that must survive.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        Some(String::from_utf8(value.clone()?).unwrap())
    }

    /// The record without what the dead letters added.
    pub(crate) fn own(&self) -> Record {
        let headers = self.headers.iter().filter(|(name, _)| !name.starts_with("dlq.")).cloned();
        Record { offset: 0, headers: headers.collect(), ..self.clone() }
    }
}

/// Runs SQL and gives the rows as text; `NULL` is the empty text.
pub(crate) async fn sql(config: &Config, statement: &str) -> Vec<Vec<String>> {
    let client = contentflow::postgres::connect(&config.database).await.unwrap();
    let messages = client.simple_query(statement).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect())
        .collect()
}

impl Corner {
    /// A corner with its names made from `name`, a topic of `partitions` and dead letters of two,
    /// and no table yet.
    pub(crate) fn new(name: &str, partitions: i32) -> Corner {
        Corner::with_dead_letters(name, partitions, &[])
    }

    pub(crate) fn with_dead_letters(
        name: &str,
        partitions: i32,
        limits: &[(&str, &str)],
    ) -> Corner {
        let unique = format!("{name}-{:08x}", fastrand::u32(..));
        let mut environment: Vec<(String, String)> = ["KAFKA_BROKERS", "DATABASE_URL", "REDIS_URL"]
            .map(|name| (name.to_owned(), given(name)))
            .to_vec();
        environment.extend([
            ("CONTENTFLOW_KAFKA__TOPIC".to_owned(), unique.clone()),
            ("CONTENTFLOW_KAFKA__GROUP".to_owned(), unique.clone()),
            ("CONTENTFLOW_DATABASE__TABLE".to_owned(), unique.replace('-', "_")),
            ("CONTENTFLOW_CACHE__KEY".to_owned(), format!("{unique}:draft:{{id}}")),
            ("CONTENTFLOW_HTTP__LISTEN".to_owned(), "off".to_owned()),
        ]);
        let none = std::path::Path::new("no such file");
        let config =
            Config::load_from(None, none, environment.clone(), Overrides::default()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let corner = Corner { config, environment, runtime, topics: RefCell::default() };
        corner.create_topic(&unique, partitions, &[]);
        corner.create_topic(&corner.config.dead_letters.topic, 2, limits);
        corner
    }

    /// The program itself, with this corner's configuration.
    pub(crate) fn contentflow(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_contentflow"));
        command.args(arguments).envs(self.environment.iter().cloned());
        command
    }

    pub(crate) fn topic(&self) -> &str {
        &self.config.kafka.topic
    }

    pub(crate) fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        self.topics.borrow_mut().push(name.to_owned());
        crate::world::create_topic(name, partitions, settings);
    }

    /// Publishes records as they are, each to its partition; the error is the first delivery's.
    pub(crate) fn produce(&self, topic: &str, records: &[Record]) -> Result<(), KafkaError> {
        let mut client = client_config(&self.config.kafka);
        client
            .set("message.max.bytes", "50000000")
            .set("acks", "all")
            .set("batch.num.messages", "1");
        let producer: BaseProducer = client.create().unwrap();
        let before = self.read(topic).len();
        for record in records {
            let headers = record.headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header { key, value: value.as_deref() })
            });
            let mut base =
                BaseRecord::<[u8], [u8]>::to(topic).partition(record.partition).headers(headers);
            base.key = record.key.as_deref();
            base.payload = record.value.as_deref();
            base.timestamp = Some(record.timestamp_ms);
            producer.send(base).map_err(|(error, _)| error)?;
        }
        producer.flush(DEADLINE)?;
        match self.read(topic).len() - before {
            sent if sent == records.len() => Ok(()),
            _ => Err(KafkaError::MessageProduction(
                rdkafka::types::RDKafkaErrorCode::MessageSizeTooLarge,
            )),
        }
    }

    /// All committed records of a topic, by partition and offset.
    pub(crate) fn read(&self, topic: &str) -> Vec<Record> {
        let mut client = client_config(&self.config.kafka);
        client
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        client.set("fetch.wait.max.ms", "20");
        let consumer: BaseConsumer = client.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).unwrap();
        let mut open = metadata.topics()[0].partitions().len();
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let (mut records, started) = (Vec::new(), Instant::now());
        while open > 0 {
            assert!(started.elapsed() < DEADLINE, "{topic} cannot be read to its end");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => records.push(record(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => panic!("{error}"),
                None => {}
            }
        }
        records.sort_by_key(|record: &Record| (record.partition, record.offset));
        records
    }
}

fn record(message: &impl Message) -> Record {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect(),
    }
}

/// What a command writes.
pub(crate) fn output<T>(command: impl FnOnce(&mut Vec<u8>) -> T) -> (T, String) {
    let mut out = Vec::new();
    let result = command(&mut out);
    (result, String::from_utf8(out).unwrap())
}
