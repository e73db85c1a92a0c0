//! Looks at the figures four times a second, and makes of what was counted what people want to
//! know: rates, shares, states.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::health::{Dependencies, Dependency, Pulses};
use super::history::History;
use crate::config::Config;
use crate::figures::Figures;
use crate::figures::histogram::float;
use crate::figures::polled::PartitionProgress;
use crate::figures::workers::{GraphStage, OnWorker};
use crate::limit::{Capacity, Shares, Times};

/// How often it looks: a server that is held is shown within its patience and this.
pub const TICK: Duration = Duration::from_millis(250);

/// Over how many looks a rate is: two seconds, in which several epochs end under load.
const LOOKS: usize = 8;

/// How many records may wait at the brokers before waiting for them is the source's work, and no
/// rest.
const BACKLOG: i64 = 1_000;

/// How long an epoch may take that is closed: with every retry that there is, it takes seconds. A
/// row that another transaction keeps locked is an outage of nobody, but no commit gets past it.
const STUCK: Duration = Duration::from_secs(30);

/// What is known about the process besides its figures.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// How many there are that can be at work.
    pub capacity: Capacity,
    /// The cores that the process may use.
    pub cores: usize,
    /// How long a batch may wait for a row that another transaction holds, and so for its answer.
    pub lock_timeout: Duration,
    /// For how long an epoch may be filled.
    pub linger: Duration,
}

impl Facts {
    /// Those of a configuration.
    pub fn of(config: &Config) -> Facts {
        Facts {
            topic: config.kafka.topic.clone(),
            group: config.kafka.group.clone(),
            capacity: Capacity::of(config),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            lock_timeout: config.database.lock_timeout,
            linger: config.run.linger,
        }
    }
}

/// The watcher of one process.
pub struct Watcher {
    /// What it watches.
    pub figures: Arc<Figures>,
    /// What it knows besides.
    pub facts: Facts,
    /// The last fifteen minutes.
    pub history: History,
    looks: VecDeque<Look>,
    dependencies: Dependencies,
    pulses: Pulses,
}

/// The counters at one moment.
#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    read: u64,
    done: u64,
    /// How long the poll thread was held back, and how long it waited for records.
    waited: Duration,
    idled: Duration,
    /// All but the source's.
    times: Times,
    workers: Vec<WorkerLook>,
}

#[derive(Clone, Copy, Debug, Default)]
struct WorkerLook {
    awake: Duration,
    busy: [Duration; GraphStage::ALL.len()],
    records: [u64; GraphStage::ALL.len()],
}

/// What was done between two looks.
pub struct Stretch {
    seconds: f64,
    /// Records read.
    pub read: u64,
    /// Records that came through.
    pub done: u64,
    /// The part of its capacity that each stage was at work.
    pub shares: Shares,
    workers: Vec<WorkerLook>,
}

impl Watcher {
    /// A watcher that has not looked yet.
    pub fn new(figures: Arc<Figures>, facts: Facts) -> Watcher {
        let first = look(&figures);
        Watcher {
            facts,
            history: History::new(&figures),
            looks: VecDeque::from([first]),
            dependencies: Dependencies::default(),
            pulses: Pulses::new(&figures),
            figures,
        }
    }

    /// Looks. Whether a dependency has changed its state since.
    pub fn tick(&mut self) -> bool {
        self.looks.push_back(look(&self.figures));
        if self.looks.len() > LOOKS + 1 {
            self.looks.pop_front();
        }
        let done = self.looks.back().map_or(0, |look| look.done);
        self.history.note(&self.figures, done);
        self.pulses.feel(&self.figures);
        self.dependencies.ask(&self.figures, self.facts.lock_timeout)
    }

    /// The servers, and how they are.
    pub fn dependencies(&self) -> impl Iterator<Item = &Dependency> {
        self.dependencies.all()
    }

    /// What stands still that should go on.
    pub fn ills(&self) -> Vec<String> {
        self.pulses.ills()
    }

