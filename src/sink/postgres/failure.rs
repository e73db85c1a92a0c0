//! What an error of PostgreSQL means for the rows that were being written. (Whether one means that
//! the server is away, where no row is at stake, says `postgres::is_away`.)

use std::time::Duration;

use dataflows::reject::{Fault, Reason};
use tokio_postgres::error::{Severity, SqlState};

use crate::postgres;
use crate::sink::outage::Loss;

/// A failed statement, by what follows from it.
#[derive(Debug)]
pub enum Failure {
    /// The same rows can never succeed.
    Refused(Refusal),
    /// Others were in the way; the server rolled back and the same rows may succeed.
    Contended(DatabaseError),
    /// The statement took too long, or somebody cancelled it; the server rolled back. Fewer rows
    /// may succeed, or the same ones later.
    Cancelled(DatabaseError),
    /// Another transaction keeps a row locked for longer than the lock timeout.
    Locked(DatabaseError),
    /// The server is away, or cannot write at all. Nothing is known about the rows, also not
    /// whether the statement took effect.
    Out(DatabaseError),
}

/// What the database refuses.
#[derive(Debug)]
pub struct Refusal {
    /// In its words.
    pub fault: Fault,
    /// The event to blame, where it can be told: of a single group.
    pub culprit: Option<usize>,
    /// The detail of what it said. It may quote the row, so nobody is shown it.
    pub detail: Option<String>,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal { fault, culprit: None, detail: None }
    }
}

impl Refusal {
    fn of(error: &tokio_postgres::Error) -> Refusal {
        // In the server's words, without its detail: that would quote the row.
        let fault = Fault::new(Reason::DatabaseRefused, postgres::describe(error));
        let detail = error.as_db_error().and_then(|error| error.detail());
        Refusal { fault, culprit: None, detail: detail.map(str::to_owned) }
    }

    /// Whether the detail quotes the row of that draft, as that of a constraint does where the id
    /// is the table's first column: `Failing row contains (d1, …).`, or
    /// `(event_draft_id, …) = (d1, …)` for a role that may not read all columns. The words are in
    /// the server's language. A hint, no more: a value that reads like an id may be something else.
    pub fn quotes(&self, draft: &str) -> bool {
        let values = self.detail.as_deref().and_then(|detail| detail.split_once('('));
        let values = values.map(|(_words, row)| row.split_once(") = (").map_or(row, |(_, it)| it));
        let behind = values.and_then(|values| values.strip_prefix(draft));
        behind.is_some_and(|behind| behind.starts_with(", ") || behind.starts_with(')'))
    }
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

impl DatabaseError {
    /// Whether a connection is gone that was there. What ends a session is fatal to it.
    pub fn loss(&self) -> Option<Loss> {
        match self {
            DatabaseError::NoAnswer(_) => Some(Loss::Unanswered),
            DatabaseError::Postgres(error) => {
                let is_fatal = error.as_db_error().is_none_or(|answer| {
                    matches!(answer.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
                });
                is_fatal.then_some(Loss::Closed)
            }
            DatabaseError::Connect(_) => None,
        }
    }
}

impl Failure {
    /// Classifies a failed statement.
    pub fn of(error: tokio_postgres::Error) -> Failure {
        let Some(code) = error.code() else { return Failure::Out(error.into()) };
        if *code == SqlState::LOCK_NOT_AVAILABLE {
            return Failure::Locked(error.into());
        }
        if *code == SqlState::QUERY_CANCELED {
            return Failure::Cancelled(error.into());
        }
        if is_contention(code) {
            return Failure::Contended(error.into());
        }
        if !is_forbidden_row(&error) && !is_raised(&error) && is_held(code) {
            return Failure::Out(error.into());
        }
        Failure::Refused(Refusal::of(&error))
    }

