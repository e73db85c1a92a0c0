//! The topic and its consumer group.
//!
//! The coordinator takes a commit from any member for any partition, as the real one does: it looks
//! at the member and the generation, not at who owns what.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tokio::time::Instant;

use contentflow::commit::Offsets;
use contentflow::source::client::Client;

use super::history::{Record, Server};
use super::world::{Reply, Shared, Stage, Violation, World, lock};

/// How long a member may be away before it is taken for dead.
pub(crate) const SESSION: Duration = Duration::from_secs(3);

/// A member of the group. One that comes back is another.
pub(crate) type Member = u64;

/// The group.
pub(crate) struct Group {
    partitions: i32,
    next_member: Member,
    generation: u64,
    members: BTreeMap<Member, Instant>,
    owners: BTreeMap<i32, Member>,
    /// Where each owner reads on.
    positions: BTreeMap<i32, i64>,
    pub committed: Offsets,
    /// The last commit of each owner.
    by_owner: BTreeMap<(Member, i32), i64>,
}

/// What a member gets from a poll.
#[derive(Debug)]
pub(crate) enum Polled {
    Nothing,
    Records(Vec<usize>),
    Assign(Vec<i32>),
    Revoke(Vec<i32>),
    /// It was taken for dead, and these are another's.
    Lost,
}

impl Group {
    pub(crate) fn new(partitions: i32) -> Group {
        Group {
            partitions,
            next_member: 0,
            generation: 0,
            members: BTreeMap::new(),
            owners: BTreeMap::new(),
            positions: BTreeMap::new(),
            committed: Offsets::new(),
            by_owner: BTreeMap::new(),
        }
    }

    pub(crate) fn join(&mut self) -> Member {
        self.next_member += 1;
        self.generation += 1;
        self.members.insert(self.next_member, Instant::now());
        self.next_member
    }

    pub(crate) fn leave(&mut self, member: Member) {
        self.members.remove(&member);
        self.owners.retain(|_, owner| *owner != member);
        self.generation += 1;
    }

    /// Takes members for dead that have been away for too long.
    pub(crate) fn evict(&mut self) {
        let is_dead = |seen: &Instant| seen.elapsed() > SESSION;
        let dead: Vec<Member> =
            self.members.iter().filter(|(_, seen)| is_dead(seen)).map(|(it, _)| *it).collect();
        dead.into_iter().for_each(|member| self.leave(member));
    }

    /// Whose each partition is to be: they are dealt out in turn.
    fn target(&self, partition: i32) -> Member {
        let members: Vec<Member> = self.members.keys().copied().collect();
        members[usize::try_from(partition).unwrap() % members.len()]
    }

    fn owned(&self, member: Member) -> Vec<i32> {
        let owned = self.owners.iter().filter(|(_, owner)| **owner == member);
        owned.map(|(partition, _)| *partition).collect()
    }

    /// A sign of life.
    pub(crate) fn heartbeat(&mut self, member: Member) {
        if let Some(seen) = self.members.get_mut(&member) {
            *seen = Instant::now();
        }
    }

    pub(crate) fn assigned(&mut self, member: Member, starts: &[(i32, i64)]) {
        for (partition, start) in starts {
            self.owners.insert(*partition, member);
            self.by_owner.remove(&(member, *partition));
            self.positions.insert(*partition, *start);
        }
        self.generation += 1;
    }

    pub(crate) fn revoked(&mut self, member: Member, partitions: &[i32]) {
        self.owners.retain(|partition, owner| *owner != member || !partitions.contains(partition));
        self.generation += 1;
    }

    /// Begins anew, from the first record on.
    pub(crate) fn reset(&mut self) {
        self.committed.clear();
        self.by_owner.clear();
    }

    /// All partitions there are.
    pub(crate) fn partitions(&self) -> Vec<i32> {
        (0..self.partitions).collect()
    }
}

impl World {
    /// What a member gets from a poll.
    /// `bulk` says where it reads on, beside its client, in partitions that are paused there.
    pub(crate) fn poll(
        &mut self,
        member: Member,
        paused: &BTreeSet<i32>,
        bulk: impl Fn(i32) -> Option<i64>,
    ) -> Polled {
        if !self.group.members.contains_key(&member) {
            return Polled::Lost;
        }
        self.group.heartbeat(member);
        let owned = self.group.owned(member);
        let going: Vec<i32> =
            owned.iter().copied().filter(|it| self.group.target(*it) != member).collect();
        if !going.is_empty() {
            return Polled::Revoke(going);
        }
        let is_free = |it: &i32| !self.group.owners.contains_key(it);
        let coming: Vec<i32> = (0..self.group.partitions)
            .filter(|it| is_free(it) && self.group.target(*it) == member)
            .collect();
        if !coming.is_empty() {
            return Polled::Assign(coming);
        }
        let is_out = self.outages.get(&Server::Broker).is_some_and(|until| Instant::now() < *until);
        let is_read = |it: &i32| !paused.contains(it) || bulk(*it).is_some();
        let readable: Vec<i32> = owned.into_iter().filter(is_read).collect();
        if readable.is_empty() || is_out {
            return Polled::Nothing;
        }
        let partition = readable[self.chance.usize(..readable.len())];
        let in_bulk = bulk(partition);
        let from = in_bulk.unwrap_or_else(|| self.group.positions[&partition]);
        let turn = self.turn;
        let is_next = |record: &&(usize, &Record)| {
            let (_, record) = record;
            record.at.0 == partition && record.at.1 >= from && record.published <= turn
        };
        let some = self.chance.usize(1..=4);
        let records = self.records.iter().enumerate();
        let records: Vec<(usize, &Record)> =
            records.filter(|record| is_next(&record)).take(some).collect();
        let Some((_, last)) = records.last() else { return Polled::Nothing };
        if in_bulk.is_none() {
            self.group.positions.insert(partition, last.at.1 + 1);
        }
        Polled::Records(records.into_iter().map(|(index, _)| index).collect())
    }

