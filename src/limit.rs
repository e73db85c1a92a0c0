//! Which stage limits: the one that is at work for the greatest part of the time that it could be.

use std::time::Duration;

use serde::Serialize;

use crate::config::Config;
use crate::figures::workers::GraphStage;
use crate::figures::{Figures, Server};

/// How many there are that can be at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Worker threads.
    pub workers: usize,
    /// Connections to the database, of all workers together.
    pub connections: usize,
}

impl Capacity {
    /// What the configuration says.
    pub fn of(config: &Config) -> Capacity {
        let workers = config.run.workers;
        Capacity { workers, connections: workers * config.database.connections }
    }
}

/// How long each stage was at work, added up over its threads or lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    /// The poll thread.
    pub source: Duration,
    /// The worker threads, whatever they did.
    pub workers: Duration,
    /// The part of it that is decoding and validation.
    pub decode: Duration,
    /// The lanes that write rows.
    pub database: Duration,
    /// The lanes that delete keys.
    pub cache: Duration,
    /// The lanes that publish dead letters.
    pub dead_letters: Duration,
}

impl Times {
    /// What has been noted until now, and what the source took for itself.
    pub fn of(figures: &Figures, source: Duration) -> Times {
        let lanes = |server| figures.lanes(server).busy();
        Times {
            source,
            workers: figures.workers().iter().map(|worker| worker.awake()).sum(),
            decode: figures.workers().iter().map(|worker| worker.busy(GraphStage::Decode)).sum(),
            database: lanes(Server::Database),
            cache: lanes(Server::Cache),
            dead_letters: lanes(Server::DeadLetters),
        }
    }

    /// What has come since.
    pub fn since(self, earlier: Times) -> Times {
        Times {
            source: self.source.saturating_sub(earlier.source),
            workers: self.workers.saturating_sub(earlier.workers),
            decode: self.decode.saturating_sub(earlier.decode),
            database: self.database.saturating_sub(earlier.database),
            cache: self.cache.saturating_sub(earlier.cache),
            dead_letters: self.dead_letters.saturating_sub(earlier.dead_letters),
        }
    }
}

/// The part of its capacity that each stage was at work, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Shares {
    /// The poll thread, wherever it was not held back by the workers: the client and the brokers
    /// are in it.
    pub source: f64,
    /// The worker threads with decoding and validating.
    pub decode: f64,
    /// The worker threads with everything else: hand over, dedupe, group, keep track.
    pub exchange: f64,
    /// The connections to the database.
    pub database: f64,
    /// The connections to the cache.
    pub cache: f64,
    /// Publishing dead letters.
    pub dead_letters: f64,
}

/// A stage of the journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The poll thread, the client and the brokers.
    Source,
    /// Decoding and validating, on the workers.
    Decode,
    /// The rest that the workers do.
    Exchange,
    /// The connections to the database.
    Database,
    /// The connections to the cache.
    Cache,
    /// Publishing dead letters.
    DeadLetters,
}

impl Stage {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Source => "source",
            Stage::Decode => "decode",
            Stage::Exchange => "exchange",
            Stage::Database => "database",
            Stage::Cache => "cache",
            Stage::DeadLetters => "dead letters",
        }
    }
}

/// Below this share nothing is at work nearly all the time: the stages wait for one another.
const NEARLY_ALWAYS: f64 = 0.75;

impl Shares {
    /// The shares of a time of that length.
    pub fn new(times: Times, capacity: Capacity, elapsed: Duration) -> Shares {
        let Times { source, workers: awake, decode, database, cache, dead_letters } = times;
        let Capacity { workers, connections } = capacity;
        let share = |time: Duration, of: usize| {
            let capacity = elapsed.as_secs_f64() * f64::from(u32::try_from(of).unwrap_or(u32::MAX));
            (time.as_secs_f64() / capacity.max(1e-9)).min(1.0)
        };
        let decode = share(decode, workers);
        Shares {
            source: share(source, 1),
            decode,
            exchange: (share(awake, workers) - decode).max(0.0),
            database: share(database, connections),
            cache: share(cache, workers),
            dead_letters: share(dead_letters, workers),
        }
    }

    /// The mean of several.
    pub fn mean(all: &[Shares]) -> Shares {
        let count = f64::from(u32::try_from(all.len().max(1)).unwrap_or(u32::MAX));
        let mean = |of: fn(&Shares) -> f64| all.iter().map(of).sum::<f64>() / count;
        Shares {
            source: mean(|it| it.source),
            decode: mean(|it| it.decode),
            exchange: mean(|it| it.exchange),
            database: mean(|it| it.database),
            cache: mean(|it| it.cache),
            dead_letters: mean(|it| it.dead_letters),
        }
    }

    /// The stages in the order of the journey, each with its share.
    pub fn stages(&self) -> [(Stage, f64); 6] {
        let Shares { source, decode, exchange, database, cache, dead_letters } = *self;
        [
            (Stage::Source, source),
            (Stage::Decode, decode),
            (Stage::Exchange, exchange),
            (Stage::Database, database),
            (Stage::Cache, cache),
            (Stage::DeadLetters, dead_letters),
        ]
    }

    /// How much the worker threads are at work.
    pub fn workers(&self) -> f64 {
        (self.decode + self.exchange).min(1.0)
    }

