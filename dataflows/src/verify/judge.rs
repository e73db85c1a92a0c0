//! judge: whether a row holds what the rules give for its draft's events, all of them at hand.
//!
//! Usually there is one right answer. There are several where
//!
//! - an event may or may not have reached the row: it is still under way, or there is a dead letter
//!   of it;
//! - two partitions have the same job, and which was delivered first is not known;
//! - a job comes again after sixteen newer ones, and the row has forgotten it;
//! - the topic has forgotten an event that the row holds.
//!
//! In these cases, and in no others, the row's own word is taken for what happened.

use std::collections::BTreeMap;

use super::Beginning;
use super::stored::{StoredRow, canonical_images, is_in};
use crate::change::Change;
use crate::record::Position;
use crate::row::{JOBS_REMEMBERED, Remembered, RowMemory};

/// How a row, or what is cached of it, is not as it should be. The codes are a public interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The row holds an older event than it must, or none.
    RowBehind,
    /// The row holds an event that the topic does not have.
    UnknownEvent,
    /// The row holds the second delivery of a job, which must change nothing.
    DuplicateApplied,
    /// The row holds the right event, but not its images.
    ImagesDiffer,
    /// The row holds the right event, but names another job.
    JobDiffers,
    /// The row does not remember the jobs that reached it.
    MemoryDiffers,
    /// The cached draft has another value than the row.
    CachedDiffers,
    /// What is cached is not a draft.
    CachedUnreadable,
    /// The cached draft has no row.
    CachedWithoutRow,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 9] = [
        Kind::RowBehind,
        Kind::UnknownEvent,
        Kind::DuplicateApplied,
        Kind::ImagesDiffer,
        Kind::JobDiffers,
        Kind::MemoryDiffers,
        Kind::CachedDiffers,
        Kind::CachedUnreadable,
        Kind::CachedWithoutRow,
    ];

    /// The public code.
    pub fn code(self) -> &'static str {
        match self {
            Kind::RowBehind => "row-behind",
            Kind::UnknownEvent => "unknown-event",
            Kind::DuplicateApplied => "duplicate-applied",
            Kind::ImagesDiffer => "images-differ",
            Kind::JobDiffers => "job-differs",
            Kind::MemoryDiffers => "memory-differs",
            Kind::CachedDiffers => "cached-differs",
            Kind::CachedUnreadable => "cached-unreadable",
            Kind::CachedWithoutRow => "cached-without-row",
        }
    }
}

/// What is known of the topic beside the draft's events.
pub struct Topic<'a> {
    /// Where the partitions begin.
    pub beginning: &'a Beginning,
    /// The oldest timestamp in the topic, milliseconds since the epoch.
    pub oldest_ms: i64,
    /// Whether a partition has no record at that offset, and one at a later offset; asked for what
    /// rows claim.
    pub is_gap: &'a dyn Fn(i32, i64) -> bool,
}

impl Topic<'_> {
    /// Whether an event that is not in the topic can have been there: before what the topic has
    /// now, or where there is a gap, as compaction leaves them.
    fn has_forgotten(&self, position: Position) -> bool {
        !is_in(self.beginning, position)
            || position.timestamp_ms < self.oldest_ms
            || (self.is_gap)(position.partition, position.offset)
    }
}

/// What is wrong with a row, and what it should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it differs.
    pub kind: Kind,
    /// The event whose images the row should hold, as an index. `None`: nobody knows, because the
    /// topic has not got it.
    pub winner: Option<usize>,
    /// What the row should remember.
    pub memory: RowMemory,
}

/// A job with its place, and the event that it came with if that is still in the topic.
struct Reached {
    known: Remembered,
    event: Option<usize>,
}

