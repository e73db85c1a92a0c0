//! Whether the servers are there, and whether the threads go on.

use std::time::{Duration, Instant};

use crate::figures::calls::{Health, PATIENCE};
use crate::figures::{Figures, Server};

/// How much longer than a row may stay locked its batch may take, until the database passes for
/// held.
const GRACE: Duration = Duration::from_millis(250);

/// For how long a thread may stand still.
const STILL: Duration = Duration::from_secs(30);

/// A server that the work depends on.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// Its public name.
    pub name: &'static str,
    /// How it was when it was looked at last.
    pub health: Health,
    /// Since when it is so, if it is not held.
    since: Instant,
}

impl Dependency {
    fn new(name: &'static str) -> Dependency {
        Dependency { name, health: Health::Unknown, since: Instant::now() }
    }

    /// Whether the work waits for it.
    pub fn is_held(&self) -> bool {
        matches!(self.health, Health::Held { .. })
    }

    /// The state in one word, its public name.
    pub fn state(&self) -> &'static str {
        match self.health {
            Health::Unknown => "unknown",
            Health::Up => "up",
            Health::Held { .. } => "held",
        }
    }

    /// For how long it has been so.
    pub fn lasting(&self) -> Duration {
        match self.health {
            Health::Held { held, .. } => held,
            Health::Unknown | Health::Up => self.since.elapsed(),
        }
    }

    /// That it is held, in words.
    pub fn complaint(&self) -> Option<String> {
        match &self.health {
            Health::Held { held, error, .. } => {
                Some(format!("{} is held since {} s: {error}", self.name, held.as_secs()))
            }
            Health::Unknown | Health::Up => None,
        }
    }

    /// Takes in how it is now. Whether that is another state.
    fn note(&mut self, health: Health) -> bool {
        let has_changed = std::mem::discriminant(&self.health) != std::mem::discriminant(&health);
        if has_changed {
            self.since = Instant::now();
        }
        self.health = health;
        has_changed
    }
}

/// All of them.
pub(super) struct Dependencies {
    kafka: Dependency,
    servers: [Dependency; 3],
}

impl Default for Dependencies {
    fn default() -> Dependencies {
        Dependencies {
            kafka: Dependency::new("kafka"),
            servers: Server::ALL.map(|server| Dependency::new(server.name())),
        }
    }
}

impl Dependencies {
    /// Asks how they are, where a row may stay locked so long. Whether one has changed its state.
    pub(super) fn ask(&mut self, figures: &Figures, lock_timeout: Duration) -> bool {
        let mut has_changed = self.kafka.note(figures.brokers.health());
        for (dependency, server) in self.servers.iter_mut().zip(Server::ALL) {
            let patience = match server {
                Server::Database => PATIENCE.max(lock_timeout + GRACE),
                Server::Cache | Server::DeadLetters => PATIENCE,
            };
            has_changed |= dependency.note(figures.lanes(server).calls.health(patience));
        }
        has_changed
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Dependency> {
        std::iter::once(&self.kafka).chain(&self.servers)
    }
}

/// The threads that must go on, whatever the servers do.
pub(super) struct Pulses(Vec<Pulse>);

struct Pulse {
    who: String,
    turns: Option<u64>,
    since: Instant,
}

impl Pulses {
    pub(super) fn new(figures: &Figures) -> Pulses {
        let workers = (0..figures.workers().len()).map(|number| format!("worker {number}"));
        let all = std::iter::once("the poll thread".to_owned()).chain(workers);
        let pulse = |who| Pulse { who, turns: None, since: Instant::now() };
        Pulses(all.map(pulse).collect())
    }

    /// Feels them.
    pub(super) fn feel(&mut self, figures: &Figures) {
        // Before the run has begun no thread is there that could stand still.
        let polling = figures.poll_turns();
        let workers = figures.workers().iter().map(|worker| polling.map(|_| worker.turns()));
        for (pulse, turns) in self.0.iter_mut().zip(std::iter::once(polling).chain(workers)) {
            if pulse.turns != turns || turns.is_none() {
                (pulse.turns, pulse.since) = (turns, Instant::now());
            }
        }
    }

    /// Who stands still.
    pub(super) fn ills(&self) -> Vec<String> {
        let still = self.0.iter().filter(|pulse| pulse.since.elapsed() > STILL);
        still
            .map(|pulse| {
                let s = pulse.since.elapsed().as_secs();
                format!("{} has not taken a step for {s} s", pulse.who)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_thread_that_stands_still_is_ill_and_one_that_goes_on_is_not() {
        let figures = Figures::new(1);
        let mut pulses = Pulses::new(&figures);
        let long_ago = Instant::now().checked_sub(2 * STILL).unwrap();
        let age =
            |pulses: &mut Pulses| pulses.0.iter_mut().for_each(|pulse| pulse.since = long_ago);
        age(&mut pulses);
        pulses.feel(&figures);
        assert!(pulses.ills().is_empty(), "nothing runs yet");
        let turns = Arc::new(AtomicU64::new(0));
        figures.watch_polling(Arc::clone(&turns));
        pulses.feel(&figures);
        age(&mut pulses);
        turns.fetch_add(1, Ordering::Relaxed);
        pulses.feel(&figures);
        let ills = pulses.ills();
        assert!(
            ills.len() == 1 && ills[0].starts_with("worker 0 has not taken a step"),
            "{ills:?}"
        );
        figures.workers()[0].turn();
        pulses.feel(&figures);
        assert!(pulses.ills().is_empty());
    }
}
