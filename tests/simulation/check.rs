//! What must hold when all has come to rest: the contract as a fold over the topic, and nothing of
//! the program in it.

use std::collections::{BTreeMap, BTreeSet};

use dataflows::record::Position;

use super::history::{At, History, Kind, Record};
use super::life::RETRIES;
use super::world::{Letter, Row, Violation, World};

/// Checks the world against the history.
pub(crate) fn check(world: &mut World, history: &History) {
    if world.violations.is_empty() {
        check_rows(world, history);
        check_letters(world, history);
        check_cache(world);
    }
}

fn position(record: &Record) -> Position {
    let (partition, offset) = record.at;
    Position { timestamp_ms: record.timestamp_ms, offset, partition }
}

/// The job whose images each draft must show.
fn fold(history: &History) -> BTreeMap<&str, &Record> {
    let mut first: BTreeMap<(&str, &str), &Record> = BTreeMap::new();
    for record in history.records.iter().filter(|record| record.kind == Kind::Event) {
        let known = first.entry((&record.draft, &record.job)).or_insert(record);
        *known = if record.at < known.at { record } else { known };
    }
    let mut newest: BTreeMap<&str, &Record> = BTreeMap::new();
    for ((draft, _), record) in first {
        let known = newest.entry(draft).or_insert(record);
        *known = if position(record) > position(known) { record } else { known };
    }
    newest
}

fn check_rows(world: &mut World, history: &History) {
    let expected = fold(history);
    for draft in &history.drafts {
        if history.sealed.as_ref().is_some_and(|(sealed, _)| sealed == draft) {
            continue;
        }
        let expected = expected.get(draft.as_str()).copied();
        let row = &world.rows[draft];
        let job =
            |images: &str| expected.is_some_and(|it| images.contains(&format!("/{}/", it.job)));
        let is_right = row.memory.applied == expected.map(position)
            && row.images.as_deref().map_or(expected.is_none(), job);
        if !is_right {
            let what = format!("{draft} holds {row:?}, not {expected:?}");
            world.violate(Violation::StaleRow, what);
        }
    }
    // Where a row came late, some of its events may have been given up before; where it was sealed,
    // after.
    for (draft, row) in world.rows.clone() {
        if row.memory.applied != row.memory.recent.first().map(|newest| newest.position) {
            world
                .violate(Violation::StaleRow, format!("{draft} does not hold its newest: {row:?}"));
        }
    }
    for record in &history.records {
        if !world.is_durable(record) {
            world.violate(Violation::Lost, format!("{record:?} has no outcome at the end"));
        }
    }
}

fn check_letters(world: &mut World, history: &History) {
    let is_late = |record: &Record| history.late_drafts.iter().any(|(it, _)| *it == record.draft);
    let by_at: BTreeMap<At, &Record> =
        history.records.iter().map(|record| (record.at, record)).collect();
    for letter in world.letters.clone() {
        let record = by_at[&letter.at];
        let has_row = history.drafts.contains(&record.draft);
        let attempts = RETRIES + 1;
        let is_right = match record.kind {
            Kind::Bad => letter.reason == "not-json",
            // What has reached its row asks nothing of it any more.
            Kind::Event if world.is_sealed(&record.draft) => {
                let reached_at = &world.rows[&record.draft].reached_at;
                letter.reason == "database-refused" && !reached_at.contains_key(&record.job)
            }
            Kind::Refused if has_row => letter.reason == "database-refused",
            Kind::Event | Kind::Refused if !has_row => {
                let refused = letter.reason == "database-refused" && record.kind == Kind::Refused;
                refused && is_late(record)
                    || letter.reason == "unknown-draft" && letter.attempts == attempts
            }
            _ => false,
        };
        if !is_right {
            world.violate(Violation::DeadLetter, format!("{letter:?} of {record:?}"));
        }
    }
    let buried: BTreeSet<At> = world.letters.iter().map(|letter| letter.at).collect();
    for record in &history.records {
        let must_be =
            record.kind == Kind::Bad || (record.kind != Kind::Foreign && record.draft == "nobody");
        if must_be && !buried.contains(&record.at) {
            world.violate(Violation::DeadLetter, format!("no dead letter of {record:?}"));
        }
    }
}

fn check_cache(world: &mut World) {
    for (draft, cached) in world.cache.clone() {
        if world.rows[&draft].images.clone().unwrap_or_default() != cached {
            let what = format!("the cache has {cached} of {draft}, whose row is newer");
            world.violate(Violation::StaleCache, what);
        }
    }
}

/// Checks that reading everything again has changed nothing.
pub(crate) fn check_replay(
    world: &mut World,
    history: &History,
    rows: &BTreeMap<String, Row>,
    letters: &[Letter],
) {
    let keys = |letters: &[Letter]| letters.iter().map(|letter| letter.at).collect::<BTreeSet<_>>();
    let wrote: Vec<String> = rows
        .iter()
        .filter(|(draft, row)| world.rows[*draft].written_at != row.written_at)
        .map(|(draft, _)| draft.clone())
        .collect();
    // An event that was refused as the newest, and meets a newer one now, is superseded and
    // remembered.
    let was_refused = |draft: &str| {
        let refused = world.records.iter().filter(|record| record.kind == Kind::Refused);
        refused.into_iter().any(|record| record.draft == draft)
    };
    let is_late = |draft: &str| history.late_drafts.iter().any(|(late, _)| late == draft);
    if wrote.iter().any(|draft| !was_refused(draft) && !is_late(draft)) {
        world.violate(Violation::Unrepeatable, format!("{wrote:?} were written again"));
    }
    if !keys(&world.letters).is_subset(&keys(letters)) {
        world.violate(Violation::Unrepeatable, "there are new dead letters".to_owned());
    }
}
