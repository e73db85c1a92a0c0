//! Why a verification could not be finished.

use std::io;
use std::time::Duration;

use crate::check::DraftTableError;
use crate::postgres;
use crate::redis::CacheError;
use crate::scan::ScanError;
use crate::sink::postgres::failure::DatabaseError;

/// A verification that could not be finished. What it has found by then is not said: half a proof
/// is none.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A topic cannot be read.
    #[error(transparent)]
    Topic(#[from] ScanError),
    /// No session with the database.
    #[error(transparent)]
    Connect(#[from] postgres::ConnectError),
    /// There is no usable table.
    #[error(transparent)]
    Table(#[from] DraftTableError),
    /// The database refused, or was lost.
    #[error("the database failed to {doing}: {}", postgres::describe(.source))]
    Database {
        /// What it was asked for.
        doing: &'static str,
        /// What it says.
        source: tokio_postgres::Error,
    },
    /// The database was lost while rows were mended.
    #[error("not everything is mended: {0}")]
    NotMended(DatabaseError),
    /// The database did not answer.
    #[error("the database did not answer within {within:?} when asked to {doing}")]
    Silent {
        /// What it was asked for.
        doing: &'static str,
        /// How long was waited.
        within: Duration,
    },
    /// The cache cannot be asked.
    #[error("the cache failed: {0}")]
    Cache(#[from] CacheError),
    /// The dataflow could not be started, or has ended before its time.
    #[error("the dataflow failed: {0}")]
    Workers(String),
    /// A signal came.
    #[error("interrupted; nothing is known yet")]
    Interrupted,
    /// The result could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl VerifyError {
    /// Whether a server is away, and may come back by itself.
    pub fn is_outage(&self) -> bool {
        match self {
            VerifyError::Topic(error) => error.is_outage(),
            VerifyError::Connect(error) => error.is_outage(),
            VerifyError::Database { source, .. } => crate::postgres::is_lost(source),
            VerifyError::Cache(error) => error.is_outage(),
            VerifyError::Table(error) => error.is_outage(),
            VerifyError::Silent { .. } | VerifyError::NotMended(_) => true,
            VerifyError::Workers(_) | VerifyError::Interrupted | VerifyError::Output(_) => false,
        }
    }
}
