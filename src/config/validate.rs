//! From what was written to what may be used, once. Everything that is wrong is reported together.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use figment::Figment;
use figment::value::{Dict, Value};

use super::error::{self, ConfigError, Problem};
use super::raw::{
    RawCache, RawConfig, RawDatabase, RawDeadLetters, RawHttp, RawKafka, RawReplay, RawRun,
    RawTraces,
};
use super::traces::{self, Endpoint, Headers, SAMPLERS, Traces};
use super::{
    Cache, Config, Database, DeadLetters, Http, Identity, Kafka, KeyTemplate, Listen, OnDataLoss,
    OnOutage, Pem, Replay, RootCertificates, Run, Secret, TableName, Token, limits, names,
};

/// Properties that delivery depends on, and why each is not for configuration.
const OWNED: [(&str, &str); 18] = [
    ("bootstrap.servers", "kafka.brokers sets it"),
    ("metadata.broker.list", "kafka.brokers sets it"),
    ("group.id", "kafka.group sets it"),
    ("enable.auto.commit", "an offset is committed only when everything below it is durable"),
    ("auto.commit.enable", "an offset is committed only when everything below it is durable"),
    ("enable.auto.offset.store", "an offset is committed only when everything below it is durable"),
    ("auto.offset.reset", "run.on_data_loss decides what a missing offset means"),
    ("isolation.level", "only committed transactions are read"),
    ("enable.partition.eof", "the reader needs the ends of the partitions"),
    ("group.protocol", "partitions move by the classic protocol"),
    ("allow.auto.create.topics", "a missing topic is reported, not created"),
    ("acks", "a dead letter counts when all in-sync replicas have it"),
    ("request.required.acks", "a dead letter counts when all in-sync replicas have it"),
    ("enable.idempotence", "dead letters are produced idempotently"),
    (
        "transactional.id",
        "a run writes its dead letters in no transaction, and a replay of them names its own",
    ),
    (
        "delivery.report.only.error",
        "a dead letter counts when its delivery is reported, so each is told of",
    ),
    ("enable.gapless.guarantee", "a dead letter whose delivery failed is sent again"),
    ("check.crcs", "what a disk or a wire has changed must not pass for what was published"),
];

/// How long a consumer may go without polling, and librdkafka's default for it.
const MAX_POLL_INTERVAL: (&str, &str) = ("max.poll.interval.ms", "300000");

pub(super) fn validate(raw: RawConfig, figment: &Figment) -> Result<Config, ConfigError> {
    let RawConfig { kafka, dead_letters, database, cache, run, replay, http, traces } = raw;
    let mut check = Check { figment, problems: Vec::new() };
    let kafka = check.kafka(kafka);
    let dead_letters = check.dead_letters(dead_letters, &kafka);
    let database = check.database(database);
    let cache = check.cache(cache);
    let run = check.run(run);
    let replay = check.replay(replay);
    let http = check.http(http);
    let traces = check.traces(traces);
    if let Some(run) = &run {
        check.drain_before_eviction(&kafka, run);
    }
    match (database, cache, run, replay, http, traces) {
        (Some(database), Some(cache), Some(run), Some(replay), Some(http), Some(traces))
            if check.problems.is_empty() =>
        {
            Ok(Config { kafka, dead_letters, database, cache, run, replay, http, traces })
        }
        _ => Err(ConfigError { problems: check.problems }),
    }
}

