//! Every key, and for each number its range: one table, used by the checks, the messages and the
//! tests.

/// A number that can be configured.
pub(super) struct Limit {
    pub(super) key: &'static str,
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) unit: &'static str,
}

const fn limit(key: &'static str, min: u64, max: u64, unit: &'static str) -> Limit {
    Limit { key, min, max, unit }
}

/// The least value is the least that can work, the largest the largest that was thought about.
pub(super) const LIMITS: [Limit; 19] = [
    limit("kafka.bulk_fetch_min_records", 0, 1_000_000_000, "records"),
    limit("database.connections", 1, 64, "connections a worker"),
    limit("database.batch_rows", 1, 50_000, "rows"),
    limit("database.statement_timeout_ms", 100, 3_600_000, "milliseconds"),
    limit("database.lock_timeout_ms", 10, 600_000, "milliseconds"),
    limit("cache.ttl_s", 1, 31_536_000, "seconds"),
    limit("cache.batch_keys", 1, 100_000, "keys"),
    limit("cache.second_delete_after_ms", 0, 600_000, "milliseconds"),
    limit("cache.timeout_ms", 10, 600_000, "milliseconds"),
    limit("run.workers", 1, WORKERS_MAX, "threads"),
    limit("run.epoch_records", 1, 10_000_000, "records"),
    limit("run.epoch_bytes", 1_024, 1_073_741_824, "bytes"),
    limit("run.linger_ms", 0, 60_000, "milliseconds"),
    limit("run.epochs_in_flight", 1, 256, "epochs"),
    limit("run.dedupe_jobs", 0, 1_000_000_000, "jobs"),
    limit("run.retries", 0, 100, "retries"),
    limit("run.retry_backoff_ms", 1, 60_000, "milliseconds"),
    limit("run.drain_timeout_s", 1, 3_600, "seconds"),
    limit("replay.memory_bytes", 1_048_576, 1_099_511_627_776, "bytes"),
];

/// More workers than this gain nothing: the database is the limit long before.
pub(super) const WORKERS_MAX: u64 = 256;

/// The keys that are texts.
pub(super) const TEXTS: [&str; 20] = [
    "kafka.brokers",
    "kafka.topic",
    "kafka.group",
    "dead_letters.topic",
    "database.url",
    "database.table",
    "cache.url",
    "cache.root_certificates",
    "cache.client_certificate",
    "cache.client_key",
    "cache.key",
    "run.on_outage",
    "run.on_data_loss",
    "http.listen",
    "http.token",
    "traces.endpoint",
    "traces.headers",
    "traces.service",
    "traces.sampler",
    "traces.sampler_arg",
];

/// The table of librdkafka's properties.
pub(super) const PROPERTIES: &str = "kafka.properties";

pub(super) fn of(key: &str) -> Option<&'static Limit> {
    LIMITS.iter().find(|limit| limit.key == key)
}

/// Every key there is, but for the properties below [`PROPERTIES`].
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    TEXTS.into_iter().chain(LIMITS.iter().map(|limit| limit.key)).chain([PROPERTIES])
}

/// What to write for `key`.
pub(super) fn remedy(key: &str) -> String {
    match (of(key), key) {
        (Some(Limit { key, min, max, unit }), _) => {
            let extra = match *key {
                "run.workers" => ", or leave it out to use every core",
                "kafka.bulk_fetch_min_records" => "; 0 fetches nothing in bulk",
                "cache.second_delete_after_ms" => "; 0 is for no second delete",
                _ => "",
            };
            format!("set {key} to a whole number of {unit} from {min} to {max}{extra}")
        }
        (None, "kafka.brokers") => "set kafka.brokers to host:port, several separated by commas".to_owned(),
        (None, "kafka.topic" | "dead_letters.topic") => {
            format!("set {key} to 1 to 249 letters, digits, dots, underscores and hyphens")
        }
        (None, "kafka.group") => "set kafka.group to the name that all processes of one installation share".to_owned(),
        (None, "database.url") => {
            "set database.url (or DATABASE_URL) to postgres://user:password@host:5432/database; in a password write \
             @ : / ? # % and blanks as %XX"
                .to_owned()
        }
        (None, "database.table") => "set database.table to table or schema.table".to_owned(),
        (None, "cache.url") => format!("set cache.url (or REDIS_URL) to {}", crate::redis::URL_FORMS),
        (None, "cache.root_certificates") => {
            "set cache.root_certificates to the path of a PEM file with the certificates of the authorities that are to be trusted, or \
             leave it out to trust those that browsers do"
                .to_owned()
        }
        (None, "cache.client_certificate" | "cache.client_key") => {
            "set cache.client_certificate to the path of a PEM file with the certificate that the servers are to know us by, and \
             cache.client_key to one with its key, or leave both out"
                .to_owned()
        }
        (None, "cache.key") => "set cache.key to a text with {id} in it exactly once, like event:draft:{id}".to_owned(),
        (None, "run.on_outage") => "set run.on_outage to \"wait\" or \"exit\"".to_owned(),
        (None, "run.on_data_loss") => "set run.on_data_loss to \"stop\" or \"continue\"".to_owned(),
        (None, "http.listen") => {
            "set http.listen to address:port like 127.0.0.1:9464, with port 0 for any that is free, or to \"off\"".to_owned()
        }
        (None, "http.token") => {
            "set http.token to 16 to 256 letters, digits and -._~+/= (`openssl rand -hex 32` makes one), or leave it out".to_owned()
        }
        (None, "traces.endpoint") => {
            "set traces.endpoint (or OTEL_EXPORTER_OTLP_ENDPOINT) to where a collector takes OTLP over HTTP, like \
             http://127.0.0.1:4318, or leave it out"
                .to_owned()
        }
        (None, "traces.headers") => {
            "set traces.headers (or OTEL_EXPORTER_OTLP_HEADERS) to name=value, several separated by commas, %XX for what \
             is no plain character"
                .to_owned()
        }
        (None, "traces.service") => "set traces.service (or OTEL_SERVICE_NAME) to the name of this service".to_owned(),
        (None, "traces.sampler") => {
            "set traces.sampler (or OTEL_TRACES_SAMPLER) to always_on, always_off, traceidratio, parentbased_always_on, \
             parentbased_always_off or parentbased_traceidratio"
                .to_owned()
        }
        (None, "traces.sampler_arg") => {
            "set traces.sampler_arg (or OTEL_TRACES_SAMPLER_ARG) to a number from 0 to 1, like 0.1".to_owned()
        }
        (None, PROPERTIES) => {
            "write a table [kafka.properties] with lines like \"security.protocol\" = \"ssl\"".to_owned()
        }
        (None, section) => format!("write a table [{section}]"),
    }
}
