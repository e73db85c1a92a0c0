//! `contentflow check`: one line for each thing that must be right, `ok` or what to do.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use tokio_postgres::error::SqlState;

use crate::config::{Config, ConfigError};
use crate::kafka::{Admin, KafkaError, METADATA_TIMEOUT, check_consumer, check_producer};
use crate::lease::lease_key;
use crate::redis::CacheConnection;
use crate::sink::dead_letter;
use crate::source::consumer::consumer_config;
use crate::{postgres, redis};

mod table;

pub(crate) use table::missing_columns;
pub use table::{DraftTableError, draft_id_type, draft_ids};

/// One line.
struct Finding {
    subject: &'static str,
    verdict: Verdict,
}

enum Verdict {
    /// It is right; what was found.
    Ok(String),
    /// It is not there, and what to do.
    Missing { what: String, remedy: String },
    /// It is wrong, and what to do.
    Fail { what: String, remedy: String, cause: Cause },
}

/// Why something is not as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// What is there is not as it must be.
    State,
    /// A server is away: it may pass by itself.
    Outage,
    /// The configuration contradicts itself.
    Configuration,
}

impl Finding {
    fn ok(subject: &'static str, found: impl Into<String>) -> Finding {
        Finding { subject, verdict: Verdict::Ok(found.into()) }
    }

    fn missing(
        subject: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding { subject, verdict: Verdict::Missing { what: what.into(), remedy: remedy.into() } }
    }

    fn fail(subject: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::failed(subject, Cause::State, what, remedy)
    }

    /// A server that could not be asked.
    fn unasked(
        subject: &'static str,
        is_outage: bool,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        let cause = if is_outage { Cause::Outage } else { Cause::State };
        Finding::failed(subject, cause, what, remedy)
    }

    fn failed(
        subject: &'static str,
        cause: Cause,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        let (what, remedy) = (what.into(), remedy.into());
        Finding { subject, verdict: Verdict::Fail { what, remedy, cause } }
    }

    fn is_ok(&self) -> bool {
        matches!(self.verdict, Verdict::Ok(_))
    }

    fn is_of_the_configuration(&self) -> bool {
        matches!(self.verdict, Verdict::Fail { cause: Cause::Configuration, .. })
    }

    fn problem(self) -> Option<Problem> {
        let subject = self.subject;
        let (what, remedy, cause) = match self.verdict {
            Verdict::Ok(_) => return None,
            Verdict::Missing { what, remedy } => (what, remedy, Cause::State),
            Verdict::Fail { what, remedy, cause } => (what, remedy, cause),
        };
        Some(Problem { what: format!("{subject}: {what}"), remedy, cause })
    }
}

/// Something that is not as it must be before a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
    /// Why it is so.
    pub cause: Cause,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.subject;
        match &self.verdict {
            Verdict::Ok(found) => write!(f, "ok       {subject:<18} {found}"),
            Verdict::Missing { what, remedy } => {
                write!(f, "MISSING  {subject:<18} {what}: {remedy}")
            }
            Verdict::Fail { what, remedy, cause: _ } => {
                write!(f, "FAIL     {subject:<18} {what}: {remedy}")
            }
        }
    }
}

/// Checks everything and writes a line for each thing; exit code 1 if one of them is not ok, and 2
/// if that is the configuration.
pub async fn run(config: &Config, out: &mut impl Write) -> io::Result<ExitCode> {
    let (mut all_ok, mut is_configured) = (true, true);
    let mut report = |findings: Vec<Finding>, out: &mut dyn Write| -> io::Result<()> {
        for finding in findings {
            all_ok &= finding.is_ok();
            is_configured &= !finding.is_of_the_configuration();
            writeln!(out, "{finding}")?;
        }
        // A server that does not answer takes seconds: what is known is shown before.
        out.flush()
    };
    report(vec![Finding::ok("configuration", "valid")], out)?;
    report(kafka(config).await, out)?;
    report(database(config, Access::Write).await, out)?;
    report(cache(config, Access::Write).await, out)?;
    Ok(match (all_ok, is_configured) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::from(2),
    })
}

/// What a command does with a server, and needs the rights for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It looks.
    Read,
    /// It updates rows, or deletes keys.
    Write,
}

