//! Every key, wrong in every way: the message names the key, shows the value unless it is a secret,
//! and says what to do.

use std::path::Path;

use proptest::prelude::*;

use super::{
    Config, ConfigError, KeyTemplate, OnDataLoss, OnOutage, Overrides, Secret, TableName, limits,
};

mod authorities;
mod environment;
mod secrets;

/// No file, this environment, no flags.
fn from_environment(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load_from(None, Path::new("no-such-file.toml"), variables, Overrides::default())
}

/// A file with this text, nothing else.
fn from_file(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("contentflow.toml");
    std::fs::write(&file, text).unwrap();
    Config::load_from(Some(&file), Path::new(""), [], Overrides::default())
}

/// The only problem's text.
fn complaint(result: Result<Config, ConfigError>) -> String {
    let error = result.expect_err("it should be refused");
    assert_eq!(error.problems.len(), 1, "{error}");
    error.to_string()
}

/// `run.workers` -> `[run]\nworkers = VALUE`
fn toml_line(key: &str, value: &str) -> String {
    let (section, name) = key.rsplit_once('.').unwrap();
    format!("[{section}]\n{name} = {value}\n")
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let example = include_str!("../../contentflow.example.toml");
    let uncommented: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') && !setting.is_empty() => {
                format!("{setting}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let written: toml::Table = uncommented.parse().expect("the example is TOML");
    let mut keys: Vec<String> = Vec::new();
    for (section, settings) in &written {
        keys.extend(settings.as_table().unwrap().keys().map(|key| format!("{section}.{key}")));
    }
    let mut known: Vec<_> = limits::keys().map(str::to_owned).collect();
    keys.sort();
    known.sort();
    assert_eq!(keys, known);

    let mut config = from_file(&uncommented).expect("the example is valid");
    // The number of cores is this machine's business.
    config.run.workers = Config::default().run.workers;
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    // As it stands, it sets nothing.
    assert_eq!(format!("{:?}", from_file(example).unwrap()), format!("{:?}", Config::default()));
}

#[test]
fn the_later_source_wins() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("contentflow.toml");
    std::fs::write(
        &file,
        "[kafka]\ntopic = 'file'\ngroup = 'file'\nbrokers = 'file:1'\n[run]\nworkers = 2\n",
    )
    .unwrap();
    let environment = [
        ("KAFKA_BROKERS", "conventional:1"),
        ("CONTENTFLOW_KAFKA__BROKERS", "own:1"),
        ("CONTENTFLOW_KAFKA__TOPIC", "environment"),
        ("CONTENTFLOW_RUN__WORKERS", " 3 "),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let flags = Overrides::default().set("--topic", "kafka.topic", Some("flag")).set(
        "-w",
        "run.workers",
        None::<u64>,
    );
    let config = Config::load_from(Some(&file), Path::new(""), environment, flags).unwrap();
    assert_eq!(config.kafka.group, "file");
    assert_eq!(config.kafka.brokers, "own:1");
    assert_eq!(config.kafka.topic, "flag");
    assert_eq!(config.dead_letters.topic, "flag.dlq");
    assert_eq!(config.run.workers, 3);
}

#[test]
fn a_text_that_looks_like_a_number_stays_a_text() {
    let config = from_environment(&[
        ("CONTENTFLOW_KAFKA__TOPIC", "2026"),
        ("CONTENTFLOW_KAFKA__GROUP", "true"),
        ("CONTENTFLOW_KAFKA__PROPERTIES__SASL_PASSWORD", "007"),
    ])
    .unwrap();
    assert_eq!((config.kafka.topic.as_str(), config.kafka.group.as_str()), ("2026", "true"));
    assert_eq!(config.kafka.properties["sasl.password"], "007");
}

#[test]
fn where_to_listen_can_be_an_address_any_port_or_nowhere() {
    let listen =
        |text| from_environment(&[("CONTENTFLOW_HTTP__LISTEN", text)]).unwrap().http.listen;
    for (text, address) in [
        ("127.0.0.1:0", Some("127.0.0.1:0")),
        ("localhost:9000", Some("127.0.0.1:9000")),
        ("0.0.0.0:80", Some("0.0.0.0:80")),
        ("[::1]:9464", Some("[::1]:9464")),
        ("off", None),
    ] {
        assert_eq!(listen(text).address, address.map(|address| address.parse().unwrap()));
        assert!(listen(text).is_asked_for);
    }
    let default = Config::default().http;
    assert_eq!(default.listen.address, Some("127.0.0.1:9464".parse().unwrap()));
    assert!(!default.listen.is_asked_for && default.token.is_none());
    let message = complaint(from_file("[http]\ntoken = 'sentinel'\n"));
    assert!(message.contains("http.token") && !message.contains("sentinel"), "{message}");
}

#[test]
fn properties_are_passed_on_however_they_are_written() {
    let quoted =
        "[kafka.properties]\n\"security.protocol\" = \"ssl\"\n\"queued.min.messages\" = 5\n";
    let dotted = "[kafka.properties]\nsecurity.protocol = \"ssl\"\nqueued.min.messages = 5\nsocket.keepalive.enable = true\n";
    for text in [quoted, dotted] {
        let properties = from_file(text).unwrap().kafka.properties;
        assert_eq!(properties["security.protocol"], "ssl");
        assert_eq!(properties["queued.min.messages"], "5");
    }
    assert_eq!(from_file(dotted).unwrap().kafka.properties["socket.keepalive.enable"], "true");
}

#[test]
fn a_property_that_delivery_depends_on_is_refused_with_the_reason() {
    for (property, reason) in [
        ("enable.auto.commit", "durable"),
        ("enable.auto.offset.store", "durable"),
        ("group.id", "kafka.group sets it"),
        ("bootstrap.servers", "kafka.brokers sets it"),
        ("isolation.level", "only committed transactions"),
        ("auto.offset.reset", "run.on_data_loss"),
        ("enable.partition.eof", "ends of the partitions"),
        ("acks", "in-sync replicas"),
        ("transactional.id", "no transaction"),
        ("delivery.report.only.error", "is told of"),
        ("enable.gapless.guarantee", "sent again"),
        ("check.crcs", "what was published"),
    ] {
        let message =
            complaint(from_file(&format!("[kafka.properties]\n\"{property}\" = \"x\"\n")));
        assert!(message.contains(&format!("kafka.properties.{property} = \"x\"")), "{message}");
        assert!(
            message.contains("cannot be set; remove it: ") && message.contains(reason),
            "{message}"
        );
    }
    let allowed = "[kafka.properties]\n\"partition.assignment.strategy\" = \"range\"\n";
    assert!(from_file(allowed).is_ok(), "any of them is handled");
    let message = complaint(from_file("[kafka.properties]\n\"no.such\" = 1\n"));
    assert!(message.contains("No such configuration property"), "{message}");
    let message = complaint(from_file("[kafka.properties]\n\"ssl.ca.location\" = [1]\n"));
    assert!(message.contains("is a list"), "{message}");
}

#[test]
fn every_number_is_held_to_its_limits() {
    for limit in &limits::LIMITS {
        let mut wrong = vec![limit.max + 1, u64::from(u32::MAX) * 1_000];
        wrong.extend(limit.min.checked_sub(1));
        for value in wrong {
            // Where lowering one limit crosses the other timeout, there are two complaints; the
            // first is ours.
            let error = from_file(&toml_line(limit.key, &value.to_string())).unwrap_err();
            let message = error.problems[0].to_string();
            assert!(message.contains(&format!("{} = {value}", limit.key)), "{message}");
            assert!(message.contains("contentflow.toml) is out of range"), "{message}");
            assert!(message.contains(&format!("from {} to {}", limit.min, limit.max)), "{message}");
        }
        let variable = format!("CONTENTFLOW_{}", limit.key.to_uppercase().replace('.', "__"));
        for value in ["-1", "many", "1.5", "", "0x10"] {
            let message = complaint(from_environment(&[(&variable, value)]));
            assert!(message.contains(limit.key) && message.contains(&variable), "{message}");
            assert!(
                message.contains(&format!("set {} to a whole number of {}", limit.key, limit.unit)),
                "{message}"
            );
        }
        for value in ["true", "'many'", "1.5", "-1", "[1]", "{}"] {
            let message = complaint(from_file(&toml_line(limit.key, value)));
            assert!(message.contains(&format!("set {} to a whole number", limit.key)), "{message}");
        }
    }
}

#[test]
fn every_text_must_be_a_text_that_fits() {
    let cases: &[(&str, &[&str])] = &[
        ("kafka.brokers", &["''", "'host:0'", "'host:port'", "'a:1,,b:2'", "':9092'", "'a b:1'"]),
        ("kafka.topic", &["''", "'a b'", "'.'", "'..'", "'ä'", "'a/b'"]),
        ("kafka.group", &["''", "' '"]),
        ("dead_letters.topic", &["''", "'a b'", "'event-topic'"]),
        (
            "database.url",
            &[
                "''",
                "'host=a user=b'",
                "'mysql://a/b'",
                "'postgres://a@b@c/d'",
                "'postgres://a/b?sslmode=x'",
            ],
        ),
        (
            "database.table",
            &["''", "'a.b.c'", "'a.'", "'.a'", "'a b'", "'a;b'", "'\"a'", "'\"a\"b'", "'\"\"'"],
        ),
        ("cache.url", &["''", "'localhost'", "'http://a'", "'redis://'", "'redis://a/x'"]),
        ("cache.root_certificates", &["'/no/such/file.pem'", "'.'", "'Cargo.toml'"]),
        ("cache.client_certificate", &["'/no/such/file.pem'"]),
        ("cache.client_key", &["'/no/such/file.pem'"]),
        ("cache.key", &["''", "'event'", "'{id}'", "'{id}{id}'", "'a{id}b{id}'"]),
        ("run.on_outage", &["''", "'Wait'", "'stop'"]),
        ("run.on_data_loss", &["''", "'exit'", "'ignore'"]),
        (
            "http.listen",
            &[
                "''",
                "'on'",
                "'127.0.0.1'",
                "':9464'",
                "'127.0.0.1:x'",
                "'localhost:65536'",
                "'a.b:1'",
            ],
        ),
        ("http.token", &["'short'", "'with a blank and long enough'", "'ümlaut-long-enough'"]),
        ("traces.endpoint", &["'localhost:4318'", "'grpc://a'", "'http://a@b'", "'http://a?b'"]),
        ("traces.headers", &["'a'", "'a b=c'", "'a=%4'"]),
        ("traces.service", &["''", "' '"]),
        ("traces.sampler", &["''", "'on'", "'jaeger_remote'"]),
        ("traces.sampler_arg", &["''", "'1.1'", "2", "-0.1"]),
    ];
    let keys: Vec<_> = cases.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, limits::TEXTS, "a key without a test");
    for (key, values) in cases {
        for value in values.iter().chain(&["1", "true", "['a']", "{}"]) {
            // A number, which may be written as a text.
            if (*key, *value) == ("traces.sampler_arg", "1") {
                continue;
            }
            let message = complaint(from_file(&toml_line(key, value)));
            assert!(message.starts_with(key), "{key} = {value}: {message}");
            assert!(message.contains("contentflow.toml)") && message.contains("; "), "{message}");
            let (_, remedy) = message.split_once("; ").unwrap();
            assert!(!remedy.is_empty(), "{message}");
        }
    }
}

