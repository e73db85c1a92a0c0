//! Histories on real servers, many side by side: the next turns of all of them go out together, in
//! one pipeline to Redis and one statement each for those who read and those who commit. Each
//! history has a key and a row of its own, so that its turns are taken one at a time and in its
//! order, and none of them knows of the others.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use contentflow::lease::lease_key;
use redis::{Connection, Value};

use super::history::{History, Protocol, Read, Request, Schedule, Write};
use crate::world::World;

/// Histories side by side.
const ABREAST: usize = 1_000;

/// What became of many histories.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) histories: usize,
    /// Those at whose end the cache has an older version than the row.
    pub(super) left_behind: usize,
    /// Those among them in which every reader was faster than the second DEL.
    pub(super) left_by_fast_readers: usize,
    pub(super) old_hits: usize,
    pub(super) filled: usize,
    pub(super) refused: usize,
    pub(super) met: BTreeMap<(Read, Write), usize>,
}

pub(super) struct Servers<'a> {
    world: &'a World,
    redis: Connection,
}

impl Servers<'_> {
    /// A table of versions, and the cache of that world. An UPDATE outside of a transaction is its
    /// own COMMIT: what is not committed is invisible to everybody else, so a step between the two
    /// would show nothing new.
    pub(super) fn prepare(world: &World) -> Servers<'_> {
        world.database.sql("CREATE TABLE race (id int PRIMARY KEY, version bigint NOT NULL)");
        let rows =
            format!("INSERT INTO race SELECT id, 0 FROM generate_series(0, {ABREAST} - 1) AS id");
        world.database.sql(&rows);
        let redis = world.cache.connection();
        redis.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Servers { world, redis }
    }

    pub(super) fn run(&mut self, protocol: Protocol, schedules: &[Schedule]) -> Tally {
        let mut tally = Tally::default();
        for schedules in schedules.chunks(ABREAST) {
            let key = |number: usize| format!("event:draft:{number}");
            let histories = schedules.iter().cloned().enumerate();
            let mut histories: Vec<History> = histories
                .map(|(row, schedule)| History::new(protocol, schedule, key(row)))
                .collect();
            self.begin(&histories);
            while self.turn(&mut histories) {}
            self.judge(histories, &mut tally);
        }
        tally
    }

    /// Every row at version 0, and in the cache where it begins warm.
    fn begin(&mut self, histories: &[History]) {
        self.world.database.sql("UPDATE race SET version = 0 WHERE version <> 0");
        let mut pipeline = redis::pipe();
        for history in histories {
            pipeline.del(history.key()).del(lease_key(history.key()));
            if history.is_warm() {
                pipeline.set(history.key(), 0);
            }
        }
        pipeline.exec(&mut self.redis).unwrap();
    }

    /// The next turn of each. False: all are over.
    fn turn(&mut self, histories: &mut [History]) -> bool {
        let mut pipeline = redis::pipe();
        let (mut cached, mut selected, mut committed) = (Vec::new(), Vec::new(), Vec::new());
        for (row, history) in histories.iter_mut().enumerate() {
            match history.ask() {
                Some(Request::Cache(command)) => {
                    pipeline.add_command(command);
                    cached.push(row);
                }
                Some(Request::Select) => selected.push(row),
                Some(Request::Commit) => committed.push(row),
                None => {}
            }
        }
        if !cached.is_empty() {
            let answers: Vec<Value> = pipeline.query(&mut self.redis).unwrap();
            for (row, answer) in cached.iter().zip(answers) {
                histories[*row].answer(answer);
            }
        }
        let select = "SELECT id, version FROM race WHERE id IN ";
        let commit =
            ("UPDATE race SET version = version + 1 WHERE id IN ", " RETURNING id, version");
        for (rows, (sql, returning)) in [(&selected, (select, "")), (&committed, commit)] {
            let versions = self.versions(rows, sql, returning);
            assert_eq!(versions.len(), rows.len());
            versions.into_iter().for_each(|(row, version)| histories[row].version(version));
        }
        !(cached.is_empty() && selected.is_empty() && committed.is_empty())
    }

    fn versions(&self, rows: &[usize], sql: &str, returning: &str) -> HashMap<usize, i64> {
        if rows.is_empty() {
            return HashMap::new();
        }
        let list: Vec<String> = rows.iter().map(usize::to_string).collect();
        let answer = self.world.database.sql(&format!("{sql}({}){returning}", list.join(",")));
        let number = |text: &Option<String>| text.as_ref().unwrap().parse::<i64>().unwrap();
        answer
            .iter()
            .map(|row| (usize::try_from(number(&row[0])).unwrap(), number(&row[1])))
            .collect()
    }

    fn judge(&mut self, histories: Vec<History>, tally: &mut Tally) {
        let rows: Vec<usize> = (0..histories.len()).collect();
        let versions = self.versions(&rows, "SELECT id, version FROM race WHERE id IN ", "");
        let keys: Vec<&str> = histories.iter().map(History::key).collect();
        let cached: Vec<Option<i64>> = redis::cmd("MGET").arg(keys).query(&mut self.redis).unwrap();
        for (row, (history, cached)) in histories.into_iter().zip(cached).enumerate() {
            let is_old = cached.is_some_and(|cached| cached != versions[&row]);
            let is_fast = history.seen.slowest_reader <= history.second_after();
            tally.histories += 1;
            tally.left_behind += usize::from(is_old);
            tally.left_by_fast_readers += usize::from(is_old && is_fast);
            tally.old_hits += history.seen.old_hits;
            tally.filled += history.seen.filled;
            tally.refused += history.seen.refused;
            for met in history.seen.met {
                *tally.met.entry(met).or_default() += 1;
            }
        }
    }
}
