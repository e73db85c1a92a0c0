//! What an error of PostgreSQL means for the rows that were being written: the one place that decides it.

use std::time::Duration;

use dataflows::reject::{Fault, Reason};
use tokio_postgres::error::SqlState;

/// A failed statement, by what follows from it.
#[derive(Debug)]
pub enum Failure {
    /// The same rows can never succeed.
    Refused {
        /// What the database said.
        fault: Fault,
        /// The event to blame, where it can be told.
        culprit: Option<usize>,
    },
    /// Others were in the way; the server rolled back and the same rows may succeed.
    Contended(DatabaseError),
    /// Another transaction keeps a row locked for longer than the lock timeout.
    Locked(DatabaseError),
    /// The server is away, or cannot write at all. Nothing is known about the rows, also not whether the statement took effect.
    Out(DatabaseError),
}

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The server did not answer in time; the connection is given up.
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    /// The server's or the connection's error.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// There is no connection to be had.
    #[error(transparent)]
    Connect(#[from] crate::postgres::ConnectError),
}

impl Failure {
    /// Classifies a failed statement.
    pub fn of(error: tokio_postgres::Error) -> Failure {
        let Some(code) = error.code() else { return Failure::Out(error.into()) };
        if *code == SqlState::LOCK_NOT_AVAILABLE {
            return Failure::Locked(error.into());
        }
        if is_contention(code) {
            return Failure::Contended(error.into());
        }
        // By class: the two characters that all codes of a kind share.
        match code.code().get(..2) {
            // The server is away, starting, full, read-only; the session is not usable; access is denied; the schema is not as
            // it should be. All of that says nothing about the rows.
            Some(
                "08" | "0A" | "0L" | "0P" | "25" | "26" | "28" | "2D" | "3B" | "3D" | "3F" | "40"
                | "42" | "53" | "55" | "57" | "58" | "72" | "F0" | "XX",
            )
            | None => Failure::Out(error.into()),
            // Bad data, a constraint, a limit, a trigger; also codes that a trigger makes up, or one row could stop all others.
            Some(_) => Failure::Refused { fault: refusal(&error), culprit: None },
        }
    }

    /// The same failure, with the event to blame for it.
    pub fn blame(self, event: Option<usize>) -> Failure {
        match self {
            Failure::Refused { fault, .. } => Failure::Refused { fault, culprit: event },
            other => other,
        }
    }
}

/// Deadlock, serialization failure, statement timeout or a statement cancelled by hand.
fn is_contention(code: &SqlState) -> bool {
    [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE, SqlState::QUERY_CANCELED]
        .contains(code)
}

/// The refusal in the server's words, without its detail: that would quote the row.
fn refusal(error: &tokio_postgres::Error) -> Fault {
    let message = match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => error.to_string(),
    };
    Fault::new(Reason::DatabaseRefused, message)
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => std::error::Error::source(error)
            .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
    }
}
