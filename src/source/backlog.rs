//! When a backlog is fetched in bulk: as soon as partitions are assigned, and whenever there has
//! been something to read all the time for a while.

use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use tokio::time::Instant;

use super::client::{Client, KafkaClient};
use super::{SourceError, corrupt};
use crate::bulk::{Bulk, Step, Why, is_plain};
use crate::config::{Config, Kafka};

/// How long there is something to read all the time until it is asked how much that is.
const BUSY: Duration = Duration::from_millis(250);

/// How long until it is asked again, at most: the next time after twice as long, for whoever asks
/// keeps everybody waiting for each leader's answer.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// How much longer until it is asked again, if a leader did not answer.
const UNANSWERED: Duration = Duration::from_secs(90);

/// How long what is fetched is waited for, at least: it is known to be there.
const PATIENCE: Duration = Duration::from_millis(10);

/// What is fetched in bulk, if anything is.
pub(super) struct Backlog {
    bulk: Option<Bulk>,
    /// So many offsets are worth it; `None` if nothing can be fetched in bulk.
    offsets_min: Option<i64>,
    /// Since when there has been something to read all the time, or it was asked how much.
    busy_since: Instant,
    /// How long that is to last until it is asked next.
    busy: Duration,
}

impl Backlog {
    pub(super) fn new(config: &Kafka) -> Backlog {
        let offsets_min = config.bulk_fetch_min.filter(|_| is_plain(config));
        Backlog { bulk: None, offsets_min, busy_since: Instant::now(), busy: BUSY }
    }

    /// Begins, if there is a backlog. Returns whether something fetched in bulk is to be taken in
    /// now.
    pub(super) fn tend(
        &mut self,
        client: &KafkaClient,
        config: &Config,
    ) -> Result<bool, SourceError> {
        let context = client.context();
        let mut state = context.state();
        if !state.is_in_bulk() {
            self.bulk = None;
        }
        if self.bulk.is_some() {
            return Ok(!state.ingest.is_full());
        }
        let Some(offsets_min) = self.offsets_min else { return Ok(false) };
        if !state.ingest.more_waits() {
            (self.busy_since, self.busy) = (Instant::now(), BUSY);
        }
        let is_new = state.is_newly_assigned();
        // Where each partition stands is not known while it changes hands, or is another one.
        let is_certain = !client.is_lost() && !context.is_made_again();
        if !is_certain || (!is_new && self.busy_since.elapsed() < self.busy) {
            return Ok(false);
        }
        let Some(topic_id) = context.topic_id() else { return Ok(false) };
        (self.busy_since, self.busy) = (Instant::now(), BUSY_MAX.min(self.busy * 2));
        let backlogs = if is_new {
            state.backlogs(offsets_min, |partition| state.end_when_assigned(partition))
        } else {
            let mut answers = true;
            let backlogs = state.backlogs(offsets_min, |partition| {
                let watermarks = answers.then(|| client.watermarks(partition).ok()).flatten();
                answers = watermarks.is_some();
                watermarks.map(|(_low, high)| high)
            });
            if !answers {
                // One leader that does not answer has kept everybody waiting long enough.
                self.busy_since += UNANSWERED;
            }
            backlogs
        };
        state.note_looked_at();
        if backlogs.is_empty() {
            return Ok(false);
        }
        state.begin_bulk(client, backlogs.keys().copied())?;
        let bulk = Bulk::start(&config.kafka, &topic_id, &backlogs);
        self.bulk = Some(bulk.map_err(SourceError::Thread)?);
        Ok(true)
    }

    /// Takes in what was fetched.
    pub(super) fn read(
        &mut self,
        client: &KafkaClient,
        patience: Duration,
    ) -> Result<(), SourceError> {
        let Some(bulk) = &mut self.bulk else { return Ok(()) };
        let mut state = client.context().state();
        let asked = Instant::now();
        let step = state.take_in_bulk(bulk, patience.max(PATIENCE));
        match step {
            Step::Took { .. } => {}
            Step::Nothing => state.ingest.idle(asked.elapsed()),
            Step::Over { partition, why } => {
                if let Why::Unfit(why) = &why
                    && self.offsets_min.take().is_some()
                {
                    tracing::info!("the topic is not fetched in bulk: {why}");
                }
                if let Why::Corrupt(what) = &why
                    && state.next_in_bulk(partition).is_some()
                {
                    return Err(corrupt(&format!("partition {partition}: {what}")));
                }
                state.end_bulk(client, partition, why)?;
            }
            Step::Ended => state.end_all_bulk(client)?,
        }
        Ok(())
    }
}
