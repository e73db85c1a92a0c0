//! Servers of our own, which may be killed and frozen: a private `dev/stack`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::link::{Link, Protocol};
use crate::{eventually, say};

/// One of the three servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Kafka,
    Postgres,
    Redis,
}

impl Server {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Server::Kafka => "kafka",
            Server::Postgres => "postgres",
            Server::Redis => "redis",
        }
    }
}

/// The servers. They are stopped, and their data deleted, when this is dropped.
pub(crate) struct Servers {
    pub(crate) directory: PathBuf,
    /// The way of both instances to Kafka.
    pub(crate) kafka: Arc<Link>,
    /// Two calls in one directory would stop each other's servers.
    _lock: File,
}

impl Servers {
    /// Starts all of them, and stops before what a run that was killed has left behind.
    pub(crate) fn start(directory: &Path) -> Result<Servers> {
        fs::create_dir_all(directory)?;
        let lock = File::create(directory.join("chaos.lock"))?;
        lock.try_lock().context("another run is using these servers")?;
        let kafka = Link::new(Protocol::Kafka)?;
        let servers = Servers { directory: directory.to_owned(), kafka, _lock: lock };
        servers.stack("down")?;
        servers.up()?;
        servers.kafka.lead_to(&servers.address("kafka-proxied")?);
        Ok(servers)
    }

    /// Starts what does not run.
    pub(crate) fn up(&self) -> Result<()> {
        self.stack("up")
    }

    fn stack(&self, command: &str) -> Result<()> {
        let log =
            File::options().create(true).append(true).open(self.directory.join("stack.log"))?;
        let status = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/dev/stack"))
            .arg(command)
            .env("CONTENTFLOW_STACK_DIR", &self.directory)
            .env("CONTENTFLOW_STACK_KAFKA_PROXY", self.kafka.address())
            // Servers that are there already are not for us to kill.
            .env_remove("KAFKA_BROKERS")
            .env_remove("DATABASE_URL")
            .env_remove("REDIS_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .status()?;
        ensure!(
            status.success(),
            "dev/stack {command}: {status}, see {}",
            self.directory.display()
        );
        Ok(())
    }

    /// The address that a port of the stack has.
    pub(crate) fn address(&self, port: &str) -> Result<String> {
        let file = self.directory.join(format!("{port}.port"));
        let port = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(format!("127.0.0.1:{}", port.trim()))
    }

    /// What the server has logged so far.
    pub(crate) fn log(&self, server: Server) -> String {
        let log = fs::read(self.directory.join(format!("{}.log", server.name())));
        log.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The server's first process.
    pub(crate) fn process(&self, server: Server) -> Result<u32> {
        let file = self.directory.join(format!("{}.pid", server.name()));
        let recorded = fs::read_to_string(file)?;
        let id = recorded.split(' ').next().and_then(|id| id.parse().ok());
        match id {
            Some(id) if state(id).is_some() => Ok(id),
            _ => bail!("{} is not running", server.name()),
        }
    }

    /// Sends a signal that ends the server, and waits until it is gone.
    pub(crate) fn end(&self, server: Server, signal: &str) -> Result<()> {
        let process = self.process(server)?;
        send(signal, &[process]);
        eventually(&format!("{} has ended", server.name()), || state(process).is_none())
    }

    /// Stops all processes of the server, until the result is dropped.
    pub(crate) fn freeze(&self, server: Server) -> Result<Frozen> {
        let process = self.process(server)?;
        Frozen::new(move || [vec![process], children(process)].concat())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Err(error) = self.stack("down") {
            say(&format!("servers are left behind: {error:#}"));
        }
    }
}

/// Stopped processes. They go on when this is dropped.
pub(crate) struct Frozen(Vec<u32>);

impl Frozen {
    /// Freezes these processes, and those that they have started meanwhile.
    pub(crate) fn new(processes: impl Fn() -> Vec<u32>) -> Result<Frozen> {
        let mut frozen = Frozen(Vec::new());
        loop {
            let mut more = processes();
            more.retain(|process| !frozen.0.contains(process));
            if more.is_empty() {
                break;
            }
            send("STOP", &more);
            frozen.0.extend(more);
        }
        let first = *frozen.0.first().context("nothing to freeze")?;
        eventually("it is frozen", || state(first).is_none_or(|state| state == 'T'))?;
        ensure!(state(first).is_some(), "it ended before it was frozen");
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        send("CONT", &self.0);
    }
}

/// Sends a signal to processes of ours.
pub(crate) fn send(signal: &str, processes: &[u32]) {
    for process in processes {
        // One that has just ended is fine.
        let kill = format!("kill -s {signal} {process} 2>/dev/null || true");
        drop(Command::new("sh").args(["-c", &kill]).status());
    }
}

/// The state of a process, as /proc has it. None for one that is gone, or only waited for.
fn state(process: u32) -> Option<char> {
    let (state, _) = stat(process)?;
    (state != 'Z').then_some(state)
}

/// The state of a process, and its parent.
fn stat(process: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The processes that a process has started.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|process| stat(*process).is_some_and(|(_, of)| of == parent)).collect()
}

/// The most memory that a process has had, in kB.
pub(crate) fn peak_rss_kb(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// How long the fault of an outage may take to show, or a server to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