    /// Why it cannot make progress.
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let polled = self.figures.polled();
        if !polled.is_assigned {
            reasons.push(
                "no partitions: the group has assigned none yet, or has taken all away".to_owned(),
            );
        }
        if polled.is_draining {
            reasons
                .push("draining: what is in flight is finished, nothing more is read".to_owned());
        }
        let age = polled.oldest_since.map(|since| since.elapsed()).unwrap_or_default();
        if polled.in_flight > 0 && age > STUCK + self.facts.linger {
            let s = age.as_secs();
            reasons.push(format!("stuck: the oldest epoch has been under way for {s} s"));
        }
        reasons.extend(self.dependencies().filter_map(Dependency::complaint));
        reasons
    }

    /// In one word.
    pub fn state(&self) -> &'static str {
        let polled = self.figures.polled();
        if polled.is_draining {
            "draining"
        } else if self.dependencies().any(Dependency::is_held) {
            "held"
        } else if !polled.is_assigned {
            "starting"
        } else {
            "running"
        }
    }

    /// The last two seconds.
    pub fn stretch(&self) -> Stretch {
        let (Some(then), Some(now)) = (self.looks.front(), self.looks.back()) else {
            unreachable!("it has looked once when it was made")
        };
        let elapsed = now.at.duration_since(then.at);
        let mut times = now.times.since(then.times);
        times.source = elapsed.saturating_sub(self.rest(then, now));
        Stretch {
            seconds: elapsed.as_secs_f64().max(1e-3),
            read: now.read.saturating_sub(then.read),
            done: now.done.saturating_sub(then.done),
            shares: Shares::new(times, self.facts.capacity, elapsed),
            workers: then.workers.iter().zip(&now.workers).map(|(a, b)| b.since(a)).collect(),
        }
    }

    /// How long the poll thread had nothing to do. Where records wait at the brokers, waiting for
    /// them is its work.
    fn rest(&self, then: &Look, now: &Look) -> Duration {
        let waited = now.waited.saturating_sub(then.waited);
        let idled = now.idled.saturating_sub(then.idled);
        if self.backlog() > BACKLOG { waited } else { waited + idled }
    }

    /// How many records wait at the brokers, as far as is known.
    pub fn backlog(&self) -> i64 {
        let polled = self.figures.polled();
        let lag = |(partition, place): (&i32, &PartitionProgress)| {
            self.end(*partition, place) - place.position
        };
        polled.partitions.iter().map(lag).sum()
    }

    /// Where a partition ends, as far as is known.
    pub fn end(&self, partition: i32, place: &PartitionProgress) -> i64 {
        let told = self.figures.brokers.end(partition).filter(|_| !place.is_in_bulk);
        told.unwrap_or(place.end).max(place.position)
    }
}

impl WorkerLook {
    fn since(&self, earlier: &WorkerLook) -> WorkerLook {
        let mut new = WorkerLook { awake: self.awake.saturating_sub(earlier.awake), ..*self };
        for (time, then) in new.busy.iter_mut().zip(earlier.busy) {
            *time = time.saturating_sub(then);
        }
        for (records, then) in new.records.iter_mut().zip(earlier.records) {
            *records = records.saturating_sub(then);
        }
        new
    }
}

impl Stretch {
    /// So many in this time, a second.
    pub fn rate(&self, count: u64) -> f64 {
        float(count) / self.seconds
    }

    /// How many records a stage took in on each worker.
    pub fn records(&self, stage: GraphStage) -> impl Iterator<Item = u64> {
        self.workers.iter().map(move |worker| worker.records[stage.place()])
    }

    /// The part of its time that each worker was at work in a stage.
    pub fn busy(&self, stage: GraphStage) -> impl Iterator<Item = f64> {
        self.workers.iter().map(move |worker| self.share(worker.busy[stage.place()]))
    }

    /// The part of its time that each worker was awake.
    pub fn awake(&self) -> impl Iterator<Item = f64> {
        self.workers.iter().map(|worker| self.share(worker.awake))
    }

    fn share(&self, time: Duration) -> f64 {
        (time.as_secs_f64() / self.seconds).min(1.0)
    }
}

fn look(figures: &Figures) -> Look {
    let worker = |worker: &OnWorker| WorkerLook {
        awake: worker.awake(),
        busy: GraphStage::ALL.map(|stage| worker.busy(stage)),
        records: GraphStage::ALL.map(|stage| worker.records(stage)),
    };
    let polled = figures.polled();
    Look {
        at: Instant::now(),
        read: polled.read,
        done: polled.totals.records(),
        waited: polled.waited,
        idled: polled.idled,
        times: Times::of(figures, Duration::ZERO),
        workers: figures.workers().iter().map(worker).collect(),
    }
}
