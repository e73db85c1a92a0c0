//! dead-letter: publishes rejected records, and answers when all in-sync replicas have them.
//!
//! A delivery that is reported as failed may have succeeded all the same: it is sent again, and the
//! two copies of one dead letter are told to be one by their topic, partition and offset.

use std::future::Future;

use dataflows::planted::{Bug, is_planted};
use dataflows::reject::Rejected;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::outage::{Outage, OutagePolicy};
use super::{Job, Lane};
use crate::figures::Server;

mod topic;

pub use topic::{DeadLetterProducer, Deliveries, Delivery, Topic, producer, producer_config};

/// The dead-letter topic as a lane meets it.
pub trait Publish: Send {
    /// Publishes records of a batch, each in its form, and waits until all in-sync replicas have
    /// them. Returns those that were not reported as delivered, though they may have been.
    fn publish(
        &mut self,
        batch: &[Rejected],
        letters: &[(usize, Form)],
    ) -> impl Future<Output = Vec<(usize, Form, KafkaError)>> + Send;
}

/// So many records of a lane are with the client at a time. It keeps a copy of each, and takes as
/// much again for its headers: a backlog of nothing but rejected records would be in memory three
/// times.
const WINDOW_RECORDS: usize = 4_096;
/// ... and so many bytes of keys and values, or one record that has more.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// Serves a dead-letter lane until its worker has no more.
pub async fn serve(
    mut lane: Lane<Rejected, Rejected>,
    mut topic: impl Publish,
    policy: OutagePolicy,
) {
    loop {
        // Rows that the database refuses come one by one. One by one, each would wait for the
        // delivery of the one before.
        let jobs = lane.jobs.recv_up_to(WINDOW_RECORDS, |_before, _next| true).await;
        if jobs.is_empty() {
            return;
        }
        let (mut batch, mut ends) = (Vec::new(), Vec::new());
        for Job { ticket, batch: more } in jobs {
            if is_planted(Bug::DeadLetterOnEnqueue) {
                lane.replies.answer(ticket, more.clone(), true);
            }
            ends.push((ticket, more.len()));
            batch.extend(more);
        }
        let mut rest = &batch[..];
        while !rest.is_empty() {
            let (window, behind) = rest.split_at(window(rest));
            deliver(&mut topic, window, &policy).await;
            rest = behind;
        }
        if is_planted(Bug::DeadLetterOnEnqueue) {
            continue;
        }
        policy.figures.iter().for_each(|figures| figures.letters.note(&batch));
        let mut batch = batch.into_iter();
        for (ticket, letters) in ends {
            lane.replies.answer(ticket, batch.by_ref().take(letters).collect(), true);
        }
    }
}

/// How many of these records are published together.
fn window(batch: &[Rejected]) -> usize {
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let ends = batch.iter().scan(0, |end, rejected| {
        *end += length(rejected.record().key()) + length(rejected.record().value());
        Some(*end)
    });
    let fit = ends.take(WINDOW_RECORDS).take_while(|end| *end <= WINDOW_BYTES).count();
    fit.max(1)
}

/// Publishes all, and those again whose delivery was not reported, until none is left.
async fn deliver(topic: &mut impl Publish, batch: &[Rejected], policy: &OutagePolicy) {
    let mut outage = Outage::none(Server::DeadLetters, policy);
    let mut letters: Vec<(usize, Form)> =
        (0..batch.len()).map(|index| (index, Form::Whole)).collect();
    while !letters.is_empty() {
        let failed = topic.publish(batch, &letters).await;
        letters = Vec::new();
        let mut worst = None;
        for (index, form, error) in failed {
            let too_large =
                error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge);
            let timed_out = error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut);
            match form {
                _ if timed_out && is_planted(Bug::TimeoutIsDelivery) => {}
                Form::Whole if too_large => letters.push((index, Form::Reference)),
                // A topic that takes not even a reference needs a person, as one that is not
                // writable does.
                Form::Whole | Form::Reference => {
                    letters.push((index, form));
                    worst = Some(error);
                }
            }
        }
        match worst {
            Some(error) => outage.hold(&told(&error), None).await,
            // What was too large is not through yet.
            None if !letters.is_empty() => {}
            None => outage.over(),
        }
    }
}

/// A failure, and what to do about it where it does not pass by itself.
fn told(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed,
        ) => format!(
            "{error}; grant this user WRITE on the dead-letter topic (before Kafka 2.8 also IDEMPOTENT_WRITE on the cluster)"
        ),
        Some(RDKafkaErrorCode::InvalidRecord) => format!(
            "{error}; a compacted topic takes no record without a key: set the dead-letter topic's cleanup.policy to delete"
        ),
        _ => error.to_string(),
    }
}

