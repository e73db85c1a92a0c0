//! The second look: suspects, judged by everything that the topic has of them.
//!
//! The rows are read first, the end of the topic after that: so whatever a row holds is in what is
//! read of the topic. What had to be in the rows is known before. Everything in between may be in
//! them or not.

use std::collections::{BTreeMap, HashMap, HashSet};

use dataflows::accept::sort;
use dataflows::change::{Change, REPLAYS};
use dataflows::record::{Chunk, Position};
use dataflows::row::RowMemory;
use dataflows::verify::judge::{self, Finding, Kind, judge};
use dataflows::verify::{About, DraftKey};
use rdkafka::message::{BorrowedMessage, Message};

use super::table::{Stored, snapshot};
use super::topic::{Settled, Topic, copy};
use super::{Verify, VerifyError};
use crate::source::{headers_of, record_of};

mod cached;

/// One thing that is not as it should be.
#[derive(Clone, Debug)]
pub struct Difference {
    /// How it differs.
    pub kind: Kind,
    /// The draft.
    pub draft: String,
    /// In words.
    pub detail: String,
    /// The event that the row holds.
    pub row: Option<Position>,
    /// The event that it should hold, if the topic has it.
    pub topic: Option<Position>,
    /// Whether a repair has mended it; `None` if none was asked for.
    pub mended: Option<bool>,
    /// What to write into the row.
    pub(super) remedy: Option<Remedy>,
}

impl Difference {
    /// Whether there is something to put in its place.
    pub fn is_mendable(&self) -> bool {
        self.remedy.is_some()
            || matches!(
                self.kind,
                Kind::CachedDiffers | Kind::CachedUnreadable | Kind::CachedWithoutRow
            )
    }
}

/// How a row is mended.
#[derive(Clone, Debug)]
pub(super) struct Remedy {
    /// The row that was judged.
    pub(super) version: String,
    /// The event whose images it should hold; `None` leaves the images alone.
    pub(super) winner: Option<Change>,
    /// What it should remember.
    pub(super) memory: RowMemory,
}

/// A suspect with everything that is known of it.
struct Suspect {
    stored: Stored,
    events: Vec<Change>,
    /// Of each event, whether it must have reached the row.
    must: Vec<bool>,
}

/// What a reading of the topic gives beside the suspects' events.
struct Reading {
    ends: BTreeMap<i32, i64>,
    oldest_ms: i64,
    /// Places that rows claim, and that have a record.
    found: HashSet<(i32, i64)>,
}

