//! What can go wrong with the demo, beside what its parts report.

use std::io;

use crate::check::{DraftTableError, Problem};
use crate::dead_letters::DlqError;
use crate::drafts::DraftError;
use crate::kafka::KafkaError;
use crate::migrate::MigrateError;
use crate::publish::PublishError;
use crate::run::RunError;
use crate::{postgres, redis};

/// Why the demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Something is there already, and may be somebody's.
    #[error("{0}: the demo only uses what it has made itself, because it deletes that again")]
    InUse(String),
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
    /// `contentflow check` would say the same: what, and what to do about it.
    #[error("the servers are not ready")]
    NotReady(Vec<Problem>),
    /// The cache does not do as it is told.
    #[error("the cache refuses: {0}")]
    Cache(#[from] redis::CacheError),
    /// No session with the database.
    #[error(transparent)]
    Postgres(#[from] postgres::ConnectError),
    /// The table is not one of drafts.
    #[error(transparent)]
    Table(#[from] DraftTableError),
    /// The topics cannot be made or deleted.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The table cannot be made.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The drafts cannot be made or read.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// The events cannot be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The pipeline failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The dead letters cannot be read.
    #[error(transparent)]
    DeadLetters(#[from] DlqError),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// What to do when something is in the way.
pub(crate) const ELSEWHERE: &str = "run it on throwaway servers with `make demo`, or under names of its own: \
    CONTENTFLOW_KAFKA__TOPIC=demo CONTENTFLOW_KAFKA__GROUP=demo CONTENTFLOW_DATABASE__TABLE=demo \
    CONTENTFLOW_CACHE__KEY=demo:{id} contentflow demo";
