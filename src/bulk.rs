//! bulk: a backlog, fetched straight from the leaders of its partitions.
//!
//! The client library hands over one record at a time, each with its own memory and locks, and its
//! headers as a list. That is most of what a record costs before it is decoded. Here the records of
//! a fetch stay in the buffer that they came in, and are copied from there into chunks.
//!
//! Only what is plain is fetched here: connections without TLS and SASL, batches without
//! transactions, partitions that have a leader and the offset that is asked for.
//! Everything else stays with the client library, and so do the group, its offsets, and the tail of
//! a topic: a partition whose backlog has been read, or of which anything is unusual, is given back
//! to it at the offset that comes next. Only what is corrupt is not: it ends the run, and
//! librdkafka 2.12 has been seen to abort the process over it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use dataflows::record::RawRecord;

use crate::config::Kafka;
use crate::ingest::Ingest;

pub mod batch;
mod compression;
mod fetcher;
mod link;

use batch::{Batch, Record};
use fetcher::Fetcher;
pub use fetcher::Stretch;

/// From how many partitions what was fetched may wait: as much as one fetch brings, while the next
/// is under way.
const WAITING: usize = 4;

/// Bytes that are taken in at once: some hundred microseconds' worth.
const STEP_BYTES: usize = 256 << 10;

/// Properties of the client library that do not say how to fetch, or that bulk goes by.
const HARMLESS: [&str; 30] = [
    "acks",
    "client.id",
    "compression.codec",
    "compression.type",
    "debug",
    "delivery.timeout.ms",
    "fetch.queue.backoff.ms",
    "group.instance.id",
    "heartbeat.interval.ms",
    "linger.ms",
    "log_level",
    "max.poll.interval.ms",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.max.age.ms",
    "partition.assignment.strategy",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retries",
    "retry.backoff.ms",
    "session.timeout.ms",
    "socket.keepalive.enable",
    "statistics.interval.ms",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.interval.ms",
    "transaction.timeout.ms",
];

/// Why a partition is not fetched here any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// All of it was fetched.
    CaughtUp,
    /// What had been fetched is not in its log any more.
    Truncated {
        /// Where what is left of that ends.
        end: i64,
    },
    /// What comes next is not what was published.
    Corrupt(String),
    /// It is not plain, and will not be.
    Unfit(String),
    /// Something else is the matter.
    Trouble(String),
}

/// What was fetched of a partition at once, as far as it is not taken in.
struct Fetched {
    partition: i32,
    batches: VecDeque<Batch>,
    /// Where the partition ends.
    end: i64,
}

/// What the fetching thread tells, in its order.
enum News {
    Batches(Fetched),
    Over { partition: i32, why: Why },
}

/// What became of a look at what was fetched.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing has come in that time, or nothing that is wanted.
    Nothing,
    /// Records were taken in.
    Took {
        /// The partition.
        partition: i32,
        /// The offset that comes next.
        next: i64,
        /// Where the partition ends, as its leader said with them.
        end: i64,
    },
    /// A partition is not fetched any more.
    Over {
        /// The partition.
        partition: i32,
        /// For this reason.
        why: Why,
    },
    /// No partition is.
    Ended,
}

/// Some partitions that are fetched.
pub struct Bulk {
    news: Receiver<News>,
    taking: Option<Fetched>,
    is_over: Arc<AtomicBool>,
}

/// Whether a topic can be fetched in bulk with that configuration.
pub fn is_plain(config: &Kafka) -> bool {
    config.properties.iter().all(|(name, value)| {
        HARMLESS.contains(&name.as_str())
            || (name == "security.protocol" && value.eq_ignore_ascii_case("plaintext"))
    })
}

impl Bulk {
    /// Begins to fetch these partitions of the topic that the client library knows by that id.
    ///
    /// # Errors
    ///
    /// When there can be no more threads.
    pub fn start(
        config: &Kafka,
        topic_id: &str,
        stretches: &BTreeMap<i32, Stretch>,
    ) -> std::io::Result<Bulk> {
        let (tell, news) = bounded(WAITING);
        let is_over = Arc::new(AtomicBool::new(false));
        let client_id = config.properties.get("client.id").map_or("contentflow", String::as_str);
        let fetcher = Fetcher::new(
            (&config.brokers, client_id),
            (&config.topic, topic_id),
            stretches,
            tell,
            Arc::clone(&is_over),
        );
        std::thread::Builder::new().name("bulk-fetch".to_owned()).spawn(|| fetcher.run())?;
        Ok(Bulk { news, taking: None, is_over })
    }

    /// Takes in some records, if they come within the patience, until it `is_enough`. `wanted` says
    /// which offsets of a partition are.
    pub fn step(
        &mut self,
        ingest: &mut Ingest,
        patience: Duration,
        wanted: impl FnOnce(&Ingest, i32) -> Option<Range<i64>>,
        is_enough: impl Fn(&Ingest) -> bool,
    ) -> Step {
        if self.taking.is_none() {
            match self.news.recv_timeout(patience) {
                Ok(News::Batches(fetched)) => self.taking = Some(fetched),
                Ok(News::Over { partition, why }) => return Step::Over { partition, why },
                Err(RecvTimeoutError::Timeout) => return Step::Nothing,
                Err(RecvTimeoutError::Disconnected) => return Step::Ended,
            }
        }
        let Some(mut fetched) = self.taking.take() else { return Step::Nothing };
        let Fetched { partition, end, .. } = fetched;
        let Some(Range { start: mut next, end: until }) = wanted(ingest, partition) else {
            return Step::Nothing;
        };
        let mut bytes = 0;
        while let Some(batch) = fetched.batches.front_mut() {
            if bytes >= STEP_BYTES || is_enough(ingest) {
                self.taking = Some(fetched);
                break;
            }
            match batch.next_record() {
                Ok(Some(record)) if !(next..until).contains(&record.offset) => {}
                Ok(Some(record)) => {
                    next = record.offset + 1;
                    bytes += record.value.map_or(0, <[u8]>::len);
                    let headers = record.headers;
                    ingest.push_encoded(raw(partition, &record), headers.encoded(), headers);
                }
                Ok(None) => drop(fetched.batches.pop_front()),
                Err(unfit) => {
                    return Step::Over { partition, why: Why::Trouble(unfit.to_string()) };
                }
            }
        }
        Step::Took { partition, next, end }
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn raw<'a>(partition: i32, record: &Record<'a>) -> RawRecord<'a> {
    RawRecord {
        partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        stamped_by_topic: record.stamped_by_topic,
        key: record.key,
        value: record.value,
    }
}