#[test]
fn a_key_that_does_not_exist_is_an_error_that_names_the_likely_one() {
    let cases = [
        ("[kafka]\ntopci = 'x'\n", "kafka.topci", "did you mean kafka.topic?"),
        ("[run]\nworker = 1\n", "run.worker", "did you mean run.workers?"),
        ("[database]\npassword = 'sentinel'\n", "database.password", "[database] has the keys url"),
        ("[kafak]\ntopic = 'x'\n", "kafak", "there are the sections kafka"),
        ("topic = 'x'\n", "topic", "there are the sections kafka"),
    ];
    for (text, key, remedy) in cases {
        let message = complaint(from_file(text));
        assert!(message.starts_with(key) && message.contains("is not a key"), "{message}");
        assert!(message.contains(remedy) && !message.contains("sentinel"), "{message}");
    }
    let message = complaint(from_environment(&[("CONTENTFLOW_KAFKA__TOPCI", "x")]));
    assert!(message.contains("environment variable CONTENTFLOW_KAFKA__TOPCI"), "{message}");
    let message = complaint(from_environment(&[("CONTENTFLOW_KAFKA_TOPIC", "x")]));
    assert!(message.contains("write CONTENTFLOW_KAFKA__TOPIC"), "{message}");
    let message = complaint(from_file("kafka = 'x'\n"));
    assert!(message.contains("write a table [kafka]"), "{message}");
}