/// Collects what is wrong. A method returns `None` only after it has added a problem.
struct Check<'a> {
    figment: &'a Figment,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn kafka(&mut self, raw: RawKafka) -> Kafka {
        let RawKafka { brokers, topic, group, bulk_fetch_min_records, properties } = raw;
        let checked = check_brokers(&brokers);
        self.accept("kafka.brokers", &brokers, checked);
        let checked = names::check_topic(&topic);
        self.accept("kafka.topic", &topic, checked);
        let checked = if group.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(()) };
        self.accept("kafka.group", &group, checked);
        let bulk_fetch_min = self.number("kafka.bulk_fetch_min_records", bulk_fetch_min_records);
        Kafka {
            brokers,
            topic,
            group,
            bulk_fetch_min: bulk_fetch_min.and_then(|it| it.try_into().ok()).filter(|it| *it > 0),
            properties: self.properties(properties),
        }
    }

    fn properties(&mut self, raw: Dict) -> BTreeMap<String, String> {
        let mut properties = BTreeMap::new();
        for (name, value) in raw {
            let key = format!("{}.{name}", limits::PROPERTIES);
            let Some(value) = text_of(&value) else {
                self.refuse(
                    &key,
                    None,
                    "is a list, which no property takes",
                    "write the values as one text, with commas",
                );
                continue;
            };
            if let Some((_, reason)) = OWNED.iter().find(|(owned, _)| *owned == name) {
                self.refuse(&key, Some(&value), "cannot be set", &format!("remove it: {reason}"));
                continue;
            }
            if let Err(message) = crate::kafka::check_property(&name, &value) {
                let fault = format!(
                    "is refused by librdkafka: {}",
                    error::scrubbed(&message, &name, &value)
                );
                self.refuse(
                    &key,
                    Some(&value),
                    &fault,
                    "see the list of librdkafka's configuration properties",
                );
                continue;
            }
            properties.insert(name, value);
        }
        properties
    }

    fn dead_letters(&mut self, raw: RawDeadLetters, kafka: &Kafka) -> DeadLetters {
        let RawDeadLetters { topic } = raw;
        let topic = topic.unwrap_or_else(|| format!("{}.dlq", kafka.topic));
        let key = "dead_letters.topic";
        let checked = names::check_topic(&topic);
        // A default that is wrong only because the topic is wrong was reported there.
        if names::check_topic(&kafka.topic).is_ok() || error::origin(key, self.figment).is_some() {
            self.accept(key, &topic, checked);
        }
        if topic == kafka.topic {
            self.refuse(
                key,
                Some(&topic),
                "is kafka.topic itself: every dead letter would be read again as an event",
                "choose another topic, or leave it out to use the topic's name with .dlq after it",
            );
        }
        DeadLetters { topic }
    }

    fn database(&mut self, raw: RawDatabase) -> Option<Database> {
        let RawDatabase {
            url,
            table,
            connections,
            batch_rows,
            statement_timeout_ms,
            lock_timeout_ms,
        } = raw;
        let url = Secret::new(url);
        let checked = crate::postgres::check_url(&url);
        self.accept("database.url", &url, checked);
        let parsed = TableName::parse(&table);
        let table = self.accept("database.table", &table, parsed);
        let connections = self.count("database.connections", connections);
        let batch_rows = self.count("database.batch_rows", batch_rows);
        let statement_timeout = self.number("database.statement_timeout_ms", statement_timeout_ms);
        let lock_timeout = self.number("database.lock_timeout_ms", lock_timeout_ms);
        if lock_timeout_ms >= statement_timeout_ms {
            self.refuse(
                "database.lock_timeout_ms",
                Some(&lock_timeout_ms),
                &format!("is not below database.statement_timeout_ms = {statement_timeout_ms}, so it could never act"),
                "make the lock timeout the shorter one",
            );
        }
        Some(Database {
            url,
            table: table?,
            connections: connections?,
            batch_rows: batch_rows?,
            statement_timeout: Duration::from_millis(statement_timeout?),
            lock_timeout: Duration::from_millis(lock_timeout?),
        })
    }

    fn cache(&mut self, raw: RawCache) -> Option<Cache> {
        let RawCache {
            url,
            root_certificates,
            client_certificate,
            client_key,
            key,
            ttl_s,
            batch_keys,
            second_delete_after_ms,
            timeout_ms,
        } = raw;
        let url = Secret::new(url);
        let checked = crate::redis::check_url(&url);
        let is_plain = checked.is_ok() && !crate::redis::is_encrypted(&url);
        self.accept("cache.url", &url, checked);
        let root_certificates = self.root_certificates(&root_certificates, is_plain);
        let identity = self.identity(&client_certificate, &client_key, is_plain);
        let parsed = KeyTemplate::parse(&key);
        let key = self.accept("cache.key", &key, parsed);
        let ttl = self.number("cache.ttl_s", ttl_s);
        let batch_keys = self.count("cache.batch_keys", batch_keys);
        let second_delete_after =
            self.number("cache.second_delete_after_ms", second_delete_after_ms);
        let timeout = self.number("cache.timeout_ms", timeout_ms);
        Some(Cache {
            url,
            root_certificates: root_certificates?,
            identity: identity?,
            key: key?,
            ttl: Duration::from_secs(ttl?),
            batch_keys: batch_keys?,
            second_delete_after: second_delete_after
                .map(|after| (after > 0).then(|| Duration::from_millis(after)))?,
            timeout: Duration::from_millis(timeout?),
        })
    }

    /// The authorities that the cache's servers are known by, if any are named.
    fn root_certificates(
        &mut self,
        file: &str,
        is_plain: bool,
    ) -> Option<Option<RootCertificates>> {
        let key = "cache.root_certificates";
        let named = Some(file).filter(|file| !file.is_empty());
        let read = named.map(RootCertificates::read).transpose();
        let read = self.accept(key, file, read)?;
        if read.is_some() && is_plain {
            self.refuse_without_tls(key, file);
            return None;
        }
        Some(read)
    }

    /// Who we are to the cache's servers, if that is said.
    fn identity(
        &mut self,
        certificate: &str,
        key: &str,
        is_plain: bool,
    ) -> Option<Option<Identity>> {
        let named = [("cache.client_certificate", certificate), ("cache.client_key", key)];
        match named.map(|(_, file)| file.is_empty()) {
            [true, true] => return Some(None),
            [false, false] => {}
            [is_alone, _] => {
                let [(name, file), (missing, _)] =
                    if is_alone { [named[1], named[0]] } else { named };
                let fault = format!("needs {missing} beside it");
                self.refuse(name, Some(&file), &fault, &limits::remedy(name));
                return None;
            }
        }
        if is_plain {
            named.into_iter().for_each(|(name, file)| self.refuse_without_tls(name, file));
            return None;
        }
        let [(certificate_name, _), (key_name, _)] = named;
        let certificate_pem =
            self.accept(certificate_name, certificate, Pem::certificate(certificate));
        let key_pem = self.accept(key_name, key, Pem::key(key));
        self.accept(key_name, key, Identity::new(certificate_pem?, key_pem?)).map(Some)
    }

    /// Whoever has named such a file takes the connection for an encrypted one.
    fn refuse_without_tls(&mut self, key: &str, file: &str) {
        self.refuse(
            key,
            Some(&file),
            "is for TLS, and cache.url asks for none",
            "write rediss in cache.url in place of redis, or leave it out",
        );
    }

    fn run(&mut self, raw: RawRun) -> Option<Run> {
        let RawRun {
            workers,
            on_outage,
            on_data_loss,
            epoch_records,
            epoch_bytes,
            linger_ms,
            epochs_in_flight,
            dedupe_jobs,
            retries,
            retry_backoff_ms,
            drain_timeout_s,
        } = raw;
        let workers = self.count("run.workers", workers);
        let on_outage = self.choice(
            "run.on_outage",
            &on_outage,
            &[("wait", OnOutage::Wait), ("exit", OnOutage::Exit)],
        );
        let on_data_loss = self.choice(
            "run.on_data_loss",
            &on_data_loss,
            &[("stop", OnDataLoss::Stop), ("continue", OnDataLoss::Continue)],
        );
        let epoch_records = self.count("run.epoch_records", epoch_records);
        let epoch_bytes = self.count("run.epoch_bytes", epoch_bytes);
        let linger = self.number("run.linger_ms", linger_ms);
        let epochs_in_flight = self.count("run.epochs_in_flight", epochs_in_flight);
        let dedupe_jobs = self.count("run.dedupe_jobs", dedupe_jobs);
        let retries = self.number("run.retries", retries);
        let retry_backoff = self.number("run.retry_backoff_ms", retry_backoff_ms);
        let drain_timeout = self.number("run.drain_timeout_s", drain_timeout_s);
        Some(Run {
            workers: workers?,
            on_outage: on_outage?,
            on_data_loss: on_data_loss?,
            epoch_records: epoch_records?,
            epoch_bytes: epoch_bytes?,
            linger: Duration::from_millis(linger?),
            epochs_in_flight: epochs_in_flight?,
            dedupe_jobs: dedupe_jobs?,
            retries: u32::try_from(retries?).ok()?,
            retry_backoff: Duration::from_millis(retry_backoff?),
            drain_timeout: Duration::from_secs(drain_timeout?),
        })
    }

    fn replay(&mut self, raw: RawReplay) -> Option<Replay> {
        let RawReplay { memory_bytes } = raw;
        Some(Replay { memory_bytes: self.count("replay.memory_bytes", memory_bytes)? })
    }

    fn http(&mut self, raw: RawHttp) -> Option<Http> {
        let RawHttp { listen, token } = raw;
        let is_asked_for = error::origin("http.listen", self.figment).is_some();
        let parsed = Listen::parse(&listen, is_asked_for);
        let listen = self.accept("http.listen", &listen, parsed);
        let parsed = if token.is_empty() { Ok(None) } else { Token::parse(token).map(Some) };
        let token = self.accept("http.token", "", parsed);
        Some(Http { listen: listen?, token: token? })
    }

    fn traces(&mut self, raw: RawTraces) -> Option<Traces> {
        let RawTraces { endpoint, headers, service, sampler, sampler_arg } = raw;
        let parsed =
            Some(&endpoint).filter(|text| !text.is_empty()).map(|text| Endpoint::parse(text));
        let endpoint = self.accept("traces.endpoint", &endpoint, parsed.transpose());
        let parsed = Headers::parse(&headers);
        let headers = self.accept("traces.headers", &headers, parsed);
        let checked = if service.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(()) };
        self.accept("traces.service", &service, checked);
        let sampler = self.choice("traces.sampler", &sampler, &SAMPLERS);
        let sampler_arg = text_of(&sampler_arg).unwrap_or_default();
        let ratio = traces::ratio(&sampler_arg);
        let ratio = self.accept("traces.sampler_arg", &sampler_arg, ratio);
        let sampling = sampler?.with(ratio?);
        Some(Traces { endpoint: endpoint?, headers: headers?, service, sampling })
    }

    /// A revocation is drained inside a poll: one that takes longer than the broker's patience
    /// loses the partitions.
    fn drain_before_eviction(&mut self, kafka: &Kafka, run: &Run) {
        let patience =
            kafka.properties.get(MAX_POLL_INTERVAL.0).map_or(MAX_POLL_INTERVAL.1, String::as_str);
        let drain = run.drain_timeout;
        if patience.parse().is_ok_and(|patience_ms| drain >= Duration::from_millis(patience_ms)) {
            let (name, _) = MAX_POLL_INTERVAL;
            self.refuse(
                "run.drain_timeout_s",
                Some(&drain.as_secs()),
                &format!("is not below {name} = {patience}, after which the partitions are given to others"),
                &format!("make the drain shorter, or set {}.{name} to more", limits::PROPERTIES),
            );
        }
    }

    fn number(&mut self, key: &str, value: u64) -> Option<u64> {
        let limit = limits::of(key).expect("every number has its limits");
        if (limit.min..=limit.max).contains(&value) {
            return Some(value);
        }
        self.refuse(key, Some(&value), "is out of range", &limits::remedy(key));
        None
    }

    fn count(&mut self, key: &str, value: u64) -> Option<usize> {
        self.number(key, value).map(|value| usize::try_from(value).expect("the largest limit fits"))
    }

    fn choice<T: Copy>(&mut self, key: &str, value: &str, choices: &[(&str, T)]) -> Option<T> {
        let found = choices.iter().find(|(name, _)| *name == value).map(|(_, choice)| *choice);
        self.accept(key, value, found.ok_or_else(|| "is not one of the choices".to_owned()))
    }

    fn accept<T>(
        &mut self,
        key: &str,
        value: impl fmt::Debug,
        result: Result<T, String>,
    ) -> Option<T> {
        result.map_err(|fault| self.refuse(key, Some(&value), &fault, &limits::remedy(key))).ok()
    }

    fn refuse(&mut self, key: &str, value: Option<&dyn fmt::Debug>, fault: &str, remedy: &str) {
        self.problems.push(Problem {
            subject: value.map_or_else(|| key.to_owned(), |value| error::subject(key, value)),
            origin: error::origin(key, self.figment),
            fault: fault.to_owned(),
            remedy: remedy.to_owned(),
        });
    }
}

