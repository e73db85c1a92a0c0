//! recall: reads single records again, of which a compacted epoch has kept only the place.
//!
//! It is needed seldom: when the database refuses a draft's newest event, so that the next one gets
//! its turn, when a row knows the newest job but not an older one, and for dead letters, which are
//! the record byte for byte. One thread and one consumer for the whole process; whoever asks waits
//! for its answer, which takes a few milliseconds a record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use dataflows::accept::sort;
use dataflows::change::Change;
use dataflows::record::{Chunk, Position};
use dataflows::validate::DraftIdType;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::reader::{Context, Reader, reader_beside, silent_for};
use crate::config::{Config, OnOutage};
use crate::scan::SILENCE_MAX;
use crate::shutdown::{Abort, Cause};
use crate::source::{
    SourceError, headers_of, is_corrupt, is_missing_topic, is_out_of_range, judge, record_of,
};

/// How long a poll waits for a record; often enough to hear of an abort.
const PATIENCE: Duration = Duration::from_millis(100);

/// Records between two that are wanted which are rather skipped than jumped over.
const SKIPPED_MAX: i64 = 200;

/// So many records share a chunk, and each is looked for among as many: a draft may have had
/// millions of events.
const AT_ONCE: usize = 1_000;

/// Where to ask.
#[derive(Clone, Debug)]
pub(super) struct Recall(Sender<Request>);

#[derive(Debug)]
struct Request {
    events: Vec<Known>,
    answer: oneshot::Sender<Vec<Change>>,
}

/// A partition and an offset.
type Place = (i32, i64);

/// What is known of an event: enough to tell whether what stands at its place still is that event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    position: Position,
    job: String,
    draft: String,
}

impl Known {
    fn of(event: &Change) -> Known {
        let [job, draft] = [event.job_id(), event.draft_id()].map(str::to_owned);
        Known { position: event.position(), job, draft }
    }

    fn place(&self) -> Place {
        (self.position.partition, self.position.offset)
    }
}

impl Recall {
    /// Starts the thread, which ends with the last handle. It asks the brokers nothing before it is
    /// asked. That the topic was made again is noted in the `context` of the replay's reader.
    pub(super) fn start(
        config: &Arc<Config>,
        draft_ids: DraftIdType,
        context: &Arc<Context>,
        abort: &Arc<Abort>,
    ) -> Recall {
        let (sender, requests) = unbounded();
        let (config, abort, context) = (Arc::clone(config), Arc::clone(abort), Arc::clone(context));
        std::thread::spawn(move || {
            let silence_max = (config.run.on_outage == OnOutage::Exit).then_some(SILENCE_MAX);
            let source = Source { config: &config, context: &context, abort: &abort, silence_max };
            match serve(source, draft_ids, &requests) {
                Ok(()) => {}
                Err(Cause::Outage(what)) => abort.outage(what),
                Err(Cause::Failure(what)) => abort.failure(what),
            }
        });
        Recall(sender)
    }

    /// Reads these events again, whole.
    pub(super) async fn whole(&self, events: &mut [Change]) {
        for events in events.chunks_mut(AT_ONCE) {
            self.some(events).await;
        }
    }

    async fn some(&self, events: &mut [Change]) {
        let place = |event: &Change| (event.position().partition, event.position().offset);
        let (answer, answered) = oneshot::channel();
        let request = Request { events: events.iter().map(Known::of).collect(), answer };
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

/// Where the records are read.
#[derive(Clone, Copy)]
struct Source<'a> {
    config: &'a Config,
    context: &'a Context,
    abort: &'a Abort,
    /// How long the brokers may be silent before they are taken to be out.
    silence_max: Option<Duration>,
}

impl Source<'_> {
    /// Whether nobody waits for a record any more.
    fn is_over(&self) -> bool {
        self.abort.is_raised() || self.context.is_topic_gone()
    }
}

fn serve(
    source: Source<'_>,
    draft_ids: DraftIdType,
    requests: &Receiver<Request>,
) -> Result<(), Cause> {
    let Source { config, context, .. } = source;
    let mut consumer = None;
    for Request { events, answer } in requests {
        let consumer = match &mut consumer {
            Some(consumer) => consumer,
            none => none.insert(reader_beside(config, context).map_err(failed)?),
        };
        let mut places: Vec<Place> = events.iter().map(Known::place).collect();
        places.sort_unstable();
        let chunk = read(consumer, source, &places)?;
        if source.is_over() {
            return Ok(());
        }
        let changes = sort(chunk, draft_ids).changes;
        if !are_there(&events, &changes) {
            // This client may have asked for the topic when it was made again already, and then
            // sees no change.
            context.note_another_topic();
            return Ok(());
        }
        let _gone = answer.send(changes).is_err();
    }
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> Cause {
    Cause::Failure(format!("a record cannot be read again: {error}"))
}

/// Whether each of the events is among those that were read again.
fn are_there(events: &[Known], changes: &[Change]) -> bool {
    let found: BTreeSet<Known> = changes.iter().map(Known::of).collect();
    events.iter().all(|event| found.contains(event))
}

/// Reads the records at these places, which are sorted.
fn read(consumer: &Reader, source: Source<'_>, places: &[Place]) -> Result<Chunk, Cause> {
    let topic = &source.config.kafka.topic;
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
        let mut heard = Instant::now();
        loop {
            let found = match consumer.poll(PATIENCE) {
                _ if source.is_over() => return Ok(chunk),
                Some(Ok(message)) if message.offset() < offset => {
                    heard = Instant::now();
                    continue;
                }
                Some(Ok(message)) => {
                    if message.offset() == offset {
                        chunk.push_named(record_of(&message), headers_of(&message));
                    }
                    message.offset() == offset
                }
                Some(Err(KafkaError::PartitionEOF(_))) => false,
                Some(Err(error)) if is_out_of_range(&error) => false,
                Some(Err(error)) if is_missing_topic(&error) => {
                    source.context.note_deleted();
                    return Ok(chunk);
                }
                Some(Err(error)) if is_corrupt(&error) => return Err(failed(error)),
                unheard => {
                    // The client goes on trying by itself, unless it may not read at all.
                    unheard.and_then(Result::err).map_or(Ok(()), |error| refused(error, source))?;
                    match source.silence_max {
                        Some(silence) if heard.elapsed() > silence => {
                            return Err(silent_for(silence));
                        }
                        _ => continue,
                    }
                }
            };
            if !found {
                return Err(Cause::Failure(format!(
                    "the record at offset {offset} of partition {partition} is needed once more, but it is gone from the topic; \
                     replay again, with what there is now"
                )));
            }
            break;
        }
        reading = Some((partition, offset + 1));
    }
    consumer.unassign().map_err(failed)?;
    Ok(chunk)
}

/// What does not pass by itself.
fn refused(error: KafkaError, source: Source<'_>) -> Result<(), Cause> {
    judge(error, source.config).map_err(|error| match error {
        SourceError::CalledOff(cause) => cause,
        other => failed(other),
    })
}

#[cfg(test)]
mod tests;
