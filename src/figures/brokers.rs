//! What the Kafka client says of the brokers, once a second: whether they are there, and where the
//! partitions end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::statistics::{Broker, Partition, Statistics};

use super::calls::{Health, PATIENCE};

use crate::lock::lock;

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
    fetched: u64,
    is_known: bool,
    /// Since when something is wrong, and what.
    held: Option<(Instant, String)>,
}

impl Brokers {
    fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }

    /// Takes in what the client tells.
    pub fn note(&self, statistics: &Statistics, topic: &str) {
        let partitions = statistics.topics.get(topic).map(|topic| &topic.partitions);
        let partitions: BTreeMap<i32, &Partition> = partitions
            .into_iter()
            .flatten()
            .filter(|(number, _)| **number >= 0)
            .map(|(number, it)| (*number, it))
            .collect();
        let ends = partitions.iter().filter(|(_, it)| it.hi_offset >= 0);
        let ends = ends.map(|(number, it)| (*number, it.hi_offset)).collect();
        let fetched = partitions.values().map(|it| u64::try_from(it.fetchq_cnt).unwrap_or(0)).sum();
        let wrong = complaint(statistics.brokers.values()).or_else(|| leaderless(&partitions));
        let mut told = self.told();
        (told.ends, told.fetched) = (ends, fetched);
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

    /// How many records the client has fetched ahead.
    pub fn fetched(&self) -> u64 {
        self.told().fetched
    }

    /// How the brokers are.
    pub fn health(&self) -> Health {
        let told = self.told();
        match &told.held {
            // Before the first connection there is always none; later, one that is made again
            // within a second is no news.
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

/// What is wrong with the brokers that lead partitions of ours; before any is known, with those
/// that were configured.
fn complaint<'a>(all: impl Iterator<Item = &'a Broker>) -> Option<String> {
    let (leaders, others): (Vec<_>, Vec<_>) = all
        .filter(|broker| broker.source != "logical" && broker.source != "internal")
        .partition(|broker| broker.nodeid >= 0 && !broker.toppars.is_empty());
    if leaders.is_empty() {
        let is_one_up = others.iter().any(|broker| is_up(broker));
        let first = others.first().filter(|_| !is_one_up)?;
        return Some(format!("no broker is connected: {}", told_of(first)));
    }
    // A broker that has been asked for records answers within half a second, if only that there are
    // none.
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

/// A partition of ours that nobody has: its topic is gone, or its broker and all copies.
fn leaderless(partitions: &BTreeMap<i32, &Partition>) -> Option<String> {
    let without = |it: &Partition| it.desired && (it.unknown || it.leader < 0);
    let (number, _) = partitions.iter().find(|(_, it)| without(it))?;
    Some(format!("partition {number} has no leader"))
}

fn told_of(broker: &Broker) -> String {
    // librdkafka's states: a connection that is being made stands for what it waits for.
    let state = match broker.state.as_str() {
        "INIT" | "DOWN" => "is not connected".to_owned(),
        "TRY_CONNECT" | "CONNECT" => "cannot be reached".to_owned(),
        "SSL_HANDSHAKE" => "does not finish the TLS handshake".to_owned(),
        "APIVERSION_QUERY" => "is connected, and does not answer".to_owned(),
        "AUTH_LEGACY" | "AUTH_HANDSHAKE" | "AUTH_REQ" | "REAUTH" => {
            "does not finish the authentication".to_owned()
        }
        other => format!("is {}", other.to_lowercase().replace('_', " ")),
    };
    format!("broker {} {state}", broker.nodename)
}

fn micros(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::{Topic, TopicPartition};

    use super::*;

    fn broker(nodeid: i32, state: &str, leads: bool) -> Broker {
        let toppars = leads.then(|| ("t-0".to_owned(), TopicPartition::default()));
        Broker {
            nodeid,
            nodename: format!("host:{nodeid}"),
            source: if nodeid < 0 { "configured" } else { "learned" }.to_owned(),
            state: state.to_owned(),
            toppars: toppars.into_iter().collect(),
            ..Broker::default()
        }
    }

    fn told(brokers: &[Broker]) -> Option<String> {
        complaint(brokers.iter())
    }

    #[test]
    fn a_broker_counts_when_it_leads_a_partition_of_ours() {
        assert_eq!(told(&[]), None, "nothing is known");
        let away = told(&[broker(-1, "CONNECT", false)]);
        assert_eq!(
            away.as_deref(),
            Some("no broker is connected: broker host:-1 cannot be reached")
        );
        assert_eq!(told(&[broker(-1, "DOWN", false), broker(1, "UP", false)]), None);
        assert_eq!(told(&[broker(-1, "DOWN", false), broker(1, "UP", true)]), None);
        assert_eq!(told(&[broker(2, "DOWN", false), broker(1, "UP", true)]), None, "another's");
        let down = told(&[broker(2, "APIVERSION_QUERY", true), broker(1, "UP", true)]);
        assert_eq!(down.as_deref(), Some("broker host:2 is connected, and does not answer"));
    }

    #[test]
    fn one_that_does_not_answer_is_silent_and_one_that_is_not_asked_is_not() {
        let waiting =
            |waitresp_cnt, rxidle| Broker { waitresp_cnt, rxidle, ..broker(1, "UP", true) };
        assert_eq!(told(&[waiting(1, 600_000)]), None, "a fetch may take half a second");
        assert_eq!(told(&[waiting(0, 60_000_000)]), None, "paused");
        let silent = told(&[waiting(1, 2_400_000)]);
        assert_eq!(silent.as_deref(), Some("broker host:1: no answer for 2.4 s"));
    }

    #[test]
    fn the_ends_are_of_the_topic_and_a_partition_without_a_leader_is_told() {
        let brokers = Brokers::default();
        let partition = |leader, hi_offset| Partition {
            leader,
            hi_offset,
            fetchq_cnt: 7,
            desired: true,
            ..Partition::default()
        };
        // -1 is where the client keeps what has no partition yet.
        let partitions = [(-1, partition(-1, 9)), (0, partition(1, 5)), (1, partition(1, -1001))];
        let topic = |partitions: &[(i32, Partition)]| Topic {
            partitions: partitions.iter().cloned().collect(),
            ..Topic::default()
        };
        let of = |topic| Statistics {
            topics: [("t".to_owned(), topic)].into(),
            ..Statistics::default()
        };
        brokers.note(&of(topic(&partitions)), "t");
        assert_eq!((brokers.end(0), brokers.end(1), brokers.end(-1)), (Some(5), None, None));
        assert_eq!((brokers.fetched(), brokers.health()), (14, Health::Up));
        brokers.note(&of(topic(&[(0, partition(-1, 5))])), "t");
        assert_eq!(brokers.told().held.clone().unwrap().1, "partition 0 has no leader");
        assert_eq!(brokers.health(), Health::Up, "within a second it may have another");
    }
}
