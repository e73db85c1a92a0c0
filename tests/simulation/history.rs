//! A history: what is published, what goes wrong and when, all of it from one seed.

use std::fmt;

use dataflows::record::RawRecord;
use dataflows::row::JOBS_REMEMBERED;

/// A record's partition and offset, which name it.
pub(crate) type At = (i32, i64);

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Event,
    /// The database refuses its images.
    Refused,
    /// Of another type.
    Foreign,
    /// No event at all.
    Bad,
}

/// A record on the topic.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub at: At,
    pub timestamp_ms: i64,
    pub kind: Kind,
    pub job: String,
    pub draft: String,
    /// The turn from which on it can be read.
    pub published: u32,
    value: Vec<u8>,
}

impl Record {
    pub(crate) fn new(
        at: At,
        timestamp_ms: i64,
        kind: Kind,
        (job, draft): (String, String),
        published: u32,
    ) -> Record {
        let value = match kind {
            Kind::Foreign => r#"{"eventType":"DraftRenamed"}"#.to_owned(),
            Kind::Bad => "not JSON".to_owned(),
            Kind::Event | Kind::Refused => {
                let host = if kind == Kind::Refused { REFUSED_HOST } else { "cdn" };
                let url = |style| format!("https://{host}/{job}/{style}.png");
                let [simple, fancy, trendy] = ["simple", "fancy", "trendy"].map(url);
                format!(
                    r#"{{"jobId":"{job}","eventDraftId":"{draft}","imageUrls":{{"simple":"{simple}","fancy":"{fancy}","trendy":"{trendy}"}}}}"#
                )
            }
        };
        Record { at, timestamp_ms, kind, job, draft, published, value: value.into_bytes() }
    }

    pub(crate) fn raw(&self) -> RawRecord<'_> {
        let (partition, offset) = self.at;
        RawRecord {
            partition,
            offset,
            timestamp_ms: self.timestamp_ms,
            value: Some(&self.value),
            ..RawRecord::default()
        }
    }
}

const REFUSED_HOST: &str = "refused.example";

/// What the simulated database refuses to write.
pub(crate) fn is_refused(images: &str) -> bool {
    images.contains(REFUSED_HOST)
}

/// A server that the program depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Server {
    Database,
    Cache,
    DeadLetters,
    Broker,
}

/// Something that happens to a whole process or a whole server. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Process {
        instance: usize,
        blow: Blow,
    },
    /// The server answers nobody.
    Outage {
        server: Server,
        time: u64,
    },
}

impl Fault {
    /// The process that it hits.
    pub(crate) fn instance(self) -> Option<usize> {
        match self {
            Fault::Process { instance, .. } => Some(instance),
            Fault::Outage { .. } => None,
        }
    }
}

/// What happens to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// It dies, and is started again after a while.
    Kill { down: u64 },
    /// It is asked to end, drains, and is started again.
    Terminate,
    /// It stands still.
    Freeze { time: u64 },
    /// One of its tasks panics at its next request.
    Panic,
}

impl Blow {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Blow::Kill { .. } => "kill",
            Blow::Terminate => "terminate",
            Blow::Freeze { .. } => "freeze",
            Blow::Panic => "panic",
        }
    }
}

/// In how many of 100 requests a server misbehaves, one way or the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chances {
    /// An error, and nothing has happened.
    pub before: u8,
    /// An error, although it has happened.
    pub after: u8,
    /// No answer, and it happens later.
    pub late: u8,
    /// A deadlock, or a locked row.
    pub contention: u8,
}

/// A history.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub seed: u64,
    pub instances: usize,
    pub partitions: i32,
    pub records: Vec<Record>,
    /// Drafts that have a row from the beginning.
    pub drafts: Vec<String>,
    /// Drafts whose row comes at a turn.
    pub late_drafts: Vec<(String, u32)>,
    /// A draft whose row takes no UPDATE any more from a turn on.
    pub sealed: Option<(String, u32)>,
    /// What happens at which turn.
    pub faults: Vec<(u32, Fault)>,
    pub chances: Chances,
    pub limits: Limits,
    /// Whether everything is read once more at the end.
    pub is_replayed: bool,
}

/// How the program is configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub lanes: usize,
    pub batch_rows: usize,
    pub epoch_records: usize,
    pub epochs_in_flight: usize,
    pub dedupe_jobs: usize,
}

impl History {
    /// The history of a seed. Each seed leaves out some kinds of faults: those that are left meet
    /// each other more often.
    pub(crate) fn of(seed: u64) -> History {
        let mut chance = fastrand::Rng::with_seed(seed);
        let instances = chance.usize(1..=3);
        let partitions = chance.i32(1..=3);
        let drafts: Vec<String> = (0..chance.usize(1..=6)).map(|n| format!("d{n}")).collect();
        let late: Vec<String> = (0..chance.usize(0..=2)).map(|n| format!("late{n}")).collect();
        let mut records = Records::new(partitions, chance.u8(..4) > 0);
        for _ in 0..chance.usize(10..=70) {
            records.publish(&mut chance, &drafts, &late);
        }
        let last = records.turn;
        let late_drafts = late.into_iter().map(|draft| (draft, chance.u32(0..last + 40))).collect();
        let percent = |chance: &mut fastrand::Rng, most| {
            if chance.bool() { 0 } else { chance.u8(1..=most) }
        };
        let chances = Chances {
            before: percent(&mut chance, 15),
            after: percent(&mut chance, 15),
            late: percent(&mut chance, 8),
            contention: percent(&mut chance, 20),
        };
        let faults = faults(&mut chance, instances, last + 60);
        let limits = Limits {
            lanes: chance.usize(1..=2),
            batch_rows: chance.usize(1..=8),
            epoch_records: chance.usize(1..=16),
            epochs_in_flight: chance.usize(1..=4),
            dedupe_jobs: chance.usize(1..=40),
        };
        let is_replayed = chance.u8(..4) == 0;
        let sealed = (chance.u8(..4) == 0)
            .then(|| (drafts[chance.usize(..drafts.len())].clone(), chance.u32(0..last + 40)));
        let records = records.records;
        History {
            seed,
            instances,
            partitions,
            records,
            drafts,
            late_drafts,
            sealed,
            faults,
            chances,
            limits,
            is_replayed,
        }
    }
}

