//! Everything outside the program: a topic with its consumer group, a table, a cache, a dead-letter
//! topic. They behave as the real ones were seen to behave, not as one would wish.
//!
//! What must hold at every moment is checked here, where it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataflows::record::Position;
use dataflows::row::{JOBS_REMEMBERED, RowMemory};
use tokio::time::Instant;

use super::history::{At, Chances, History, Kind, Record, Server};
use super::log::Group;

/// Something that must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    /// An offset was committed, but a record below it has no durable outcome.
    Lost,
    /// A row holds what it must not hold.
    StaleRow,
    /// An event was applied twice.
    DoubleEffect,
    /// A record that must be dead-lettered is not, or one that must not be is.
    DeadLetter,
    /// A cached draft is older than its row, or a key was not deleted after its row had changed.
    StaleCache,
    /// A commit for a partition of another, or one that goes back.
    Trespass,
    /// The program ended with an error, or a panic.
    Failure,
    /// The program does not get done what is left to do.
    Stuck,
    /// Reading everything again has changed something.
    Unrepeatable,
}

/// A stage at which requests can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Update,
    Read,
    Amend,
    Delete,
    Publish,
    Commit,
}

impl Stage {
    /// The stages whose requests tasks wait for.
    pub(crate) const TASKS: [Stage; 5] =
        [Stage::Update, Stage::Read, Stage::Amend, Stage::Delete, Stage::Publish];
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reply {
    Ok,
    Before,
    After,
    Late,
    Deadlock,
    Locked,
    Panic,
}

impl Reply {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Reply::Ok => "ok",
            Reply::Before => "error",
            Reply::After => "lost-answer",
            Reply::Late => "late",
            Reply::Deadlock => "deadlock",
            Reply::Locked => "locked",
            Reply::Panic => "panic",
        }
    }
}

/// A draft's row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub images: Option<String>,
    pub memory: RowMemory,
    pub written_at: u64,
    /// When each job reached the row.
    pub reached_at: BTreeMap<String, u64>,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Letter {
    pub at: At,
    pub reason: &'static str,
    pub attempts: u32,
}

/// What is done to a server later than the client thinks.
pub(crate) type Zombie = Box<dyn FnOnce(&mut World) + Send>;

/// Decides what becomes of requests.
#[derive(Debug)]
pub(crate) enum Fate {
    /// As likely as the history says.
    Drawn(Chances),
    /// The replies to the requests, in their order; what follows goes well.
    Scripted(Vec<Reply>),
}

/// The world.
pub(crate) struct World {
    pub records: Arc<Vec<Record>>,
    pub turn: u32,
    pub chance: fastrand::Rng,
    pub fate: Fate,
    /// How many requests were made.
    pub requests: usize,
    pub outages: BTreeMap<Server, Instant>,
    /// Instances one of whose tasks is about to panic.
    pub doomed: BTreeSet<usize>,
    pub group: Group,
    pub rows: BTreeMap<String, Row>,
    /// A draft whose row takes no UPDATE any more from a turn on, whatever it is.
    pub sealed: Option<(String, u32)>,
    /// Drafts whose rows somebody keeps locked, until it is asked which they are.
    pub locked: BTreeSet<String>,
    pub cache: BTreeMap<String, String>,
    pub leases: BTreeMap<String, u64>,
    pub deleted_at: BTreeMap<String, u64>,
    pub letters: Vec<Letter>,
    /// Counts the effects.
    pub clock: u64,
    pub zombies: Vec<(Instant, Zombie)>,
    pub violations: Vec<(Violation, String)>,
    /// The requests that each instance waits for.
    pub in_flight: BTreeMap<(usize, Stage), u64>,
    /// What each stage has met, and how often.
    pub met: BTreeMap<(&'static str, Stage), u64>,
    checked: BTreeMap<i32, i64>,
    won: BTreeSet<(String, String)>,
}

/// The world as everyone shares it.
pub(crate) type Shared = Arc<Mutex<World>>;

pub(crate) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(history: &History, fate: Fate) -> World {
        let rows = history.drafts.iter().map(|draft| (draft.clone(), Row::default()));
        World {
            records: Arc::new(history.records.clone()),
            turn: 0,
            chance: fastrand::Rng::with_seed(history.seed ^ 0x5eed),
            fate,
            requests: 0,
            outages: BTreeMap::new(),
            doomed: BTreeSet::new(),
            group: Group::new(history.partitions),
            rows: rows.collect(),
            sealed: history.sealed.clone(),
            locked: BTreeSet::new(),
            cache: BTreeMap::new(),
            leases: BTreeMap::new(),
            deleted_at: BTreeMap::new(),
            letters: Vec::new(),
            clock: 0,
            zombies: Vec::new(),
            violations: Vec::new(),
            in_flight: BTreeMap::new(),
            met: BTreeMap::new(),
            checked: BTreeMap::new(),
            won: BTreeSet::new(),
        }
    }

    /// Notes that something is not as it must be.
    pub(crate) fn violate(&mut self, violation: Violation, what: String) {
        self.violations.push((violation, what));
    }

