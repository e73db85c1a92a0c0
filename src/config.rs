//! Configuration: read from four places, then validated once into types that cannot be wrong.
//!
//! The later place wins: defaults, `contentflow.toml` (or `--config FILE`, which must exist), the
//! environment, flags. In the environment, `CONTENTFLOW_` + section + `__` + key wins over the
//! conventional `DATABASE_URL`, `REDIS_URL` and `KAFKA_BROKERS`, and over OpenTelemetry's
//! variables. Two steps, so that no other module has to doubt a value: `raw` is what was written,
//! the structs here are what may be used. Every limit has a unit and a reason.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

mod error;
mod http;
mod identity;
mod limits;
mod names;
mod raw;
mod roots;
mod secret;
mod sources;
mod traces;
mod validate;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, Problem};
pub use http::{Http, Listen, Token};
pub(crate) use identity::is_doubted;
pub use identity::{Identity, Pem};
pub(crate) use names::quoted;
pub use names::{CacheKeys, KeyTemplate, TableName};
pub use roots::RootCertificates;
pub use secret::Secret;
pub use sources::Overrides;
pub use traces::{Endpoint, Headers, Sampling, Traces};

/// Everything that can be set. See `contentflow.example.toml` for the same list in its written
/// form.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[kafka]`: where the events come from.
    pub kafka: Kafka,
    /// `[dead_letters]`: where rejected records go.
    pub dead_letters: DeadLetters,
    /// `[database]`: the PostgreSQL server that holds the drafts.
    pub database: Database,
    /// `[cache]`: the Redis server that holds the cached drafts.
    pub cache: Cache,
    /// `[run]`: how the consumer works.
    pub run: Run,
    /// `[replay]`: what a replay does otherwise than a run.
    pub replay: Replay,
    /// `[http]`: where the page and the metrics are served.
    pub http: Http,
    /// `[traces]`: what a tracing system is told.
    pub traces: Traces,
}

/// `[kafka]`
#[derive(Clone)]
pub struct Kafka {
    /// `kafka.brokers`, `host:port` separated by commas. Default `127.0.0.1:9092`: a broker on this
    /// machine.
    pub brokers: String,
    /// `kafka.topic`. Default `event-topic`: what the Content Service publishes to.
    pub topic: String,
    /// `kafka.group`: processes with the same group share the partitions. Default `contentflow`.
    pub group: String,
    /// `kafka.bulk_fetch_min_records`: a partition with as many records to read is fetched from its
    /// leader without the client library, see [`crate::bulk`]; `None` is none, and written as 0.
    /// Default 10,000: some hundredths of a second's work, against two round trips to change over.
    pub bulk_fetch_min: Option<i64>,
    /// `[kafka.properties]`: librdkafka properties that are passed through (TLS, SASL, buffers).
    /// Never one of those that delivery depends on.
    pub properties: BTreeMap<String, String>,
}

/// `[dead_letters]`
#[derive(Clone, Debug)]
pub struct DeadLetters {
    /// `dead_letters.topic`. Default `<kafka.topic>.dlq`, so that two topics never share their dead
    /// letters by accident.
    pub topic: String,
}

/// `[database]`
#[derive(Clone, Debug)]
pub struct Database {
    /// `database.url`. Default `postgres://postgres@127.0.0.1:5432/postgres`: a server on this
    /// machine, as its packages install it. `sslmode=` and `sslrootcert=` in the URL turn on TLS.
    pub url: Secret,
    /// `database.table`, with a schema if need be. Default `event_drafts`, found on the search
    /// path.
    pub table: TableName,
    /// `database.connections` of each worker. Default 1: with the batches of 5,000 below, more
    /// connections brought the server about a tenth, and each is a process there.
    pub connections: usize,
    /// `database.batch_rows`: rows in one transaction at most. Default 5,000: batches of 20,000
    /// were no faster beyond noise, and a larger batch holds its row locks longer.
    pub batch_rows: usize,
    /// `database.statement_timeout_ms`. Default 30 s: a batch takes well under a second; what takes
    /// longer is stuck.
    pub statement_timeout: Duration,
    /// `database.lock_timeout_ms`. Default 100 ms: what takes longer is set aside and tried again,
    /// so that what is behind it goes on.
    pub lock_timeout: Duration,
}

/// `[cache]`
#[derive(Clone, Debug)]
pub struct Cache {
    /// `cache.url`: one server, a cluster, or the master that sentinels name, see
    /// [`URL_FORMS`](crate::redis::URL_FORMS). Default `redis://127.0.0.1:6379/0`: a server on this
    /// machine. `rediss://` turns on TLS.
    pub url: Secret,
    /// `cache.root_certificates`, a PEM file: the authorities that the servers' certificates may
    /// come from, and no others. Default none: those that browsers trust.
    pub root_certificates: Option<RootCertificates>,
    /// `cache.client_certificate` and `cache.client_key`, PEM files: who we are to servers that
    /// want to know it of their clients. Default none.
    pub identity: Option<Identity>,
    /// `cache.key`. Default `event:draft:{id}`.
    pub key: KeyTemplate,
    /// `cache.ttl_s`: how long a reader's fill lives. Default 604,800 s, seven days.
    pub ttl: Duration,
    /// `cache.batch_keys`: keys at once at most, in one DEL, after one of their leases; in a
    /// cluster each in a DEL of its own, a few of them at a time. Default 1,000: some 80 kB, one
    /// round trip, about a millisecond of the server's only thread.
    pub batch_keys: usize,
    /// `cache.second_delete_after_ms`: a second DEL that much after the first was answered, for
    /// readers without a lease. Default 0, none: readers that take the lease need none, and it
    /// doubles the DELs.
    pub second_delete_after: Option<Duration>,
    /// `cache.timeout_ms` for an answer. Default 5 s: a pipeline is answered in milliseconds, a
    /// fork for a snapshot can hold one up for a second.
    pub timeout: Duration,
}

