//! The lease of a cache key: readers that take it leave no old value in the cache. For every
//! service that reads or writes what contentflow writes; `docs/cache.md` is the same contract for
//! other languages.
//!
//! ```text
//! reader:  GET key -> hit
//!               \-> miss -> SET lease token NX PX -> read the primary -> if the lease still holds the token: SET key
//! writer:  COMMIT -> DEL lease -> DEL key
//! ```
//!
//! Without it, a slow reader can bring an old value back: it reads the row, a writer changes the
//! row and deletes the key, and only then the reader stores what it had read. Here the writer takes
//! the lease away before it deletes the key, and a reader whose lease is gone stores nothing. A
//! lease that is taken after that belongs to a reader that reads after the commit. The rule is that
//! of Nishtala et al., "Scaling Memcache at Facebook" (NSDI 2013), section 3.2.1, made of a second
//! key and a script.
//!
//! # Example
//!
//! ```no_run
//! # async fn example(redis: &mut redis::aio::MultiplexedConnection, rows: &tokio_postgres::Client)
//! #     -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use contentflow::lease::{invalidate, read_through};
//!
//! // A reader. The query is sent only after the lease is taken: to the primary, and in no transaction that began earlier.
//! let read = read_through(redis, "event:draft:42", Duration::from_secs(604_800), async || {
//!     let sql = "SELECT to_jsonb(d)::text FROM event_drafts AS d WHERE event_draft_id = '42'";
//!     Ok::<_, tokio_postgres::Error>(rows.query_opt(sql, &[]).await?.map(|row| row.get(0)))
//! })
//! .await?;
//! println!("{:?}, {}", read.value, read.source.describe());
//!
//! // A writer.
//! rows.execute("UPDATE event_drafts SET title = 'new' WHERE event_draft_id = '42'", &[]).await?;
//! invalidate(redis, "event:draft:42").await?;
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisError, RedisResult, cmd};

/// How long a lease lasts unless its holder gives it back. Longer than any healthy read of a row: a
/// reader that is slower fills nothing in. Not much longer: when a holder dies, its key is read
/// uncached until then.
pub const LASTS: Duration = Duration::from_millis(3_000);

/// Stores the value if the lease still holds the token, and gives the lease back. One script, so
/// that nothing comes in between.
const FILL: &str = "\
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1";

/// The name of the lease of a cache key. The key in braces is a hash tag: in a cluster, key and
/// lease live in one slot, as a script over both needs. A key with braces of its own breaks that:
/// in a cluster what it stands for is never filled in, and so read uncached; elsewhere slots do not
/// matter.
pub fn lease_key(key: &str) -> String {
    lease_parts(key).concat()
}

fn lease_parts(key: &str) -> [&str; 3] {
    ["{", key, "}:lease"]
}

/// By how many a lease's name is longer than its key's.
const LEASE_BYTES: usize = 8;

/// What every writer must send after its commit, in this order, each a command of its own: in a
/// pipeline or one by one, in a cluster one by one, that of the key after that of the lease is
/// answered; and again until both are answered.
///
/// The lease first: whoever fills the key in from then on has read after the commit. The other way
/// round, a reader could fill in what is old between the two.
pub fn invalidation(key: &str) -> [Cmd; 2] {
    [lease_key(key), key.to_owned()].map(|key| {
        let mut delete = cmd("DEL");
        delete.arg(key);
        delete
    })
}

/// [`invalidation`] of many keys with as many commands as of one: all the leases first, then all
/// the keys. Much cheaper where a server takes it; a cluster does not, where the keys live in
/// different slots, and one forbidden key spares them all.
pub fn invalidation_together<'a>(keys: impl ExactSizeIterator<Item = &'a str> + Clone) -> [Cmd; 2] {
    let bytes: usize = keys.clone().map(str::len).sum();
    let mut values = Cmd::with_capacity(1 + keys.len(), 3 + bytes);
    let mut leases = Cmd::with_capacity(1 + keys.len(), 3 + bytes + LEASE_BYTES * keys.len());
    values.arg("DEL");
    leases.arg("DEL");
    let mut lease = String::new();
    for key in keys {
        lease.clear();
        lease.extend(lease_parts(key));
        leases.arg(&lease);
        values.arg(key);
    }
    [leases, values]
}

/// [`invalidation`], carried out.
///
/// # Errors
///
/// That of the first command that fails. The key may hold an old value until it is done again with
/// success, or the value's time to live is over.
pub async fn invalidate(cache: &mut impl ConnectionLike, key: &str) -> RedisResult<()> {
    for delete in invalidation(key) {
        delete.query_async::<u64>(cache).await?;
    }
    Ok(())
}

/// The right to fill a key in, as long as it lasts and no writer takes it away.
///
/// A lease that is not used is left alone: it ends by itself.
#[derive(Debug)]
#[must_use = "another reader could use it"]
pub struct Lease {
    key: String,
    token: String,
}

