//! Reading a topic from its beginning to where it ended when the reading began: a walk with an end,
//! outside any group.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::config;
use crate::kafka;
use crate::source::is_missing_topic;

mod client;

use client::Context;

/// Without a record or an end of a partition for so long, the brokers are taken to be out.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Often enough to notice silence.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A topic that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// No broker, no topic, or no client.
    #[error(transparent)]
    Kafka(#[from] kafka::KafkaError),
    /// The topic could not be read.
    #[error("the topic {topic} cannot be read: {source}")]
    Unreadable {
        /// Its name.
        topic: String,
        /// What the client says.
        source: ClientError,
    },
    /// What there is of it is not what was published.
    #[error("the topic {topic} has corrupt records: {source}")]
    Corrupt {
        /// Its name.
        topic: String,
        /// What the client says.
        source: ClientError,
    },
    /// The brokers stopped answering.
    #[error("nothing came from the topic {topic} for {seconds} s")]
    Silent {
        /// Its name.
        topic: String,
        /// How long that was.
        seconds: u64,
    },
    /// What there is now is another topic of the same name.
    #[error("the topic {topic} was deleted and made again while it was read")]
    MadeAgain {
        /// Its name.
        topic: String,
    },
}

impl ScanError {
    /// True if it may pass by itself.
    pub fn is_outage(&self) -> bool {
        match self {
            ScanError::Kafka(error) => error.is_outage(),
            ScanError::Unreadable { source, .. } => {
                source.rdkafka_error_code().is_some_and(kafka::is_away)
            }
            ScanError::Silent { .. } => true,
            ScanError::Corrupt { .. } | ScanError::MadeAgain { .. } => false,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            ScanError::Kafka(error) => error.remedy(),
            ScanError::Unreadable { .. } if self.is_outage() => "check the brokers".to_owned(),
            ScanError::Unreadable { .. } => {
                "grant READ on it, or look into the broker's log".to_owned()
            }
            ScanError::Corrupt { .. } => {
                "mend the partition: what stands behind them is not read either".to_owned()
            }
            ScanError::Silent { .. } => "check the brokers".to_owned(),
            ScanError::MadeAgain { .. } => {
                "start again: what was read before is of the topic that is gone".to_owned()
            }
        }
    }
}

/// Reads topics without being a member of a group, committed transactions only.
pub(crate) struct Reader {
    consumer: BaseConsumer<Context>,
    /// Knows better than the consumer why no broker answers.
    admin: kafka::Admin,
}

/// A stretch of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first offset to read.
    pub from: i64,
    /// The first offset not to read.
    pub to: i64,
}

impl Stretch {
    /// How many offsets there are from there on.
    pub fn left_from(self, next: i64) -> u64 {
        u64::try_from(self.to - next.max(self.from)).unwrap_or(0)
    }
}

/// What to read of a topic, by partition; of some there may be nothing.
pub type Stretches = BTreeMap<i32, Stretch>;

impl Reader {
    /// A reader; nothing is sent yet.
    pub(crate) fn new(config: &config::Kafka) -> Result<Reader, ScanError> {
        let mut client = kafka::consumer_config(config);
        // At the end of a partition the broker holds back its answer for so long, in case something
        // comes.
        kafka::set_unless_asked(&mut client, config, &[("fetch.wait.max.ms", "20")]);
        // What retention deletes while it is being read is gone; the walk goes on with what is
        // there.
        client.set("auto.offset.reset", "earliest");
        let consumer =
            client.create_with_context(Context::of(config)).map_err(kafka::creation_error)?;
        Ok(Reader { consumer, admin: kafka::Admin::new(config)? })
    }

    /// All that the topic holds now. A partition without records is left out.
    pub(crate) fn everything(&self, topic: &str) -> Result<Stretches, ScanError> {
        let mut stretches = self.watermarks(topic)?;
        stretches.retain(|_, stretch| stretch.from < stretch.to);
        Ok(stretches)
    }

