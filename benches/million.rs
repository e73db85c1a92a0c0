//! A million events through the real program on real servers, compared with a fold over the topic,
//! row by row; once undisturbed, and once with `kill -9` at random moments.
//!
//! `make million`; `EVENTS` (default 1,000,000), `KILLS` (10) and `SEED` (random, printed) change
//! it. Ends with exit code 1 if a row is wrong, the report does not add up, or an offset is not
//! committed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use contentflow::clock::now_ms;
use contentflow::config::{Config, Overrides};
use contentflow::drafts::Rows;
use contentflow::generate::{DraftIds, Mix};
use contentflow::kafka::Admin;
use contentflow::publish::publish_generated;
use contentflow::{kafka, migrate};
use dataflows::reject::Reason;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};

#[path = "../tests/oracle.rs"]
mod oracle;

use oracle::{Difference, Oracle};

const PARTITIONS: i32 = 4;
const WORKERS: &str = "2";
/// Longer than any of the runs takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let number = |name: &str, default: u64| -> Result<u64> {
        std::env::var(name).map_or(Ok(default), |text| {
            text.parse().with_context(|| format!("{name} is no number"))
        })
    };
    let (events, kills) = (number("EVENTS", 1_000_000)?, number("KILLS", 10)?);
    let seed = number("SEED", fastrand::u64(..1_000_000))?;
    say(&format!("{events} events over as many drafts, {kills} kills, SEED={seed}"));
    fastrand::seed(seed);
    let runtime = tokio::runtime::Runtime::new()?;
    let world = World::make(seed, &runtime)?;
    let result = prove(&world, &runtime, Mix { seed, ..mix(events) }, kills);
    world.unmake(&runtime);
    result
}

fn mix(events: u64) -> Mix {
    Mix {
        events,
        drafts: events,
        duplicates: 0.05,
        stale: 0.02,
        bad: 0.001,
        foreign: 0.02,
        start_ms: now_ms(),
        ..Mix::default()
    }
}

fn prove(world: &World, runtime: &tokio::runtime::Runtime, mix: Mix, kills: u64) -> Result<()> {
    let published =
        publish_generated(&world.config("undisturbed")?.kafka, mix.clone(), None, &mut |_| {})?;
    say(&format!("published {} events, {:?}", published.events, published.by_kind));
    let oracle = fold_topic(&world.config("undisturbed")?)?;
    for (run, kills) in [("undisturbed", 0), ("killed", kills)] {
        let config = world.config(run)?;
        runtime.block_on(prepare(&config, &world.admin_url, mix.drafts))?;
        for kill in 1..=kills {
            let mut child = world.start(run)?;
            // A whole run takes 10 to 40 s, so that ten lives end all over it.
            until_assigned(&mut child)?;
            let life = Duration::from_millis(fastrand::u64(100..3_000));
            std::thread::sleep(life);
            child.kill()?;
            child.wait()?;
            say(&format!("{run}: kill -9 number {kill} after {} ms", life.as_millis()));
        }
        let report = world.finish(run)?;
        say(&format!("{run}: {report}"));
        let Difference { wrong_rows: wrong, lost_jobs } =
            runtime.block_on(oracle.compare(&config))?;
        let lag = lag(&config)?;
        say(&format!(
            "{run}: {} rows, {wrong} differ from the fold, {lost_jobs} jobs lost, lag {lag}",
            mix.drafts
        ));
        ensure!(wrong == 0 && lag == 0, "{run}: the run does not end as it must");
    }
    Ok(())
}

/// Waits until the program has its partitions: killed before, it would have done nothing.
fn until_assigned(child: &mut Child) -> Result<()> {
    let log = BufReader::new(child.stderr.take().context("the program's log")?);
    let assigned = log.lines().map_while(Result::ok).any(|line| line.contains("assigned"));
    ensure!(assigned, "the program ended before it had partitions");
    Ok(())
}

/// Events for drafts that nobody made are dead letters.
fn fold_topic(config: &Config) -> Result<Oracle> {
    let mut oracle = Oracle::default();
    oracle::read(&config.kafka, &config.kafka.topic, |message| {
        oracle.judge(message, |draft| {
            draft.starts_with("no-such-draft").then_some(Reason::UnknownDraft)
        });
    })?;
    Ok(oracle)
}

fn lag(config: &Config) -> Result<i64> {
    let mut client = kafka::client_config(&config.kafka);
    let consumer: BaseConsumer = client.set("group.id", &config.kafka.group).create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(&config.kafka.topic, 0, PARTITIONS - 1);
    let committed = consumer.committed_offsets(partitions, Duration::from_secs(10))?;
    let mut lag = 0;
    for element in committed.elements() {
        let (low, high) = consumer.fetch_watermarks(
            element.topic(),
            element.partition(),
            Duration::from_secs(10),
        )?;
        lag += high - element.offset().to_raw().filter(|offset| *offset >= 0).unwrap_or(low);
    }
    Ok(lag)
}