/// What a command needs besides the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The table.
    pub table: Option<Access>,
    /// The dead-letter topic.
    pub dead_letters: bool,
    /// The cache.
    pub cache: Option<Access>,
}

impl Needs {
    /// What a run needs.
    pub const ALL: Needs =
        Needs { table: Some(Access::Write), dead_letters: true, cache: Some(Access::Write) };
    /// What a comparison needs, which changes nothing.
    pub const READ: Needs =
        Needs { table: Some(Access::Read), dead_letters: true, cache: Some(Access::Read) };
}

/// The same for a command that is about to start: only what is not ok of what it needs.
pub async fn problems(config: &Config, needs: Needs) -> Vec<Problem> {
    let mut findings = kafka(config).await;
    findings.retain(|finding| needs.dead_letters || finding.subject != DEAD_LETTERS);
    if let Some(access) = needs.table {
        findings.extend(database(config, access).await);
    }
    if let Some(access) = needs.cache {
        findings.extend(cache(config, access).await);
    }
    findings.into_iter().filter_map(Finding::problem).collect()
}

/// Nothing else can be checked without a configuration.
pub fn configuration_failed(error: &ConfigError, out: &mut impl Write) -> io::Result<ExitCode> {
    for problem in &error.problems {
        writeln!(out, "{}", Finding::fail("configuration", problem.what(), &problem.remedy))?;
    }
    Ok(ExitCode::from(2))
}

/// What the dead-letter topic is called.
const DEAD_LETTERS: &str = "dead-letter topic";

async fn kafka(config: &Config) -> Vec<Finding> {
    let brokers = "brokers";
    let admin = match Admin::new(&config.kafka) {
        Ok(admin) => admin,
        Err(error) => return vec![unasked(brokers, &error)],
    };
    // The clients of a run, which ask for more than this one.
    let consumer = check_consumer(&consumer_config(&config.kafka));
    let producer = check_producer(&dead_letter::producer_config(&config.kafka));
    let refused =
        |(subject, made): (_, Result<(), KafkaError>)| Some(unasked(subject, &made.err()?));
    let made = [("consumer", consumer), (DEAD_LETTERS, producer)];
    let mut findings: Vec<Finding> = made.into_iter().filter_map(refused).collect();
    let metadata = match admin.metadata(None, METADATA_TIMEOUT) {
        Ok(metadata) => metadata,
        Err(error) => {
            findings.push(unasked(brokers, &error));
            return findings;
        }
    };
    let count = metadata.brokers().len();
    findings.extend([
        Finding::ok(brokers, format!("{count} known, asked at {}", config.kafka.brokers)),
        topic(
            &admin,
            "topic",
            &config.kafka.topic,
            "create it, or set kafka.topic to the topic that is meant",
        ),
        dead_letter_topic(&admin, &config.dead_letters.topic).await,
    ]);
    findings
}

fn unasked(subject: &'static str, error: &KafkaError) -> Finding {
    let cause = match error {
        KafkaError::Properties(_) => Cause::Configuration,
        outage if outage.is_outage() => Cause::Outage,
        _ => Cause::State,
    };
    Finding::failed(subject, cause, error.what(), error.remedy())
}

fn topic(admin: &Admin, subject: &'static str, name: &str, remedy: &str) -> Finding {
    match admin.partitions(name, METADATA_TIMEOUT) {
        Ok(1) => Finding::ok(subject, format!("{name}, 1 partition")),
        Ok(partitions) => Finding::ok(subject, format!("{name}, {partitions} partitions")),
        Err(KafkaError::MissingTopic(_)) => {
            Finding::missing(subject, format!("{name} does not exist"), remedy)
        }
        Err(error) => unasked(subject, &error),
    }
}

async fn dead_letter_topic(admin: &Admin, name: &str) -> Finding {
    let found = topic(
        admin,
        DEAD_LETTERS,
        name,
        "create it before the first record is rejected, or set dead_letters.topic to the topic that is meant",
    );
    // Dead letters have the keys of their records: of those of one draft the last would be left, and
    // a record without a key would not be taken at all.
    if found.is_ok() && admin.is_compacted(name).await == Some(true) {
        return Finding::fail(
            DEAD_LETTERS,
            format!("{name} is compacted, which deletes all dead letters of a key but the last"),
            "set its cleanup.policy to delete",
        );
    }
    found
}