    /// Where each partition begins and ends now.
    pub(crate) fn watermarks(&self, topic: &str) -> Result<Stretches, ScanError> {
        let partitions = i32::try_from(self.partitions(topic)?).unwrap_or(i32::MAX);
        self.identify(topic)?;
        let watermarks = (0..partitions).map(|partition| {
            let watermarks =
                self.consumer.fetch_watermarks(topic, partition, kafka::METADATA_TIMEOUT);
            let (from, to) = watermarks.map_err(|source| unreadable(topic, source))?;
            Ok((partition, Stretch { from, to }))
        });
        watermarks.collect()
    }

    /// Asks which topic that is now. Before its offsets are asked for: a walk between them is a
    /// walk through that one, or ends.
    fn identify(&self, topic: &str) -> Result<(), ScanError> {
        kafka::metadata(self.consumer.client(), Some(topic), kafka::METADATA_TIMEOUT)
            .map_err(|code| unreadable(topic, ClientError::MetadataFetch(code)))?;
        // What the client has to say about the answer waits by now, and comes one line at a time.
        // Nothing is assigned, so there are no records.
        let mut lines = None;
        while lines != Some(self.consumer.context().lines()) {
            lines = Some(self.consumer.context().lines());
            drop(self.consumer.poll(Duration::ZERO));
        }
        self.consumer.context().check()
    }

    /// What the group has committed for these partitions, of those for which it has.
    pub(crate) fn committed(
        &self,
        topic: &str,
        partitions: impl Iterator<Item = i32>,
    ) -> Result<BTreeMap<i32, i64>, ScanError> {
        let mut list = TopicPartitionList::new();
        partitions.for_each(|partition| {
            list.add_partition(topic, partition);
        });
        let committed = self
            .consumer
            .committed_offsets(list, kafka::METADATA_TIMEOUT)
            .map_err(|source| unreadable(topic, source))?;
        let known = committed.elements().into_iter().filter_map(|element| {
            let Offset::Offset(offset) = element.offset() else { return None };
            Some((element.partition(), offset))
        });
        Ok(known.collect())
    }

    /// How many processes are in the group.
    pub(crate) fn group_members(&self, group: &str) -> Result<usize, ScanError> {
        Ok(self.admin.group_members(group)?)
    }

    /// How many partitions the topic has.
    pub(crate) fn partitions(&self, topic: &str) -> Result<usize, ScanError> {
        Ok(self.admin.partitions(topic, kafka::METADATA_TIMEOUT)?)
    }

