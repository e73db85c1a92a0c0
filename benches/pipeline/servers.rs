//! A corner of the servers: a topic, a table, keys and groups with names that nobody else uses.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use contentflow::config::{Config, Kafka};
use contentflow::drafts::Rows;
use contentflow::generate::{DraftIds, Mix};
use contentflow::kafka::{Admin, client_config};
use contentflow::{migrate, postgres, publish};
use rdkafka::admin::{AdminClient, AdminOptions};
use tokio::runtime::Runtime;
use tokio_postgres::Client;

use super::say;
use super::settings::Settings;

/// The timestamp of the first event: some time in 2023.
const START_MS: i64 = 1_700_000_000_000;

/// Partitions of the topic.
pub(crate) const PARTITIONS: i32 = 4;

/// The corner, and what is needed to talk to it.
pub(crate) struct Servers {
    pub(crate) config: Config,
    /// The program that is measured.
    pub(crate) program: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) runtime: Runtime,
    pub(crate) postgres_version: String,
    groups: Vec<String>,
    topics: Vec<String>,
    drafts: u64,
    rounds: u64,
}

/// All events that are published: one for each draft, every one new, as many as there are drafts.
pub(crate) fn mix(events: u64) -> Mix {
    Mix { events, drafts: events, start_ms: START_MS, ..Mix::default() }
}

impl Servers {
    /// Makes the topic and the table.
    pub(crate) fn new(settings: &Settings) -> anyhow::Result<Servers> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(super::settings::WORKERS)
            .enable_all()
            .build()?;
        let mut servers = Servers {
            config: settings.config.clone(),
            program: PathBuf::from(env!("CARGO_BIN_EXE_contentflow")),
            environment: settings.environment.clone(),
            runtime,
            postgres_version: String::new(),
            groups: Vec::new(),
            topics: Vec::new(),
            drafts: settings.events,
            rounds: 0,
        };
        match servers.runtime.block_on(make(&servers.config, &settings.table)) {
            Ok(version) => servers.postgres_version = version,
            Err(error) => {
                // The first failure says more than those that follow from it.
                drop(servers.clear());
                return Err(error);
            }
        }
        Ok(servers)
    }

    /// Publishes the events.
    pub(crate) fn publish(&self, events: u64) -> anyhow::Result<()> {
        say(&format!("publishing {events} events"));
        publish(&self.config.kafka, mix(events))
    }

    /// How many drafts there are.
    pub(crate) fn drafts(&self) -> u64 {
        self.drafts
    }

    /// A number that counts up.
    pub(crate) fn next_round(&mut self) -> u64 {
        self.rounds += 1;
        self.rounds
    }

    /// Makes one more topic.
    pub(crate) fn new_topic(&mut self) -> anyhow::Result<String> {
        let topic = format!("{}-{}", self.config.kafka.topic, self.topics.len());
        let admin = Admin::new(&self.config.kafka)?;
        self.runtime.block_on(admin.ensure_topic(&topic, PARTITIONS))?;
        self.topics.push(topic.clone());
        Ok(topic)
    }

    /// A topic with many events a draft.
    pub(crate) fn replay_topic(&self) -> String {
        replay_topic(&self.config)
    }

    /// A name for a consumer group that has read nothing yet.
    pub(crate) fn new_group(&mut self) -> String {
        let group = format!("{}-{}", self.config.kafka.group, self.groups.len());
        self.groups.push(group.clone());
        group
    }

    /// The table as if it were new: no draft has images, no page has dead rows, nothing waits to be
    /// written to disk.
    pub(crate) fn refill(&self, drafts: u64) -> anyhow::Result<()> {
        let table = self.config.database.table.sql();
        self.runtime.block_on(async {
            let client = self.connect().await?;
            client.batch_execute(&format!("TRUNCATE {table}")).await?;
            let rows = Rows::connect(&self.config.database).await?;
            let created = rows.create_generated(drafts, DraftIds::Text, |_done| {}).await?;
            ensure!(created == drafts, "only {created} drafts are created");
            client.batch_execute(&format!("VACUUM ANALYZE {table}")).await?;
            if let Err(error) = client.batch_execute("CHECKPOINT").await {
                say(&format!("no CHECKPOINT: {}", postgres::describe(&error)));
            }
            Ok(())
        })
    }

    /// Has the table refuse so many of 5,000 drafts, chosen by their hash, and returns how many
    /// those are.
    pub(crate) fn refuse(&self, of_5000: u64) -> anyhow::Result<u64> {
        let table = self.config.database.table.sql();
        let is_refused = format!("abs(hashtext(event_draft_id)) % 5000 < {of_5000}");
        self.runtime.block_on(async {
            let client = self.connect().await?;
            let count = format!("SELECT count(*) FROM {table} WHERE {is_refused}");
            let refused: i64 = client.query_one(&count, &[]).await?.try_get(0)?;
            let check = format!(
                "ALTER TABLE {table} DROP CONSTRAINT IF EXISTS poisoned;
                 ALTER TABLE {table} ADD CONSTRAINT poisoned CHECK (content_images IS NULL OR NOT {is_refused})"
            );
            client.batch_execute(&check).await?;
            Ok(u64::try_from(refused)?)
        })
    }

    /// A session without a limit for its statements.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let client = postgres::connect(&self.config.database).await?;
        client.batch_execute("SET statement_timeout = 0").await?;
        Ok(client)
    }

    /// Deletes everything that was made.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        let Config { kafka, dead_letters, database, .. } = &self.config;
        let mut topics = vec![kafka.topic.clone(), dead_letters.topic.clone(), self.replay_topic()];
        topics.extend_from_slice(&self.topics);
        self.runtime.block_on(async {
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            let topics = Admin::new(kafka)?.delete_topics(&topics).await;
            let groups = self.delete_groups().await;
            let client = self.connect().await?;
            let (table, name) = (database.table.sql(), database.table.name());
            let drop = format!(
                "DROP TABLE IF EXISTS {table}; DROP TABLE IF EXISTS contentflow_migrations_{name}"
            );
            client.batch_execute(&drop).await?;
            topics?;
            groups
        })
    }

    async fn delete_groups(&self) -> anyhow::Result<()> {
        let groups: Vec<&str> = self.groups.iter().map(String::as_str).collect();
        if groups.is_empty() {
            return Ok(());
        }
        let admin: AdminClient<_> = client_config(&self.config.kafka).create()?;
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
        admin.delete_groups(&groups, &options).await.context("the groups are not deleted")?;
        Ok(())
    }
}

