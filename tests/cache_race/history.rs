//! One history: readers and writers of one draft, and the order in which they have their turns.

use std::time::Duration;

use contentflow::lease::{Lease, invalidation, lease_key};
use redis::{Cmd, Value, from_redis_value};

/// Longer than any run.
const TTL: Duration = Duration::from_secs(3_600);

/// A step of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Read {
    Get,
    Take,
    Select,
    /// If the lease was taken, store what was read if it is still there.
    Fill,
    /// Store what was read.
    Set,
    Nothing,
}

/// A step of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Write {
    Commit,
    /// The first or the second of the module's own commands: the lease's, the key's.
    Delete(usize),
}

/// What all readers and all writers do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Protocol {
    pub(super) reader: [Read; 4],
    pub(super) writer: [Write; 3],
    /// Whether everything is deleted once more, some turns after the first time.
    pub(super) second_delete: bool,
}

/// Who has how many turns in which order, and what else differs from history to history.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) readers: usize,
    pub(super) writers: usize,
    /// The actor of each turn: readers, then writers, then the one that lets the lease expire.
    pub(super) turns: Vec<usize>,
    /// Whether the cache has the row at the beginning.
    pub(super) is_warm: bool,
    pub(super) lease_lasts: Duration,
    /// Turns from the first DEL of a key to the second.
    pub(super) second_after: usize,
}

impl Schedule {
    /// Two or three readers, one or two writers, and sometimes a lease that expires early: by a
    /// short time to live, or at a turn of its own.
    pub(super) fn draw(rng: &mut fastrand::Rng) -> Schedule {
        let (readers, writers) = (rng.usize(2..=3), rng.usize(1..=2));
        let expiries = usize::from(rng.u8(..3) == 0);
        let mut turns = turns_of(readers, writers, expiries);
        rng.shuffle(&mut turns);
        let lasts_ms = if rng.u8(..4) == 0 { rng.u64(1..=50) } else { 3_000 };
        Schedule {
            readers,
            writers,
            turns,
            is_warm: rng.u8(..5) == 0,
            lease_lasts: Duration::from_millis(lasts_ms),
            second_after: rng.usize(1..=12),
        }
    }

    /// Every order of so many readers and writers, from a cold cache.
    pub(super) fn every(readers: usize, writers: usize) -> Vec<Schedule> {
        let mut turns = turns_of(readers, writers, 0);
        let mut all = Vec::new();
        loop {
            all.push(Schedule {
                readers,
                writers,
                turns: turns.clone(),
                is_warm: false,
                lease_lasts: contentflow::lease::LASTS,
                second_after: 1,
            });
            // The next permutation: the last ascent, raised by as little as possible, what follows
            // ascending again.
            let Some(at) = turns.windows(2).rposition(|pair| pair[0] < pair[1]) else { return all };
            let next = turns.iter().rposition(|actor| *actor > turns[at]).unwrap();
            turns.swap(at, next);
            turns[at + 1..].reverse();
        }
    }
}

/// Each actor as often as it has steps, in ascending order.
fn turns_of(readers: usize, writers: usize, expiries: usize) -> Vec<usize> {
    let steps = [vec![4; readers], vec![3; writers], vec![1; expiries]].concat();
    steps.into_iter().enumerate().flat_map(|(actor, steps)| vec![actor; steps]).collect()
}

/// What a turn asks of the servers.
pub(super) enum Request {
    Cache(Cmd),
    Select,
    Commit,
}

struct Reader {
    steps: usize,
    lease: Option<Lease>,
    is_done: bool,
    read: i64,
    /// The turn of its SELECT.
    read_at: usize,
}

/// A history under way.
pub(super) struct History {
    protocol: Protocol,
    schedule: Schedule,
    key: String,
    readers: Vec<Reader>,
    /// Steps done, and the version committed, of each writer.
    writers: Vec<(usize, i64)>,
    /// Second DELs: the turn at which each is due, and which of the two commands is next.
    seconds: Vec<(usize, usize)>,
    next: usize,
    now: usize,
    asked: Option<Asked>,
    /// The newest version whose key was deleted after its commit.
    invalidated: i64,
    pub(super) seen: Seen,
}

/// Who waits for an answer, and for which.
#[derive(Clone, Copy)]
enum Asked {
    Reader(usize, Read),
    Writer(usize, Write),
    Second,
    Expiry,
}

/// What a history has seen that is worth counting.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) filled: usize,
    pub(super) refused: usize,
    /// Hits on a version older than one whose key had been deleted.
    pub(super) old_hits: usize,
    /// Where a reader stood when a writer took a step.
    pub(super) met: Vec<(Read, Write)>,
    /// The most turns from a reader's SELECT to its storing what it read.
    pub(super) slowest_reader: usize,
}

impl History {
    pub(super) fn new(protocol: Protocol, schedule: Schedule, key: String) -> History {
        let reader = || Reader { steps: 0, lease: None, is_done: false, read: 0, read_at: 0 };
        History {
            protocol,
            key,
            readers: (0..schedule.readers).map(|_| reader()).collect(),
            writers: vec![(0, 0); schedule.writers],
            seconds: Vec::new(),
            next: 0,
            now: 0,
            asked: None,
            invalidated: 0,
            seen: Seen::default(),
            schedule,
        }
    }