    /// Shows every committed record of the stretches to `visit`, partition by partition in the
    /// order of offsets, but the partitions mixed. Ends early when `visit` breaks.
    ///
    /// Offsets are not counted: aborted and control records leave gaps. A partition is over when a
    /// record at or past its end is seen, or when the client reports that there is nothing more to
    /// read. Nothing of a topic is shown that was made again since it was first asked for.
    pub(crate) fn walk<E: From<ScanError>>(
        &self,
        topic: &str,
        stretches: &Stretches,
        mut visit: impl FnMut(&BorrowedMessage<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let mut open = stretches.clone();
        open.retain(|_, stretch| stretch.from < stretch.to);
        self.assign(topic, &open)?;
        let mut heard = Instant::now();
        while !open.is_empty() {
            let polled = self.consumer.poll(POLL_INTERVAL);
            self.consumer.context().check()?;
            match polled {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let Some(stretch) = open.get(&message.partition()) else {
                        continue;
                    };
                    if message.offset() < stretch.to && visit(&message)?.is_break() {
                        break;
                    }
                    if message.offset() + 1 >= stretch.to {
                        open.remove(&message.partition());
                    }
                }
                Some(Err(ClientError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    open.remove(&partition);
                }
                Some(Err(source @ ClientError::MessageConsumptionFatal(_))) => {
                    return Err(unreadable(topic, source).into());
                }
                // The client would go on behind it.
                Some(Err(source))
                    if source.rdkafka_error_code() == Some(RDKafkaErrorCode::BadMessage) =>
                {
                    return Err(ScanError::Corrupt { topic: topic.to_owned(), source }.into());
                }
                // The client says each of these once, and then nothing more.
                Some(Err(source)) if is_missing_topic(&source) => {
                    let missing = kafka::KafkaError::MissingTopic(topic.to_owned());
                    return Err(ScanError::from(missing).into());
                }
                Some(Err(source)) if is_refusal(&source) => {
                    return Err(unreadable(topic, source).into());
                }
                // The client goes on trying by itself: what does not pass ends in silence.
                Some(Err(source)) if heard.elapsed() > SILENCE_MAX => {
                    return Err(unreadable(topic, source).into());
                }
                None if heard.elapsed() > SILENCE_MAX => {
                    let seconds = SILENCE_MAX.as_secs();
                    return Err(ScanError::Silent { topic: topic.to_owned(), seconds }.into());
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(self.assign(topic, &Stretches::new())?)
    }

    /// Shows one record to `visit`; `None` if there is no committed record at that place.
    pub(crate) fn at<T>(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        visit: impl Fn(&BorrowedMessage<'_>) -> T,
    ) -> Result<Option<T>, ScanError> {
        let Some(stretch) = self.everything(topic)?.remove(&partition) else {
            return Ok(None);
        };
        if !(stretch.from..stretch.to).contains(&offset) {
            return Ok(None);
        }
        // Not to the next offset but to the end: a reader past a transaction is given what comes
        // after it.
        let rest = Stretches::from([(partition, Stretch { from: offset, to: stretch.to })]);
        let mut found = None;
        self.walk::<ScanError>(topic, &rest, |message| {
            found = (message.offset() == offset).then(|| visit(message));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    fn assign(&self, topic: &str, stretches: &Stretches) -> Result<(), ScanError> {
        let mut list = TopicPartitionList::new();
        for (partition, stretch) in stretches {
            list.add_partition_offset(topic, *partition, Offset::Offset(stretch.from))
                .map_err(|source| unreadable(topic, source))?;
        }
        self.consumer.assign(&list).map_err(|source| unreadable(topic, source))
    }
}

fn unreadable(topic: &str, source: ClientError) -> ScanError {
    ScanError::Unreadable { topic: topic.to_owned(), source }
}

/// Whether this user may not read, which does not pass by itself.
fn is_refusal(error: &ClientError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::SaslAuthenticationFailed
        )
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    /// A broker with a topic of one record, which refuses to give it out the first time: the client
    /// says so once.
    pub(crate) fn refuses_once(
        config: &mut config::Kafka,
    ) -> MockCluster<'static, DefaultProducerContext> {
        let cluster = MockCluster::new(1).unwrap();
        config.brokers = cluster.bootstrap_servers();
        cluster.create_topic(&config.topic, 1, 1).unwrap();
        let producer: BaseProducer = kafka::client_config(config).create().unwrap();
        let record = BaseRecord::<[u8], [u8]>::to(&config.topic).partition(0).payload(b"{}");
        assert!(producer.send(record).is_ok());
        producer.flush(kafka::METADATA_TIMEOUT).unwrap();
        let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        cluster.request_errors(RDKafkaApiKey::Fetch, &[refusal]);
        cluster
    }

    #[test]
    fn a_right_that_is_missing_is_told_at_once_and_no_outage() {
        let mut config = config::Config::default().kafka;
        let _cluster = refuses_once(&mut config);
        let reader = Reader::new(&config).unwrap();
        let stretches = Stretches::from([(0, Stretch { from: 0, to: 1 })]);
        let go_on = |_: &BorrowedMessage<'_>| Ok(ControlFlow::Continue(()));
        let error = reader.walk::<ScanError>(&config.topic, &stretches, go_on).unwrap_err();
        assert!(!error.is_outage(), "{error}");
        assert!(error.remedy().contains("grant READ"), "{error}");
    }

    #[test]
    fn a_topic_whose_brokers_are_away_needs_no_right() {
        let remedy = |code| unreadable("t", ClientError::MetadataFetch(code)).remedy();
        for away in [RDKafkaErrorCode::OperationTimedOut, RDKafkaErrorCode::LeaderNotAvailable] {
            assert_eq!(remedy(away), "check the brokers");
        }
        let refused = remedy(RDKafkaErrorCode::TopicAuthorizationFailed);
        assert!(refused.contains("grant READ"), "{refused}");
    }
}
