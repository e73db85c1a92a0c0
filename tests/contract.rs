//! The simulated servers keep the same contract as the real ones: every assertion here is made on
//! both, or the simulation would prove nothing about the real program.
//!
//! What differs is left to the tests of faults: the simulation's errors are drawn, the real ones
//! have to be caused.

use std::sync::{Arc, Mutex};

use contentflow::config::{Config, Overrides};
use contentflow::redis::CacheError;
use contentflow::sink::postgres::failure::Failure;
use contentflow::sink::postgres::session::Session;
use contentflow::sink::postgres::table::{Amendment, Table};
use contentflow::sink::redis::{Connection, Keys};
use dataflows::accept::sort;
use dataflows::change::Change;
use dataflows::latest::Group;
use dataflows::record::{Chunk, Position};
use dataflows::row::{RowMemory, judge};
use dataflows::validate::DraftIdType;
use redis::Commands;

use crate::simulated::history::{History, Kind, Record};
use crate::simulated::servers::Wire;
use crate::simulated::world::{Fate, Shared, World as SimulatedWorld, lock};
use crate::world::{World, block_on};

mod table;
mod cache;

/// The drafts that have a row.
const DRAFTS: [&str; 3] = ["d1", "d2", "d3"];

/// A server of either kind, with rows for [`DRAFTS`].
enum Twin {
    Real { world: Box<World>, table: Box<Session>, cache: Box<Connection> },
    Simulated { world: Shared, wire: Wire },
}

/// Makes the same claims about both kinds.
fn on_both(claims: impl Fn(&mut Twin)) {
    claims(&mut Twin::simulated());
    claims(&mut Twin::real());
}

impl Twin {
    fn simulated() -> Twin {
        let mut history = History::of(1);
        history.drafts = DRAFTS.map(str::to_owned).to_vec();
        let nothing_goes_wrong = Fate::Scripted(Vec::new());
        let world = Arc::new(Mutex::new(SimulatedWorld::new(&history, nothing_goes_wrong)));
        let wire = Wire { world: Arc::clone(&world), instance: 0 };
        Twin::Simulated { world, wire }
    }

    fn real() -> Twin {
        let world = World::new("contract");
        world.drafts(DRAFTS);
        let _: () = redis::cmd("FLUSHDB").query(&mut world.cache.connection()).unwrap();
        world.database.sql(
            "ALTER TABLE event_drafts ADD CHECK (content_images::text NOT LIKE '%refused.example%')",
        );
        let environment = [
            ("DATABASE_URL".to_owned(), world.database.url.clone()),
            ("REDIS_URL".to_owned(), world.cache.url.clone()),
        ];
        let nowhere = std::path::Path::new("");
        let config = Config::load_from(None, nowhere, environment, Overrides::default()).unwrap();
        let table = Box::new(Session::new(config.database, "text"));
        let cache = Box::new(Connection::new(config.cache));
        Twin::Real { world: Box::new(world), table, cache }
    }

    fn update(&mut self, events: &[Change]) -> Result<Vec<usize>, Failure> {
        let events: Vec<&Change> = events.iter().collect();
        let written = match self {
            Twin::Real { table, .. } => block_on(table.update(&events)),
            Twin::Simulated { wire, .. } => block_on(wire.update(&events)),
        };
        // RETURNING promises no order.
        written.map(|mut written| {
            written.sort_unstable();
            written
        })
    }

    fn read(&mut self, drafts: &[&str]) -> Vec<(usize, RowMemory)> {
        let mut rows = match self {
            Twin::Real { table, .. } => block_on(table.read(drafts)),
            Twin::Simulated { wire, .. } => block_on(wire.read(drafts)),
        }
        .unwrap();
        rows.sort_unstable_by_key(|(index, _)| *index);
        rows
    }

    fn memory(&mut self, draft: &str) -> RowMemory {
        self.read(&[draft]).pop().unwrap().1
    }