    /// The stage that limits, and the share of its capacity. Decode and exchange share the workers:
    /// where those limit, the larger of the two is named.
    pub fn limit(&self) -> (Stage, f64) {
        let on_workers = if self.decode >= self.exchange { Stage::Decode } else { Stage::Exchange };
        let candidates = [
            (Stage::Source, self.source),
            (on_workers, self.workers()),
            (Stage::Database, self.database),
            (Stage::Cache, self.cache),
            (Stage::DeadLetters, self.dead_letters),
        ];
        let [first, rest @ ..] = candidates;
        rest.into_iter().fold(first, |most, next| if next.1 > most.1 { next } else { most })
    }

    /// The limit in words.
    pub fn words(&self, capacity: Capacity) -> String {
        let (stage, share) = self.limit();
        let Capacity { workers, connections } = capacity;
        let percent = percent(share);
        let plural = |count: usize, word: &str| {
            let (s, are) = if count == 1 { ("", "is") } else { ("s", "are") };
            format!("{count} {word}{s}{{}} {are} at work for {percent} of the time")
        };
        let threads = plural(workers, "worker thread").replace("{}", "");
        let lanes = |count| plural(count, "connection").replace("{}", " to it");
        match stage {
            Stage::Source => format!(
                "source. For {percent} of the time the poll thread is not waiting for anything behind it."
            ),
            Stage::Decode => {
                format!("decode. The {threads}, most of it reading and checking JSON.")
            }
            Stage::Exchange => format!(
                "exchange. The {threads}, most of it bringing together the events of each draft."
            ),
            Stage::Database => format!("database. The {}.", lanes(connections)),
            Stage::Cache => format!("cache. The {}.", lanes(workers)),
            Stage::DeadLetters => {
                format!("dead letters. Publishing them takes {percent} of the time.")
            }
        }
    }

    /// What would help, where so many cores are there. `more_connections` says how to find out how
    /// many of those help.
    pub fn remedy(&self, capacity: Capacity, cores: usize, more_connections: &str) -> String {
        let (stage, share) = self.limit();
        let threads = match capacity.workers < cores {
            true => "More workers help.",
            false => {
                "All cores have a worker: faster or more cores help, or a second process on another machine."
            }
        };
        let text = match stage {
            Stage::Source => {
                "Faster brokers or a faster network, larger fetches ([kafka.properties] fetch.message.max.bytes), or a second process in \
                 the group help; more workers and connections do not."
                    .to_owned()
            }
            Stage::Decode | Stage::Exchange => format!("{threads} More connections do not."),
            Stage::Database => format!(
                "A faster server or disk helps, and more connections {more_connections}; more workers for their own sake do not."
            ),
            Stage::Cache => {
                "A faster or closer server helps, or larger cache.batch_keys; more connections to the database do not.".to_owned()
            }
            Stage::DeadLetters => "Find out what makes so many events invalid.".to_owned(),
        };
        if share >= NEARLY_ALWAYS {
            return text;
        }
        format!(
            "{text} But no stage is at work nearly all of the time: they wait for one another, or for the processor. Servers on machines \
             of their own, larger epochs (run.epoch_records) or more of them under way (run.epochs_in_flight) may help."
        )
    }
}

/// A share as people read it.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity { workers: 2, connections: 6 };

    #[test]
    fn a_share_is_the_time_at_work_of_all_that_could_be_at_work() {
        let seconds = Duration::from_secs;
        let times = Times {
            source: seconds(4),
            workers: seconds(10),
            decode: seconds(6),
            database: seconds(57),
            cache: seconds(2),
            dead_letters: seconds(0),
        };
        let earlier = Times { workers: seconds(3), ..Times::default() };
        let later = Times { workers: seconds(13), ..times };
        assert_eq!(later.since(earlier), times);
        let shares = Shares::new(times, CAPACITY, seconds(10));
        let expected = Shares {
            source: 0.4,
            decode: 0.3,
            exchange: 0.2,
            database: 0.95,
            cache: 0.1,
            dead_letters: 0.0,
        };
        for ((stage, share), (_, expected)) in shares.stages().into_iter().zip(expected.stages()) {
            assert!((share - expected).abs() < 1e-9, "{stage:?} {share}");
        }
        assert_eq!(shares.limit().0, Stage::Database);
        assert_eq!(
            shares.words(CAPACITY),
            "database. The 6 connections to it are at work for 95 % of the time."
        );
        let one = Capacity { workers: 1, connections: 1 };
        assert!(shares.words(one).starts_with("database. The 1 connection to it is at work"));
    }

    #[test]
    fn workers_limit_together_and_the_larger_part_of_their_work_is_named() {
        let shares = Shares { source: 0.7, decode: 0.3, exchange: 0.6, ..Shares::default() };
        assert_eq!(shares.limit().0, Stage::Exchange);
        assert!(shares.remedy(CAPACITY, 2, "").contains("All cores have a worker"));
        let shares = Shares { source: 0.7, decode: 0.5, exchange: 0.3, ..Shares::default() };
        assert_eq!(shares.limit().0, Stage::Decode);
        assert!(shares.remedy(CAPACITY, 8, "").contains("More workers help"));
    }

    #[test]
    fn where_nothing_is_at_work_all_the_time_that_is_said() {
        let idle = Shares { source: 0.3, database: 0.5, ..Shares::default() };
        let text = idle.remedy(CAPACITY, 2, "to a point");
        assert!(text.contains("to a point") && text.contains("wait for one another"), "{text}");
        let full = Shares { source: 0.97, ..idle };
        assert!(!full.remedy(CAPACITY, 2, "").contains("wait for one another"));
    }
}