async fn prepare(config: &Config, admin_url: &str, drafts: u64) -> Result<()> {
    let name = config.database.url.expose().rsplit('/').next().unwrap_or_default();
    execute(admin_url, &format!("CREATE DATABASE {name}")).await?;
    migrate::run(config, &mut std::io::sink()).await?;
    let rows = Rows::connect(&config.database).await?;
    rows.create_generated(drafts, DraftIds::Text, |_| {}).await?;
    Ok(())
}

async fn execute(url: &str, sql: &str) -> Result<()> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client.batch_execute(sql).await?)
}

/// A topic of its own, and a database and a group for each run.
struct World {
    name: String,
    admin_url: String,
    redis_url: String,
}

impl World {
    fn make(seed: u64, runtime: &tokio::runtime::Runtime) -> Result<World> {
        let missing = |name: &str| {
            format!("{name} is not set: run it as `dev/stack run -- cargo bench --bench million`")
        };
        let variable = |name: &str| std::env::var(name).with_context(|| missing(name));
        variable("KAFKA_BROKERS")?;
        let name = format!("million_{}_{seed}", std::process::id());
        let world =
            World { name, admin_url: variable("DATABASE_URL")?, redis_url: variable("REDIS_URL")? };
        let config = world.config("undisturbed")?;
        let admin = Admin::new(&config.kafka)?;
        runtime.block_on(admin.ensure_topic(&config.kafka.topic, PARTITIONS))?;
        runtime.block_on(admin.ensure_topic(&config.dead_letters.topic, 1))?;
        Ok(world)
    }

    fn unmake(&self, runtime: &tokio::runtime::Runtime) {
        for run in ["undisturbed", "killed"] {
            let sql = format!("DROP DATABASE IF EXISTS {}_{run} WITH (FORCE)", self.name);
            if let Err(error) = runtime.block_on(execute(&self.admin_url, &sql)) {
                say(&format!("{}_{run} is left behind: {error}", self.name));
            }
        }
        let topics = || -> Result<()> {
            let config = self.config("undisturbed")?;
            let admin = Admin::new(&config.kafka)?;
            Ok(runtime.block_on(
                admin.delete_topics(&[&config.kafka.topic, &config.dead_letters.topic]),
            )?)
        };
        if let Err(error) = topics() {
            say(&format!("the topics are left behind: {error}"));
        }
    }

    fn settings(&self, run: &str) -> Vec<(String, String)> {
        let (server, _database) = self.admin_url.rsplit_once('/').unwrap_or((&self.admin_url, ""));
        [
            ("CONTENTFLOW_KAFKA__TOPIC", self.name.clone()),
            ("CONTENTFLOW_KAFKA__GROUP", format!("{}_{run}", self.name)),
            ("CONTENTFLOW_DATABASE__URL", format!("{server}/{}_{run}", self.name)),
            ("CONTENTFLOW_CACHE__URL", self.redis_url.clone()),
            ("CONTENTFLOW_HTTP__LISTEN", "off".to_owned()),
            // A killed process is forgotten by its group soon.
            ("CONTENTFLOW_KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", "6000".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn config(&self, run: &str) -> Result<Config> {
        let environment =
            std::env::vars().filter(|(name, _)| name == "KAFKA_BROKERS").chain(self.settings(run));
        Ok(Config::load_from(
            None,
            Path::new("no-such-file.toml"),
            environment,
            Overrides::default(),
        )?)
    }

    fn start(&self, run: &str) -> Result<Child> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_contentflow"));
        command
            .args(["run", "--until-caught-up", "-w", WORKERS, "--report", "json"])
            .envs(self.settings(run));
        Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Runs to the end and returns the report.
    fn finish(&self, run: &str) -> Result<String> {
        let began = Instant::now();
        let mut child = self.start(run)?;
        while child.try_wait()?.is_none() {
            if began.elapsed() > PATIENCE {
                child.kill()?;
                bail!("{run}: not finished within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{run}: {}", output.status);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let count = |name: &str| report[name].as_u64().unwrap_or_default();
        let outcomes = ["applied", "duplicate", "superseded", "skipped", "rejected"].map(count);
        ensure!(
            count("read") == outcomes.iter().sum::<u64>(),
            "{run}: the report does not add up: {report}"
        );
        Ok(report.to_string())
    }
}

fn say(line: &str) {
    // Whoever closed the output does not want to read it.
    let _closed = writeln!(std::io::stdout(), "{line}").is_err();
}
