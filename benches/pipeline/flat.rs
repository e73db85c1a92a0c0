//! Whether the millionth event costs what the first one did: one process, slice after slice, with
//! its memory, its CPU and the table's size after each.
//!
//! A slice is published while the process is stopped (SIGSTOP), so that nothing but the pipeline is
//! measured, and deleted from the topic when it is through. Before it, the bare UPDATE writes every
//! row of the same table once: what a table costs that has been written so often, it costs both.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use contentflow::config::Kafka;
use contentflow::generate::Mix;
use contentflow::kafka::client_config;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::bare_update;
use super::events::Events;
use super::process::{Snapshot, Taken, snapshot};
use super::program::Running;
use super::results::{per_second, ratio, us_per_event};
use super::servers::{self, PARTITIONS, Servers, mix};

/// No slice takes so long.
const OVERDUE: Duration = Duration::from_secs(600);
/// The deadline of a question to the broker.
const ANSWER: Duration = Duration::from_secs(10);

/// What a slice of the events did.
pub(crate) struct Slice {
    /// Events until its end.
    pub(crate) events: u64,
    /// The bare UPDATE, just before.
    pub(crate) bare: Taken,
    pub(crate) events_per_s: f64,
    pub(crate) cpu_us_per_event: f64,
    /// The memory of the process at its end.
    pub(crate) rss_mb: f64,
    /// The table with its index.
    pub(crate) table_mb: f64,
    /// The share of updates that touched no index.
    pub(crate) hot: f64,
}

/// Puts so many slices of so many events each, over as many drafts, through one process. `each`
/// hears of every one.
pub(crate) fn measure(
    servers: &mut Servers,
    slice: u64,
    slices: u64,
    mut each: impl FnMut(Slice),
) -> anyhow::Result<()> {
    servers.refill(slice)?;
    let topic = servers.new_topic()?;
    let group = servers.new_group();
    let kafka = Kafka { topic, group, ..servers.config.kafka.clone() };
    let drafts = Events::generate(slice)?;
    let running = Running::start(servers, &kafka.topic, &kafka.group)?;
    let offsets = Offsets::new(&kafka)?;
    // Stopped while it connects, it would find that no broker has answered.
    offsets.await_member(&running)?;
    for number in 1..=slices {
        // The first slice finds a process that has just begun, the others one that has been idle.
        signal(&running, "STOP")?;
        let start_ms = mix(slice).start_ms + 1_000_000_000 * i64::try_from(number)?;
        let mix = Mix { seed: number, start_ms, ..mix(slice) };
        servers::publish(&kafka, mix)?;
        let bare = bare_update::update_all(servers, &drafts)?;
        let before = snapshot(running.id()).context("the process is gone")?;
        let began = Instant::now();
        signal(&running, "CONT")?;
        offsets.await_end(&running, began)?;
        let elapsed = began.elapsed();
        let Snapshot { cpu, rss_kb } = snapshot(running.id()).context("the process is gone")?;
        let (table_mb, hot) = table(servers)?;
        each(Slice {
            events: number * slice,
            bare,
            events_per_s: per_second(slice, elapsed),
            cpu_us_per_event: us_per_event(cpu.saturating_sub(before.cpu), slice),
            rss_mb: ratio(rss_kb, 1024),
            table_mb,
            hot,
        });
        servers.runtime.block_on(offsets.delete_all())?;
    }
    Ok(())
}

/// The size of the table with its index, MiB, and the share of its updates that were heap-only.
fn table(servers: &Servers) -> anyhow::Result<(f64, f64)> {
    let table = servers.config.database.table.sql();
    let sql = format!(
        "SELECT pg_total_relation_size('{table}')::float8 / 1048576,
                coalesce(n_tup_hot_upd::float8 / nullif(n_tup_upd, 0), 0)
         FROM pg_stat_user_tables WHERE relid = '{table}'::regclass"
    );
    servers.runtime.block_on(async {
        let row = servers.connect().await?.query_one(&sql, &[]).await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    })
}

/// Stops the process or has it go on.
fn signal(running: &Running, name: &str) -> anyhow::Result<()> {
    let status = Command::new("kill").args(["-s", name, &running.id().to_string()]).status()?;
    ensure!(status.success(), "the process is gone");
    Ok(())
}

/// How far the group has come.
struct Offsets {
    kafka: Kafka,
    consumer: BaseConsumer,
}

impl Offsets {
    fn new(kafka: &Kafka) -> anyhow::Result<Offsets> {
        let consumer = client_config(kafka).set("group.id", &kafka.group).create()?;
        Ok(Offsets { kafka: kafka.clone(), consumer })
    }

    fn ends(&self) -> anyhow::Result<TopicPartitionList> {
        let mut ends = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let (_first, end) =
                self.consumer.fetch_watermarks(&self.kafka.topic, partition, ANSWER)?;
            ends.add_partition_offset(&self.kafka.topic, partition, Offset::Offset(end))?;
        }
        Ok(ends)
    }

    /// Waits until the process is a member of its group.
    fn await_member(&self, running: &Running) -> anyhow::Result<()> {
        // A coordinator that has just begun may not know its groups yet.
        let is_stable = || {
            let groups = self.consumer.fetch_group_list(Some(&self.kafka.group), ANSWER);
            groups.is_ok_and(|all| all.groups().iter().any(|group| group.state() == "Stable"))
        };
        let since = Instant::now();
        while !is_stable() {
            ensure!(since.elapsed() < ANSWER, "the process joins no group within {ANSWER:?}");
            snapshot(running.id()).context("the process is gone")?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Waits until everything there is has been committed.
    fn await_end(&self, running: &Running, since: Instant) -> anyhow::Result<()> {
        let ends = self.ends()?;
        while self.consumer.committed_offsets(ends.clone(), ANSWER)? != ends {
            snapshot(running.id()).context("the process is gone")?;
            ensure!(since.elapsed() < OVERDUE, "a slice is not through after {OVERDUE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Deletes what is through.
    async fn delete_all(&self) -> anyhow::Result<()> {
        let admin: AdminClient<_> = client_config(&self.kafka).create()?;
        admin.delete_records(&self.ends()?, &AdminOptions::new()).await?;
        Ok(())
    }
}
