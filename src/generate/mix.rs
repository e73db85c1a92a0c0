//! What to generate: how many events over how many drafts, and which share of them is of which
//! kind.

/// How the ids of generated drafts look, so that they fit the type of the id column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DraftIds {
    /// `draft-0000001`, for text and varchar.
    #[default]
    Text,
    /// `1`, for bigint and integer.
    Number,
    /// `00000000-0000-4000-8000-000000000001`, for uuid.
    Uuid,
}

impl DraftIds {
    /// The id of the draft with that number; the first is number 1.
    pub fn id(self, number: u64) -> String {
        match self {
            DraftIds::Text => format!("draft-{number:07}"),
            DraftIds::Number => number.to_string(),
            DraftIds::Uuid => format!("00000000-0000-4000-8000-{number:012x}"),
        }
    }

    /// An id of that style which no created draft has.
    pub(super) fn absent(self, number: u64) -> String {
        match self {
            DraftIds::Text => format!("no-such-draft-{number:07}"),
            DraftIds::Number => format!("-{}", number + 1),
            DraftIds::Uuid => format!("ffffffff-ffff-4fff-8fff-{number:012x}"),
        }
    }
}

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// The same seed gives the same events, byte for byte; another seed gives other jobs.
    pub seed: u64,
    /// How many events, of all kinds together.
    pub events: u64,
    /// Over how many drafts; fresh events visit all of them in a scrambled order before any of them
    /// again.
    pub drafts: u64,
    /// How the drafts' ids look.
    pub draft_ids: DraftIds,
    /// The timestamp of the first event, milliseconds since the epoch.
    pub start_ms: i64,
    /// The distance from one event's timestamp to the next, microseconds.
    pub spacing_us: u64,
    /// The share of events, from 0 to 1, that repeat a recent job as a producer's retry does.
    pub duplicates: f64,
    /// The share of events with a new job that is older than an event of its draft published
    /// before.
    pub stale: f64,
    /// The share of events that the consumer must reject.
    pub bad: f64,
    /// The share of events of another type.
    pub foreign: f64,
}

impl Default for Mix {
    /// No events over one draft, all of them fresh, one microsecond apart.
    fn default() -> Mix {
        Mix {
            seed: 1,
            events: 0,
            drafts: 1,
            draft_ids: DraftIds::Text,
            start_ms: 0,
            spacing_us: 1,
            duplicates: 0.0,
            stale: 0.0,
            bad: 0.0,
            foreign: 0.0,
        }
    }
}

impl Mix {
    /// Whether such a mix can be generated.
    pub(super) fn check(&self) -> Result<(), MixError> {
        let named = [
            ("duplicate", self.duplicates),
            ("stale", self.stale),
            ("bad", self.bad),
            ("foreign", self.foreign),
        ];
        for (name, share) in named {
            if !(0.0..=1.0).contains(&share) {
                return Err(MixError::Share { name, share });
            }
        }
        let sum: f64 = named.iter().map(|(_, share)| share).sum();
        // Shares such as 0.7 + 0.2 + 0.1 may add up to a little more than 1.
        if sum > 1.0 + 1e-9 {
            return Err(MixError::Shares { sum });
        }
        if self.drafts == 0 {
            return Err(MixError::NoDrafts);
        }
        Ok(())
    }
}

/// A mix that cannot be generated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MixError {
    /// Events need a draft.
    #[error("the number of drafts must be at least 1")]
    NoDrafts,
    /// A share is a part of the whole.
    #[error("the share of {name} events is {share}: it must be between 0 and 1")]
    Share {
        /// Which share.
        name: &'static str,
        /// What was asked for.
        share: f64,
    },
    /// The parts are more than the whole.
    #[error(
        "the shares of duplicate, stale, bad and foreign events add up to {sum}: at most 1 is possible"
    )]
    Shares {
        /// Their sum.
        sum: f64,
    },
}
