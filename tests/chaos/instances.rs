//! The instances of the program, each with links of its own to PostgreSQL and Redis, started again
//! whenever they end.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::eventually;
use crate::link::{Link, Protocol};
use crate::servers::{Frozen, peak_rss_kb, send};

/// How soon an instance that could not start is started again.
const PAUSE: Duration = Duration::from_millis(500);

/// How an instance is to end, if it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Run,
    /// SIGKILL is sent.
    Die,
    /// SIGTERM is sent.
    Stop,
}

/// One of the instances, life after life.
pub(crate) struct Instance {
    name: &'static str,
    pub(crate) postgres: Arc<Link>,
    pub(crate) redis: Arc<Link>,
    environment: Vec<(String, String)>,
    logs: PathBuf,
    life: Mutex<Life>,
}

struct Life {
    child: Option<Child>,
    number: u32,
    order: Order,
    wanted: bool,
    ended: Instant,
    record: Record,
}

/// What was seen of an instance, over all of its lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) lives: u32,
    /// Starts that a server which was away has spoilt.
    pub(crate) failed_starts: u32,
    /// Stops during which a server was away for too long.
    pub(crate) undrained: u32,
    pub(crate) peak_rss_kb: u64,
    /// What must not happen.
    pub(crate) faults: Vec<String>,
}

impl Instance {
    pub(crate) fn new(
        name: &'static str,
        servers: [&str; 2],
        logs: &Path,
        environment: &[(String, String)],
    ) -> Result<Instance> {
        let postgres = Link::new(Protocol::Postgres)?;
        let redis = Link::new(Protocol::Redis)?;
        postgres.lead_to(servers[0]);
        redis.lead_to(servers[1]);
        let mut environment = environment.to_vec();
        let urls = [
            // In the clear, so that the link can tell one answer from another.
            (
                "DATABASE__URL",
                format!("postgres://contentflow@{}/chaos?sslmode=disable", postgres.address()),
            ),
            ("CACHE__URL", format!("redis://{}/0", redis.address())),
        ];
        environment.extend(urls.map(|(name, url)| (format!("CONTENTFLOW_{name}"), url)));
        let life = Life {
            child: None,
            number: 0,
            order: Order::Run,
            wanted: false,
            ended: Instant::now(),
            record: Record::default(),
        };
        let logs = logs.to_owned();
        Ok(Instance { name, postgres, redis, environment, logs, life: Mutex::new(life) })
    }

    /// Wants it to run, from now on.
    pub(crate) fn start(&self) {
        self.life.lock().unwrap().wanted = true;
    }

    /// Kills it (`KILL`) or asks it to stop (`TERM`), and wants it no more. False if it does not
    /// run.
    pub(crate) fn end(&self, signal: &str) -> bool {
        let mut life = self.life.lock().unwrap();
        let Some(process) = life.process() else { return false };
        life.wanted = false;
        life.order = if signal == "KILL" { Order::Die } else { Order::Stop };
        send(signal, &[process]);
        true
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.life.lock().unwrap().child.is_none()
    }

    /// Stops it at work, until the result is dropped.
    pub(crate) fn freeze(&self) -> Result<Frozen> {
        let process = self.life.lock().unwrap().process().context("it does not run")?;
        Frozen::new(|| vec![process])
    }

    /// Whether this life has partitions, or had.
    pub(crate) fn has_started(&self) -> bool {
        let number = self.life.lock().unwrap().number;
        self.log(number).contains("assigned partitions=")
    }

    /// How often partitions have come and gone in this life.
    pub(crate) fn rebalances(&self) -> usize {
        let log = self.log(self.life.lock().unwrap().number);
        ["assigned partitions=", "revoked partitions=", "lost: "]
            .iter()
            .map(|what| log.matches(what).count())
            .sum()
    }

    /// How often it has said so, in all of its lives.
    pub(crate) fn said(&self, words: &str) -> usize {
        let number = self.life.lock().unwrap().number;
        (1..=number).map(|number| self.log(number).matches(words).count()).sum()
    }

    pub(crate) fn record(&self) -> Record {
        self.life.lock().unwrap().record.clone()
    }

