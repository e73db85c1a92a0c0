//! Where it all happens: the servers, the instances, the topics, the table.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use contentflow::config::{Config, Overrides};
use contentflow::drafts::Rows;
use contentflow::generate::DraftIds;
use contentflow::kafka::{Admin, client_config};
use contentflow::migrate;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::instances::Instance;
use crate::load::{ABSENT, DRAFTS, REFUSED};
use crate::servers::{PATIENCE, Server, Servers};
use crate::{end_on_signals, eventually};

pub(crate) const PARTITIONS: i32 = 4;

/// The database of the drafts; that of the stack stays for questions about it.
pub(crate) const DATABASE: &str = "chaos";

/// What a statement that writes drafts meets first. Its function is replaced for an outage: that
/// needs no lock of the table.
const GATE: &str =
    "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
    CREATE TRIGGER gate BEFORE UPDATE ON event_drafts EXECUTE FUNCTION gate();";

/// Notes each row that goes back in time, at whatever moment.
const NO_WAY_BACK: &str = "CREATE TABLE went_back (event_draft_id text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO went_back VALUES (NEW.event_draft_id); RETURN NULL; END $$;
    CREATE TRIGGER note AFTER UPDATE ON event_drafts FOR EACH ROW
    WHEN ((NEW.content_event_at, NEW.content_event_offset, NEW.content_event_partition)
        < (OLD.content_event_at, OLD.content_event_offset, OLD.content_event_partition))
    EXECUTE FUNCTION note();";

pub(crate) struct Ground {
    /// Before the servers: what is dropped first must not find them gone.
    pub(crate) instances: [Instance; 2],
    /// One that comes and goes.
    pub(crate) guest: Instance,
    pub(crate) servers: Servers,
    /// As the oracle, the publisher and the readers see it: without the links.
    pub(crate) config: Config,
    pub(crate) runtime: Runtime,
}

impl Ground {
    /// Starts the servers and makes everything but the load.
    pub(crate) fn make(directory: &Path, settings: &[(&str, &str)]) -> Result<Ground> {
        let runtime = Runtime::new()?;
        end_on_signals(&runtime);
        let servers = Servers::start(directory)?;
        let logs = directory.join("logs");
        if logs.exists() {
            std::fs::remove_dir_all(&logs)?;
        }
        std::fs::create_dir_all(&logs)?;
        let [postgres, redis] = [servers.address("postgres")?, servers.address("redis")?];
        let mut environment = environment(settings);
        let through = ("KAFKA_BROKERS".to_owned(), servers.kafka.address());
        environment.push(through);
        let instance = |name| Instance::new(name, [&postgres, &redis], &logs, &environment);
        let instances = [instance("a")?, instance("b")?];
        let guest = instance("guest")?;
        environment.extend([
            ("KAFKA_BROKERS".to_owned(), servers.address("kafka")?),
            (
                "DATABASE_URL".to_owned(),
                format!("postgres://contentflow@{postgres}/{DATABASE}?application_name=chaos"),
            ),
            ("REDIS_URL".to_owned(), format!("redis://{redis}/0")),
        ]);
        let none = Path::new("no such file");
        let config = Config::load_from(None, none, environment, Overrides::default())?;
        let ground = Ground { instances, guest, servers, config, runtime };
        ground.furnish()?;
        Ok(ground)
    }

    fn furnish(&self) -> Result<()> {
        self.sql(&format!("CREATE DATABASE {DATABASE}"))?;
        self.runtime.block_on(async {
            let admin = Admin::new(&self.config.kafka)?;
            admin.ensure_topic(&self.config.kafka.topic, PARTITIONS).await?;
            admin.ensure_topic(&self.config.dead_letters.topic, 2).await?;
            migrate::run(&self.config, &mut std::io::sink()).await?;
            let rows = Rows::connect(&self.config.database).await?;
            rows.create_generated(DRAFTS, DraftIds::Text, |_| {}).await?;
            anyhow::Ok(())
        })?;
        self.drafts_sql(&format!("DELETE FROM event_drafts WHERE {ABSENT}"))?;
        self.drafts_sql(&format!("ALTER TABLE event_drafts ADD {REFUSED}"))?;
        self.drafts_sql(GATE)?;
        self.drafts_sql(NO_WAY_BACK)?;
        Ok(())
    }

