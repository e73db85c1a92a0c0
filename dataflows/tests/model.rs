//! The rules as a fold over a list: everything that the graph does, without the graph.
//!
//! It shares the decoding of a record with the graph and nothing else. It remembers every job for
//! ever, so it is exact where the graph's memories are large enough.

use std::collections::{BTreeMap, BTreeSet};

use dataflows::decode::{Decoded, decode};
use dataflows::record::Position;
use dataflows::reject::Reason;
use dataflows::validate::DraftIdType;

use crate::topic::{At, Epoch, Sent, is_refused};

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Applied,
    Duplicate,
    Superseded,
    Skipped,
    Rejected(Reason),
}

/// A draft's row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub images: Option<String>,
    pub job: Option<String>,
    pub applied: Option<Position>,
    /// Newest first.
    pub recent: Vec<(Position, String)>,
}

/// What a topic comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub fates: BTreeMap<At, Fate>,
    pub rows: BTreeMap<String, Row>,
    /// The drafts whose keys must be deleted.
    pub deleted: BTreeSet<String>,
}

/// A valid event.
pub(crate) struct Event {
    at: At,
    position: Position,
    pub(crate) draft: String,
    pub(crate) job: String,
    images: String,
    replayed: bool,
}

/// Reads a topic, epoch by epoch.
pub(crate) fn fold(epochs: &[Epoch]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut window = BTreeSet::new();
    for epoch in epochs {
        for draft in &epoch.created {
            verdict.rows.entry(draft.clone()).or_default();
        }
        let mut by_draft: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        for record in epoch.records() {
            match read(record) {
                Ok(event) => by_draft.entry(event.draft.clone()).or_default().push(event),
                Err(fate) => _ = verdict.fates.insert(record.at(), fate),
            }
        }
        for (draft, events) in by_draft {
            settle(&draft, events, &mut verdict, &mut window);
        }
    }
    verdict
}

/// What becomes of the events that one epoch has of one draft.
fn settle(
    draft: &str,
    events: Vec<Event>,
    Verdict { fates, rows, deleted }: &mut Verdict,
    window: &mut BTreeSet<(String, String)>,
) {
    let Some(row) = rows.get_mut(draft) else {
        fates.extend(events.iter().map(|event| (event.at, Fate::Rejected(Reason::UnknownDraft))));
        return;
    };
    let key = |event: &Event| (draft.to_owned(), event.job.clone());
    let (known, mut judged): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|event| !event.replayed && window.contains(&key(event)));
    let (winner, fresh) = loop {
        let mut fresh = originals(&judged);
        fresh.retain(|event| row.recent.iter().all(|(_, job)| *job != event.job));
        let newest = fresh.iter().max_by_key(|event| event.position).copied();
        let winner = newest.filter(|event| Some(event.position) > row.applied);
        match winner.filter(|event| is_refused(&event.images)).map(|event| event.at) {
            None => break (winner, fresh),
            Some(at) => {
                fates.insert(at, Fate::Rejected(Reason::DatabaseRefused));
                judged.retain(|event| event.at != at);
            }
        }
    };
    fates.extend(known.iter().chain(&judged).map(|event| (event.at, Fate::Duplicate)));
    fates.extend(fresh.iter().map(|event| (event.at, Fate::Superseded)));
    row.recent.extend(fresh.iter().map(|event| (event.position, event.job.clone())));
    row.recent.sort_by(|a, b| b.cmp(a));
    row.recent.truncate(16);
    if let Some(Event { at, position, job, images, .. }) = winner {
        fates.insert(*at, Fate::Applied);
        row.applied = Some(*position);
        row.job = Some(job.clone());
        row.images = Some(images.clone());
    }
    window.extend(judged.iter().map(key));
    if !(known.is_empty() && judged.is_empty()) {
        deleted.insert(draft.to_owned());
    }
}

/// Of each job the oldest of the events that come first in their partitions.
fn originals(events: &[Event]) -> Vec<&Event> {
    let mut first = BTreeMap::new();
    for event in events {
        let known = first.entry((&event.job, event.at.0)).or_insert(event);
        *known = if event.at < known.at { event } else { known };
    }
    let mut oldest = BTreeMap::new();
    for ((job, _), event) in first {
        let known = oldest.entry(job).or_insert(event);
        *known = if event.position < known.position { event } else { known };
    }
    oldest.into_values().collect()
}

/// The event in a record, or what becomes of a record that holds none.
pub(crate) fn read(record: &Sent) -> Result<Event, Fate> {
    let chunk = record.chunk();
    let event = match decode(chunk.record(0), DraftIdType::Text { max_chars: None }) {
        Decoded::Event(event) => event,
        Decoded::Skipped => return Err(Fate::Skipped),
        Decoded::Rejected(fault) => return Err(Fate::Rejected(fault.reason)),
    };
    let [simple, fancy, trendy] = &event.urls;
    let original = record.header("dlq.timestamp").filter(|_| record.stamped_by_topic);
    let timestamp_ms = original.map_or(record.timestamp_ms, |text| text.parse().unwrap());
    Ok(Event {
        at: record.at(),
        position: Position { timestamp_ms, offset: record.offset, partition: record.partition },
        draft: event.draft_id.to_string(),
        job: event.job_id.to_string(),
        images: format!(r#"{{"simple":"{simple}","fancy":"{fancy}","trendy":"{trendy}"}}"#),
        replayed: record.header("dlq.replays").is_some(),
    })
}
