//! The table, the cache and the dead-letter topic, as the program's lanes meet them.

use std::time::Duration;

use contentflow::redis::CacheError;
use contentflow::sink::dead_letter::{Form, Publish};
use contentflow::sink::postgres::failure::{DatabaseError, Failure, Refusal};
use contentflow::sink::postgres::table::{Amendment, Table};
use contentflow::sink::redis::Keys;
use dataflows::change::Change;
use dataflows::planted::{Bug, is_planted};
use dataflows::record::Position;
use dataflows::reject::{Fault, Reason, Rejected};
use dataflows::row::{JOBS_REMEMBERED, Remembered, RowMemory, is_newer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::time::Instant;

use super::history::{Server, is_refused};
use super::world::{Letter, Reply, Shared, Stage, World, Zombie, lock};

/// How long a client waits for an answer.
const DEADLINE: Duration = Duration::from_millis(300);

/// A panic of the program that the history asks for.
pub(crate) struct Doom;

/// The connection of one instance to its servers.
#[derive(Clone)]
pub(crate) struct Wire {
    pub world: Shared,
    pub instance: usize,
}

impl Wire {
    /// Sends a request, and says what is to become of it.
    async fn send(&self, stage: Stage, server: Server) -> Reply {
        let (reply, latency) = {
            let mut world = lock(&self.world);
            (world.reply(stage, server, self.instance), world.chance.u64(..8))
        };
        let _flight = Flight::begin(self, stage);
        if reply == Reply::Panic {
            std::panic::resume_unwind(Box::new(Doom));
        }
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(latency)).await;
        }
        reply
    }

    /// Has something happen later than the client waits for it.
    async fn late(&self, zombie: Zombie) {
        {
            let mut world = lock(&self.world);
            let due = Instant::now() + Duration::from_millis(world.chance.u64(1..10_000));
            world.zombies.push((due, zombie));
        }
        tokio::time::sleep(DEADLINE).await;
    }

    /// A statement: `act` is what it does.
    async fn statement<T: Send + 'static>(
        &self,
        stage: Stage,
        act: impl Fn(&mut World) -> Result<T, Refusal> + Send + Sync + 'static,
    ) -> Result<T, Failure> {
        let away = || DatabaseError::NoAnswer(DEADLINE);
        match self.send(stage, Server::Database).await {
            Reply::Before => Err(Failure::Out(away())),
            Reply::After => {
                drop(act(&mut lock(&self.world)));
                Err(Failure::Out(away()))
            }
            Reply::Late => {
                self.late(Box::new(move |world| drop(act(world)))).await;
                Err(Failure::Out(away()))
            }
            Reply::Deadlock => Err(Failure::Contended(away())),
            Reply::Locked => Err(Failure::Locked(away())),
            Reply::Ok | Reply::Panic => act(&mut lock(&self.world)).map_err(Failure::Refused),
        }
    }
}

impl Table for Wire {
    async fn update(&mut self, events: &[&Change]) -> Result<Vec<usize>, Failure> {
        let events: Vec<Change> = events.iter().map(|event| (*event).clone()).collect();
        self.statement(Stage::Update, move |world| update(world, &events)).await
    }

    async fn read(&mut self, drafts: &[&str]) -> Result<Vec<(usize, RowMemory)>, Failure> {
        let drafts: Vec<String> = drafts.iter().map(ToString::to_string).collect();
        let read = move |world: &mut World| {
            let row = |(index, draft)| Some((index, world.rows.get(draft)?.memory.clone()));
            Ok(drafts.iter().enumerate().filter_map(row).collect())
        };
        self.statement(Stage::Read, read).await
    }

    async fn amend(&mut self, amendments: &[Amendment<'_>]) -> Result<Vec<usize>, Failure> {
        let amendments: Vec<Amended> = amendments.iter().map(Amended::of).collect();
        self.statement(Stage::Amend, move |world| amend(world, &amendments)).await
    }

    async fn locked(&mut self, drafts: &[&str]) -> Result<Vec<usize>, Failure> {
        let drafts: Vec<String> = drafts.iter().map(ToString::to_string).collect();
        let locked = move |world: &mut World| {
            let locked = std::mem::take(&mut world.locked);
            Ok((0..drafts.len()).filter(|&index| locked.contains(&drafts[index])).collect())
        };
        self.statement(Stage::Read, locked).await
    }

    fn disconnect(&mut self) {}
}

/// A request while it is on its way.
struct Flight<'a> {
    wire: &'a Wire,
    stage: Stage,
}

impl Flight<'_> {
    fn begin(wire: &Wire, stage: Stage) -> Flight<'_> {
        *lock(&wire.world).in_flight.entry((wire.instance, stage)).or_default() += 1;
        Flight { wire, stage }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut world = lock(&self.wire.world);
        *world.in_flight.entry((self.wire.instance, self.stage)).or_default() -= 1;
    }
}

/// What is to be written to one row.
struct Amended {
    change: Change,
    wins: bool,
    seen: (Option<Position>, Vec<Position>),
    memory: RowMemory,
}

impl Amended {
    fn of(amendment: &Amendment<'_>) -> Amended {
        Amended {
            change: amendment.event().clone(),
            wins: amendment.winner.is_some(),
            seen: places(&amendment.seen),
            memory: amendment.memory.clone(),
        }
    }
}

/// What is compared before anything is set.
fn places(memory: &RowMemory) -> (Option<Position>, Vec<Position>) {
    (memory.applied, memory.older().map(|known| known.position).collect())
}