    /// What becomes of an instance's request.
    pub(crate) fn reply(&mut self, stage: Stage, server: Server, instance: usize) -> Reply {
        let is_out = self.outages.get(&server).is_some_and(|until| Instant::now() < *until);
        let reply = if is_out { Reply::Before } else { self.draw(stage, instance) };
        self.requests += 1;
        if reply == Reply::Locked {
            let World { chance, rows, .. } = self;
            self.locked = rows.keys().filter(|_| chance.bool()).cloned().collect();
        }
        self.meet(if is_out { "outage" } else { reply.name() }, stage);
        reply
    }

    fn meet(&mut self, what: &'static str, stage: Stage) {
        *self.met.entry((what, stage)).or_default() += 1;
    }

    /// Notes that something befalls an instance while it waits for answers.
    pub(crate) fn befall(&mut self, what: &'static str, instance: usize) {
        for stage in Stage::TASKS {
            if self.in_flight.get(&(instance, stage)).is_some_and(|count| *count > 0) {
                self.meet(what, stage);
            }
        }
    }

    fn draw(&mut self, stage: Stage, instance: usize) -> Reply {
        let is_task = stage != Stage::Commit;
        if is_task && self.doomed.remove(&instance) {
            return Reply::Panic;
        }
        let is_write = matches!(stage, Stage::Update | Stage::Amend);
        match &self.fate {
            Fate::Scripted(replies) => match replies.get(self.requests).copied() {
                Some(Reply::Deadlock | Reply::Locked) if !is_write => Reply::Before,
                reply => reply.unwrap_or(Reply::Ok),
            },
            Fate::Drawn(Chances { before, after, late, contention }) => {
                let contention = if is_write { *contention } else { 0 };
                let draw = self.chance.u8(..100);
                let [before, after, late, contention] =
                    [before, after, late, &contention].map(|percent| *percent);
                match draw {
                    _ if draw < before => Reply::Before,
                    _ if draw < before + after => Reply::After,
                    _ if draw < before + after + late => Reply::Late,
                    _ if draw < before + after + late + contention / 2 => Reply::Locked,
                    _ if draw < before + after + late + contention => Reply::Deadlock,
                    _ => Reply::Ok,
                }
            }
        }
    }

    /// Whether the row of a draft takes no UPDATE any more.
    pub(crate) fn is_sealed(&self, draft: &str) -> bool {
        self.sealed.as_ref().is_some_and(|(sealed, from)| sealed == draft && self.turn >= *from)
    }

    /// Puts events into a row.
    pub(crate) fn write(
        &mut self,
        draft: &str,
        images: Option<(&str, &str, Position)>,
        memory: RowMemory,
    ) {
        self.clock += 1;
        let row = self.rows.get_mut(draft).expect("only rows are written");
        let mut wrong = None;
        if let Some((job, images, position)) = images {
            if Some(position) <= row.memory.applied {
                let before = row.memory.applied;
                wrong = Some((
                    Violation::StaleRow,
                    format!("{draft} goes back from {before:?} to {position:?}"),
                ));
            }
            if !self.won.insert((draft.to_owned(), job.to_owned())) {
                wrong =
                    Some((Violation::DoubleEffect, format!("{job} is applied to {draft} twice")));
            }
            row.images = Some(images.to_owned());
        }
        for known in &memory.recent {
            row.reached_at.entry(known.job_id.clone()).or_insert(self.clock);
        }
        row.memory = memory;
        row.written_at = self.clock;
        self.violations.extend(wrong);
    }

    /// Whether what the record stands for has come to pass, for good.
    pub(crate) fn is_durable(&self, record: &Record) -> bool {
        let is_buried = || self.letters.iter().any(|letter| letter.at == record.at);
        let (partition, offset) = record.at;
        let position = Position { timestamp_ms: record.timestamp_ms, offset, partition };
        let Some(row) = self.rows.get(&record.draft) else {
            return record.kind == Kind::Foreign || is_buried();
        };
        let recent = &row.memory.recent;
        let is_forgotten = recent.len() == JOBS_REMEMBERED
            && recent.last().is_some_and(|oldest| position < oldest.position);
        let has_reached = row.memory.recent.iter().any(|known| known.job_id == record.job);
        let reached_at = row.reached_at.get(&record.job).copied().unwrap_or_default();
        let deleted_at = self.deleted_at.get(&record.draft).copied().unwrap_or_default();
        let is_written = (has_reached || is_forgotten) && deleted_at > reached_at;
        match record.kind {
            Kind::Foreign => true,
            Kind::Bad => is_buried(),
            Kind::Event | Kind::Refused => is_written || is_buried(),
        }
    }

    /// Checks the records that a commit has passed.
    pub(crate) fn check_committed(&mut self, partition: i32, next: i64) {
        let from = self.checked.insert(partition, next).unwrap_or_default();
        self.checked.insert(partition, next.max(from));
        let records = Arc::clone(&self.records);
        for record in records.iter() {
            let passed = record.at.0 == partition && (from..next).contains(&record.at.1);
            if passed && !self.is_durable(record) {
                let what = format!("{:?} is committed, but not durable", record.at);
                self.violate(Violation::Lost, what);
            }
        }
    }

    /// Does what has come late.
    pub(crate) fn wake_zombies(&mut self) {
        let now = Instant::now();
        let (due, waiting) =
            std::mem::take(&mut self.zombies).into_iter().partition(|(at, _)| *at <= now);
        self.zombies = waiting;
        let due: Vec<(Instant, Zombie)> = due;
        due.into_iter().for_each(|(_, act)| act(self));
    }
}