    /// Looks after it: notes how it ended, and starts it if it is wanted.
    pub(crate) fn tend(&self) -> Result<()> {
        let mut life = self.life.lock().unwrap();
        if let Some(child) = &mut life.child {
            let rss = peak_rss_kb(child.id()).unwrap_or(0);
            let status = child.try_wait()?;
            life.record.peak_rss_kb = life.record.peak_rss_kb.max(rss);
            if let Some(status) = status {
                let log = self.log(life.number);
                life.end(status, &log, self.name);
            }
        } else if life.wanted && life.ended.elapsed() > PAUSE {
            life.number += 1;
            life.record.lives += 1;
            life.order = Order::Run;
            life.child = Some(self.spawn(life.number)?);
        }
        Ok(())
    }

    fn spawn(&self, number: u32) -> Result<Child> {
        let file = |kind: &str| File::create(self.path(number, kind));
        Command::new(env!("CARGO_BIN_EXE_contentflow"))
            .args(["run", "--report", "json"])
            .env_clear()
            .envs(self.environment.iter().cloned())
            // Every second life fetches any backlog in bulk, the others none.
            .env("CONTENTFLOW_KAFKA__BULK_FETCH_MIN_RECORDS", (number % 2).to_string())
            // Were there a panic, it should show.
            .env("RUST_BACKTRACE", "1")
            .current_dir(&self.logs)
            .stdin(Stdio::null())
            .stdout(file("out")?)
            .stderr(file("log")?)
            .spawn()
            .context("the program cannot be started")
    }

    fn path(&self, number: u32, kind: &str) -> PathBuf {
        self.logs.join(format!("{}-{number:02}.{kind}", self.name))
    }

    fn log(&self, number: u32) -> String {
        fs::read_to_string(self.path(number, "log")).unwrap_or_default()
    }

    /// Asks it to stop while all is well: it must drain, report, and leave with success.
    pub(crate) fn stop(&self) -> Result<()> {
        ensure!(self.end("TERM"), "instance {} does not run", self.name);
        eventually("an instance stops", || self.is_gone())?;
        let life = self.life.lock().unwrap();
        let out = fs::read(self.path(life.number, "out"))?;
        let log = self.log(life.number);
        let report: serde_json::Value =
            serde_json::from_slice(&out).with_context(|| format!("no report:\n{log}"))?;
        let count = |name: &str| report[name].as_u64().unwrap_or_default();
        let outcomes = ["applied", "duplicate", "superseded", "skipped", "rejected"].map(count);
        ensure!(count("read") == outcomes.iter().sum::<u64>(), "it does not add up: {report}");
        Ok(())
    }
}

impl Life {
    /// The process, if it runs.
    fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Notes how the life has ended, and whether it may have ended so.
    fn end(&mut self, status: ExitStatus, log: &str, name: &str) {
        self.child = None;
        self.ended = Instant::now();
        let life = format!("instance {name}, life {}", self.number);
        for never in ["panicked", "backtrace", "internal error", "defect"] {
            if log.contains(never) {
                self.record.faults.push(format!("{life}: its log has \"{never}\""));
            }
        }
        match self.order {
            Order::Die if status.signal() == Some(9) => {}
            Order::Stop if status.success() => {}
            Order::Stop if status.code() == Some(1) && log.lines().any(tells_of_an_outage) => {
                self.record.undrained += 1;
            }
            // Before it had partitions: something could not be reached at its start.
            _ if matches!(status.code(), Some(1 | 75)) && !log.contains("assigned partitions=") => {
                self.record.failed_starts += 1;
            }
            order => {
                let last = log.lines().last().unwrap_or_default();
                self.record.faults.push(format!("{life}: {order:?}, but {status}: {last}"));
            }
        }
    }
}

/// Whether that is how a stop ends during which a server was away: PostgreSQL or Redis, or Kafka,
/// which then gives the partitions to others before the last commit has reached it.
fn tells_of_an_outage(line: &str) -> bool {
    ["not drained within", "kafka has not taken its offsets"].iter().any(|it| line.contains(it))
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(child) = &mut self.life.lock().unwrap().child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
