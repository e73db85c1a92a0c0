//! recall: reads single records again, of which a compacted epoch has kept only the place.
//!
//! It is needed seldom: when the database refuses a draft's newest event, so that the next one gets its turn, when a row knows the
//! newest job but not an older one, and for dead letters, which are the record byte for byte. One thread and one consumer for the
//! whole process; whoever asks waits for its answer, which takes a few milliseconds a record.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use dataflows::accept::sort;
use dataflows::change::Change;
use dataflows::record::Chunk;
use dataflows::validate::DraftIdType;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::reader::{Reader, reader};
use crate::config::Config;
use crate::shutdown::Abort;
use crate::source::{headers_of, is_out_of_range, record_of};

/// How long a poll waits for a record; often enough to hear of an abort.
const PATIENCE: Duration = Duration::from_millis(100);

/// Records between two that are wanted which are rather skipped than jumped over.
const SKIPPED_MAX: i64 = 200;

/// Where to ask.
#[derive(Clone, Debug)]
pub(super) struct Recall(Sender<Request>);

#[derive(Debug)]
struct Request {
    places: Vec<Place>,
    answer: oneshot::Sender<Vec<Change>>,
}

/// A partition and an offset.
type Place = (i32, i64);

impl Recall {
    /// Starts the thread, which ends with the last handle. It asks the brokers nothing before it is asked.
    pub(super) fn start(
        config: &Arc<Config>,
        draft_ids: DraftIdType,
        abort: &Arc<Abort>,
    ) -> Recall {
        let (sender, requests) = unbounded();
        let (config, abort) = (Arc::clone(config), Arc::clone(abort));
        std::thread::spawn(move || {
            if let Err(what) = serve(&config, draft_ids, &abort, &requests) {
                abort.failure(what);
            }
        });
        Recall(sender)
    }

    /// Reads these events again, whole.
    pub(super) async fn whole(&self, events: &mut [Change]) {
        let place = |event: &Change| (event.position().partition, event.position().offset);
        let (answer, answered) = oneshot::channel();
        let request = Request { places: events.iter().map(place).collect(), answer };
        match (self.0.send(request), answered.await) {
            (Ok(()), Ok(changes)) => {
                for change in changes {
                    if let Some(event) = events.iter_mut().find(|it| place(it) == place(&change)) {
                        *event = change;
                    }
                }
            }
            // The process is on its way down, with a reason to report.
            _ => std::future::pending().await,
        }
    }
}

fn serve(
    config: &Config,
    draft_ids: DraftIdType,
    abort: &Abort,
    requests: &Receiver<Request>,
) -> Result<(), String> {
    let mut consumer = None;
    for Request { mut places, answer } in requests {
        let consumer = match &mut consumer {
            Some(consumer) => consumer,
            none => none.insert(reader(config).map_err(|error| error.to_string())?),
        };
        places.sort_unstable();
        let chunk = read(consumer, &config.kafka.topic, &places, abort)?;
        if abort.is_raised() {
            return Ok(());
        }
        let _gone = answer.send(sort(chunk, draft_ids).changes).is_err();
    }
    Ok(())
}

/// Reads the records at these places, which are sorted.
fn read(consumer: &Reader, topic: &str, places: &[Place], abort: &Abort) -> Result<Chunk, String> {
    let failed = |error: KafkaError| format!("a record cannot be read again: {error}");
    let mut chunk = Chunk::default();
    let mut reading: Option<Place> = None;
    for &(partition, offset) in places {
        let is_near =
            |(at, next): Place| at == partition && (next..next + SKIPPED_MAX).contains(&offset);
        if !reading.is_some_and(is_near) {
            let mut from = TopicPartitionList::new();
            from.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed)?;
            consumer.assign(&from).map_err(failed)?;
        }
        loop {
            let found = match consumer.poll(PATIENCE) {
                _ if abort.is_raised() => return Ok(chunk),
                Some(Ok(message)) if message.offset() < offset => continue,
                Some(Ok(message)) => {
                    if message.offset() == offset {
                        chunk.push_named(record_of(&message), headers_of(&message));
                    }
                    message.offset() == offset
                }
                Some(Err(KafkaError::PartitionEOF(_))) => false,
                Some(Err(error)) if is_out_of_range(&error) => false,
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(failed(error));
                }
                // The client goes on trying by itself.
                Some(Err(error)) => {
                    tracing::warn!(%error, "kafka");
                    continue;
                }
                None => continue,
            };
            if !found {
                return Err(format!(
                    "the record at offset {offset} of partition {partition} is needed once more, but it is gone from the topic; \
                     replay again, with what there is now"
                ));
            }
            break;
        }
        reading = Some((partition, offset + 1));
    }
    consumer.unassign().map_err(failed)?;
    Ok(chunk)
}
