//! What the Kafka client says of the brokers, once a second: whether they are there, and where the partitions end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::statistics::{Broker, Statistics};

use super::calls::{Health, PATIENCE};

/// How often the client tells, milliseconds.
pub const EVERY_MS: &str = "1000";

/// What the client has told last.
#[derive(Debug, Default)]
pub struct Brokers {
    told: Mutex<Told>,
    errors: AtomicU64,
}

#[derive(Debug, Default)]
struct Told {
    ends: BTreeMap<i32, i64>,
    is_known: bool,
    /// Since when something is wrong, and what.
    held: Option<(Instant, String)>,
}

impl Brokers {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the client tells.
    pub fn note(&self, statistics: &Statistics, topic: &str) {
        let partitions = statistics.topics.get(topic).map(|topic| &topic.partitions);
        let ends = partitions.into_iter().flatten().filter(|(_, it)| it.hi_offset >= 0);
        let ends = ends.map(|(number, it)| (*number, it.hi_offset)).collect();
        let wrong = complaint(statistics.brokers.values());
        let mut told = self.told();
        told.ends = ends;
        told.is_known |= wrong.is_none();
        told.held = match (wrong, told.held.take()) {
            (Some(what), Some((since, _))) => Some((since, what)),
            (Some(what), None) => Some((Instant::now(), what)),
            (None, _) => None,
        };
    }

    /// Notes an error that the client reports.
    pub fn note_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// How many errors the client has reported.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// The offset that the next record of a partition will have, as far as the client knows.
    pub fn end(&self, partition: i32) -> Option<i64> {
        self.told().ends.get(&partition).copied()
    }

    /// How the brokers are.
    pub fn health(&self) -> Health {
        let told = self.told();
        match &told.held {
            // Before the first connection there is always none; later, one that is made again within a second is no news.
            Some((since, error)) if since.elapsed() > patience(told.is_known) => Health::Held {
                held: since.elapsed(),
                error: error.clone(),
                tries: 0,
                retry_in: None,
            },
            _ if told.is_known => Health::Up,
            _ => Health::Unknown,
        }
    }
}

fn patience(is_known: bool) -> Duration {
    if is_known { PATIENCE / 2 } else { PATIENCE }
}

fn is_up(broker: &Broker) -> bool {
    matches!(broker.state.as_str(), "UP" | "UPDATE")
}

/// What is wrong with the brokers that lead partitions of ours; before any is known, with those that were configured.
fn complaint<'a>(all: impl Iterator<Item = &'a Broker>) -> Option<String> {
    let (leaders, others): (Vec<_>, Vec<_>) = all
        .filter(|broker| broker.source != "logical" && broker.source != "internal")
        .partition(|broker| broker.nodeid >= 0 && !broker.toppars.is_empty());
    if leaders.is_empty() {
        let is_one_up = others.iter().any(|broker| is_up(broker));
        let first = others.first().filter(|_| !is_one_up)?;
        return Some(format!("no broker is connected: {}", told_of(first)));
    }
    // A broker that has been asked for records answers within half a second, if only that there are none.
    let is_silent = |broker: &&&Broker| broker.waitresp_cnt > 0 && micros(broker.rxidle) > PATIENCE;
    if let Some(broker) = leaders.iter().find(|broker| !is_up(broker)) {
        return Some(told_of(broker));
    }
    let silent = leaders.iter().filter(is_silent).max_by_key(|broker| broker.rxidle)?;
    Some(format!(
        "broker {}: no answer for {:.1} s",
        silent.nodename,
        micros(silent.rxidle).as_secs_f64()
    ))
}

fn told_of(broker: &Broker) -> String {
    let state = broker.state.to_lowercase().replace('_', " ");
    format!("broker {} is {state}", broker.nodename)
}

fn micros(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
