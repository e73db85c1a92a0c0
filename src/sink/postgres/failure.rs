//! What an error of PostgreSQL means for the rows that were being written. (Whether one means that the server is away, where no row is at
//! stake, says `postgres::is_away`.)

use std::time::Duration;

use dataflows::reject::{Fault, Reason};
use tokio_postgres::error::SqlState;

use crate::postgres;

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
    #[error("{}", postgres::describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// There is no connection to be had.
    #[error(transparent)]
    Connect(#[from] postgres::ConnectError),
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
            Some(_) => {
                // In the server's words, without its detail: that would quote the row.
                let fault = Fault::new(Reason::DatabaseRefused, postgres::describe(&error));
                Failure::Refused { fault, culprit: None }
            }
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
