//! invalidate: deletes the cache keys of settled events, in pipelines.
//!
//! A DEL of all leases, then a DEL of all keys. Where the server refuses one of them, and in a
//! cluster, each lease and each key has a DEL of its own: one forbidden key in a DEL of many spares
//! them all, and in a cluster they live in different slots. Every reply is looked at.

use std::future::Future;
use std::mem::take;

use dataflows::graph::Invalidated;
use dataflows::outcome::{Outcome, Settled};
use dataflows::planted::{Bug, is_planted};
use redis::{Cmd, RedisError};

use self::second_delete::SecondDeletes;
use super::outage::{Outage, OutagePolicy};
use super::{Job, Lane};
use crate::clock::now_ms;
use crate::config::{Cache, CacheKeys};
use crate::figures::histogram::float;
use crate::figures::{Figures, Server};
use crate::lease;
use crate::redis::{CacheConnection, CacheError};

pub mod second_delete;

/// The cache as a lane meets it.
pub trait Keys: Send {
    /// Deletes the keys and leases of these drafts, each of them named once, and returns how many
    /// keys existed.
    ///
    /// # Errors
    ///
    /// [`CacheError`]; some may be deleted all the same.
    fn delete(&mut self, drafts: &[&str]) -> impl Future<Output = Result<u64, CacheError>> + Send;
}

/// Serves an invalidation lane until its worker has no more. Batches that have come to wait are done
/// together, up to so many keys: a DEL names many as easily as a few.
pub async fn serve(
    mut lane: Lane<Settled, Invalidated>,
    mut keys: impl Keys,
    keys_max: usize,
    second: Option<SecondDeletes>,
    policy: OutagePolicy,
) {
    loop {
        let jobs = lane.jobs.recv_up_to(keys_max, |_before, _next| true).await;
        if jobs.is_empty() {
            return;
        }
        let skips =
            |outcome| outcome == Outcome::Duplicate && is_planted(Bug::DuplicateSkipsDelete);
        let mut drafts: Vec<&str> = jobs
            .iter()
            .flat_map(|job| &job.batch)
            .filter(|settled| !settled.outcomes.iter().all(|outcome| skips(*outcome)))
            .map(|settled| settled.group.draft_id())
            .collect();
        drafts.sort_unstable();
        drafts.dedup();
        let mut keys_deleted = delete(&mut keys, &drafts, &policy).await;
        let mut deletes = u64::try_from(drafts.len()).expect("a batch is small");
        let settled = jobs.iter().flat_map(|job| &job.batch);
        policy.figures.iter().for_each(|figures| note_latencies(figures, settled.clone()));
        // Before the answer: once everything is answered, a stop does what was noted until then,
        // and leaves.
        if let Some(second) = &second {
            second.note(&drafts).await;
        }
        for Job { ticket, batch: settled } in jobs {
            // Counted once, with the first batch.
            let (deletes, keys_deleted) = (take(&mut deletes), take(&mut keys_deleted));
            lane.replies.answer(ticket, vec![Invalidated { settled, deletes, keys_deleted }], true);
        }
    }
}

/// Notes how long it took from each record's timestamp until now.
fn note_latencies<'a>(figures: &Figures, settled: impl Iterator<Item = &'a Settled>) {
    let now_ms = now_ms();
    let mut latencies = figures.latency.batch();
    for change in settled.flat_map(|settled| &settled.group.events) {
        let ms = now_ms.saturating_sub(change.position().timestamp_ms);
        latencies.observe(float(u64::try_from(ms).unwrap_or_default()) / 1e3);
    }
    figures.latency.add(&latencies);
}

/// Deletes the keys of these drafts and returns how many existed, holding for as long as the cache
/// is away.
///
/// Asked again after a failure, a DEL that had succeeded finds nothing, and one that had failed
/// succeeds: both end well.
async fn delete(keys: &mut impl Keys, drafts: &[&str], policy: &OutagePolicy) -> u64 {
    let mut outage = Outage::none(Server::Cache, policy);
    loop {
        match keys.delete(drafts).await {
            Ok(existed) => {
                outage.over();
                return existed;
            }
            Err(error) => outage.hold(&error, error.loss()).await,
        }
    }
}

/// The real cache, on a connection that is made when it is needed.
pub struct Connection {
    config: Cache,
    open: Option<CacheConnection>,
    /// Whether this connection has refused a DEL of many keys.
    one_by_one: bool,
}

impl Connection {
    /// A connection that is not made yet.
    pub fn new(config: Cache) -> Connection {
        Connection { config, open: None, one_by_one: false }
    }

    async fn try_delete(&mut self, drafts: &[&str]) -> Result<u64, CacheError> {
        let mut existed = 0;
        for drafts in drafts.chunks(self.config.batch_keys) {
            existed += self.delete_keys(&self.config.key.keys(drafts)).await?;
        }
        Ok(existed)
    }

    async fn delete_keys(&mut self, keys: &CacheKeys) -> Result<u64, CacheError> {
        if !self.one_by_one && !self.connected().await?.has_slots() {
            match self.send(lease::invalidation_together(keys.iter()).into()).await?.as_slice() {
                [Ok(_leases), Ok(existed)] => return Ok(*existed),
                _refused => self.one_by_one = true,
            }
        }
        // All the leases are answered before the first key is sent: side by side, in a cluster one
        // might overtake the other.
        let (leases, keys): (Vec<Cmd>, Vec<Cmd>) =
            keys.iter().map(|key| lease::invalidation(key).into()).unzip();
        let leases = self.send(leases).await?;
        let existed = self.send(keys).await?.into_iter().sum::<Result<u64, _>>()?;
        leases.into_iter().try_for_each(|reply| reply.map(drop))?;
        Ok(existed)
    }

    async fn connected(&mut self) -> Result<&mut CacheConnection, CacheError> {
        Ok(match &mut self.open {
            Some(open) => open,
            closed => closed.insert(crate::redis::connect(&self.config).await?),
        })
    }

    /// Sends commands together, and returns the number or the error that the server says to each.
    async fn send(
        &mut self,
        commands: Vec<Cmd>,
    ) -> Result<Vec<Result<u64, RedisError>>, CacheError> {
        let deadline = self.config.timeout;
        let replies = self.connected().await?.send(commands, deadline).await?;
        let number = |reply: Result<_, _>| Ok(redis::from_redis_value(reply?)?);
        Ok(replies.into_iter().map(number).collect())
    }
}

impl Keys for Connection {
    async fn delete(&mut self, drafts: &[&str]) -> Result<u64, CacheError> {
        let deleted = self.try_delete(drafts).await;
        if deleted.is_err() {
            (self.open, self.one_by_one) = (None, false);
        }
        deleted
    }
}
