//! The Redis database of a world.

use redis::{Client, Commands, Connection, IntoConnectionInfo};

use super::World;

/// How long a number stays claimed if its test dies without giving it back, seconds. No test takes
/// so long.
const CLAIM_S: u64 = 600;

/// A numbered database of the server that no other test uses.
pub(crate) struct CacheDb {
    pub(crate) url: String,
    /// The same, without a database.
    server: String,
    client: Client,
    /// The claim, in database 0.
    claim: String,
}

impl CacheDb {
    /// Claims the next free number, and empties its database.
    pub(super) fn claim(server: &str) -> CacheDb {
        let mut zero = connect(&at_number(server, 0));
        let (_, databases): (String, u64) =
            redis::cmd("CONFIG").arg("GET").arg("databases").query(&mut zero).unwrap();
        assert!(databases > 1, "Redis has only one database: set `databases` to more");
        for _ in 0..10 * databases {
            let next: u64 = zero.incr("contentflow:tests:next", 1).unwrap();
            let number = 1 + next % (databases - 1);
            let claim = format!("contentflow:tests:{number}");
            let free: Option<String> = redis::cmd("SET")
                .arg(&claim)
                .arg("claimed")
                .arg("NX")
                .arg("EX")
                .arg(CLAIM_S)
                .query(&mut zero)
                .unwrap();
            if free.is_some() {
                let url = at_number(server, number);
                let client = Client::open(url.as_str()).unwrap();
                let cache = CacheDb { url, server: server.to_owned(), client, claim };
                redis::cmd("FLUSHDB").exec(&mut cache.connection()).unwrap();
                return cache;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("all {databases} databases of Redis are taken by other tests");
    }

    pub(crate) fn connection(&self) -> Connection {
        self.client.get_connection().unwrap()
    }

    /// Caches something for each draft.
    pub(crate) fn fill(&self, ids: &[String]) {
        let mut pipeline = redis::pipe();
        for id in ids {
            pipeline.set(key(id), format!("cached {id}")).ignore();
        }
        pipeline.exec(&mut self.connection()).unwrap();
    }

    /// How many keys there are.
    pub(crate) fn keys(&self) -> u64 {
        redis::cmd("DBSIZE").query(&mut self.connection()).unwrap()
    }
}

impl Drop for CacheDb {
    fn drop(&mut self) {
        let give_back = || {
            redis::cmd("FLUSHDB").exec(&mut self.client.get_connection()?)?;
            let zero = Client::open(at_number(&self.server, 0).as_str())?;
            redis::cmd("DEL").arg(&self.claim).exec(&mut zero.get_connection()?)
        };
        if let Err(error) = give_back() {
            eprintln!("{} is left behind: {error}", self.claim);
        }
    }
}

fn connect(url: &str) -> Connection {
    let connection = Client::open(url).and_then(|client| client.get_connection());
    connection.unwrap_or_else(|error| panic!("Redis: {error}"))
}

/// The URL with another database in it.
fn at_number(url: &str, number: u64) -> String {
    assert!(url.into_connection_info().is_ok(), "REDIS_URL is not a URL that Redis understands");
    let (scheme, rest) = url.split_once("://").unwrap();
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    format!("{scheme}://{authority}/{number}")
}

fn key(id: &str) -> String {
    format!("event:draft:{id}")
}

impl World {
    /// What the cache has for a draft.
    pub(crate) fn cached(&self, id: &str) -> Option<String> {
        self.cache.connection().get(key(id)).unwrap()
    }

    /// Leaves nothing in the cache.
    pub(crate) fn empty_cache(&self) {
        redis::cmd("FLUSHDB").exec(&mut self.cache.connection()).unwrap();
    }

    /// Puts something into the cache, as a reader does.
    pub(crate) fn cache_again(&self, id: &str) {
        self.cache.fill(&[id.to_owned()]);
    }

    /// Which of these drafts the cache has something for.
    pub(crate) fn cached_among<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let ids: Vec<&str> = ids.into_iter().collect();
        if ids.is_empty() {
            return ids;
        }
        let keys: Vec<String> = ids.iter().map(|id| key(id)).collect();
        let values: Vec<Option<String>> = self.cache.connection().mget(keys).unwrap();
        ids.into_iter().zip(values).filter_map(|(id, value)| value.map(|_| id)).collect()
    }
}
