//! A PostgreSQL server of a test's own, which `dev/stack` starts and stops.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::super::{eventually, given};
use super::{Frozen, children, signal};

/// A PostgreSQL server. Stopped and deleted when it is dropped.
pub(crate) struct Postgres {
    /// The address of its first database.
    pub(crate) url: String,
    stack: TempDir,
}

impl Postgres {
    pub(crate) fn start() -> Postgres {
        let mut server = Postgres { url: String::new(), stack: TempDir::new().unwrap() };
        server.stack("up");
        let environment = server.stack("env");
        let url = environment.lines().find_map(|line| line.strip_prefix("export DATABASE_URL="));
        server.url = url.expect("dev/stack tells its address").to_owned();
        server
    }

    /// Runs `dev/stack` for this server alone: the others are taken for somebody else's.
    fn stack(&self, command: &str) -> String {
        let stack = concat!(env!("CARGO_MANIFEST_DIR"), "/dev/stack");
        let output = Command::new(stack)
            .arg(command)
            .env("CONTENTFLOW_STACK_DIR", self.stack.path())
            .env("KAFKA_BROKERS", given("KAFKA_BROKERS"))
            .env("REDIS_URL", given("REDIS_URL"))
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "dev/stack {command}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The postmaster.
    pub(crate) fn pid(&self) -> u32 {
        let recorded = fs::read_to_string(self.stack.path().join("postgres.pid")).unwrap();
        recorded.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.stack.path().join("postgres.log")).unwrap()
    }

    /// Where its data is.
    pub(crate) fn data(&self) -> PathBuf {
        let elsewhere = fs::read_to_string(self.stack.path().join("postgres.home"));
        let home = elsewhere.map_or_else(
            |_| self.stack.path().join("postgres"),
            |home| PathBuf::from(home.trim_end()),
        );
        home.join("data")
    }

    /// Copies a file to its data, under that name, so that the server and nobody else can read it.
    pub(crate) fn give(&self, file: &Path, name: &str) {
        let data = self.data();
        let copy = data.join(name);
        fs::copy(file, &copy).unwrap();
        let owner = format!("--reference={}", data.display());
        assert!(Command::new("chown").arg(owner).arg(&copy).status().unwrap().success());
        assert!(Command::new("chmod").arg("600").arg(&copy).status().unwrap().success());
    }

    /// Freezes the server with all its processes: connections are taken by the kernel, and nobody
    /// answers.
    pub(crate) fn freeze(&self) -> Frozen {
        // First the one that would start more of them.
        let postmaster = Frozen::freeze(&[self.pid()]);
        let mut frozen = Frozen::freeze(&children(self.pid()));
        frozen.0.extend(postmaster.0.iter().copied());
        std::mem::forget(postmaster);
        frozen
    }

    /// Ends the server with a signal (INT is the fast shutdown), and waits until it is gone.
    pub(crate) fn end(&self, name: &str) {
        let (postmaster, sessions) = (self.pid(), children(self.pid()));
        signal(&[postmaster], name);
        let is_there = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
        };
        eventually("the server is gone", || {
            !is_there(&postmaster) && !sessions.iter().any(is_there)
        });
    }

    /// Starts the server again, with its data and at its old address.
    pub(crate) fn start_again(&self) {
        self.stack("up");
        let environment = self.stack("env");
        assert!(environment.contains(&self.url), "another address: {environment}");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stack("down");
            return;
        }
        // A second panic would abort, and leave the other servers behind.
        drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.stack("down"))));
    }
}
