//! The cache with its lease.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, Script};

use crate::config;

/// How long a lease lasts. Longer than any healthy read of a row; if its holder dies, drafts are read uncached as long.
const LEASE: Duration = Duration::from_millis(3_000);

/// Stores the value if the lease still holds the token, and gives the lease back. One script, so that nothing comes in
/// between.
const FILL: &str = "
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
";

/// The name of the lease of a cache key. The key in braces is a hash tag: in a cluster, key and lease live in one slot,
/// as a script over both needs. A key with braces of its own breaks that: in a cluster its draft is never filled in, and so
/// read uncached; elsewhere slots do not matter.
pub fn lease_key(key: &str) -> String {
    format!("{{{key}}}:lease")
}

/// A lease that was taken: the right to fill the key.
#[derive(Debug)]
pub struct Lease {
    token: String,
}

/// A connection to the cache that may be missing: then everything is a miss.
pub(super) struct Cache {
    connection: Result<MultiplexedConnection, String>,
    timeout: Duration,
}

impl Cache {
    pub(super) async fn connect(config: &config::Cache) -> Cache {
        let connection = crate::redis::connect(config).await.map_err(|error| error.to_string());
        if let Err(reason) = &connection {
            tracing::warn!("going on without the cache: {reason}");
        }
        Cache { connection, timeout: config.timeout }
    }

    /// The cached value.
    pub(super) async fn get(&mut self, key: &str) -> Option<String> {
        let answer: Result<Option<String>, String> = self.ask(redis::cmd("GET").arg(key)).await;
        self.or_warn("read", answer)?
    }

    /// Takes the lease of the key, unless another reader has it.
    pub(super) async fn take_lease(&mut self, key: &str) -> Option<Lease> {
        let token = format!("{:032x}", fastrand::u128(..));
        let mut take = redis::cmd("SET");
        take.arg(lease_key(key)).arg(&token).arg("NX").arg("PX").arg(millis(LEASE));
        let answer: Result<Option<String>, String> = self.ask(&take).await;
        self.or_warn("lease", answer)?.map(|_ok| Lease { token })
    }

    /// Stores the value if the lease is still ours. False if it is not, or the cache failed.
    pub(super) async fn fill(
        &mut self,
        key: &str,
        lease: &Lease,
        value: &str,
        ttl: Duration,
    ) -> bool {
        let script = Script::new(FILL);
        let mut call = script.key(key);
        call.key(lease_key(key)).arg(&lease.token).arg(value).arg(millis(ttl));
        let answer = match &mut self.connection {
            Ok(connection) => within(self.timeout, call.invoke_async::<bool>(connection)).await,
            Err(reason) => Err(reason.clone()),
        };
        self.or_warn("fill", answer).unwrap_or(false)
    }

    /// Deletes the key and its lease, as every writer must after its commit.
    pub(super) async fn delete(&mut self, key: &str) -> Result<(), String> {
        // The lease first: a fill that comes in between finds it gone.
        let _leases: u64 = self.ask(redis::cmd("DEL").arg(lease_key(key))).await?;
        let _keys: u64 = self.ask(redis::cmd("DEL").arg(key)).await?;
        Ok(())
    }

    async fn ask<T: FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, String> {
        match &mut self.connection {
            Ok(connection) => within(self.timeout, command.query_async(connection)).await,
            Err(reason) => Err(reason.clone()),
        }
    }

    /// A failing cache is a miss, and worth one line if the connection was there.
    fn or_warn<T>(&self, what: &str, answer: Result<T, String>) -> Option<T> {
        if let (Err(reason), Ok(_)) = (&answer, &self.connection) {
            tracing::warn!("the cache failed to {what}: {reason}");
        }
        answer.ok()
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("connected", &self.connection.is_ok()).finish_non_exhaustive()
    }
}

/// A frozen server accepts connections and answers nothing: every wait has an end.
async fn within<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, String> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", deadline.as_millis())),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