impl Lease {
    /// Takes the lease of the key for so long (1 ms at least, see [`LASTS`]). None: another reader
    /// has it, read the row and store nothing.
    ///
    /// # Errors
    ///
    /// Those of the cache. Whether the lease is taken is not known then; read the row and store
    /// nothing.
    pub async fn take(
        cache: &mut impl ConnectionLike,
        key: &str,
        lasts: Duration,
    ) -> RedisResult<Option<Lease>> {
        let lease = Lease::draw(key);
        let taken: Option<String> = lease.taking(lasts).query_async(cache).await?;
        Ok(taken.map(|_ok| lease))
    }

    /// Stores a value that was read after the lease was taken, for so long (1 ms at least), and
    /// gives the lease back. False: the lease is gone, and nothing is stored.
    ///
    /// # Errors
    ///
    /// Those of the cache. Whether the value is stored is not known then; both are right.
    pub async fn fill(
        self,
        cache: &mut impl ConnectionLike,
        value: &str,
        ttl: Duration,
    ) -> RedisResult<bool> {
        self.filling(value, ttl).query_async(cache).await
    }

    /// A lease that is not taken yet: for those who send the commands themselves.
    pub fn draw(key: &str) -> Lease {
        // Nobody guesses it or draws it again, also not after its lease has expired.
        Lease { key: key.to_owned(), token: format!("{:032x}", fastrand::u128(..)) }
    }

    /// The command that takes the lease. It answers `OK`, or nil when another reader has it.
    pub fn taking(&self, lasts: Duration) -> Cmd {
        let mut take = cmd("SET");
        take.arg(lease_key(&self.key)).arg(&self.token).arg("NX").arg("PX").arg(millis(lasts));
        take
    }

    /// The command that stores the value, if the lease is still ours. It answers 1 or 0.
    pub fn filling(&self, value: &str, ttl: Duration) -> Cmd {
        let mut fill = cmd("EVAL");
        fill.arg(FILL).arg(2).arg(&self.key).arg(lease_key(&self.key));
        fill.arg(&self.token).arg(value).arg(millis(ttl));
        fill
    }
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its cache key.
    Cache,
    /// Its row, and the cache has it now.
    DatabaseAndFilled,
    /// Its row; another reader holds the lease, a writer took ours away, there is no row, or the
    /// cache is out.
    Database,
}

impl Source {
    /// The source in words.
    pub fn describe(self) -> &'static str {
        match self {
            Source::Cache => "from the cache",
            Source::DatabaseAndFilled => "from the database, and now in the cache",
            Source::Database => "from the database, not put into the cache",
        }
    }
}

/// What was read.
#[derive(Debug)]
pub struct Read {
    /// None: there is no such row. That is not cached.
    pub value: Option<String>,
    /// Where it came from.
    pub source: Source,
    /// What the cache failed with, if it did: worth a line in the log, and no reason to have no
    /// answer.
    pub cache_failure: Option<RedisError>,
}

/// Reads a value through the cache. On a miss takes the lease, then has `load` read the row, then
/// stores the value for the time `ttl` (1 ms at least) if the lease is still there.
///
/// `load` must see every commit that was answered before it was called: a query of its own on the
/// primary, not on a replica, and not in a transaction with an older snapshot. A cache that fails
/// is a miss. How long it may take to fail is a matter of the connection: give it a response
/// timeout.
///
/// # Errors
///
/// Those of `load` alone.
pub async fn read_through<E>(
    cache: &mut impl ConnectionLike,
    key: &str,
    ttl: Duration,
    load: impl AsyncFnOnce() -> Result<Option<String>, E>,
) -> Result<Read, E> {
    let (lease, mut cache_failure) = match look_up(cache, key).await {
        Ok(Found::Value(value)) => {
            return Ok(Read { value: Some(value), source: Source::Cache, cache_failure: None });
        }
        Ok(Found::Nothing(lease)) => (lease, None),
        Err(error) => (None, Some(error)),
    };
    let value = load().await?;
    let mut source = Source::Database;
    if let (Some(lease), Some(value)) = (lease, &value) {
        match lease.fill(cache, value, ttl).await {
            Ok(true) => source = Source::DatabaseAndFilled,
            Ok(false) => {}
            Err(error) => cache_failure = Some(error),
        }
    }
    Ok(Read { value, source, cache_failure })
}

enum Found {
    Value(String),
    Nothing(Option<Lease>),
}

async fn look_up(cache: &mut impl ConnectionLike, key: &str) -> RedisResult<Found> {
    match cmd("GET").arg(key).query_async(cache).await? {
        Some(value) => Ok(Found::Value(value)),
        None => Ok(Found::Nothing(Lease::take(cache, key, LASTS).await?)),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(command: &Cmd) -> String {
        String::from_utf8(command.get_packed_command()).unwrap()
    }

    #[test]
    fn key_and_lease_share_the_hash_tag() {
        assert_eq!(lease_key("event:draft:42"), "{event:draft:42}:lease");
    }

    #[test]
    fn a_writer_deletes_the_lease_first_and_each_key_with_a_command_of_its_own() {
        let [first, second] = invalidation("k");
        assert_eq!(sent(&first), "*2\r\n$3\r\nDEL\r\n$9\r\n{k}:lease\r\n");
        assert_eq!(sent(&second), "*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n");
    }
}
