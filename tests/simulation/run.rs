//! One history from beginning to end: load, faults, healing, rest.
//!
//! One thread, virtual time, and every choice from the seed: the same history runs the same way
//! each time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::check::{check, check_replay};
use super::history::{Blow, Fault, History};
use super::life::{Life, Lived};
use super::readers::Reader;
use super::world::{Fate, Shared, Violation, World, lock};

/// After healing no history needs as many turns: one that takes them is stuck.
const TURNS_TO_REST: u32 = 6_000;

/// A runtime whose time passes when it is told to.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// How a history is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// Whoever has the next turn, and how much time passes, is drawn.
    Drawn,
    /// Each instance in turn, a millisecond each; the first dies after that many turns.
    Even { dies_after: Option<u32> },
}

/// What a history came to.
pub(crate) struct Ran {
    pub world: World,
    pub turns: u32,
    pub lives: u64,
    /// How often each kind of fault struck.
    pub faults: BTreeMap<&'static str, u64>,
}

/// An instance: alive, or to be started again.
enum Instance {
    Alive(Box<Life>),
    Down(Instant),
}

struct Run<'a> {
    history: &'a History,
    schedule: Schedule,
    runtime: &'a Runtime,
    world: Shared,
    instances: Vec<Instance>,
    frozen: Vec<Option<Instant>>,
    readers: Vec<Reader>,
    turn: u32,
    healed_at: Option<u32>,
    lives: u64,
    faults: BTreeMap<&'static str, u64>,
}

/// Plays a history.
pub(crate) fn run(runtime: &Runtime, history: &History, fate: Fate, schedule: Schedule) -> Ran {
    let _entered = runtime.enter();
    // The program's own jitter.
    fastrand::seed(history.seed);
    let world = Arc::new(Mutex::new(World::new(history, fate)));
    let instances = (0..history.instances).map(|_| Instance::Down(Instant::now())).collect();
    let mut run = Run {
        history,
        schedule,
        runtime,
        world,
        instances,
        frozen: vec![None; history.instances],
        readers: vec![Reader::default(); 2],
        turn: 0,
        healed_at: None,
        lives: 0,
        faults: BTreeMap::new(),
    };
    run.come_to_rest();
    check(&mut lock(&run.world), history);
    if history.is_replayed && lock(&run.world).violations.is_empty() {
        run.replay();
    }
    let Run { instances, world, turn, lives, faults, .. } = run;
    drop(instances);
    let mut world = lock(&world);
    let nothing = World::new(history, Fate::Scripted(Vec::new()));
    Ran { world: std::mem::replace(&mut *world, nothing), turns: turn, lives, faults }
}

