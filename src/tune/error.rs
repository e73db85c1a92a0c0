//! Why a tune has nothing to show.

use super::scratch::ScratchError;
use crate::replay::ReplayError;
use crate::report::counted;
use crate::run::RunError;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// What the topic holds cannot be found out.
    #[error(transparent)]
    Plan(#[from] ReplayError),
    /// A trial failed, or what it needs is not there.
    #[error(transparent)]
    Run(#[from] RunError),
    /// There is no copy of the table.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// There is nothing to measure with.
    #[error("the topic {0} has no records")]
    Empty(String),
    /// What there is would all be rejected or skipped.
    #[error("of the newest {} of {topic} none is a valid event", counted(*.records, "record"))]
    NoEvent {
        /// The topic.
        topic: String,
        /// How many were looked at.
        records: u64,
    },
    /// No event has a row.
    #[error("the events are about {}, and the table {table} has no row for any", counted(*.drafts, "draft"))]
    NoRow {
        /// The table.
        table: String,
        /// How many drafts.
        drafts: u64,
    },
    /// Nothing of the grid can be connected.
    #[error("the settings need {}, and the database has {free} left", counted(*.needed, "connection"))]
    Connections {
        /// Of the smallest number of workers, with as few as each may have.
        needed: u64,
        /// What `max_connections` and the limits of the role and of the database leave.
        free: u64,
    },
    /// Not even one trial.
    #[error("one trial takes {took_s:.1} s, the budget is {budget_s} s")]
    Budget {
        /// Seconds that the warm-up took.
        took_s: f64,
        /// Seconds that were given.
        budget_s: u64,
    },
    /// A signal came before anything was measured.
    #[error("stopped before anything was measured")]
    Stopped,
}