/// Publishes these events, and waits until they are on the disk. The kernel would write the last
/// gigabytes of a topic within the next minutes, and take some of both cores for it from whatever
/// is measured then.
pub(crate) fn publish(kafka: &Kafka, mix: Mix) -> anyhow::Result<()> {
    let events = mix.events;
    let published = publish::publish_generated(kafka, mix, None, &mut |_sent| {})?;
    ensure!(published.events == events, "only {} events are published", published.events);
    // Where the broker is on another machine this does nothing, and nothing has to be done.
    let synced = Command::new("sync").status().context("sync cannot be run")?;
    ensure!(synced.success(), "sync: {synced}");
    Ok(())
}

fn replay_topic(config: &Config) -> String {
    format!("{}-replay", config.kafka.topic)
}

async fn make(config: &Config, parameters: &str) -> anyhow::Result<String> {
    migrate::run(config, &mut std::io::sink()).await?;
    let admin = Admin::new(&config.kafka)?;
    admin.ensure_topic(&config.kafka.topic, PARTITIONS).await?;
    admin.ensure_topic(&config.dead_letters.topic, 1).await?;
    admin.ensure_topic(&replay_topic(config), PARTITIONS).await?;
    let client = postgres::connect(&config.database).await?;
    if !parameters.is_empty() {
        let table = config.database.table.sql();
        client.batch_execute(&format!("ALTER TABLE {table} SET ({parameters})")).await?;
    }
    let version: String = client.query_one("SHOW server_version", &[]).await?.try_get(0)?;
    Ok(version.split(' ').next().unwrap_or_default().to_owned())
}