impl Verify<'_> {
    /// Looks at the suspects again, and says what really differs, by draft.
    pub(super) fn look(
        &self,
        topic: &Topic<'_>,
        suspects: &HashSet<(DraftKey, About)>,
    ) -> Result<Vec<Difference>, VerifyError> {
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        let settled = topic.settled()?;
        let (mut rows, cached) = self.runtime.block_on(self.suspects(suspects))?;
        let ends = topic.ends()?;
        let differing = self.cached_differences(&cached, &settled, &ends);
        let mut differences = self.runtime.block_on(differing)?;
        if !rows.is_empty() {
            let reading = self.collect(topic, &settled, ends, &mut rows)?;
            let is_gap = |partition: i32, offset: i64| {
                reading.ends.get(&partition).is_some_and(|end| offset < *end)
                    && !reading.found.contains(&(partition, offset))
            };
            let known = judge::Topic {
                beginning: &settled.beginning,
                oldest_ms: reading.oldest_ms,
                is_gap: &is_gap,
            };
            for Suspect { stored, events, must } in rows.into_values() {
                let finding = judge(&stored.row, &events, &must, &known);
                differences.extend(finding.map(|finding| difference(stored, &events, finding)));
            }
        }
        differences.sort_by(|a, b| (&a.draft, a.kind).cmp(&(&b.draft, b.kind)));
        Ok(differences)
    }

    /// The rows of the suspects: those to hold against the topic, by draft, and those to hold
    /// against the cache.
    async fn suspects(
        &self,
        suspects: &HashSet<(DraftKey, About)>,
    ) -> Result<(HashMap<DraftKey, Suspect>, Vec<Stored>), VerifyError> {
        let (mut rows, mut cached) = (HashMap::new(), Vec::new());
        snapshot(&self.config.database, async |batch| {
            for stored in batch {
                let draft = DraftKey::of(&stored.id);
                if suspects.contains(&(draft, About::Cached)) {
                    cached.push(stored.clone());
                }
                if suspects.contains(&(draft, About::Row)) {
                    rows.insert(draft, Suspect { stored, events: Vec::new(), must: Vec::new() });
                }
            }
            Ok(())
        })
        .await?;
        Ok((rows, cached))
    }

    /// Reads the topic from its beginning to these ends, and keeps the events of the suspects.
    fn collect(
        &self,
        topic: &Topic<'_>,
        settled: &Settled,
        ends: BTreeMap<i32, i64>,
        rows: &mut HashMap<DraftKey, Suspect>,
    ) -> Result<Reading, VerifyError> {
        let claimed: HashSet<(i32, i64)> =
            rows.values().flat_map(|suspect| claimed(&suspect.stored)).collect();
        let (mut oldest_ms, mut found) = (i64::MAX, HashSet::new());
        topic.read(&settled.beginning, &ends, &self.stop, |message| {
            let place = (message.partition(), message.offset());
            let timestamp_ms = record_of(message).timestamp_ms;
            if timestamp_ms < oldest_ms && tells_the_topics_age(message) {
                oldest_ms = timestamp_ms;
            }
            if claimed.contains(&place) {
                found.insert(place);
            }
            let mut chunk = Chunk::default();
            copy(message, &mut chunk);
            // A chunk of its own, so that an event that is kept keeps no others.
            let Some(change) = sort(chunk, self.draft_ids).changes.pop() else { return };
            if let Some(suspect) = rows.get_mut(&DraftKey::of(change.draft_id())) {
                suspect.must.push(settled.has(message));
                suspect.events.push(change);
            }
        })?;
        Ok(Reading { ends, oldest_ms, found })
    }
}

/// Whether nothing that is older can have been in the topic. A record that was replayed from the
/// dead letters keeps its time, also in a topic that was made after that.
fn tells_the_topics_age(message: &BorrowedMessage<'_>) -> bool {
    record_of(message).timestamp_ms >= 0
        && !headers_of(message).any(|(name, _)| name == REPLAYS.as_bytes())
}

/// The places in the topic that a row claims to have events from.
fn claimed(stored: &Stored) -> Vec<(i32, i64)> {
    let remembered = stored.row.memory().map_or_else(Vec::new, |memory| memory.recent);
    let positions = remembered.into_iter().map(|known| known.position).chain(stored.row.applied);
    positions.map(|at| (at.partition, at.offset)).collect()
}

fn difference(stored: Stored, events: &[Change], finding: Finding) -> Difference {
    let Finding { kind, winner, memory } = finding;
    let winner = winner.map(|index| events[index].clone());
    let topic = winner.as_ref().map(Change::position);
    let row = stored.row.applied;
    let detail = match kind {
        Kind::RowBehind => match row {
            None => "holds no event".to_owned(),
            Some(_) => "holds an older event".to_owned(),
        },
        Kind::UnknownEvent => "holds an event that the topic does not have".to_owned(),
        Kind::DuplicateApplied => "holds the second delivery of a job".to_owned(),
        Kind::ImagesDiffer => "holds other images than its event has".to_owned(),
        Kind::JobDiffers => "names another job than its event has".to_owned(),
        _ => "does not remember the jobs that reached it".to_owned(),
    };
    // With nothing to put in its place, an event is better than none: the topic may be the wrong
    // one.
    let is_known = winner.is_some() || kind == Kind::MemoryDiffers;
    let remedy = is_known.then_some(Remedy { version: stored.version, winner, memory });
    Difference { kind, draft: stored.id, detail, row, topic, mended: None, remedy }
}
