//! verify: what the topic says, minus what the table holds; and what is cached, minus what the rows
//! say.
//!
//! ```text
//! chunks -> told (decode, by draft: an account of its newest jobs) --+claims--+
//!                                                                            +-- concat -> consolidate -> what differs
//! rows --------------------------------------------------------- -claims----+
//! ```
//!
//! One collection. A claim is what one side says of a draft, as a hash: where both say the same,
//! one plus and one minus make nothing, and nothing is kept. So the memory grows with the drafts
//! (the accounts, which are bounded) and with what differs, and not with the events.
//!
//! The collection names suspects. Whether a suspect really holds something else than the rules of
//! [`crate::row`] give is for [`judge`] to say, from all its events: some rows may rightly hold one
//! of several things.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use differential_dataflow::VecCollection;
use serde::{Deserialize, Serialize};

pub mod told;
pub mod stored;
pub mod judge;
pub mod cached;

/// One reading of both sides, counted from 0.
pub type Round = u64;

/// The first offset that each partition of the topic still has, by partition.
pub type Beginning = BTreeMap<i32, i64>;

/// A draft, as the hash of its id.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct DraftKey(u128);

impl DraftKey {
    /// The key of the draft with that id.
    pub fn of(draft_id: &str) -> DraftKey {
        DraftKey(digest(draft_id))
    }
}

/// What a claim is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum About {
    /// What the row holds: said by the topic (+1) and by the table (-1).
    Row,
    /// What readers see: said by the cache (+1) and by the table (-1).
    Cached,
}

/// What one side says of a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// The draft.
    pub draft: DraftKey,
    /// What it is about.
    pub about: About,
    /// What is said of it, as a hash.
    pub says: u128,
}

/// What is left of two sides when what both say is taken away.
pub fn difference<'scope>(
    plus: VecCollection<'scope, Round, Claim, isize>,
    minus: VecCollection<'scope, Round, Claim, isize>,
) -> VecCollection<'scope, Round, Claim, isize> {
    plus.concat(minus.negate()).consolidate()
}

/// 128 bits, so that nobody has to think of two drafts with the same hash. The same in every
/// process, and never stored.
pub(crate) fn digest(what: impl Hash) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, &what).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

#[cfg(test)]
mod tests;