fn faults(chance: &mut fastrand::Rng, instances: usize, turns: u32) -> Vec<(u32, Fault)> {
    let kinds: Vec<usize> = (0..5).filter(|_| chance.bool()).collect();
    if kinds.is_empty() {
        return Vec::new();
    }
    // About one in twenty turns at most.
    let count = chance.u32(0..=turns / 20);
    let draw = |_| {
        let instance = chance.usize(..instances);
        let time = [30, 300, 3_000, 9_000][chance.usize(..4)];
        let time = chance.u64(1..=time);
        let servers = [Server::Database, Server::Cache, Server::DeadLetters, Server::Broker];
        let blow = |blow| Fault::Process { instance, blow };
        let fault = match kinds[chance.usize(..kinds.len())] {
            0 => blow(Blow::Kill { down: time }),
            1 => blow(Blow::Terminate),
            2 => blow(Blow::Freeze { time }),
            3 => blow(Blow::Panic),
            _ => Fault::Outage { server: servers[chance.usize(..4)], time },
        };
        (chance.u32(..turns), fault)
    };
    let mut faults: Vec<_> = (0..count).map(draw).collect();
    faults.sort_by_key(|(turn, _)| *turn);
    faults
}

/// A topic in the making.
struct Records {
    records: Vec<Record>,
    next: Vec<i64>,
    turn: u32,
    /// Whether jobs are repeated. If so no draft has more of them than its row remembers: a repeat
    /// of one that is forgotten may be taken for a new event.
    repeats: bool,
}

impl Records {
    fn new(partitions: i32, repeats: bool) -> Records {
        let next = (0..partitions).map(|_| 0).collect();
        Records { records: Vec::new(), next, turn: 0, repeats }
    }

    fn jobs_of(&self, draft: &str) -> usize {
        self.records.iter().filter(|record| record.draft == draft).count()
    }

    fn publish(&mut self, chance: &mut fastrand::Rng, drafts: &[String], late: &[String]) {
        if chance.u8(..4) == 0 {
            self.turn += chance.u32(..12);
        }
        let kind = match chance.u8(..100) {
            0..76 => Kind::Event,
            76..84 => Kind::Refused,
            84..92 => Kind::Foreign,
            _ => Kind::Bad,
        };
        let repeated = chance.usize(..self.records.len().max(1));
        let repeated = self.records.get(repeated).filter(|_| self.repeats && chance.u8(..5) == 0);
        let (partition, timestamp_ms, kind, names) = match repeated {
            // A job comes twice as it is sent twice: the same event, from the same producer.
            Some(known) if known.kind == Kind::Event => {
                let names = (known.job.clone(), known.draft.clone());
                (known.at.0, known.timestamp_ms, Kind::Event, names)
            }
            _ => {
                let number = self.records.len();
                let draft = match chance.u8(..20) {
                    0 => "nobody".to_owned(),
                    1..3 if !late.is_empty() => late[chance.usize(..late.len())].clone(),
                    _ => drafts[chance.usize(..drafts.len())].clone(),
                };
                let partition = chance.usize(..self.next.len());
                let partition = i32::try_from(partition).unwrap();
                let is_full = self.repeats && self.jobs_of(&draft) >= JOBS_REMEMBERED;
                let kind = if is_full { Kind::Foreign } else { kind };
                (partition, chance.i64(-1..12), kind, (format!("j{number}"), draft))
            }
        };
        let next = &mut self.next[usize::try_from(partition).unwrap()];
        // Markers of transactions, and what compaction took.
        *next += if chance.u8(..8) == 0 { chance.i64(1..4) } else { 0 };
        let at = (partition, *next);
        *next += 1;
        self.records.push(Record::new(at, timestamp_ms, kind, names, self.turn));
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let History { instances, partitions, chances, limits, drafts, late_drafts, sealed, .. } =
            self;
        writeln!(f, "  {instances} instances, {partitions} partitions, {chances:?}, {limits:?}")?;
        writeln!(f, "  rows: {drafts:?}, later: {late_drafts:?}, sealed: {sealed:?}")?;
        for Record { at, timestamp_ms, kind, job, draft, published, .. } in &self.records {
            writeln!(
                f,
                "  turn {published}: {kind:?} {job} of {draft} at {at:?}, stamped {timestamp_ms}"
            )?;
        }
        self.faults.iter().try_for_each(|(turn, fault)| writeln!(f, "  turn {turn}: {fault:?}"))
    }
}