/// Quotes the row of one of these drafts, or none: mostly the one that is refused, but a value of
/// another column may read like another's id.
fn refusal(world: &World, refused: &str, drafts: &[&str]) -> Refusal {
    let fault = Fault::new(Reason::DatabaseRefused, "a constraint");
    let quoted = match world.clock % 4 {
        0 => None,
        1 => drafts.iter().find(|draft| **draft != refused),
        _ => Some(&refused),
    };
    let detail = quoted.map(|draft| format!("Failing row contains ({draft}, null)."));
    Refusal { detail, ..Refusal::from(fault) }
}

/// The guarded UPDATE: all rows or, if one is refused, none.
fn update(world: &mut World, events: &[Change]) -> Result<Vec<usize>, Refusal> {
    let passes = |event: &Change| {
        let Some(row) = world.rows.get(event.draft_id()) else { return false };
        let is_known = row.memory.recent.iter().any(|known| known.job_id == event.job_id());
        let is_new = !is_known || is_planted(Bug::DedupeInMemoryOnly);
        is_new && is_newer(event.position(), row.memory.applied)
    };
    let written: Vec<usize> = (0..events.len()).filter(|&event| passes(&events[event])).collect();
    let refuses = |event: &Change| is_refused(&event.images()) || world.is_sealed(event.draft_id());
    if let Some(&event) = written.iter().find(|&&event| refuses(&events[event])) {
        let drafts: Vec<&str> = events.iter().map(Change::draft_id).collect();
        return Err(refusal(world, drafts[event], &drafts));
    }
    for &event in &written {
        let event = &events[event];
        let mut memory = world.rows[event.draft_id()].memory.clone();
        let job_id = event.job_id().to_owned();
        memory.recent.insert(0, Remembered { position: event.position(), job_id });
        memory.recent.truncate(JOBS_REMEMBERED);
        memory.applied = Some(event.position());
        let images = event.images();
        let images = (event.job_id(), images.as_str(), event.position());
        world.write(event.draft_id(), Some(images), memory);
    }
    Ok(written)
}

/// The compare-and-set: all rows that are as they were seen or, if one is refused, none.
fn amend(world: &mut World, amendments: &[Amended]) -> Result<Vec<usize>, Refusal> {
    let matches = |it: &Amended| {
        let row = world.rows.get(it.change.draft_id());
        row.is_some_and(|row| places(&row.memory) == it.seen)
    };
    let amended: Vec<usize> =
        (0..amendments.len()).filter(|&it| matches(&amendments[it])).collect();
    let refuses = |it: &Amended| {
        it.wins && is_refused(&it.change.images()) || world.is_sealed(it.change.draft_id())
    };
    if let Some(&it) = amended.iter().find(|&&it| refuses(&amendments[it])) {
        let drafts: Vec<&str> = amendments.iter().map(|it| it.change.draft_id()).collect();
        return Err(refusal(world, drafts[it], &drafts));
    }
    for &index in &amended {
        let Amended { change, wins, memory, .. } = &amendments[index];
        let images = change.images();
        let images = wins.then(|| (change.job_id(), images.as_str(), change.position()));
        world.write(change.draft_id(), images, memory.clone());
    }
    Ok(amended)
}

impl Keys for Wire {
    async fn delete(&mut self, drafts: &[&str]) -> Result<u64, CacheError> {
        let away = || Err(CacheError::NoAnswer(DEADLINE));
        let drafts: Vec<String> = drafts.iter().map(ToString::to_string).collect();
        match self.send(Stage::Delete, Server::Cache).await {
            Reply::Before => {
                // Cut in the middle of the pipeline.
                let mut world = lock(&self.world);
                let some = world.chance.usize(..=drafts.len());
                delete(&mut world, &drafts[..some]);
                away()
            }
            Reply::After => {
                delete(&mut lock(&self.world), &drafts);
                away()
            }
            Reply::Late => {
                self.late(Box::new(move |world| _ = delete(world, &drafts))).await;
                away()
            }
            _ => Ok(delete(&mut lock(&self.world), &drafts)),
        }
    }
}

/// The DELs of leases and keys.
fn delete(world: &mut World, drafts: &[String]) -> u64 {
    let mut existed = 0;
    for draft in drafts {
        world.clock += 1;
        world.leases.remove(draft);
        existed += u64::from(world.cache.remove(draft).is_some());
        world.deleted_at.insert(draft.clone(), world.clock);
    }
    existed
}

impl Publish for Wire {
    async fn publish(
        &mut self,
        batch: &[Rejected],
        letters: &[(usize, Form)],
    ) -> Vec<(usize, Form, KafkaError)> {
        let mut failed = Vec::new();
        for &(index, form) in letters {
            let rejected = &batch[index];
            let letter = Letter {
                at: (rejected.record().partition(), rejected.record().offset()),
                reason: rejected.fault.reason.code(),
                attempts: rejected.attempts,
            };
            let code = match self.send(Stage::Publish, Server::DeadLetters).await {
                Reply::Before => Some(RDKafkaErrorCode::MessageTimedOut),
                // Reported as failed, and yet it stands in the topic.
                Reply::After => {
                    lock(&self.world).letters.push(letter);
                    Some(RDKafkaErrorCode::MessageTimedOut)
                }
                Reply::Late => {
                    self.late(Box::new(move |world| world.letters.push(letter))).await;
                    Some(RDKafkaErrorCode::MessageTimedOut)
                }
                _ => {
                    lock(&self.world).letters.push(letter);
                    None
                }
            };
            failed.extend(code.map(|code| (index, form, KafkaError::MessageProduction(code))));
        }
        failed
    }
}
