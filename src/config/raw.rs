//! What was written, before anyone has judged it.

use figment::value::{Dict, Value};
use serde::{Deserialize, Serialize};

use super::limits::WORKERS_MAX;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) kafka: RawKafka,
    pub(super) dead_letters: RawDeadLetters,
    pub(super) database: RawDatabase,
    pub(super) cache: RawCache,
    pub(super) run: RawRun,
    pub(super) replay: RawReplay,
    pub(super) http: RawHttp,
    pub(super) traces: RawTraces,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKafka {
    pub(super) brokers: String,
    pub(super) topic: String,
    pub(super) group: String,
    pub(super) bulk_fetch_min_records: u64,
    pub(super) properties: Dict,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDeadLetters {
    /// None: named after the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) topic: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDatabase {
    pub(super) url: String,
    pub(super) table: String,
    pub(super) connections: u64,
    pub(super) batch_rows: u64,
    pub(super) statement_timeout_ms: u64,
    pub(super) lock_timeout_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCache {
    pub(super) url: String,
    /// Empty: those that browsers trust.
    pub(super) root_certificates: String,
    /// Empty: none is shown.
    pub(super) client_certificate: String,
    pub(super) client_key: String,
    pub(super) key: String,
    pub(super) ttl_s: u64,
    pub(super) batch_keys: u64,
    pub(super) second_delete_after_ms: u64,
    pub(super) timeout_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRun {
    pub(super) workers: u64,
    pub(super) on_outage: String,
    pub(super) on_data_loss: String,
    pub(super) epoch_records: u64,
    pub(super) epoch_bytes: u64,
    pub(super) linger_ms: u64,
    pub(super) epochs_in_flight: u64,
    pub(super) dedupe_jobs: u64,
    pub(super) retries: u64,
    pub(super) retry_backoff_ms: u64,
    pub(super) drain_timeout_s: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReplay {
    pub(super) memory_bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHttp {
    pub(super) listen: String,
    /// Empty: whoever reaches it may look.
    pub(super) token: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTraces {
    pub(super) endpoint: String,
    pub(super) headers: String,
    pub(super) service: String,
    pub(super) sampler: String,
    /// A number, or a text that is one.
    pub(super) sampler_arg: Value,
}

impl Default for RawConfig {
    /// The reasons stand with the fields of [`super::Config`].
    fn default() -> RawConfig {
        RawConfig {
            kafka: RawKafka {
                brokers: "127.0.0.1:9092".to_owned(),
                topic: "event-topic".to_owned(),
                group: "contentflow".to_owned(),
                bulk_fetch_min_records: 10_000,
                properties: Dict::new(),
            },
            dead_letters: RawDeadLetters { topic: None },
            database: RawDatabase {
                url: "postgres://postgres@127.0.0.1:5432/postgres".to_owned(),
                table: "event_drafts".to_owned(),
                connections: 1,
                batch_rows: 5_000,
                statement_timeout_ms: 30_000,
                lock_timeout_ms: 100,
            },
            cache: RawCache {
                url: "redis://127.0.0.1:6379/0".to_owned(),
                root_certificates: String::new(),
                client_certificate: String::new(),
                client_key: String::new(),
                key: "event:draft:{id}".to_owned(),
                ttl_s: 604_800,
                batch_keys: 1_000,
                second_delete_after_ms: 0,
                timeout_ms: 5_000,
            },
            run: RawRun {
                workers: cores(),
                on_outage: "wait".to_owned(),
                on_data_loss: "stop".to_owned(),
                epoch_records: 40_000,
                epoch_bytes: 16 * 1024 * 1024,
                linger_ms: 0,
                epochs_in_flight: 4,
                dedupe_jobs: 1_000_000,
                retries: 3,
                retry_backoff_ms: 100,
                drain_timeout_s: 30,
            },
            replay: RawReplay { memory_bytes: 1024 * 1024 * 1024 },
            http: RawHttp { listen: super::http::DEFAULT.to_owned(), token: String::new() },
            traces: RawTraces {
                endpoint: String::new(),
                headers: String::new(),
                service: "contentflow".to_owned(),
                sampler: "parentbased_always_on".to_owned(),
                sampler_arg: Value::from("1"),
            },
        }
    }
}

/// What this process may use: a container's limit counts, not the machine's size.
fn cores() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u64::try_from(cores).unwrap_or(WORKERS_MAX).min(WORKERS_MAX)
}
