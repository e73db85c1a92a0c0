//! The program as it is installed: a process of its own, which reports when it is done.

use std::io::{Read, Seek};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;

use super::process::{Usage, wait};
use super::servers::Servers;
use super::settings::WORKERS;

/// Runs a command on the topic to its end. Returns its report, what it used, and what it logged.
pub(crate) fn run<R: DeserializeOwned>(
    servers: &Servers,
    topic: &str,
    arguments: &[&str],
) -> anyhow::Result<(R, Usage, String)> {
    let mut log = tempfile::tempfile()?;
    let child = command(servers, topic, arguments)
        .stdout(Stdio::piped())
        .stderr(log.try_clone()?)
        .spawn()
        .context("the program does not start")?;
    let (output, usage) = wait(child)?;
    let mut logged = String::new();
    log.rewind()?;
    log.read_to_string(&mut logged)?;
    ensure!(output.status.success(), "the program failed: {}", logged.trim());
    let report = serde_json::from_slice(&output.stdout).context("the report")?;
    Ok((report, usage, logged))
}

/// A command on the topic.
pub(crate) fn command(servers: &Servers, topic: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(&servers.program);
    command
        .args(arguments)
        .envs(servers.environment.iter().map(|(name, value)| (name, value)))
        .env("CONTENTFLOW_KAFKA__TOPIC", topic)
        .env("CONTENTFLOW_DEAD_LETTERS__TOPIC", &servers.config.dead_letters.topic)
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// The pipeline at work on a topic, as a process of its own, until it is dropped.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(servers: &Servers, topic: &str, group: &str) -> anyhow::Result<Running> {
        let workers = WORKERS.to_string();
        let arguments = ["run", "--group", group, "--workers", &workers];
        let child = command(servers, topic, &arguments).spawn();
        Ok(Running(child.context("the program does not start")?))
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing of it is needed any more.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