impl Run<'_> {
    /// Turns until everything is done, or something is wrong.
    fn come_to_rest(&mut self) {
        loop {
            self.happen();
            if !lock(&self.world).violations.is_empty() {
                return;
            }
            self.step();
            self.pass_time();
            self.turn += 1;
            if self.is_at_rest() {
                return;
            }
            if self.healed_at.is_some_and(|healed| self.turn > healed + TURNS_TO_REST) {
                let what = "not everything is committed long after all is well".to_owned();
                return lock(&self.world).violate(Violation::Stuck, what);
            }
        }
    }

    /// What happens in the world at this turn.
    fn happen(&mut self) {
        let due: Vec<Fault> = self
            .history
            .faults
            .iter()
            .filter(|(turn, _)| *turn == self.turn)
            .map(|(_, fault)| *fault)
            .collect();
        due.into_iter().for_each(|fault| self.strike(fault));
        if let Schedule::Even { dies_after: Some(turn) } = self.schedule
            && turn == self.turn
        {
            self.strike(Fault::Process { instance: 0, blow: Blow::Kill { down: 1 } });
        }
        let is_over = self.turn > self.last_turn();
        let mut world = lock(&self.world);
        world.turn = self.turn;
        for (draft, turn) in &self.history.late_drafts {
            if *turn == self.turn {
                world.rows.entry(draft.clone()).or_default();
            }
        }
        world.group.evict();
        world.wake_zombies();
        for reader in &mut self.readers {
            if world.chance.u8(..3) == 0 {
                reader.step(&mut world);
            }
        }
        if world.chance.u8(..200) == 0 {
            world.expire_a_lease();
        }
        if is_over && self.healed_at.is_none() {
            self.healed_at = Some(self.turn);
            if let Fate::Drawn(chances) = &mut world.fate {
                *chances = Default::default();
            }
        }
    }

    fn last_turn(&self) -> u32 {
        let faults = self.history.faults.iter().map(|(turn, _)| *turn);
        let late = self.history.late_drafts.iter().map(|(_, turn)| *turn);
        let records = self.history.records.iter().map(|record| record.published);
        let sealed = self.history.sealed.iter().map(|(_, turn)| *turn);
        faults.chain(late).chain(sealed).chain(records).max().unwrap_or_default()
    }

    fn strike(&mut self, fault: Fault) {
        let now = Instant::now();
        let until = |time| now + Duration::from_millis(time);
        let (instance, blow) = match fault {
            Fault::Process { instance, blow } => (instance, blow),
            Fault::Outage { server, time } => {
                lock(&self.world).outages.insert(server, until(time));
                *self.faults.entry("outage").or_default() += 1;
                return;
            }
        };
        let Instance::Alive(life) = &self.instances[instance] else { return };
        lock(&self.world).befall(blow.name(), instance);
        *self.faults.entry(blow.name()).or_default() += 1;
        match blow {
            Blow::Kill { down } => self.instances[instance] = Instance::Down(until(down)),
            Blow::Terminate => life.terminate(),
            Blow::Freeze { time } => self.frozen[instance] = Some(until(time)),
            Blow::Panic => _ = lock(&self.world).doomed.insert(instance),
        }
    }

    /// Some instance does something.
    fn step(&mut self) {
        let now = Instant::now();
        let count = self.instances.len();
        let index = match self.schedule {
            Schedule::Drawn => lock(&self.world).chance.usize(..count),
            Schedule::Even { .. } => usize::try_from(self.turn).unwrap() % count,
        };
        if self.frozen[index].is_some_and(|until| now < until) {
            return;
        }
        self.frozen[index] = None;
        let ended = match &mut self.instances[index] {
            Instance::Alive(life) => life.turn() == Lived::Ended,
            Instance::Down(until) if now >= *until => {
                let life = Life::begin(&self.world, index, &self.history.limits);
                self.instances[index] = Instance::Alive(Box::new(life));
                self.lives += 1;
                false
            }
            Instance::Down(_) => false,
        };
        if ended {
            let down = lock(&self.world).chance.u64(1..100);
            self.instances[index] = Instance::Down(now + Duration::from_millis(down));
        }
    }

    fn pass_time(&self) {
        let hurry = if self.healed_at.is_some() { 10 } else { 1 };
        let time = match self.schedule {
            Schedule::Even { .. } => hurry,
            Schedule::Drawn => {
                let chance = &mut lock(&self.world).chance;
                match chance.u8(..100) {
                    0..55 => 0,
                    55..90 => chance.u64(1..=5) * hurry,
                    90..98 => chance.u64(5..=50) * hurry,
                    _ => chance.u64(50..=500),
                }
            }
        };
        if time > 0 {
            self.runtime.block_on(tokio::time::advance(Duration::from_millis(time)));
        }
    }

    fn is_at_rest(&self) -> bool {
        if self.healed_at.is_none() {
            return false;
        }
        let world = lock(&self.world);
        world.is_committed()
            && world.zombies.is_empty()
            && self.readers.iter().all(|reader| matches!(reader, Reader::Idle))
    }

    /// Reads everything again, from the first record on.
    fn replay(&mut self) {
        self.instances.iter_mut().for_each(|it| *it = Instance::Down(Instant::now()));
        self.frozen.iter_mut().for_each(|it| *it = None);
        let (rows, letters) = {
            let mut world = lock(&self.world);
            world.group.reset();
            world.doomed.clear();
            (world.rows.clone(), world.letters.clone())
        };
        self.healed_at = Some(self.turn);
        self.come_to_rest();
        check_replay(&mut lock(&self.world), self.history, &rows, &letters);
    }
}
