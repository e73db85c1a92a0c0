//! dedupe: sets aside the events whose job has already reached its row, without asking the
//! database.
//!
//! The memory is a shortcut, the row decides. Only what is durable is remembered, so that a job
//! whose event was rejected is judged anew when it comes again; forgetting a job is always safe.

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::HashTable;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Operator;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::Epoch;
use crate::change::Change;
use crate::operators;
use crate::outcome::{Outcome, Settled, Tally};
use crate::peers::Peers;
use crate::planted::panic_on;

/// The last jobs that were new to one worker, in bounded memory.
///
/// A job is kept as the hash of its id and the hash of its draft's id, 128 bits together: in a
/// ring, in the order of coming, and in an index into the ring, which one look into the processor's
/// cache mostly settles. 24 to 32 bytes a job.
#[derive(Debug)]
pub struct Memory {
    ring: Vec<JobKey>,
    /// The place in the ring where the next job goes, and the oldest is forgotten.
    next: usize,
    index: HashTable<u32>,
    capacity: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct JobKey {
    job: u64,
    draft: u64,
}

impl JobKey {
    fn of(change: &Change) -> JobKey {
        JobKey { job: change.job_hash(), draft: change.draft_hash() }
    }
}

/// What is known of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Never,
    /// It has reached its row.
    Durable,
    /// It has reached the row of another draft: job ids are meant to be unique.
    OfAnotherDraft,
}

impl Memory {
    /// A memory for `capacity` jobs, sized at once so that it never pauses to grow.
    ///
    /// # Panics
    ///
    /// When the capacity is not below 2^32.
    pub fn new(capacity: usize) -> Memory {
        // At most five in eight: where it is fuller, what is removed leaves marks, and to clear
        // those up takes a pause, too.
        let index = HashTable::with_capacity(capacity * 7 / 5 + 1);
        u32::try_from(capacity).expect("fewer than four billion jobs");
        Memory { ring: Vec::with_capacity(capacity), next: 0, index, capacity }
    }

    /// Remembers a job that has reached its row.
    pub fn remember(&mut self, change: &Change) {
        if self.capacity == 0 || self.is_durable(change) {
            return;
        }
        let key = JobKey::of(change);
        let place = u32::try_from(self.next).expect("below the capacity");
        if self.ring.len() < self.capacity {
            self.ring.push(key);
        } else {
            let oldest = std::mem::replace(&mut self.ring[self.next], key);
            let forgotten = self.index.find_entry(oldest.job, |other| *other == place);
            forgotten.expect("what is in the ring is in the index").remove();
        }
        let ring = &self.ring;
        self.index.insert_unique(key.job, place, |&other| at(ring, other).job);
        self.next = (self.next + 1) % self.capacity;
    }

    fn is_durable(&self, change: &Change) -> bool {
        self.look_up(JobKey::of(change)) == Known::Durable
    }

    /// What is known of a job.
    fn look_up(&self, key: JobKey) -> Known {
        let mut reused = false;
        let is_it = |&place: &u32| {
            let other = at(&self.ring, place);
            reused |= other.job == key.job && other.draft != key.draft;
            other == key
        };
        match self.index.find(key.job, is_it) {
            Some(_) => Known::Durable,
            None if reused => Known::OfAnotherDraft,
            None => Known::Never,
        }
    }
}

fn at(ring: &[JobKey], place: u32) -> JobKey {
    ring[usize::try_from(place).expect("an index of 32 bits fits a pointer")]
}

/// A worker's memory, shared by `dedupe`, which reads it, and `remember`, which writes it.
pub type SharedMemory = Rc<RefCell<Memory>>;

/// What `dedupe` makes of the changes.
pub struct Deduped<'scope> {
    /// Changes that the row must judge.
    pub fresh: Stream<'scope, Epoch, Vec<Change>>,
    /// Changes whose job is durable already. Their keys are deleted all the same: the run that made
    /// the job durable may have stopped before its DEL.
    pub duplicates: Stream<'scope, Epoch, Vec<Settled>>,
    /// Jobs noticed for a second draft.
    pub tallies: Stream<'scope, Epoch, Vec<Tally>>,
}