    /// Runs SQL beside the drafts, and gives its rows as text.
    pub(crate) fn sql(&self, statement: &str) -> Result<Vec<Vec<String>>> {
        self.sql_at("contentflow", statement)
    }

    /// Runs SQL in the database of the drafts.
    pub(crate) fn drafts_sql(&self, statement: &str) -> Result<Vec<Vec<String>>> {
        self.sql_at(DATABASE, statement)
    }

    fn sql_at(&self, database: &str, statement: &str) -> Result<Vec<Vec<String>>> {
        let url =
            format!("postgres://contentflow@{}/{database}", self.servers.address("postgres")?);
        let answers = self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, async {
                let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
                tokio::spawn(connection);
                client.simple_query(statement).await
            })
            .await
        });
        let answers = answers.context("no answer")?.with_context(|| statement.to_owned())?;
        let rows = answers.iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let text = |row: &tokio_postgres::SimpleQueryRow, at| {
            row.get(at).map(str::to_owned).unwrap_or_default()
        };
        Ok(rows.map(|row| (0..row.len()).map(|at| text(row, at)).collect()).collect())
    }

    /// The only number of a query.
    pub(crate) fn number(&self, query: &str) -> Result<u64> {
        let rows = self.drafts_sql(query)?;
        Ok(rows.first().and_then(|row| row.first()).context("no answer")?.parse()?)
    }

    /// How often the server's log has these words.
    pub(crate) fn logged(&self, server: Server, words: &str) -> usize {
        self.servers.log(server).matches(words).count()
    }

    /// Sends a command to Redis.
    pub(crate) fn redis<T: redis::FromRedisValue>(&self, command: &[&str]) -> Result<T> {
        let client = redis::Client::open(format!("redis://{}/0", self.servers.address("redis")?))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        let (name, arguments) = command.split_first().context("no command")?;
        let mut call = redis::cmd(name);
        call.arg(arguments);
        Ok(call.query(&mut connection)?)
    }

    /// Sets how old a dead letter may be when it reaches the broker, in milliseconds: with 0 there
    /// is hardly one.
    pub(crate) fn dead_letters_no_older_than(&self, age_ms: &str) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> =
            client_config(&self.config.kafka).create()?;
        let topic = AlterConfig::new(ResourceSpecifier::Topic(&self.config.dead_letters.topic))
            .set("message.timestamp.before.max.ms", age_ms);
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        for altered in self.runtime.block_on(admin.alter_configs([&topic], &options))? {
            ensure!(altered.is_ok(), "{altered:?}");
        }
        Ok(())
    }

    pub(crate) fn all_instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().chain([&self.guest])
    }

    /// Does that while somebody looks after the instances, and leaves none of them running. An
    /// interruption ends the process, and nothing is left behind then either.
    pub(crate) fn tended<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let tending = scope.spawn(|| -> Result<()> {
                while !done.load(Ordering::Relaxed) {
                    self.all_instances().try_for_each(Instance::tend)?;
                    std::thread::sleep(Duration::from_millis(50));
                }
                Ok(())
            });
            // Also when the work panics: else the other thread would be waited for in vain.
            let result = catch_unwind(AssertUnwindSafe(work));
            done.store(true, Ordering::Relaxed);
            let tended = tending.join().expect("who looks after the instances does not panic");
            result
                .unwrap_or_else(|panic| resume_unwind(panic))
                .and_then(|done| tended.map(|()| done))
        })
    }

    /// Starts both, and waits until both have partitions.
    pub(crate) fn start_instances(&self) -> Result<()> {
        self.instances.iter().for_each(Instance::start);
        eventually("both instances have partitions", || {
            self.instances.iter().all(Instance::has_started)
        })
    }
}

fn environment(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    let always = [
        ("RUN__WORKERS", "2"),
        ("RUN__DRAIN_TIMEOUT_S", "10"),
        // Short, so that a run of a minute sees many of them.
        ("DATABASE__STATEMENT_TIMEOUT_MS", "5000"),
        ("DATABASE__LOCK_TIMEOUT_MS", "300"),
        ("CACHE__TIMEOUT_MS", "2000"),
        // Watched, as in earnest.
        ("HTTP__LISTEN", "127.0.0.1:0"),
    ];
    let all = always.iter().chain(settings);
    all.map(|(name, value)| (format!("CONTENTFLOW_{name}"), (*value).to_owned())).collect()
}
