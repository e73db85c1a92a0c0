//! The rule of the row: what a draft's row remembers, and how it judges the events that reach it.
//!
//! Everything about a draft is decided against its own row, because the row is the only memory that survives
//! a crash, is shared by all processes, and changes in the same transaction as the images.

use crate::change::Change;
use crate::outcome::Outcome;
use crate::record::Position;

/// How many jobs a row remembers. A duplicate older than those may be taken for a new event.
pub const JOBS_REMEMBERED: usize = 16;

/// A job that has reached the row, applied or superseded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remembered {
    /// The position of the job's event.
    pub position: Position,
    /// The job.
    pub job_id: String,
}

/// What a draft's row remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowMemory {
    /// The position of the event whose images the row holds.
    pub applied: Option<Position>,
    /// The newest jobs that reached the row, newest first, at most [`JOBS_REMEMBERED`].
    pub recent: Vec<Remembered>,
}

/// What becomes of some events of one draft, and of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// One outcome for each event, in the order of the events.
    pub outcomes: Vec<Outcome>,
    /// The event whose images the row is to hold from now on; `None` leaves the images alone.
    pub winner: Option<usize>,
    /// What the row is to remember; `None` when it is what it remembers already.
    pub memory: Option<RowMemory>,
}

/// Judges the events of one draft, all that one epoch has, against its row.
///
/// Of the events of one job only the [original](originals) counts, the others are duplicates. Of the originals whose
/// job the row does not know, the newest is applied if it is newer than what the row holds; the rest is superseded.
/// All their jobs are remembered, so that a late duplicate of a superseded one cannot bring old images back.
pub fn judge(row: &RowMemory, events: &[Change]) -> Judgement {
    let mut outcomes = vec![Outcome::Duplicate; events.len()];
    let mut fresh = originals(events);
    fresh.retain(|&event| row.recent.iter().all(|known| known.job_id != events[event].job_id()));
    for &event in &fresh {
        outcomes[event] = Outcome::Superseded;
    }
    let winner = fresh
        .iter()
        .copied()
        .max_by_key(|&event| events[event].position())
        .filter(|&event| Some(events[event].position()) > row.applied);
    if let Some(event) = winner {
        outcomes[event] = Outcome::Applied;
    }
    let memory = (!fresh.is_empty()).then(|| RowMemory {
        applied: winner.map(|event| events[event].position()).or(row.applied),
        recent: remember(&row.recent, fresh.iter().map(|&event| &events[event])),
    });
    Judgement { outcomes, winner, memory }
}

/// The event that stands for its job, for each job among the events of one draft, as indices.
///
/// Within a partition it is the one delivered first, whatever the timestamps say: so the choice does not depend on where
/// one epoch ends and the next begins. Between partitions, which have no order of delivery, it is the oldest.
fn originals(events: &[Change]) -> Vec<usize> {
    let mut in_delivery_order: Vec<usize> = (0..events.len()).collect();
    in_delivery_order.sort_unstable_by_key(|&event| {
        let Position { partition, offset, .. } = events[event].position();
        (partition, offset)
    });
    let mut chosen: Vec<usize> = Vec::with_capacity(events.len());
    for event in in_delivery_order {
        let change = &events[event];
        match chosen.iter_mut().find(|other| events[**other].job_id() == change.job_id()) {
            None => chosen.push(event),
            Some(other) => {
                let rival = events[*other].position();
                if rival.partition != change.position().partition && change.position() < rival {
                    *other = event;
                }
            }
        }
    }
    chosen
}

fn remember<'a>(recent: &[Remembered], fresh: impl Iterator<Item = &'a Change>) -> Vec<Remembered> {
    let mut jobs = recent.to_vec();
    jobs.extend(fresh.map(|change| Remembered {
        position: change.position(),
        job_id: change.job_id().to_owned(),
    }));
    jobs.sort_unstable_by(|a, b| b.cmp(a));
    jobs.truncate(JOBS_REMEMBERED);
    jobs
}