/// `[run]`
#[derive(Clone, Debug)]
pub struct Run {
    /// `run.workers`: threads of the dataflow. Default: the cores this process may use.
    pub workers: usize,
    /// `run.on_outage`. Default wait: a server that restarts needs no person to restart the
    /// consumer too.
    pub on_outage: OnOutage,
    /// `run.on_data_loss`. Default stop: lost records are a decision for a person.
    pub on_data_loss: OnDataLoss,
    /// `run.epoch_records`: an epoch closes with this many. Default 40,000: four full batches for
    /// each of two workers.
    pub epoch_records: usize,
    /// `run.epoch_bytes`: an epoch closes with this many. Default 16 MiB: 40,000 records of 400
    /// bytes; large records close it earlier, so that memory stays bounded.
    pub epoch_bytes: usize,
    /// `run.linger_ms`: an epoch that is not empty closes after this long, once all that was
    /// fetched is in it. Default 0: batches grow with the load, since what comes while enough
    /// epochs are under way gathers in the next one.
    pub linger: Duration,
    /// `run.epochs_in_flight`, at most. Default 4: one is written, two are ready or being filled,
    /// and the keys of the one before are deleted.
    pub epochs_in_flight: usize,
    /// `run.dedupe_jobs`: jobs remembered by this process. Default 1,000,000: 24 to 32 bytes each,
    /// so 32 MB at most.
    pub dedupe_jobs: usize,
    /// `run.retries` of contention and of a draft that does not exist yet. Default 3.
    pub retries: u32,
    /// `run.retry_backoff_ms` before the first retry; doubled each time, jittered. Default 100 ms:
    /// 0.7 s in all, longer than the transaction that creates a draft.
    pub retry_backoff: Duration,
    /// `run.drain_timeout_s`: how long a stop waits for what is in flight. Default 30 s: what
    /// orchestrators grant before they kill.
    pub drain_timeout: Duration,
}

/// `[replay]`
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// `replay.memory_bytes`: what the events of a replay may take up before they are written.
    /// Default 1 GiB: the newest images and the jobs of a million drafts with ten events each.
    pub memory_bytes: usize,
}

/// What to do while a server is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutage {
    /// `"wait"`: pause, and go on when it is back.
    Wait,
    /// `"exit"`: end with exit code 75, nothing committed past the outage.
    Exit,
}

/// What to do when records that were never read are no longer in the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDataLoss {
    /// `"stop"`: stop with the number of records lost.
    Stop,
    /// `"continue"`: report the number and go on.
    Continue,
}

impl Config {
    /// Loads the configuration of this process: `file` if given, else `contentflow.toml` in the
    /// working directory if it exists; this process's environment; then `overrides`.
    pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Config, ConfigError> {
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        Config::load_from(file, Path::new(DEFAULT_FILE), environment, overrides)
    }

    /// [`Config::load`] with every source given, so that it can be tested.
    pub fn load_from(
        file: Option<&Path>,
        default_file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: Overrides,
    ) -> Result<Config, ConfigError> {
        let figment = sources::collect(file, default_file, environment, overrides)?;
        let raw = figment.extract().map_err(|error| error::from_figment(error, &figment))?;
        validate::validate(raw, &figment)
    }
}

/// What the names of properties have in them whose values are secrets.
const SECRETS: [&str; 9] = [
    "password",
    "passphrase",
    "secret",
    "token",
    "private.key",
    "ssl.key",
    "ssl_key",
    "oauthbearer.config",
    "jaas",
];

/// Looked for in the working directory.
pub const DEFAULT_FILE: &str = "contentflow.toml";

impl Default for Config {
    fn default() -> Config {
        Config::load_from(None, Path::new(""), [], Overrides::default())
            .expect("the defaults are valid")
    }
}

impl Kafka {
    /// True for a property whose value must not be shown. A name that the client does not know may
    /// be that of a secret, misspelt.
    pub fn is_secret(property: &str) -> bool {
        SECRETS.iter().any(|part| property.contains(part))
            || !crate::kafka::knows_property(property)
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kafka { brokers, topic, group, bulk_fetch_min, properties } = self;
        let shown: BTreeMap<_, _> = properties
            .iter()
            .map(|(key, value)| {
                (key, if Kafka::is_secret(key) { secret::HIDDEN } else { value.as_str() })
            })
            .collect();
        f.debug_struct("Kafka")
            .field("brokers", brokers)
            .field("topic", topic)
            .field("group", group)
            .field("bulk_fetch_min", bulk_fetch_min)
            .field("properties", &shown)
            .finish()
    }
}
