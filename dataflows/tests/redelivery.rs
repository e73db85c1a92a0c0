//! Nothing depends on where epochs end, on crashes, or on how often a topic is read.
//!
//! That holds where the events of a draft share a partition, as they do when the draft is the key:
//! between partitions there is no order of delivery to fall back on. And it holds where the
//! database refuses nothing: a refused event supersedes nothing, but whether it is tried at all
//! depends on what else is in its epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use crate::model::{Fate, fold, read};
use crate::properties::{Database, Keyed, cut, drafts, draws, setups, topic, world};
use crate::run::{Setup, lock, run};
use crate::topic::{Epoch, Part, Sent};
use crate::world::World;

/// One run that ends in a crash.
#[derive(Clone, Debug)]
struct Attempt {
    setup: Setup,
    /// After so many effects.
    crash_after: u64,
    /// Where the next one starts again: this many records below what was committed.
    rewind: usize,
    /// Records per chunk, and chunks per epoch.
    cut: (usize, usize),
}

fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    let attempt = (setups(), 1..60_u64, 0..5_usize, (1..8_usize, 1..6_usize));
    let attempt = attempt.prop_map(|(setup, crash_after, rewind, cut)| Attempt {
        setup,
        crash_after,
        rewind,
        cut,
    });
    proptest::collection::vec(attempt, 1..4)
}

/// Cuts a topic evenly.
fn even(topic: &[Sent], (records, chunks): (usize, usize)) -> Vec<Epoch> {
    let part = |(worker, records): (usize, &[Sent])| Part { worker, records: records.to_vec() };
    let parts: Vec<Part> = topic.chunks(records).enumerate().map(part).collect();
    parts.chunks(chunks).map(|chunks| Epoch { created: vec![], chunks: chunks.to_vec() }).collect()
}

/// One epoch for each record: the topic as it would be read by someone in no hurry.
fn one_by_one(topic: &[Sent]) -> Vec<Epoch> {
    let mut epochs = even(topic, (1, 1));
    epochs.insert(0, Epoch { created: drafts(), chunks: vec![] });
    epochs
}

/// What is left to read, from the committed offsets or a little before.
fn rest(topic: &[Sent], committed: &BTreeMap<i32, i64>, rewind: usize) -> Vec<Sent> {
    let is_done = |record: &&Sent| committed.get(&record.partition) > Some(&record.offset);
    let mut done: Vec<&Sent> = topic.iter().filter(is_done).collect();
    let again: BTreeSet<_> = done
        .split_off(done.len().saturating_sub(rewind))
        .iter()
        .map(|record| record.at())
        .collect();
    // Read again from its first record on that is not done or is wanted again, a partition has no
    // holes.
    let mut from: BTreeMap<i32, i64> = BTreeMap::new();
    for record in topic {
        if !is_done(&record) || again.contains(&record.at()) {
            from.entry(record.partition).or_insert(record.offset);
        }
    }
    let is_left =
        |record: &&Sent| from.get(&record.partition).is_some_and(|offset| record.offset >= *offset);
    topic.iter().filter(is_left).cloned().collect()
}

/// Reads a topic in some runs that crash, and a last one that does not, each from where the one
/// before left off.
fn crash_and_finish(
    topic: &[Sent],
    crashes: Vec<Attempt>,
    last: &Setup,
    world: &Arc<Mutex<World>>,
) {
    let mut left = topic.to_vec();
    let mut committed = BTreeMap::new();
    for Attempt { setup, crash_after, rewind, cut } in crashes {
        lock(world).restart(Some(crash_after));
        committed.extend(run(&setup, &even(&left, cut), world).committed);
        left = rest(topic, &committed, rewind);
    }
    lock(world).restart(None);
    run(last, &even(&left, (3, 2)), world);
}

