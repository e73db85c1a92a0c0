//! The most memory that a run takes, whatever it has to catch up with: events that settle at once,
//! events that all wait for their next try, events that all go to the dead letters, events that are
//! as large as they may be, and a database that writes nothing for a while.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::ensure;
use contentflow::config::Kafka;
use contentflow::generate::Mix;
use contentflow::kafka::client_config;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde::Deserialize;
use serde_json::json;

use super::process::Usage;
use super::program;
use super::results::ratio;
use super::servers::{self, PARTITIONS, Servers, mix};

/// How long the database writes nothing.
const BLOCKED: Duration = Duration::from_secs(15);

/// So many events take the place of the others where each has [`LARGE_BYTES`].
const LARGE_EVENTS: u64 = 600;
/// Just below what a broker takes by default, and what is taken for an event at all.
const LARGE_BYTES: usize = 1_000_000;

/// What there is to catch up with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backlog {
    Known,
    Unknown,
    Invalid,
    OneDraft,
    Large,
    LargeUnknown,
    LockedRows,
    LockedTable,
}

const ALL: [(Backlog, &str); 8] = [
    (Backlog::Known, "a draft for each event"),
    (Backlog::OneDraft, "one draft for all events"),
    (Backlog::Unknown, "no draft for any event"),
    (Backlog::Invalid, "invalid events"),
    (Backlog::Large, "600 events of 1 MB"),
    (Backlog::LargeUnknown, "the same without drafts"),
    (Backlog::LockedRows, "all rows locked for 15 s"),
    (Backlog::LockedTable, "the table locked for 15 s"),
];

#[derive(Deserialize)]
struct Report {
    read: u64,
    applied: u64,
    rejected: u64,
    records_per_s: f64,
}

/// Catches up with each of them, and writes a line about each.
pub(crate) fn measure(servers: &mut Servers, events: u64) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "| backlog | most memory, MiB | events/s | rejected |\n|---|---:|---:|---:|")?;
    for (backlog, name) in ALL {
        let (report, usage) = catch_up(servers, backlog, events)?;
        let Report { records_per_s, rejected, .. } = report;
        let memory = ratio(usage.peak_rss_kb, 1024);
        writeln!(out, "| {name} | {memory:.0} | {records_per_s:.0} | {rejected} |")?;
    }
    Ok(())
}

fn catch_up(
    servers: &mut Servers,
    backlog: Backlog,
    events: u64,
) -> anyhow::Result<(Report, Usage)> {
    let topic = servers.new_topic()?;
    let kafka = Kafka { topic, ..servers.config.kafka.clone() };
    let is_large = matches!(backlog, Backlog::Large | Backlog::LargeUnknown);
    let events = if is_large { LARGE_EVENTS } else { events };
    match backlog {
        Backlog::OneDraft => servers::publish(&kafka, Mix { drafts: 1, ..mix(events) })?,
        Backlog::Invalid => servers::publish(&kafka, Mix { bad: 1.0, ..mix(events) })?,
        Backlog::Large | Backlog::LargeUnknown => publish_large(&kafka, events)?,
        _ => servers::publish(&kafka, mix(events))?,
    }
    let is_unknown = matches!(backlog, Backlog::Unknown | Backlog::LargeUnknown);
    servers.refill(if is_unknown { 0 } else { events })?;
    let locks = match backlog {
        Backlog::LockedRows => Some("SELECT count(*) FROM (SELECT FROM {} FOR UPDATE) AS locked"),
        Backlog::LockedTable => Some("LOCK TABLE {}"),
        _ => None,
    };
    if let Some(sql) = locks {
        block(servers, &sql.replace("{}", servers.config.database.table.sql()))?;
    }
    let group = servers.new_group();
    let arguments = ["run", "--until-caught-up", "--report", "json", "--group", &group];
    let (report, usage, logged) = program::run::<Report>(servers, &kafka.topic, &arguments)?;
    let Report { read, applied, rejected, .. } = report;
    let expected = match backlog {
        Backlog::Unknown | Backlog::LargeUnknown | Backlog::Invalid => (0, events),
        // Of the events that are written together the newest alone is applied.
        Backlog::OneDraft => (applied.max(1), 0),
        _ => (events, 0),
    };
    ensure!(
        read == events && (applied, rejected) == expected,
        "of {read} of {events} events {applied} are applied and {rejected} rejected: {}",
        logged.trim()
    );
    Ok((report, usage))
}

/// Keeps a lock for a while.
fn block(servers: &Servers, sql: &str) -> anyhow::Result<()> {
    let client = servers.runtime.block_on(async {
        let client = servers.connect().await?;
        client.batch_execute(&format!("BEGIN; {sql}")).await?;
        anyhow::Ok(client)
    })?;
    // With the session the lock is gone, whatever happens here.
    servers.runtime.spawn(async move {
        tokio::time::sleep(BLOCKED).await;
        drop(client);
    });
    Ok(())
}

/// Publishes events that are valid, and as large as they may be.
fn publish_large(kafka: &Kafka, events: u64) -> anyhow::Result<()> {
    let mut client = client_config(kafka);
    client.set("message.max.bytes", "2000000");
    let producer: ThreadedProducer<DefaultProducerContext> = client.create()?;
    let partitions = u64::try_from(PARTITIONS)?;
    for number in 0..events {
        let image = |style: &str| format!("https://images.example/{number}/{style}.png");
        let event = json!({
            "jobId": format!("job-{number}"),
            "eventDraftId": format!("draft-{:07}", number + 1),
            "imageUrls": {
                "simple": image("simple"),
                "fancy": image("fancy"),
                "trendy": image("trendy"),
            },
            "note": "x".repeat(LARGE_BYTES),
        });
        let value = event.to_string();
        let partition = i32::try_from(number % partitions)?;
        let mut record =
            BaseRecord::<(), str>::to(&kafka.topic).partition(partition).payload(&value);
        while let Err((error, back)) = producer.send(record) {
            let is_full =
                matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            ensure!(is_full, "an event is not published: {error}");
            std::thread::sleep(Duration::from_millis(10));
            record = back;
        }
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(())
}