#[test]
fn contradictions_are_refused() {
    let message = complaint(from_file("[kafka]\ntopic = 'a'\n[dead_letters]\ntopic = 'a'\n"));
    assert!(
        message.contains("dead_letters.topic = \"a\"") && message.contains("is kafka.topic itself"),
        "{message}"
    );
    let message =
        complaint(from_file("[database]\nlock_timeout_ms = 500\nstatement_timeout_ms = 500\n"));
    assert!(message.contains("is not below database.statement_timeout_ms = 500"), "{message}");
    // A revocation drains without polling, also where librdkafka's own limit is meant.
    let short = "[kafka.properties]\nmax.poll.interval.ms = 45000\n[run]\ndrain_timeout_s = 45\n";
    for text in [short, "[run]\ndrain_timeout_s = 300\n"] {
        let message = complaint(from_file(text));
        assert!(
            message.contains("run.drain_timeout_s = ") && message.contains("max.poll.interval.ms"),
            "{message}"
        );
    }
    from_file(&short.replace("= 45\n", "= 44\n")).unwrap();
}

#[test]
fn all_that_is_wrong_is_reported_together() {
    let error = from_file("[run]\nworkers = 0\nretries = 1000\n[cache]\nkey = 'x'\n").unwrap_err();
    assert_eq!(error.problems.len(), 3, "{error}");
}