/// What must hold whenever the graph has come to rest.
fn assert_settled(world: &World, topic: &[Sent]) {
    let expected = fold(&one_by_one(topic));
    assert_eq!(world.rows(), expected.rows);
    for (draft, row) in &world.table {
        assert!(
            world.deleted_at.get(draft).copied().unwrap_or_default() >= row.written_at,
            "the key of {draft} is left although its row has changed"
        );
    }
    for (at, fate) in expected.fates {
        let rejected = matches!(fate, Fate::Rejected(_));
        assert_eq!(world.letters.contains_key(&at), rejected, "the dead letter of {at:?}");
    }
}

/// What must hold even then where the database refuses events and partitions are mixed.
fn assert_nothing_vanished(world: &World, topic: &[Sent]) {
    let rows = world.rows();
    for (at, event) in topic.iter().filter_map(|record| Some((record.at(), read(record).ok()?))) {
        let row = rows.get(&event.draft);
        let remembered = row.is_some_and(|row| row.recent.iter().any(|(_, job)| *job == event.job));
        assert!(
            remembered || world.letters.contains_key(&at),
            "{at:?} is neither remembered by its row nor dead-lettered"
        );
    }
    for (draft, row) in rows {
        let newest = row.recent.first().map(|(position, _)| *position);
        assert_eq!(row.applied, newest, "{draft} holds the newest event that reached it");
    }
}

proptest! {
    #[test]
    fn rows_do_not_depend_on_epochs_and_workers(
        draws in draws(16, Database::AcceptsAll), setup in setups(), loses_answers: bool
    ) {
        let topic = topic(&draws, Keyed::ByDraft);
        let world = world(loses_answers);
        run(&setup, &cut(&topic, &draws), &world);
        assert_settled(&lock(&world), &topic);
    }

    #[test]
    fn rows_do_not_depend_on_crashes(
        draws in draws(16, Database::AcceptsAll), crashes in attempts(), last in setups(), loses_answers: bool
    ) {
        let topic = topic(&draws, Keyed::ByDraft);
        let world = world(loses_answers);
        crash_and_finish(&topic, crashes, &last, &world);
        assert_settled(&lock(&world), &topic);
    }

    #[test]
    fn nothing_vanishes_in_crashes(
        draws in draws(16, Database::RefusesSome), crashes in attempts(), last in setups(), loses_answers: bool
    ) {
        let topic = topic(&draws, Keyed::Anyhow);
        let world = world(loses_answers);
        crash_and_finish(&topic, crashes, &last, &world);
        assert_nothing_vanished(&lock(&world), &topic);
    }

    /// Not even with refusals, and not when partitions are mixed: the row knows all its jobs.
    #[test]
    fn a_replay_of_everything_changes_no_images(
        draws in draws(16, Database::RefusesSome), first in setups(), again in setups()
    ) {
        let topic = topic(&draws, Keyed::Anyhow);
        let world = world(false);
        run(&first, &cut(&topic, &draws), &world);
        let before = lock(&world).table.clone();
        lock(&world).restart(None);
        let replay = run(&again, &even(&topic, (4, 3)), &world);
        assert_eq!(replay.totals.applied, 0);
        for (draft, row) in &lock(&world).table {
            assert_eq!(row.images, before[draft].images);
            assert_eq!(row.memory.applied, before[draft].memory.applied);
        }
    }

    #[test]
    fn a_replay_of_everything_writes_no_row(
        draws in draws(16, Database::AcceptsAll), first in setups(), again in setups()
    ) {
        let topic = topic(&draws, Keyed::Anyhow);
        let world = world(false);
        run(&first, &cut(&topic, &draws), &world);
        let before = lock(&world).table.clone();
        lock(&world).restart(None);
        run(&again, &even(&topic, (4, 3)), &world);
        for (draft, row) in &lock(&world).table {
            assert_eq!(row.written_at, before[draft].written_at, "{draft} was written again");
        }
    }

    /// Without this a failure of the others could not be repeated.
    #[test]
    fn a_run_follows_from_its_seed(draws in draws(16, Database::RefusesSome), setup in setups()) {
        let epochs = cut(&topic(&draws, Keyed::Anyhow), &draws);
        let [first, second] = [(); 2].map(|()| {
            let world = world(true);
            run(&setup, &epochs, &world);
            format!("{:?}", lock(&world))
        });
        assert_eq!(first, second);
    }
}