/// TOML's numbers and booleans are librdkafka's texts.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Char(_, letter) => Some(letter.to_string()),
        Value::Bool(_, flag) => Some(flag.to_string()),
        Value::Num(_, _) => match (value.to_i128(), value.to_u128(), value.to_f64()) {
            (Some(number), _, _) => Some(number.to_string()),
            (_, Some(number), _) => Some(number.to_string()),
            (_, _, number) => number.map(|number| number.to_string()),
        },
        Value::Empty(..) | Value::Dict(..) | Value::Array(..) => None,
    }
}

/// Host and port of each broker; librdkafka would only log a mistake and wait.
fn check_brokers(brokers: &str) -> Result<(), String> {
    const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
    for broker in brokers.split(',').map(str::trim) {
        if let Some((protocol, _)) = broker.split_once("://")
            && !PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(protocol))
        {
            return Err(format!("has the broker {broker:?}, which is not one: write host:port"));
        }
        let address = broker.split_once("://").map_or(broker, |(_, address)| address);
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (address, None),
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(if brokers.trim().is_empty() {
                "is empty"
            } else {
                "has a broker without a host"
            }
            .to_owned());
        }
        if port.is_some_and(|port| port.parse::<u16>().ok().is_none_or(|port| port == 0)) {
            return Err(format!("has the broker {broker:?}, whose port is not one"));
        }
    }
    Ok(())
}
