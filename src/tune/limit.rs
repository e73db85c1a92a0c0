//! Which stage limits: the one that is at work for the greatest part of the time that it could be.

use std::time::Duration;

use serde::Serialize;

use super::settings::{Axis, Settings};
use crate::busy::{Busy, Clock};

/// The part of its capacity that each stage was at work, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Shares {
    /// The poll thread, wherever it was not held back by the workers: the client and the brokers are in it.
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
    /// The shares of a trial of that length, with the time that the source took for itself.
    pub(super) fn new(
        busy: &Busy,
        source: Duration,
        settings: Settings,
        elapsed: Duration,
    ) -> Shares {
        let workers = settings.get(Axis::Workers);
        let lanes = workers * settings.get(Axis::Connections);
        let share = |time: Duration, of: usize| {
            let capacity = elapsed.as_secs_f64() * f64::from(u32::try_from(of).unwrap_or(u32::MAX));
            (time.as_secs_f64() / capacity.max(1e-9)).min(1.0)
        };
        let decode = share(busy.time(Clock::Decode), workers);
        Shares {
            source: share(source, 1),
            decode,
            exchange: (share(busy.time(Clock::Workers), workers) - decode).max(0.0),
            database: share(busy.time(Clock::Database), lanes),
            cache: share(busy.time(Clock::Cache), workers),
            dead_letters: share(busy.time(Clock::DeadLetters), workers),
        }
    }

    /// The mean of several.
    pub(super) fn mean(all: &[Shares]) -> Shares {
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

    /// The stage that limits, and the share of its capacity. Decode and exchange share the workers: where those limit, the larger of the
    /// two is named.
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

    /// The limit in words, with what would help.
    pub fn advice(&self, settings: Settings, cores: usize) -> String {
        let (stage, share) = self.limit();
        let workers = settings.get(Axis::Workers);
        let lanes = workers * settings.get(Axis::Connections);
        let percent = percent(share);
        let plural = |count: usize, word: &str| {
            format!("{count} {word}{}", if count == 1 { "" } else { "s" })
        };
        let threads = match workers < cores {
            true => "More workers help.",
            false => {
                "All cores have a worker: faster or more cores help, or a second process on another machine."
            }
        };
        let text = match stage {
            Stage::Source => format!(
                "source. For {percent} of the time the poll thread is not waiting for anything behind it. Faster brokers or a faster \
                 network, larger fetches ([kafka.properties] fetch.message.max.bytes), or a second process in the group help; more \
                 workers and connections do not."
            ),
            Stage::Decode => format!(
                "decode. The {} are at work for {percent} of the time, most of it reading and checking JSON. {threads} More \
                 connections do not.",
                plural(workers, "worker thread")
            ),
            Stage::Exchange => format!(
                "exchange. The {} are at work for {percent} of the time, most of it bringing together the events of each draft. \
                 {threads} More connections do not.",
                plural(workers, "worker thread")
            ),
            Stage::Database => format!(
                "database. The {} to it are at work for {percent} of the time. A faster server or disk helps, and more connections as \
                 far as this table shows; more workers for their own sake do not.",
                plural(lanes, "connection")
            ),
            Stage::Cache => format!(
                "cache. The {} to it are at work for {percent} of the time. A faster or closer server helps, or larger cache.batch_keys; \
                 more connections to the database do not.",
                plural(workers, "connection")
            ),
            Stage::DeadLetters => format!(
                "dead letters. Publishing them takes {percent} of the time. Find out what makes so many events invalid."
            ),
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

    fn settings() -> Settings {
        Settings::new([2, 3, 5_000, 20_000, 5])
    }

    #[test]
    fn a_share_is_the_time_at_work_of_all_that_could_be_at_work() {
        let (busy, seconds) = (Busy::default(), Duration::from_secs);
        busy.add(Clock::Workers, seconds(10));
        busy.add(Clock::Decode, seconds(6));
        busy.add(Clock::Database, seconds(57));
        busy.add(Clock::Cache, seconds(2));
        let shares = Shares::new(&busy, seconds(4), settings(), seconds(10));
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
        assert!(
            shares
                .advice(settings(), 2)
                .starts_with("database. The 6 connections to it are at work for 95 %")
        );
    }

    #[test]
    fn workers_limit_together_and_the_larger_part_of_their_work_is_named() {
        let shares = Shares { source: 0.7, decode: 0.3, exchange: 0.6, ..Shares::default() };
        assert_eq!(shares.limit().0, Stage::Exchange);
        assert!(shares.advice(settings(), 2).contains("All cores have a worker"));
        let shares = Shares { source: 0.7, decode: 0.5, exchange: 0.3, ..Shares::default() };
        assert_eq!(shares.limit().0, Stage::Decode);
        assert!(shares.advice(settings(), 8).contains("More workers help"));
    }

    #[test]
    fn where_nothing_is_at_work_all_the_time_that_is_said() {
        let idle = Shares { source: 0.3, database: 0.5, ..Shares::default() };
        let text = idle.advice(settings(), 2);
        assert!(text.starts_with("database. ") && text.contains("wait for one another"), "{text}");
        let full = Shares { source: 0.97, ..idle };
        assert!(!full.advice(settings(), 2).contains("wait for one another"));
    }
}
