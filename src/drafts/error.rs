//! What can go wrong with drafts.

use std::io;

use tokio_postgres::error::SqlState;

use crate::postgres;

/// A failure to read or to create a draft.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// There is no such draft.
    #[error("there is no draft {id:?}")]
    Unknown {
        /// The id that was asked for.
        id: String,
    },
    /// A draft is created once.
    #[error("the draft {id:?} exists already")]
    Exists {
        /// The id that was to be created.
        id: String,
    },
    /// The id cannot be one of this table.
    #[error("{id:?} is not an id of this table, whose event_draft_id is {column_type}")]
    InvalidId {
        /// What was given.
        id: String,
        /// The type of the column.
        column_type: String,
    },
    /// The id is one that no event may have.
    #[error("{0}")]
    BadId(String),
    /// No connection to the cache.
    #[error(transparent)]
    Cache(#[from] crate::redis::ConnectError),
    /// The table is not there, or not what it should be.
    #[error("the table {table} {fault}")]
    Table {
        /// Its name.
        table: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The data for the other columns cannot be used.
    #[error("the data {0}")]
    Data(String),
    /// The draft was created, but the cache may still have something under its key.
    #[error(
        "the draft {id:?} is created, but its cache key {key:?} could not be deleted: {reason}"
    )]
    NotInvalidated {
        /// The draft.
        id: String,
        /// The key to delete.
        key: String,
        /// Why it was not.
        reason: String,
    },
    /// No session with the database.
    #[error(transparent)]
    Connect(#[from] postgres::ConnectError),
    /// The database refused, or was lost.
    #[error("the database failed to {doing}: {}", postgres::describe(.source))]
    Database {
        /// What it was asked for.
        doing: &'static str,
        /// What it says.
        source: tokio_postgres::Error,
    },
    /// The database did not answer.
    #[error("the database did not answer within {seconds} s when asked to {doing}")]
    Silent {
        /// What it was asked for.
        doing: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// The result could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl DraftError {
    /// Whether the database is away: it may pass by itself.
    pub fn is_outage(&self) -> bool {
        match self {
            DraftError::Connect(error) => error.is_outage(),
            DraftError::Cache(error) => error.is_outage(),
            DraftError::Database { source, .. } => postgres::is_lost(source),
            DraftError::Silent { .. } => true,
            _ => false,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> Option<String> {
        match self {
            DraftError::Unknown { .. } => Some(
                "`contentflow draft list` shows some, `contentflow draft put` creates one"
                    .to_owned(),
            ),
            DraftError::Table { .. } => Some(
                "run `contentflow migrate`, or set database.table to the table that is meant"
                    .to_owned(),
            ),
            DraftError::NotInvalidated { .. } => {
                Some("delete the key when the cache is back".to_owned())
            }
            DraftError::Connect(error) => Some(error.remedy()),
            DraftError::Cache(error) => Some(error.remedy()),
            DraftError::Database { source, .. }
                if source.code() == Some(&SqlState::NOT_NULL_VIOLATION) =>
            {
                Some("give the column a value with --data, as a JSON object".to_owned())
            }
            outage if outage.is_outage() => Some("check the database".to_owned()),
            DraftError::Exists { id } => {
                Some(format!("`contentflow draft get {id}` shows it; a new one needs another id"))
            }
            DraftError::Database { source, .. } if postgres::is_forbidden(source) => Some(
                "a draft is a whole row: GRANT SELECT, and INSERT for new ones, ON the table of database.table, all its columns, TO the user \
                 of database.url"
                    .to_owned(),
            ),
            DraftError::Database { .. } => Some(
                "`contentflow check` looks at the table and at what its user may do; else the server's log tells more"
                    .to_owned(),
            ),
            DraftError::Silent { .. }
            | DraftError::InvalidId { .. }
            | DraftError::BadId(_)
            | DraftError::Data(_)
            | DraftError::Output(_) => None,
        }
    }
}
