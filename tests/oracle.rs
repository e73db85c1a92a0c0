//! What must become of a topic's records: the rules in a few lines, as a fold over the topic in the
//! order of delivery, to hold against what the program has made of them. Shared by `make million`
//! and `make chaos`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use contentflow::config::{self, Config};
use contentflow::kafka::{self, Admin, METADATA_TIMEOUT};
use contentflow::postgres;
use dataflows::decode::{Decoded, decode};
use dataflows::record::{Chunk, Position, RawRecord};
use dataflows::reject::Reason;
use dataflows::validate::{DraftIdType, STYLES};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

/// Longer than reading any of the topics takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// How many jobs a row remembers.
const REMEMBERED: usize = 16;

/// What becomes of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its job reaches the row, or has reached it before.
    Settled,
    /// Another event type.
    Skipped,
    /// It must be a dead letter, for this reason.
    Rejected(Reason),
}

/// What a draft's row must hold.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// The jobs that reached it, with the place of the first event of each.
    jobs: Vec<(Position, String)>,
    /// The images of the newest of them.
    images: Value,
}

/// The drafts that have events.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    drafts: HashMap<String, Draft>,
}

/// How the rows differ from what they must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Rows that are not exactly as they must be, and drafts without a row.
    pub(crate) wrong_rows: usize,
    /// Jobs that their row must remember, and does not.
    pub(crate) lost_jobs: usize,
}

impl Oracle {
    /// Judges the next record of the topic. `refusal` says why the database takes no event of a
    /// draft.
    pub(crate) fn judge(
        &mut self,
        message: &BorrowedMessage<'_>,
        refusal: impl Fn(&str) -> Option<Reason>,
    ) -> Fate {
        let position = Position {
            timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
            offset: message.offset(),
            partition: message.partition(),
        };
        let record = RawRecord {
            partition: position.partition,
            offset: position.offset,
            timestamp_ms: position.timestamp_ms,
            value: message.payload(),
            ..RawRecord::default()
        };
        let mut chunk = Chunk::with_capacity(8, 1024);
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        chunk.push(record, headers.map(|header| (header.key, header.value)));
        let event = match decode(chunk.record(0), DraftIdType::Text { max_chars: None }) {
            Decoded::Event(event) => event,
            Decoded::Skipped => return Fate::Skipped,
            Decoded::Rejected(fault) => return Fate::Rejected(fault.reason),
        };
        if let Some(reason) = refusal(&event.draft_id) {
            return Fate::Rejected(reason);
        }
        let draft = self.drafts.entry(event.draft_id.into_owned()).or_default();
        if draft.jobs.iter().any(|(_, job)| *job == event.job_id) {
            return Fate::Settled;
        }
        if draft.jobs.iter().all(|(held, _)| position > *held) {
            let urls = STYLES.iter().zip(&event.urls);
            draft.images = urls
                .map(|(style, url)| ((*style).to_owned(), Value::from(url.to_string())))
                .collect();
        }
        draft.jobs.push((position, event.job_id.into_owned()));
        Fate::Settled
    }

    /// Holds the rows of the table against the drafts. A draft without an event has no images.
    pub(crate) async fn compare(&self, config: &Config) -> Result<Difference> {
        let client = postgres::connect(&config.database).await?;
        let sql = "SELECT event_draft_id, content_images, content_job_id, content_older_jobs, content_older_positions, \
             CASE WHEN isfinite(content_event_at) THEN (extract(epoch FROM content_event_at) * 1000)::int8 END, \
             content_event_offset, content_event_partition FROM event_drafts";
        let (mut difference, mut matched) = (Difference::default(), 0);
        for row in client.query(sql, &[]).await? {
            let place = (row.get(5), row.get(6), row.get(7));
            let found = (row.get(1), row.get(2), row.get(3), row.get(4), place);
            let Some(draft) = self.drafts.get(row.get::<_, &str>(0)) else {
                difference.wrong_rows += usize::from(found != Draft::default().row());
                continue;
            };
            matched += 1;
            let expected = draft.row();
            let remembers = |job: &String| found.2.iter().flatten().any(|found| found == job);
            difference.lost_jobs +=
                expected.2.iter().flatten().filter(|job| !remembers(job)).count();
            difference.wrong_rows += usize::from(found != expected);
        }
        difference.wrong_rows += self.drafts.len() - matched;
        Ok(difference)
    }
}

/// Images, job, the older jobs remembered, three numbers for the place of each, and the place of
/// the event that the row holds.
type Row = (Option<Value>, Option<String>, Option<Vec<String>>, Option<Vec<i64>>, Place);

/// Timestamp, offset and partition.
type Place = (Option<i64>, i64, i32);

impl Draft {
    fn row(&self) -> Row {
        let mut jobs: Vec<&(Position, String)> = self.jobs.iter().collect();
        jobs.sort_unstable_by(|left, right| right.cmp(left));
        jobs.truncate(REMEMBERED);
        let newest = jobs.first().map(|(_, job)| job.clone());
        let place = jobs
            .first()
            .map_or((None, -1, -1), |(at, _)| (Some(at.timestamp_ms), at.offset, at.partition));
        let older = jobs.split_off(jobs.len().min(1));
        let places = older.iter().flat_map(|(Position { timestamp_ms, offset, partition }, _)| {
            [*timestamp_ms, *offset, i64::from(*partition)]
        });
        let places: Vec<i64> = places.collect();
        let older: Vec<String> = older.into_iter().map(|(_, job)| job.clone()).collect();
        let has_older = !older.is_empty();
        let images = newest.is_some().then(|| self.images.clone());
        (images, newest, has_older.then_some(older), has_older.then_some(places), place)
    }
}

/// Shows all committed records of a topic to `visit`, those of a partition in their order.
pub(crate) fn read(
    kafka: &config::Kafka,
    topic: &str,
    mut visit: impl FnMut(&BorrowedMessage<'_>),
) -> Result<()> {
    let partitions = Admin::new(kafka)?.partitions(topic, METADATA_TIMEOUT)?;
    let mut client = kafka::client_config(kafka);
    client.set("group.id", "nobody").set("enable.auto.commit", "false");
    client.set("enable.partition.eof", "true").set("isolation.level", "read_committed");
    let consumer: BaseConsumer = client.create()?;
    let mut all = TopicPartitionList::new();
    for partition in (0..).take(partitions) {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let (mut ends, since) = (0, Instant::now());
    while ends < partitions {
        ensure!(since.elapsed() < PATIENCE, "{topic} cannot be read to its end");
        match consumer.poll(Duration::from_secs(1)) {
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(message) => visit(&message.with_context(|| format!("{topic} cannot be read"))?),
            // The client has dealt with something else.
            None => {}
        }
    }
    Ok(())
}