    /// The same failure, with the event to blame for it.
    pub fn blame(self, event: Option<usize>) -> Failure {
        match self {
            Failure::Refused(refusal) => Failure::Refused(Refusal { culprit: event, ..refusal }),
            other => other,
        }
    }
}

/// Whether a row security policy refuses the row as it would be. That has the code of a right that
/// is missing altogether; which function of the server says so does not depend on its language.
fn is_forbidden_row(error: &tokio_postgres::Error) -> bool {
    let error = error.as_db_error();
    error.is_some_and(|error| {
        *error.code() == SqlState::INSUFFICIENT_PRIVILEGE
            && error.routine() == Some("ExecWithCheckOptions")
    })
}

/// Whether a trigger has raised it, which may give it any code: that is about its row. A code that
/// says of a server or a session that it cannot is believed all the same.
fn is_raised(error: &tokio_postgres::Error) -> bool {
    let error = error.as_db_error();
    error.is_some_and(|error| {
        let is_believed = ["08", "25", "53", "57", "58", "HV"];
        error.routine() == Some("exec_stmt_raise")
            && !is_believed.iter().any(|class| error.code().code().starts_with(class))
    })
}

/// Whether an error says nothing about the rows. All others do: bad data, a constraint, a limit, a
/// trigger; also codes that a trigger makes up, or one row could stop all others.
fn is_held(code: &SqlState) -> bool {
    // By class: the two characters that all codes of a kind share.
    match code.code().get(..2) {
        // The server is away, starting, full, read-only; the session is not usable; access is
        // denied; the schema is not as it should be.
        Some(
            "08" | "0A" | "0L" | "0P" | "25" | "26" | "28" | "2D" | "3B" | "3D" | "3F" | "40"
            | "42" | "53" | "55" | "57" | "58" | "72" | "F0" | "XX",
        )
        | None => true,
        // A server behind this one, to whose table a trigger writes, is away or has no memory. The
        // others of its class may be about one row's data.
        Some("HV") => [
            SqlState::FDW_UNABLE_TO_ESTABLISH_CONNECTION,
            SqlState::FDW_OUT_OF_MEMORY,
            SqlState::FDW_UNABLE_TO_CREATE_EXECUTION,
        ]
        .contains(code),
        Some(_) => false,
    }
}

/// Deadlock or serialization failure.
fn is_contention(code: &SqlState) -> bool {
    [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_behind_the_server_that_is_away_is_no_fault_of_a_row() {
        let held = |code: &str| is_held(&SqlState::from_code(code));
        // No connection to it, no memory, nothing can be executed there.
        assert!(["HV00N", "HV001", "HV00L"].into_iter().all(held));
        // No rows, a data type or a value that does not fit, an error of any kind there.
        assert!(!["HV000", "HV004", "HV00D", "HV00J"].into_iter().any(held));
        assert!(["08001", "42P01", "53100", "57P03"].into_iter().all(held));
        assert!(!["22001", "23505", "P0001", "ZZ123"].into_iter().any(held));
    }

    #[test]
    fn a_detail_quotes_the_draft_of_its_row() {
        let quotes = |detail: &str, draft: &str| {
            let fault = Fault::new(Reason::DatabaseRefused, "a constraint");
            let detail = Some(detail.to_owned());
            Refusal { detail, ..Refusal::from(fault) }.quotes(draft)
        };
        let whole = "Failing row contains (d1, 2026-11-27 00:00:00+00, null).";
        assert!(quotes(whole, "d1"));
        assert!(!quotes(whole, "d"), "another draft, with the same beginning");
        assert!(!quotes(whole, "d12"));
        assert!(quotes("Fehlgeschlagene Zeile enthält (d1, null).", "d1"));
        assert!(quotes("Failing row contains (d1).", "d1"));
        let some = "Failing row contains (event_draft_id, title) = (d1, null).";
        assert!(quotes(some, "d1"));
        assert!(!quotes(some, "event_draft_id"));
        assert!(!quotes("Key (d1)=(d2) already exists.", "d2"));
        assert!(!Refusal::from(Fault::new(Reason::DatabaseRefused, "a trigger")).quotes("d1"));
    }
}
