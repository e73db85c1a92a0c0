//! invalidate: deletes the cache keys of settled events, in pipelines.
//!
//! Each key and each lease has a DEL of its own: one forbidden key in a DEL of many would spare them all, and in a cluster they
//! live in different slots. Every reply is looked at.

use std::collections::HashSet;

use dataflows::graph::Invalidated;
use dataflows::outcome::Settled;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError};

use self::second_delete::SecondDeletes;
use super::outage::{Outage, OutagePolicy};
use super::{Job, Lane};
use crate::config::Cache;
use crate::lease;

pub mod second_delete;

/// Serves an invalidation lane until its worker has no more.
pub async fn serve(
    mut lane: Lane<Settled, Invalidated>,
    config: Cache,
    second: Option<SecondDeletes>,
    policy: OutagePolicy,
) {
    let mut connection = None;
    while let Some(Job { ticket, batch }) = lane.jobs.recv().await {
        let keys: HashSet<&str> = batch.iter().map(|settled| settled.change.draft_id()).collect();
        let keys_deleted = delete(&keys, &config, &mut connection, &policy).await;
        let deletes = u64::try_from(keys.len()).expect("a batch is small");
        // Before the answer: once everything is answered, a stop does what was noted until then, and leaves.
        if let Some(second) = &second {
            second.note(&keys).await;
        }
        lane.replies.answer(
            ticket,
            vec![Invalidated { settled: batch, deletes, keys_deleted }],
            true,
        );
    }
}

/// Deletes the keys of these drafts and returns how many existed, holding for as long as the cache is away.
///
/// Asked again after a failure, a DEL that had succeeded finds nothing, and one that had failed succeeds: both end well.
async fn delete(
    drafts: &HashSet<&str>,
    config: &Cache,
    connection: &mut Option<MultiplexedConnection>,
    policy: &OutagePolicy,
) -> u64 {
    let mut pipeline = Pipeline::with_capacity(2 * drafts.len());
    for draft in drafts {
        for delete in lease::invalidation(&config.key.key(draft)) {
            pipeline.add_command(delete);
        }
    }
    let mut outage = Outage::none("redis", policy);
    loop {
        match try_delete(&pipeline, 2 * drafts.len(), config, connection).await {
            Ok(existed) => {
                outage.over();
                return existed;
            }
            Err(error) => {
                *connection = None;
                outage.hold(&error).await;
            }
        }
    }
}

async fn try_delete(
    pipeline: &Pipeline,
    commands: usize,
    config: &Cache,
    connection: &mut Option<MultiplexedConnection>,
) -> Result<u64, CacheError> {
    let connected = match connection {
        Some(connected) => connected,
        None => connection.insert(crate::redis::connect(config).await?),
    };
    let replies =
        tokio::time::timeout(config.timeout, connected.send_packed_commands(pipeline, 0, commands))
            .await
            .map_err(|_elapsed| CacheError::NoAnswer(config.timeout))??;
    let mut existed = 0;
    for (index, reply) in replies.into_iter().enumerate() {
        let found: u64 =
            redis::from_redis_value(reply.extract_error()?).map_err(RedisError::from)?;
        // Odd replies are those of the keys, even ones those of their leases.
        existed += if index % 2 == 1 { found } else { 0 };
    }
    Ok(existed)
}

/// Why keys could not be deleted. All of it is held as an outage: a DEL is never given up, and no event can be blamed.
#[derive(Debug, thiserror::Error)]
enum CacheError {
    #[error("no answer within {0:?}")]
    NoAnswer(std::time::Duration),
    #[error(transparent)]
    Refused(#[from] RedisError),
    #[error(transparent)]
    Connect(#[from] crate::redis::ConnectError),
}