    fn amend(&mut self, amendments: &[Amendment<'_>]) -> Result<Vec<usize>, Failure> {
        let amended = match self {
            Twin::Real { table, .. } => block_on(table.amend(amendments)),
            Twin::Simulated { wire, .. } => block_on(wire.amend(amendments)),
        };
        amended.map(|mut amended| {
            amended.sort_unstable();
            amended
        })
    }

    fn locked(&mut self, drafts: &[&str]) -> Vec<usize> {
        match self {
            Twin::Real { table, .. } => block_on(table.locked(drafts)),
            Twin::Simulated { wire, .. } => block_on(wire.locked(drafts)),
        }
        .unwrap()
    }

    /// What `ask` learns while somebody keeps these rows locked.
    fn while_locked<T>(&mut self, drafts: &[&str], ask: impl Fn(&mut Twin) -> T) -> T {
        let blocker = match self {
            Twin::Real { world, .. } => Some(world.database.session()),
            Twin::Simulated { world, .. } => {
                lock(world).locked = drafts.iter().map(ToString::to_string).collect();
                None
            }
        };
        let ids = drafts.join("', '");
        let select =
            format!("SELECT FROM event_drafts WHERE event_draft_id IN ('{ids}') FOR UPDATE");
        blocker.iter().for_each(|blocker| drop(blocker.sql(&format!("BEGIN; {select}"))));
        let learnt = ask(self);
        blocker.iter().for_each(|blocker| drop(blocker.sql("COMMIT")));
        learnt
    }

    /// Empties the list of the older jobs.
    fn forget_jobs(&mut self, draft: &str) {
        match self {
            Twin::Real { world, .. } => drop(world.database.sql(&format!(
                "UPDATE event_drafts SET content_older_jobs = NULL, content_older_positions = NULL
                 WHERE event_draft_id = '{draft}'"
            ))),
            Twin::Simulated { world, .. } => {
                let mut world = lock(world);
                let memory = &mut world.rows.get_mut(draft).unwrap().memory;
                let applied = memory.applied;
                memory.recent.retain(|known| Some(known.position) == applied);
            }
        }
    }

    /// The job whose images the row holds.
    fn images(&self, draft: &str) -> Option<String> {
        let images = match self {
            Twin::Real { world, .. } => world.row(draft).images().to_string(),
            Twin::Simulated { world, .. } => {
                lock(world).rows[draft].images.clone().unwrap_or_default()
            }
        };
        images.split('/').nth(3).map(str::to_owned)
    }

    fn cache(&self, key: &str) {
        match self {
            Twin::Real { world, .. } => {
                let key = format!("event:draft:{key}");
                let _: () = world.cache.connection().set(key, "cached").unwrap();
            }
            Twin::Simulated { world, .. } => {
                lock(world).cache.insert(key.to_owned(), "cached".to_owned());
            }
        }
    }

    fn is_cached(&self, key: &str) -> bool {
        match self {
            Twin::Real { world, .. } => {
                world.cache.connection().exists(format!("event:draft:{key}")).unwrap()
            }
            Twin::Simulated { world, .. } => lock(world).cache.contains_key(key),
        }
    }

    fn delete(&mut self, drafts: &[&str]) -> Result<u64, CacheError> {
        match self {
            Twin::Real { cache, .. } => block_on(cache.delete(drafts)),
            Twin::Simulated { wire, .. } => block_on(wire.delete(drafts)),
        }
    }
}

/// An event as the graph would pass it on.
fn event(at: (i32, i64), timestamp_ms: i64, job: &str, draft: &str) -> Change {
    change(at, timestamp_ms, Kind::Event, (job, draft))
}

/// An event that the database refuses.
fn refused(at: (i32, i64), timestamp_ms: i64, job: &str, draft: &str) -> Change {
    change(at, timestamp_ms, Kind::Refused, (job, draft))
}

fn change(at: (i32, i64), timestamp_ms: i64, kind: Kind, (job, draft): (&str, &str)) -> Change {
    let record = Record::new(at, timestamp_ms, kind, (job.to_owned(), draft.to_owned()), 0);
    let mut chunk = Chunk::default();
    chunk.push(record.raw(), []);
    sort(chunk, DraftIdType::Text { max_chars: None }).changes.pop().unwrap()
}

fn place(at: (i32, i64), timestamp_ms: i64) -> Position {
    Position { timestamp_ms, offset: at.1, partition: at.0 }
}

fn jobs(memory: &RowMemory) -> Vec<&str> {
    memory.recent.iter().map(|known| known.job_id.as_str()).collect()
}

/// Events of one draft, and what they make of its row.
fn judged(seen: &RowMemory, group: &Group) -> (Option<usize>, RowMemory) {
    let judgement = judge(seen, &group.events);
    (judgement.winner, judgement.memory.unwrap())
}

/// More jobs than a row remembers.
const MANY: i64 = 20;
