//! The program as it is installed: a process of its own, which reports when it is done.

use std::io::{Read, Seek};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;

use super::process::{Usage, wait};
use super::servers::Servers;

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
    let mut command = Command::new(env!("CARGO_BIN_EXE_contentflow"));
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