#[test]
fn a_file_that_was_asked_for_must_exist() {
    let result =
        Config::load_from(Some(Path::new("no-such.toml")), Path::new(""), [], Overrides::default());
    let message = complaint(result);
    assert!(
        message.contains("no-such.toml cannot be read") && message.contains("--config"),
        "{message}"
    );
    let message = complaint(from_file("[database]\nurl = 'postgres://a:sentinel@b/c\n"));
    assert!(
        message.contains("syntax error at line 2") && !message.contains("sentinel"),
        "{message}"
    );
}

#[test]
fn tables_are_quoted_for_sql() {
    let cases = [
        ("event_drafts", "\"event_drafts\""),
        ("content.event_drafts", "\"content\".\"event_drafts\""),
        ("Event_Drafts", "\"Event_Drafts\""),
        ("\"my schema\".\"a\"\"b.c\"", "\"my schema\".\"a\"\"b.c\""),
        ("käse", "\"käse\""),
    ];
    for (text, sql) in cases {
        assert_eq!(TableName::parse(text).unwrap().sql(), sql);
    }
    assert!(TableName::parse(&"x".repeat(64)).is_err(), "PostgreSQL would cut it");
    let table = TableName::parse("content.event_drafts").unwrap();
    assert_eq!(
        (table.schema(), table.name(), table.to_string().as_str()),
        (Some("content"), "event_drafts", "content.event_drafts")
    );
}

#[test]
fn keys_are_made_from_their_template() {
    let template = KeyTemplate::parse("event:draft:{id}:v1").unwrap();
    assert_eq!(template.key("{id}"), "event:draft:{id}:v1");
    assert_eq!(template.key("7"), "event:draft:7:v1");
    let several = ["7", "", "été", "7"];
    let keys = template.keys(&several);
    assert_eq!(keys.iter().collect::<Vec<_>>(), several.map(|id| template.key(id)));
    assert_eq!(keys.iter().len(), 4);
    assert_eq!(template.to_string(), "event:draft:{id}:v1");
}
