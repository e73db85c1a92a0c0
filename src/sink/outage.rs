//! Holding while a server is away: an outage is not bad data, so nothing is charged to any event.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::OnOutage;
use crate::retry::Backoff;
use crate::shutdown::Abort;

/// The first wait in an outage, milliseconds: short enough that a restart of the server costs little.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// What an effect does when its server is away.
#[derive(Clone, Debug)]
pub struct OutagePolicy {
    /// Wait for the server, or end the process.
    pub on_outage: OnOutage,
    /// Ends the process.
    pub abort: Arc<Abort>,
}

/// One outage, from the first failure to the next success.
#[derive(Debug)]
pub struct Outage<'a> {
    dependency: &'static str,
    policy: &'a OutagePolicy,
    since: Option<Instant>,
    backoff: Backoff,
}

impl<'a> Outage<'a> {
    /// No outage yet of the server that goes by that name.
    pub fn none(dependency: &'static str, policy: &'a OutagePolicy) -> Outage<'a> {
        Outage { dependency, policy, since: None, backoff: Backoff::new(FIRST_WAIT) }
    }

    /// Notes a failure and waits before the next try; with `on_outage = "exit"`, ends the process instead.
    pub async fn hold(&mut self, error: &impl Display) {
        let dependency = self.dependency;
        if self.policy.on_outage == OnOutage::Exit {
            self.policy.abort.outage(format!("{dependency} is out: {error}"));
        }
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::warn!(dependency, %error, "held: waiting for the server, no event is charged for it");
        }
        self.backoff.wait().await;
    }

    /// How many times it was waited for.
    pub fn tries(&self) -> u32 {
        self.backoff.tries()
    }

    /// Notes a success.
    pub fn over(&mut self) {
        if let Some(since) = self.since.take() {
            let held_s = since.elapsed().as_secs_f64();
            tracing::info!(dependency = self.dependency, held_s, "resumed");
            self.backoff = Backoff::new(FIRST_WAIT);
        }
    }
}