    /// Checks a commit that is about to be sent. One that is late may arrive after another; it only
    /// makes more be read again.
    fn check_sent(&mut self, member: Member, offsets: &Offsets) {
        for (partition, next) in offsets {
            let is_member = self.group.members.contains_key(&member);
            if is_member && self.group.owners.get(partition) != Some(&member) {
                let what = format!("{member} commits {partition}, which it does not own");
                self.violate(Violation::Trespass, what);
            }
            let last = self.group.by_owner.insert((member, *partition), *next);
            if last.is_some_and(|last| last > *next) {
                let what = format!("{partition} goes back to {next} from {last:?}");
                self.violate(Violation::Trespass, what);
            }
        }
    }

    /// A commit as the coordinator takes it.
    pub(crate) fn commit(
        &mut self,
        (member, generation): (Member, u64),
        offsets: &Offsets,
    ) -> KafkaResult<()> {
        let refused = |code| Err(KafkaError::ConsumerCommit(code));
        if !self.group.members.contains_key(&member) {
            return refused(RDKafkaErrorCode::UnknownMemberId);
        }
        if generation != self.group.generation {
            return refused(RDKafkaErrorCode::IllegalGeneration);
        }
        for (partition, next) in offsets {
            self.group.committed.insert(*partition, *next);
            self.check_committed(*partition, *next);
        }
        Ok(())
    }

    /// How a commit of a member would be stamped now.
    pub(crate) fn stamp(&self, member: Member) -> (Member, u64) {
        (member, self.group.generation)
    }

    /// Whether everything that was published is committed.
    pub(crate) fn is_committed(&self) -> bool {
        self.records.iter().all(|record| {
            let committed = self.group.committed.get(&record.at.0);
            committed.is_some_and(|next| *next > record.at.1)
        })
    }
}

/// The client of one life of an instance.
pub(crate) struct SimClient {
    pub world: Shared,
    pub instance: usize,
    pub member: Cell<Member>,
    pub is_lost: Cell<bool>,
    /// A pause outlives the assignment, as it does in librdkafka.
    pub paused: RefCell<BTreeSet<i32>>,
}

impl Client for SimClient {
    fn pause(&self, partitions: &[i32]) -> KafkaResult<()> {
        self.paused.borrow_mut().extend(partitions);
        Ok(())
    }

    fn resume(&self, partitions: &[i32]) -> KafkaResult<()> {
        self.paused.borrow_mut().retain(|it| !partitions.contains(it));
        Ok(())
    }

    fn take_up_anew(&self, _: &Offsets, _: &Offsets) -> KafkaResult<()> {
        unreachable!("nothing is ever deleted from the simulated topic")
    }

    fn go_on_from(&self, offsets: &Offsets) -> KafkaResult<()> {
        let group = &mut lock(&self.world).group;
        // What it owns; where others read is not its business.
        let owned = group.owned(self.member.get());
        let offsets = offsets.iter().filter(|(partition, _)| owned.contains(partition));
        group.positions.extend(offsets);
        Ok(())
    }

    fn commit(&self, offsets: &Offsets) -> KafkaResult<()> {
        let mut world = lock(&self.world);
        let stamp = world.stamp(self.member.get());
        world.check_sent(self.member.get(), offsets);
        let nothing = Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::OperationTimedOut));
        match world.reply(Stage::Commit, Server::Broker, self.instance) {
            Reply::Before => nothing,
            Reply::After => world.commit(stamp, offsets).and(nothing),
            Reply::Late => {
                let due = Instant::now() + Duration::from_millis(world.chance.u64(1..20_000));
                let (member, mut offsets) = (self.member.get(), offsets.clone());
                let late = move |world: &mut World| {
                    // Not past a later one: requests to a coordinator keep their order.
                    let last = &world.group.by_owner;
                    offsets.retain(|partition, next| last.get(&(member, *partition)) == Some(next));
                    drop(world.commit(stamp, &offsets));
                };
                world.zombies.push((due, Box::new(late)));
                nothing
            }
            _ => world.commit(stamp, offsets),
        }
    }

    fn committed(&self, partitions: &[i32]) -> KafkaResult<Vec<(i32, Option<i64>)>> {
        let committed = &lock(&self.world).group.committed;
        Ok(partitions.iter().map(|it| (*it, committed.get(it).copied())).collect())
    }

    fn watermarks(&self, partition: i32) -> KafkaResult<(i64, i64)> {
        let world = lock(&self.world);
        let ends =
            world.records.iter().filter(|it| it.at.0 == partition && it.published <= world.turn);
        Ok((0, ends.map(|record| record.at.1 + 1).max().unwrap_or_default()))
    }

    fn end(&self, partition: i32) -> KafkaResult<i64> {
        self.watermarks(partition).map(|(_, end)| end)
    }

    fn partitions(&self) -> KafkaResult<Vec<i32>> {
        Ok(lock(&self.world).group.partitions())
    }

    fn has_records(&self, partition: i32, from: Option<i64>, to: i64) -> KafkaResult<bool> {
        let world = lock(&self.world);
        let offsets = from.unwrap_or_default()..to;
        let is_there = |it: &Record| it.at.0 == partition && it.published <= world.turn;
        Ok(world.records.iter().any(|it| is_there(it) && offsets.contains(&it.at.1)))
    }

    fn is_lost(&self) -> bool {
        self.is_lost.get()
    }

    fn sleep(&self, _: Duration) {}
}