/// Holds a row against all events of its draft. `must` says of each event whether it must have
/// reached its row by the time that the row was read; the others may have.
pub fn judge(
    held: &StoredRow,
    events: &[Change],
    must: &[bool],
    topic: &Topic<'_>,
) -> Option<Finding> {
    let memory = held.memory();
    let is_garbled = memory.is_none();
    let recent = memory.map_or_else(Vec::new, |memory| memory.recent);
    let mut claimed = recent.clone();
    if let (Some(position), Some(job_id)) = (held.applied, &held.job_id)
        && !claimed.iter().any(|known| known.position == position)
    {
        claimed.push(Remembered { position, job_id: job_id.clone() });
    }
    let mut reached = reached(&claimed, events, must);
    let at = |position| events.iter().position(|event| event.position() == position);
    for known in &claimed {
        if at(known.position).is_none() && topic.has_forgotten(known.position) {
            reached.retain(|other| other.known.job_id != known.job_id);
            reached.push(Reached { known: known.clone(), event: None });
        }
    }
    reached.sort_unstable_by(|a, b| b.known.cmp(&a.known));
    reached.truncate(JOBS_REMEMBERED);
    let newest = reached.first();
    let applied = newest.map(|newest| newest.known.position);
    let winner = newest.and_then(|newest| newest.event);
    let expected =
        RowMemory { applied, recent: reached.iter().map(|job| job.known.clone()).collect() };
    let kind = if held.applied < applied {
        Kind::RowBehind
    } else if held.applied > applied {
        match held.applied.and_then(at) {
            Some(_) => Kind::DuplicateApplied,
            None => Kind::UnknownEvent,
        }
    } else if newest.is_some_and(|newest| held.job_id.as_ref() != Some(&newest.known.job_id)) {
        Kind::JobDiffers
    } else if winner.is_some_and(|winner| !has_images_of(held, &events[winner])) {
        Kind::ImagesDiffer
    } else if is_garbled || recent != expected.recent {
        Kind::MemoryDiffers
    } else {
        return None;
    };
    Some(Finding { kind, winner, memory: expected })
}

fn has_images_of(held: &StoredRow, event: &Change) -> bool {
    held.images.as_deref().and_then(canonical_images) == Some(event.images())
}

/// The events that have reached the row, one for each job.
fn reached(claimed: &[Remembered], events: &[Change], must: &[bool]) -> Vec<Reached> {
    let mut jobs: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        jobs.entry(event.job_id()).or_default().push(index);
    }
    let all = jobs.len();
    // A full row says nothing of what is older than all that it remembers.
    let pushed_out = claimed.get(JOBS_REMEMBERED - 1).map(|known| known.position);
    let chosen = jobs.iter().filter_map(|(job, instances)| {
        let is_claimed = |index: &usize| {
            let position = events[*index].position();
            claimed.iter().any(|known| known.position == position && known.job_id == **job)
        };
        let first = firsts(instances, events, must);
        // More than sixteen others: the row may have forgotten it, and then it was new again.
        let may_count = if all > JOBS_REMEMBERED { instances } else { &first };
        let is_pushed_out =
            |index: usize| pushed_out.is_some_and(|last| events[index].position() < last);
        let claimed = may_count.iter().copied().find(is_claimed);
        let oldest = || {
            first.iter().find(|index| must[**index])?;
            let counts = |index: &usize| must[*index] || is_pushed_out(*index);
            first.iter().copied().filter(counts).min_by_key(|index| events[*index].position())
        };
        claimed.or_else(oldest)
    });
    let reached = chosen.map(|index| {
        let event = &events[index];
        let known = Remembered { position: event.position(), job_id: event.job_id().to_owned() };
        Reached { known, event: Some(index) }
    });
    reached.collect()
}

/// The events of one job that may stand for it: those that no event that must have counted comes
/// before in their partition.
fn firsts(instances: &[usize], events: &[Change], must: &[bool]) -> Vec<usize> {
    let place = |index: usize| events[index].position();
    let is_repeat = |index: usize| {
        instances.iter().any(|&other| {
            must[other]
                && place(other).partition == place(index).partition
                && place(other).offset < place(index).offset
        })
    };
    instances.iter().copied().filter(|&index| !is_repeat(index)).collect()
}