async fn database(config: &Config, access: Access) -> Vec<Finding> {
    let client = match postgres::connect(&config.database).await {
        Ok(client) => client,
        Err(error) => {
            let is_outage = error.is_outage();
            return vec![Finding::unasked("database", is_outage, error.what(), error.remedy())];
        }
    };
    let findings = table::findings(&client, &config.database.table, access);
    match tokio::time::timeout(table::CATALOG_TIMEOUT, findings).await {
        Ok(Ok(findings)) => findings,
        Ok(Err(error)) => {
            let remedy = match error.code() {
                Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
                    "grant USAGE on it, or whatever it names"
                }
                _ => "look into the server's log",
            };
            vec![Finding::fail("database", postgres::describe(&error), remedy)]
        }
        Err(_) => {
            let remedy = "look into the server's log";
            vec![Finding::unasked("database", true, "no answer in time", remedy)]
        }
    }
}

/// An id that no draft has: what is deleted in its name never existed.
const NO_DRAFT: &str = "contentflow-check-no-such-draft";

async fn cache(config: &Config, access: Access) -> Vec<Finding> {
    let mut connection = match redis::connect(&config.cache).await {
        Ok(connection) => connection,
        Err(error) => {
            let is_outage = error.is_outage();
            return vec![Finding::unasked("cache", is_outage, error.what(), error.remedy())];
        }
    };
    let found = match found(&mut connection).await {
        Ok(found) => Finding::ok("cache", format!("answers at {}: {found}", config.cache.url)),
        Err(found) => {
            let what = format!("at {} is {found}", config.cache.url);
            let remedy = format!("write redis+cluster:// in cache.url: {}", redis::URL_FORMS);
            return vec![Finding::fail("cache", what, remedy)];
        }
    };
    if access == Access::Read {
        return vec![found];
    }
    let key = config.cache.key.key(NO_DRAFT);
    // The lease that readers take lies beside the key and is deleted with it.
    for key in [lease_key(&key), key] {
        // The real command: a dry run would need rights of its own and would say nothing about a
        // read-only replica.
        let deleted = ::redis::cmd("DEL").arg(&key).query_async::<i64>(&mut connection).await;
        if let Err(error) = deleted {
            let is_outage = redis::is_away(&error);
            let remedy = match error.code() {
                Some("NOPERM") => {
                    format!("grant it: ACL SETUSER … +del ~{}", key.replace(NO_DRAFT, "*"))
                }
                Some("MOVED") => {
                    "write redis+cluster:// in cache.url, this is one node of a cluster".to_owned()
                }
                Some("READONLY") => "set cache.url to the primary, this is a replica".to_owned(),
                _ if is_outage => "check the cache".to_owned(),
                _ => "look into the server's log".to_owned(),
            };
            let says = error.detail().map_or_else(|| error.to_string(), str::to_owned);
            let what = format!("DEL {key} is refused: {says}");
            return vec![found, Finding::unasked("cache delete", is_outage, what, remedy)];
        }
    }
    vec![found, Finding::ok("cache delete", format!("DEL {} is allowed", config.cache.key))]
}

/// What has answered; the error is that it is not what the URL says.
async fn found(connection: &mut CacheConnection) -> Result<String, String> {
    let info = ::redis::cmd("CLUSTER").arg("INFO").query_async::<String>(connection).await;
    // An error is that of a server outside of every cluster, or of a user without this right.
    let info = info.unwrap_or_default();
    let number = |field: &str| info.lines().find_map(|line| line.strip_prefix(field)?.parse().ok());
    let masters: Option<u32> = number("cluster_size:");
    match (&*connection, masters, number("cluster_known_nodes:")) {
        (CacheConnection::Cluster(_), Some(masters), Some::<u32>(nodes)) => {
            Ok(format!("a cluster of {nodes} nodes, {masters} of them masters with slots"))
        }
        (CacheConnection::Cluster(_), ..) => Ok("a cluster".to_owned()),
        (_, Some(masters), _) if masters > 1 => {
            Err(format!("one node of a cluster of {masters} masters"))
        }
        (CacheConnection::Master(_, at), ..) => Ok(format!("by Sentinel, the master {at}")),
        (CacheConnection::Server(_), ..) => Ok("stand-alone".to_owned()),
    }
}
