//! What became of the records: one outcome each, and the totals that must add up.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

use crate::change::Change;
use crate::latest::Group;
use crate::reject::Reason;

/// The outcome of an event that reached its draft's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// It is the newest event of its draft, and its images are in the row.
    Applied,
    /// Its job had reached the row before.
    Duplicate,
    /// A newer event of the same draft is in the row.
    Superseded,
}

/// What became of some events, in their order. Nearly always of a few.
pub type Outcomes = SmallVec<[Outcome; 16]>;

/// Events of one draft, durable in the database, and what became of them.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The events.
    pub group: Group,
    /// One outcome for each.
    pub outcomes: Outcomes,
}

impl Settled {
    /// A single event.
    pub fn one(change: Change, outcome: Outcome) -> Settled {
        Settled::all(Group { events: smallvec![change] }, outcome)
    }

    /// Events of which the same became.
    pub fn all(group: Group, outcome: Outcome) -> Settled {
        let outcomes = smallvec![outcome; group.events.len()];
        Settled { group, outcomes }
    }
}

/// Counts of records by outcome, and of cache deletes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Events whose images are in the row.
    pub applied: u64,
    /// Events whose job had been seen.
    pub duplicate: u64,
    /// Events older than what the row holds.
    pub superseded: u64,
    /// Records of another event type.
    pub skipped: u64,
    /// Rejected records by reason, in the order of [`Reason::ALL`].
    pub rejected: [u64; Reason::ALL.len()],
    /// DELs answered by the cache.
    pub deletes: u64,
    /// DELs that found a key.
    pub keys_deleted: u64,
    /// Jobs that turned up for a second draft. Not an outcome.
    pub job_reused: u64,
    /// How often an event was set aside, to be tried again while others go on. Not an outcome.
    pub set_aside: u64,
    /// What those take in memory while they wait, bytes. Not an outcome.
    pub set_aside_bytes: u64,
}

impl Tally {
    /// Counts one event that reached its row.
    pub fn settle(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Applied => self.applied += 1,
            Outcome::Duplicate => self.duplicate += 1,
            Outcome::Superseded => self.superseded += 1,
        }
    }

    /// Counts one rejected record.
    pub fn reject(&mut self, reason: Reason) {
        self.rejected[index(reason)] += 1;
    }

    /// How many records were rejected for that reason.
    pub fn rejected_for(&self, reason: Reason) -> u64 {
        self.rejected[index(reason)]
    }

    /// How many records were rejected in all.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// How many records have an outcome. Every record has exactly one, so this is how many were
    /// read.
    pub fn records(&self) -> u64 {
        self.applied + self.duplicate + self.superseded + self.skipped + self.rejected_total()
    }
}

fn index(reason: Reason) -> usize {
    Reason::ALL.iter().position(|known| *known == reason).expect("ALL names every reason")
}

impl AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Tally) {
        // Without `..`: a new count that is not added up breaks the build here.
        let Tally {
            applied,
            duplicate,
            superseded,
            skipped,
            rejected,
            deletes,
            keys_deleted,
            job_reused,
            set_aside,
            set_aside_bytes,
        } = other;
        self.applied += applied;
        self.duplicate += duplicate;
        self.superseded += superseded;
        self.skipped += skipped;
        for (sum, more) in self.rejected.iter_mut().zip(rejected) {
            *sum += more;
        }
        self.deletes += deletes;
        self.keys_deleted += keys_deleted;
        self.job_reused += job_reused;
        self.set_aside += set_aside;
        self.set_aside_bytes += set_aside_bytes;
    }
}