/// How a record is represented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Byte for byte.
    Whole,
    /// By where it is, because it is too large for the topic.
    Reference,
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use dataflows::change::{Arena, Events};
    use dataflows::effect::Effect;
    use dataflows::peers::Waker;
    use dataflows::record::{Chunk, RawRecord};
    use dataflows::reject::{Fault, Reason};

    use super::*;
    use crate::config::OnOutage;
    use crate::figures::Figures;
    use crate::figures::calls::{Health, PATIENCE};
    use crate::lock::lock;
    use crate::sink::remote;

    pub(super) fn rejects() -> [Rejected; 1] {
        let mut chunk = Chunk::default();
        chunk.push(RawRecord { value: Some(b"rubbish"), ..RawRecord::default() }, []);
        let fault = Fault::new(Reason::NotJson, "it is rubbish");
        [Rejected::new(Arena::new(chunk, Events::default()), 0, fault)]
    }

    /// Records with values of these lengths.
    fn of_lengths(lengths: impl IntoIterator<Item = usize>) -> Vec<Rejected> {
        let mut chunk = Chunk::default();
        for length in lengths {
            chunk.push(RawRecord { value: Some(&vec![b'x'; length]), ..RawRecord::default() }, []);
        }
        let records = chunk.len();
        let arena = Arena::new(chunk, Events::default());
        let fault = Fault::new(Reason::NotJson, "it is rubbish");
        (0..records).map(|it| Rejected::new(Arc::clone(&arena), it, fault.clone())).collect()
    }

    #[test]
    fn what_is_with_the_client_at_a_time_is_bounded_by_number_and_by_size() {
        let small = of_lengths([20; WINDOW_RECORDS + 1]);
        assert_eq!(window(&small), WINDOW_RECORDS);
        assert_eq!(window(&small[1..]), WINDOW_RECORDS);
        assert_eq!(window(&small[2..]), WINDOW_RECORDS - 1);
        let half = WINDOW_BYTES / 2;
        assert_eq!(window(&of_lengths([half, half, 1])), 2);
        assert_eq!(window(&of_lengths([half, half + 1])), 1);
        assert_eq!(window(&of_lengths([WINDOW_BYTES + 1, 1])), 1, "one goes alone, never none");
    }

    /// A topic that notes how many records it is given at a time.
    #[derive(Clone, Default)]
    struct Patient(Arc<Mutex<Vec<usize>>>);

    impl Publish for Patient {
        async fn publish(
            &mut self,
            batch: &[Rejected],
            letters: &[(usize, Form)],
        ) -> Vec<(usize, Form, KafkaError)> {
            assert_eq!(batch.len(), letters.len());
            lock(&self.0).push(batch.len());
            Vec::new()
        }
    }

    #[tokio::test]
    async fn a_backlog_of_rejected_records_is_published_in_pieces_and_answered_whole() {
        let (mut worker, mut lanes) = remote(1, &Waker::of_nobody());
        let batches = [3, 2 * WINDOW_RECORDS, 1, 1, 1];
        for (ticket, records) in (0..).zip(batches) {
            worker.submit(ticket, 0, of_lengths(vec![20; records]));
        }
        let topic = Patient::default();
        let policy = OutagePolicy {
            on_outage: OnOutage::Wait,
            abort: Arc::default(),
            figures: Some(Arc::new(Figures::new(1))),
        };
        let lane = lanes.pop().unwrap();
        let serving = tokio::spawn(serve(lane, topic.clone(), policy));
        let mut answered = Vec::new();
        while answered.len() < batches.len() {
            tokio::task::yield_now().await;
            answered.extend(worker.poll());
        }
        drop(worker);
        serving.await.unwrap();
        assert_eq!(*lock(&topic.0), [3, WINDOW_RECORDS, WINDOW_RECORDS, 3]);
        for (answer, (ticket, records)) in answered.iter().zip((0..).zip(batches)) {
            assert_eq!((answer.ticket, answer.answers.len()), (ticket, records));
            assert!(answer.done);
        }
    }

    /// A topic for which everything is too large.
    struct TooSmall;

    impl Publish for TooSmall {
        async fn publish(
            &mut self,
            _batch: &[Rejected],
            letters: &[(usize, Form)],
        ) -> Vec<(usize, Form, KafkaError)> {
            let error = KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge);
            letters.iter().map(|(index, form)| (*index, *form, error.clone())).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_that_takes_not_even_a_reference_is_said_to_be_held() {
        let figures = Arc::new(Figures::new(1));
        let policy = OutagePolicy {
            on_outage: OnOutage::Wait,
            abort: Arc::default(),
            figures: Some(Arc::clone(&figures)),
        };
        let (batch, mut topic) = (rejects(), TooSmall);
        let mut delivery = pin!(deliver(&mut topic, &batch, &policy));
        let waited = tokio::time::timeout(Duration::from_secs(10), &mut delivery).await;
        assert!(waited.is_err(), "nothing is delivered");
        let health = figures.lanes(Server::DeadLetters).calls.health(PATIENCE);
        assert!(matches!(health, Health::Held { .. }), "{health:?}");
    }
}