    pub(super) fn is_warm(&self) -> bool {
        self.schedule.is_warm
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Turns from a first DEL to the second.
    pub(super) fn second_after(&self) -> usize {
        self.schedule.second_after
    }

    /// What the next turn asks for. None: the history is over.
    pub(super) fn ask(&mut self) -> Option<Request> {
        loop {
            self.now += 1;
            if let Some(request) = self.second_delete() {
                return Some(request);
            }
            let Some(actor) = self.schedule.turns.get(self.next).copied() else {
                if self.seconds.is_empty() {
                    return None;
                }
                continue;
            };
            self.next += 1;
            let (readers, writers) = (self.readers.len(), self.writers.len());
            let request = match actor {
                reader if reader < readers => self.reader_turn(reader),
                writer if writer < readers + writers => self.writer_turn(writer - readers),
                _ => self.expire(),
            };
            if request.is_some() {
                return request;
            }
        }
    }

    fn second_delete(&mut self) -> Option<Request> {
        let at = self.seconds.iter().position(|(due, _)| *due <= self.now)?;
        let (_, command) = &mut self.seconds[at];
        let delete = invalidation(&self.key)[*command].clone();
        *command += 1;
        if *command == 2 {
            self.seconds.remove(at);
        }
        self.asked = Some(Asked::Second);
        Some(Request::Cache(delete))
    }

    fn reader_turn(&mut self, index: usize) -> Option<Request> {
        let reader = &mut self.readers[index];
        let step = self.protocol.reader[reader.steps];
        reader.steps += 1;
        if reader.is_done {
            return None;
        }
        let value = reader.read.to_string();
        let request = match step {
            Read::Nothing => return None,
            Read::Get => Request::Cache(redis::cmd("GET").arg(&self.key).to_owned()),
            Read::Select => {
                reader.read_at = self.now;
                Request::Select
            }
            Read::Take => {
                let lease = reader.lease.insert(Lease::draw(&self.key));
                Request::Cache(lease.taking(self.schedule.lease_lasts))
            }
            Read::Fill => Request::Cache(reader.lease.as_ref()?.filling(&value, TTL)),
            Read::Set => {
                let ttl = TTL.as_secs();
                Request::Cache(
                    redis::cmd("SET").arg(&self.key).arg(value).arg("EX").arg(ttl).to_owned(),
                )
            }
        };
        self.asked = Some(Asked::Reader(index, step));
        Some(request)
    }

    fn writer_turn(&mut self, index: usize) -> Option<Request> {
        let (steps, _) = &mut self.writers[index];
        let step = self.protocol.writer[*steps];
        *steps += 1;
        let standing = self.readers.iter().filter(|reader| !reader.is_done && reader.steps < 4);
        self.seen.met.extend(standing.map(|reader| (self.protocol.reader[reader.steps], step)));
        self.asked = Some(Asked::Writer(index, step));
        Some(match step {
            Write::Commit => Request::Commit,
            Write::Delete(command) => Request::Cache(invalidation(&self.key)[command].clone()),
        })
    }

    fn expire(&mut self) -> Option<Request> {
        self.asked = Some(Asked::Expiry);
        Some(Request::Cache(redis::cmd("DEL").arg(lease_key(&self.key)).to_owned()))
    }

    /// The cache's answer to what was asked last.
    pub(super) fn answer(&mut self, answer: Value) {
        match self.asked.take().expect("a question") {
            Asked::Reader(index, step) => self.reader_answer(index, step, answer),
            Asked::Writer(index, _delete) => {
                let (steps, version) = self.writers[index];
                if steps == 3 {
                    self.invalidated = self.invalidated.max(version);
                    if self.protocol.second_delete {
                        self.seconds.push((self.now + self.schedule.second_after, 0));
                    }
                }
            }
            Asked::Second | Asked::Expiry => {}
        }
    }

    fn reader_answer(&mut self, index: usize, step: Read, answer: Value) {
        let reader = &mut self.readers[index];
        match step {
            Read::Get => {
                if let Some(version) = from_redis_value::<Option<i64>>(answer).unwrap() {
                    reader.is_done = true;
                    self.seen.old_hits += usize::from(version < self.invalidated);
                }
            }
            Read::Take if answer == Value::Nil => reader.lease = None,
            Read::Take => {}
            Read::Fill | Read::Set => {
                let stored = answer != Value::Int(0);
                self.seen.filled += usize::from(stored);
                self.seen.refused += usize::from(!stored);
                let took = self.now - reader.read_at;
                self.seen.slowest_reader = self.seen.slowest_reader.max(took);
            }
            Read::Select | Read::Nothing => unreachable!("asked of the database, or not at all"),
        }
    }

    /// The version that the database answers with.
    pub(super) fn version(&mut self, version: i64) {
        match self.asked.take().expect("a question") {
            Asked::Reader(index, _select) => self.readers[index].read = version,
            Asked::Writer(index, _commit) => self.writers[index].1 = version,
            Asked::Second | Asked::Expiry => unreachable!("asked of the cache"),
        }
    }
}
