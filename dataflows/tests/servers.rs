//! The three servers as the graph meets them.
//!
//! They are as slow and as irregular as the seed makes them: batches wait, lanes overtake each
//! other, answers come in parts and late, or are lost after the effect, which is then done again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use dataflows::effect::{Answered, Effect, Ticket};
use dataflows::graph::Invalidated;
use dataflows::latest::Group;
use dataflows::outcome::Settled;
use dataflows::peers::Waker;
use dataflows::reject::Rejected;
use dataflows::written::Written;

use crate::world::{World, at, job_key, times};

/// What one kind of server does with requests, and notes when its answers have been given.
pub(crate) trait Deed {
    type Request: 'static;
    type Answer: 'static;
    /// Keeps the chances of the three servers apart.
    const SALT: u64;
    fn submitted(_world: &mut World, _writer: (usize, usize), _batch: &[Self::Request]) {}
    /// Does it; does it again before answering, if the first answer is lost.
    fn perform(world: &mut World, requests: Vec<Self::Request>, is_lost: bool)
    -> Vec<Self::Answer>;
    fn answered(world: &mut World, answers: &[Self::Answer]);
}

/// UPDATE.
pub(crate) struct Write;

impl Deed for Write {
    type Request = Group;
    type Answer = Written;
    const SALT: u64 = 1;

    fn submitted(world: &mut World, writer: (usize, usize), batch: &[Group]) {
        for group in batch {
            let known = *world.writers.entry(group.draft_id().to_owned()).or_insert(writer);
            assert_eq!(known, writer, "two lanes write {}", group.draft_id());
            assert!(group.events.iter().all(|event| event.draft_id() == group.draft_id()));
        }
    }

    fn perform(world: &mut World, groups: Vec<Group>, is_lost: bool) -> Vec<Written> {
        groups.into_iter().map(|group| world.write(group, is_lost)).collect()
    }

    fn answered(world: &mut World, answers: &[Written]) {
        let settled = answers.iter().flat_map(|answer| &answer.settled);
        world.durable.extend(settled.flat_map(|settled| settled.group.events.iter().map(job_key)));
    }
}

/// DEL.
pub(crate) struct Delete;

impl Deed for Delete {
    type Request = Settled;
    type Answer = Invalidated;
    const SALT: u64 = 2;

    fn perform(world: &mut World, settled: Vec<Settled>, _: bool) -> Vec<Invalidated> {
        vec![world.delete(settled)]
    }

    fn answered(world: &mut World, answers: &[Invalidated]) {
        let settled = answers.iter().flat_map(|answer| &answer.settled);
        world.finished.extend(settled.flat_map(|settled| settled.group.events.iter().map(at)));
    }
}

/// Publish to the dead-letter topic.
pub(crate) struct Bury;

impl Deed for Bury {
    type Request = Rejected;
    type Answer = Rejected;
    const SALT: u64 = 3;

    fn perform(world: &mut World, rejects: Vec<Rejected>, is_lost: bool) -> Vec<Rejected> {
        for _ in 0..times(is_lost) {
            rejects.iter().for_each(|rejected| world.bury(rejected));
        }
        rejects
    }

    fn answered(world: &mut World, answers: &[Rejected]) {
        let records = answers.iter().map(Rejected::record);
        world.finished.extend(records.map(|record| (record.partition(), record.offset())));
    }
}

/// A server as one worker sees it: some lanes, each with its queue.
pub(crate) struct Server<D: Deed> {
    pub world: Arc<Mutex<World>>,
    pub waker: Waker,
    pub chance: fastrand::Rng,
    pub worker: usize,
    pub rows_max: usize,
    pub lanes: Vec<Lane<D>>,
}

/// What one connection has to do, and its answers that are still on the way.
pub(crate) struct Lane<D: Deed> {
    batches: VecDeque<(Ticket, Vec<D::Request>)>,
    answers: VecDeque<Answered<D::Answer>>,
}

impl<D: Deed> Default for Lane<D> {
    fn default() -> Self {
        Lane { batches: VecDeque::new(), answers: VecDeque::new() }
    }
}

impl<D: Deed> Lane<D> {
    /// Does the first part of what is waiting.
    fn perform(&mut self, world: &mut World, chance: &mut fastrand::Rng) {
        let Some((ticket, batch)) = self.batches.front_mut() else { return };
        let part: Vec<_> = batch.drain(..chance.usize(1..=batch.len())).collect();
        let (ticket, done) = (*ticket, batch.is_empty());
        if done {
            self.batches.pop_front();
        }
        world.clock += 1;
        let is_lost = world.loses_answers && chance.u8(..4) == 0;
        let answers = D::perform(world, part, is_lost);
        self.answers.push_back(Answered { ticket, answers, done });
    }
}

impl<D: Deed> Effect for Server<D> {
    type Request = D::Request;
    type Answer = D::Answer;

    fn submit(&mut self, ticket: Ticket, lane: usize, batch: Vec<D::Request>) {
        assert!((1..=self.rows_max).contains(&batch.len()), "a batch of {}", batch.len());
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        D::submitted(&mut world, (self.worker, lane), &batch);
        self.lanes[lane].batches.push_back((ticket, batch));
    }

    fn poll(&mut self) -> Option<Answered<D::Answer>> {
        if self.lanes.iter().all(|lane| lane.batches.is_empty() && lane.answers.is_empty()) {
            return None;
        }
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        if world.is_crashed() {
            return None;
        }
        let lane = self.chance.usize(..self.lanes.len());
        let lane = &mut self.lanes[lane];
        if self.chance.bool() {
            lane.perform(&mut world, &mut self.chance);
        } else if let Some(answered) = lane.answers.pop_front() {
            D::answered(&mut world, &answered.answers);
            return Some(answered);
        }
        // There is more to come: this server asks for its next poll.
        self.waker.wake();
        None
    }
}
