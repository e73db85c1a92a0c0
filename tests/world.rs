//! A world: a corner of the three servers that one test has for itself, and the program in it.
//!
//! ```text
//! event("d1", "job-1") -> world.publish -> world.run_until_caught_up -> world.row("d1"), world.cached("d1"), ...
//! ```

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

mod browser;
mod cache;
mod certificates;
mod cluster;
pub(crate) mod collector;
mod event;
mod http;
mod load;
pub(crate) mod private;
mod private_kafka;
mod program;
mod proxy;
mod raw_produce;
mod rows;
mod slow_wire;
mod topic;

pub(crate) use browser::Browser;
pub(crate) use cache::CacheDb;
pub(crate) use certificates::certificates;
pub(crate) use cluster::Cluster;
pub(crate) use event::{Record, body, event, images, record};
pub(crate) use http::Page;
pub(crate) use load::Load;
pub(crate) use private_kafka::{PrivateKafka, SECRET};
pub(crate) use program::{Ended, Report, Running};
pub(crate) use proxy::Proxy;
pub(crate) use raw_produce::{RawRecord, produce_raw};
pub(crate) use rows::{Row, Session};
pub(crate) use topic::{
    Offsets, Place, alter_topic, await_transaction, create_topic, delete_topic, discard_topics,
    is_gone, read,
};

use topic::Topics;

/// The deadline of everything that is waited for. A busy machine is slow; nothing here takes so
/// long on any.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Partitions of a world's topic.
pub(crate) const PARTITIONS: i32 = 4;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

/// Runs what the clients of the servers have to say for themselves.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

/// Waits until the condition holds. Fails the test when that takes too long.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Watches for a while that the condition holds. What must not happen would have happened by then.
pub(crate) fn meanwhile(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(400) {
        assert!(condition(), "no longer: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The address of a server. A test without servers fails: one that passes without them would prove
/// nothing.
pub(crate) fn given(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `make test`, or `eval \"$(dev/stack env)\"` before `cargo test`")
    })
}

/// One test's part of the servers. Deleted when it is dropped, also by a failing test.
pub(crate) struct World {
    /// Unique; the topic and the group are called so.
    pub(crate) name: String,
    /// The rows, and the server that they are on.
    pub(crate) database: rows::Database,
    /// The cached drafts.
    pub(crate) cache: CacheDb,
    topics: Topics,
    settings: BTreeMap<String, String>,
    /// Where the program runs: no configuration file of the developer's reaches it.
    directory: TempDir,
}

impl World {
    /// A world whose drafts' ids are texts.
    pub(crate) fn new(name: &str) -> World {
        World::with_table(name, "")
    }

    /// A world whose table exists before the migrations come to it, as `create_table` makes it.
    pub(crate) fn with_table(name: &str, create_table: &str) -> World {
        let world = World::without_table(name);
        if !create_table.is_empty() {
            world.database.sql(create_table);
        }
        world.call(&["migrate"]).success();
        world
    }

    /// A world that nobody has prepared.
    pub(crate) fn without_table(name: &str) -> World {
        World::on(name, &given("DATABASE_URL"), &given("REDIS_URL"))
    }

    /// A world whose rows are on a server of its own.
    pub(crate) fn on_postgres(name: &str, server: &private::Postgres) -> World {
        let world = World::on(name, &server.url, &given("REDIS_URL"));
        world.call(&["migrate"]).success();
        world
    }

    /// A world whose cache is on a server of its own.
    pub(crate) fn on_redis(name: &str, server: &private::Redis) -> World {
        let world = World::on(name, &given("DATABASE_URL"), &server.url);
        world.call(&["migrate"]).success();
        world
    }

    fn on(name: &str, database_server: &str, cache_server: &str) -> World {
        let name = format!("{name}-{:08x}", fastrand::u32(..));
        let database = rows::Database::create(&name, database_server);
        let cache = CacheDb::claim(cache_server);
        let topics = Topics::create(&name);
        let directory = TempDir::new().unwrap();
        let mut world =
            World { name, database, cache, topics, settings: BTreeMap::new(), directory };
        let settings = [
            ("kafka.brokers", given("KAFKA_BROKERS")),
            ("kafka.topic", world.topic().to_owned()),
            ("kafka.group", world.name.clone()),
            ("database.url", world.database.url.clone()),
            ("cache.url", world.cache.url.clone()),
            ("run.workers", "2".to_owned()),
            ("kafka.bulk_fetch_min_records", bulk_fetch_min_records(&world.name).to_string()),
            // Hundreds of tests would fight for the port.
            ("http.listen", "off".to_owned()),
        ];
        for (key, value) in settings {
            world.set(key, value);
        }
        world
    }

    /// Sets another variable of the environment for what is started from now on.
    pub(crate) fn variable(&mut self, name: &str, value: &str) {
        self.settings.insert(name.to_owned(), value.to_owned());
    }

    /// Sets a key of the configuration for what is started from now on.
    pub(crate) fn set(&mut self, key: &str, value: impl ToString) {
        self.settings.insert(variable_of(key), value.to_string());
    }

    /// A key of the configuration, as it is set.
    pub(crate) fn setting(&self, key: &str) -> String {
        self.settings[&variable_of(key)].clone()
    }

    /// Puts a wire before the database, for what is started from now on.
    pub(crate) fn wire_to_database(&mut self) -> Proxy {
        let (wire, url) = Proxy::before(&self.database.url);
        self.set("database.url", url);
        wire
    }

    /// What is started from now on reaches the database itself.
    pub(crate) fn unwire_database(&mut self) {
        self.set("database.url", self.database.url.clone());
    }

    /// Puts a wire before the cache, for what is started from now on.
    pub(crate) fn wire_to_cache(&mut self) -> Proxy {
        let (wire, url) = Proxy::before(&self.cache.url);
        self.set("cache.url", url);
        wire
    }

    /// What is started from now on reaches the cache itself.
    pub(crate) fn unwire_cache(&mut self) {
        self.set("cache.url", self.cache.url.clone());
    }

    /// Leaves a key of the configuration at its default from now on.
    pub(crate) fn unset(&mut self, key: &str) {
        self.settings.remove(&variable_of(key));
    }
}

/// From how many records on a world's program fetches in bulk: half of the worlds any backlog, half
/// none, always the same ones; `BULK_FETCH_MIN_RECORDS` says so for all.
fn bulk_fetch_min_records(name: &str) -> u64 {
    let test = name.rsplit_once('-').map_or(name, |(test, _)| test);
    let asked = std::env::var("BULK_FETCH_MIN_RECORDS").ok();
    asked.map_or(test.bytes().map(u64::from).sum::<u64>() % 2, |asked| asked.parse().unwrap())
}

/// The variable of the environment for a key of the configuration.
fn variable_of(key: &str) -> String {
    let (section, name) = key.split_once('.').expect("section.key");
    let variable = format!("CONTENTFLOW_{section}__{}", name.replace('.', "_")).to_uppercase();
    variable.replace("PROPERTIES_", "PROPERTIES__")
}