/// Brings the events of a draft together on one worker and sets aside those whose job is known to
/// be durable.
pub fn dedupe<'scope>(
    changes: Stream<'scope, Epoch, Vec<Change>>,
    memory: &SharedMemory,
    peers: &Peers,
) -> Deduped<'scope> {
    let mut builder = OperatorBuilder::new(operators::DEDUPE.to_owned(), changes.scope());
    let peers = peers.clone();
    let worker_of = move |change: &Change| {
        peers.address(change.draft_hash());
        change.draft_hash()
    };
    let mut input = builder.new_input(changes, Exchange::new(worker_of));
    let (fresh_port, fresh) = builder.new_output::<Vec<Change>>();
    let (duplicates_port, duplicates) = builder.new_output::<Vec<Settled>>();
    let (tallies_port, tallies) = builder.new_output::<Vec<Tally>>();
    let mut fresh_port = OutputBuilder::from(fresh_port);
    let mut duplicates_port = OutputBuilder::from(duplicates_port);
    let mut tallies_port = OutputBuilder::from(tallies_port);
    let memory = Rc::clone(memory);
    builder.build(move |initial| {
        drop(initial);
        let mut looked_up = Vec::new();
        move |_frontiers| {
            let memory = memory.borrow();
            let (mut fresh, mut duplicates, mut tallies) =
                (fresh_port.activate(), duplicates_port.activate(), tallies_port.activate());
            input.for_each_stamp(|capability, batches| {
                let (mut fresh, mut duplicates) =
                    (fresh.session(&capability), duplicates.session(&capability));
                let mut tally = Tally::default();
                for batch in batches {
                    // Each look-up waits for the main memory. In a loop of their own, several wait at
                    // once.
                    looked_up.extend(batch.iter().map(|change| memory.look_up(JobKey::of(change))));
                    let mut looked_up = looked_up.drain(..);
                    // What is fresh, mostly all, is not moved.
                    let known = batch.extract_if(.., |change| {
                        panic_on(change);
                        let known = looked_up.next().expect("each event was looked up");
                        tally.job_reused += u64::from(known == Known::OfAnotherDraft);
                        // A record replayed from the dead letters asks for a new judgement.
                        known == Known::Durable && !change.replayed()
                    });
                    let known = known.map(|change| Settled::one(change, Outcome::Duplicate));
                    duplicates.give_iterator(known);
                    fresh.give_container(batch);
                }
                if tally != Tally::default() {
                    tallies.session(&capability).give(tally);
                }
            });
        }
    });
    Deduped { fresh, duplicates, tallies }
}

/// Remembers the jobs that have reached their rows.
pub fn remember<'scope>(
    settled: Stream<'scope, Epoch, Vec<Settled>>,
    memory: &SharedMemory,
) -> Stream<'scope, Epoch, Vec<Settled>> {
    let memory = Rc::clone(memory);
    settled.unary(Pipeline, operators::REMEMBER, move |_capability, _info| {
        move |input, output| {
            let mut memory = memory.borrow_mut();
            input.for_each_stamp(|capability, batches| {
                let mut session = output.session(&capability);
                for batch in batches {
                    let events = batch.iter().flat_map(|settled| &settled.group.events);
                    // First only looked at, so that several wait for the main memory at once.
                    let is_new = |change: &&Change| !memory.is_durable(change);
                    if events.clone().filter(is_new).count() > 0 {
                        events.for_each(|change| memory.remember(change));
                    }
                    session.give_container(batch);
                }
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::tests::change;

    fn job(number: usize) -> Change {
        change((0, 0), 0, &format!("j{number}"), "d")
    }

    fn remembers(memory: &Memory, change: &Change) -> bool {
        memory.look_up(JobKey::of(change)) == Known::Durable
    }

    #[test]
    fn the_last_jobs_are_remembered_and_no_others() {
        for capacity in [0, 1, 2, 7] {
            let mut memory = Memory::new(capacity);
            for newest in 0..40 {
                memory.remember(&job(newest));
                for number in 0..41 {
                    let is_recent = number <= newest && number + capacity > newest;
                    assert_eq!(
                        remembers(&memory, &job(number)),
                        is_recent,
                        "{number} of {newest}, {capacity}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_job_remembered_again_takes_no_more_room() {
        let mut memory = Memory::new(2);
        memory.remember(&job(0));
        memory.remember(&job(1));
        (0..9).for_each(|_| memory.remember(&job(0)));
        assert!(remembers(&memory, &job(1)));
        assert_eq!((memory.ring.len(), memory.index.len()), (2, 2));
    }

    #[test]
    fn a_job_takes_32_bytes_at_most_and_nothing_grows_however_many_come() {
        // Just below and just above what doubles the index.
        for capacity in [1_000, 10_485, 10_486, 12_345, 20_971, 20_972] {
            let mut memory = Memory::new(capacity);
            let bytes = |memory: &Memory| {
                memory.ring.capacity() * size_of::<JobKey>() + memory.index.allocation_size()
            };
            let before = bytes(&memory);
            assert!(before <= 32 * capacity + 64, "{before} bytes for {capacity} jobs");
            for number in 0..10 * capacity {
                memory.remember(&job(number));
            }
            assert_eq!((bytes(&memory), memory.ring.len()), (before, capacity));
        }
    }

    #[test]
    fn a_job_belongs_to_one_draft() {
        let mut memory = Memory::new(4);
        let (here, there) = (change((0, 0), 0, "j", "d"), change((0, 1), 0, "j", "e"));
        memory.remember(&here);
        assert_eq!(memory.look_up(JobKey::of(&there)), Known::OfAnotherDraft);
        assert_eq!(memory.look_up(JobKey::of(&here)), Known::Durable);
        memory.remember(&there);
        assert!(remembers(&memory, &here) && remembers(&memory, &there));
    }
}
