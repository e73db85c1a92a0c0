//! Graph and model agree, whatever the records, the epochs, the workers and the servers do.
//!
//! A failure prints its input, and keeps its seed under `proptest-regressions`, from where it is
//! tried first the next time. `PROPTEST_CASES` sets how many inputs are tried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use dataflows::outcome::Tally;
use dataflows::reject::Reason;
use proptest::prelude::*;

use crate::model::{Fate, Verdict, fold};
use crate::run::{Setup, lock, run};
use crate::topic::{Epoch, Part, Sent, event};
use crate::world::{ATTEMPTS, Letter, Stored, World};

/// How many drafts there are. One more is named by the events, but has no row.
const DRAFTS: u8 = 4;

/// A record before it has its place on the topic.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    pub draft: u8,
    job: u8,
    timestamp_ms: i64,
    kind: Kind,
    partition: i32,
    /// How many offsets are skipped before it, as by a transaction's markers.
    gap: i64,
    replayed: bool,
    stamped: Option<i64>,
    /// Whether it ends a chunk, which goes to that worker, and with it an epoch.
    ends: Option<(usize, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Event,
    Refused,
    Foreign,
    Bad(u8),
}

/// Which partition an event goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyed {
    /// Always that of its draft.
    ByDraft,
    /// Any.
    Anyhow,
}

/// What the database may do besides accepting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    AcceptsAll,
    RefusesSome,
}

pub(crate) fn draws(jobs: u8, database: Database) -> impl Strategy<Value = Vec<Draw>> {
    let refusals = if database == Database::RefusesSome { 3 } else { 0 };
    let kind = prop_oneof![
        16 => Just(Kind::Event),
        refusals => Just(Kind::Refused),
        1 => Just(Kind::Foreign),
        2 => (0..4_u8).prop_map(Kind::Bad),
    ];
    let draft = prop_oneof![12 => 0..DRAFTS, 1 => Just(DRAFTS)];
    // A few jobs that come again and again among those that come seldom.
    let job = prop_oneof![3 => 0..4_u8, 2 => 0..jobs];
    // Few times, so that many are equal.
    let place = (0..3_i32, 1..3_i64, -1..8_i64, proptest::option::weighted(0.1, 0..8_i64));
    let ends = proptest::option::weighted(0.4, (0..4_usize, proptest::bool::weighted(0.4)));
    let draw = (draft, job, kind, place, proptest::bool::weighted(0.1), ends);
    let draw = draw.prop_map(|(draft, job, kind, place, replayed, ends)| {
        let (partition, gap, timestamp_ms, stamped) = place;
        Draw { draft, job, timestamp_ms, kind, partition, gap, replayed, stamped, ends }
    });
    proptest::collection::vec(draw, 0..60)
}

pub(crate) fn setups() -> impl Strategy<Value = Setup> {
    let sizes = (1..5_usize, 1..4_usize, 1..4_usize, 1..4_usize, 1..20_usize, 1..5_usize);
    let compaction = proptest::option::of(1..4_usize);
    (sizes, compaction, any::<u64>()).prop_map(|(sizes, compaction, seed)| {
        let (workers, lanes, rows_max, keys_max, dedupe_jobs, epochs_in_flight) = sizes;
        Setup {
            workers,
            lanes,
            rows_max,
            keys_max,
            dedupe_jobs,
            epochs_in_flight,
            compaction,
            in_turns: true,
            seed,
        }
    })
}

/// The topic that the draws make.
pub(crate) fn topic(draws: &[Draw], keyed: Keyed) -> Vec<Sent> {
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    let place = |draw: &Draw| {
        let partition =
            if keyed == Keyed::ByDraft { i32::from(draw.draft) % 3 } else { draw.partition };
        let offset = next.entry(partition).or_default();
        *offset += draw.gap;
        draw.sent((partition, *offset))
    };
    draws.iter().map(place).collect()
}

impl Draw {
    fn sent(&self, at: (i32, i64)) -> Sent {
        let (job, draft) = (format!("j{}", self.job), format!("d{}", self.draft));
        let value = match self.kind {
            Kind::Event => event(at, &job, &draft, false),
            Kind::Refused => event(at, &job, &draft, true),
            Kind::Foreign => br#"{"eventType": "DraftRenamed"}"#.to_vec(),
            Kind::Bad(0) => br#"{"jobId": 1}"#.to_vec(),
            Kind::Bad(1) => b"\xff{}".to_vec(),
            Kind::Bad(_) => b"not JSON".to_vec(),
        };
        let mut headers =
            vec![("trace".to_owned(), Some(vec![0xff, self.job])), ("x".to_owned(), None)];
        if self.replayed {
            headers.push(("dlq.replays".to_owned(), Some(b"1".to_vec())));
        }
        if let Some(timestamp_ms) = self.stamped {
            headers.push(("dlq.timestamp".to_owned(), Some(timestamp_ms.to_string().into())));
        }
        Sent {
            partition: at.0,
            offset: at.1,
            timestamp_ms: self.timestamp_ms,
            stamped_by_topic: self.gap == 1,
            key: (self.timestamp_ms > 2).then(|| draft.into()),
            value: (self.kind != Kind::Bad(3)).then_some(value),
            headers,
        }
    }
}

/// Cuts a topic where the draws say so.
pub(crate) fn cut(topic: &[Sent], draws: &[Draw]) -> Vec<Epoch> {
    let mut epochs = vec![Epoch { created: drafts(), chunks: Vec::new() }];
    let mut part = Part::default();
    for (record, draw) in topic.iter().zip(draws) {
        part.records.push(record.clone());
        let Some((worker, ends_epoch)) = draw.ends else { continue };
        part.worker = worker;
        epochs.last_mut().unwrap().chunks.push(std::mem::take(&mut part));
        if ends_epoch {
            epochs.push(Epoch::default());
        }
    }
    epochs.last_mut().unwrap().chunks.push(part);
    epochs
}

pub(crate) fn drafts() -> Vec<String> {
    (0..DRAFTS).map(|draft| format!("d{draft}")).collect()
}

/// A world with a row for each draft.
pub(crate) fn world(loses_answers: bool) -> Arc<Mutex<World>> {
    let table = drafts().into_iter().map(|draft| (draft, Stored::default())).collect();
    Arc::new(Mutex::new(World { table, loses_answers, ..World::default() }))
}

/// Everything that a finished run must have in common with the model.
fn assert_agrees(world: &World, totals: &Tally, epochs: &[Epoch], expected: &Verdict) {
    let records: Vec<&Sent> = epochs.iter().flat_map(Epoch::records).collect();
    let mut fates = world.fates.clone();
    // Nobody outside hears of a record of another type.
    fates.extend(expected.fates.iter().filter(|(_, fate)| **fate == Fate::Skipped));
    assert_eq!(fates, expected.fates, "what became of each record");
    assert_eq!(world.rows(), expected.rows, "the final rows");
    let deleted: BTreeSet<String> = world.deleted_at.keys().cloned().collect();
    assert_eq!(deleted, expected.deleted, "the deleted keys");
    for (draft, row) in &world.table {
        assert!(world.deleted_at.get(draft).copied().unwrap_or_default() >= row.written_at);
    }
    assert_letters(world, &records, expected);
    assert_totals(world, totals, records.len(), expected);
}

/// The dead letters are the rejects, byte for byte, and none of them twice unless an answer was
/// lost.
fn assert_letters(world: &World, records: &[&Sent], expected: &Verdict) {
    let mut copies = world.letters.clone();
    for record in records {
        let Fate::Rejected(reason) = expected.fates[&record.at()] else { continue };
        let letters = copies.remove(&record.at()).expect("every reject has a dead letter");
        assert!(letters.len() == 1 || world.loses_answers, "{letters:?}");
        let written = matches!(reason, Reason::UnknownDraft | Reason::DatabaseRefused);
        let original = record.header("dlq.timestamp").filter(|_| record.stamped_by_topic);
        let letter = Letter {
            reason,
            message: letters[0].message.clone(),
            attempts: if written { ATTEMPTS } else { 0 },
            timestamp_ms: original.map_or(record.timestamp_ms, |text| text.parse().unwrap()),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        };
        letters.iter().for_each(|copy| assert_eq!(*copy, letter));
    }
    assert!(copies.is_empty(), "dead letters of records that were not rejected: {copies:?}");
}

/// The totals count every record once, and as what it became.
fn assert_totals(world: &World, totals: &Tally, records: usize, expected: &Verdict) {
    let count = |fate: Fate| {
        u64::try_from(expected.fates.values().filter(|known| **known == fate).count()).unwrap()
    };
    assert_eq!(totals.records(), u64::try_from(records).unwrap());
    assert_eq!(totals.skipped, count(Fate::Skipped));
    for reason in Reason::ALL {
        assert_eq!(totals.rejected_for(reason), count(Fate::Rejected(reason)), "{reason:?}");
    }
    // Where an answer was lost, what was done again came out as a duplicate.
    if !world.loses_answers {
        assert_eq!(totals.applied, count(Fate::Applied));
        assert_eq!(totals.duplicate, count(Fate::Duplicate));
        assert_eq!(totals.superseded, count(Fate::Superseded));
    }
}

proptest! {
    /// With no more jobs a draft than its row remembers, the graph does exactly what the model
    /// does.
    #[test]
    fn the_graph_does_what_the_model_does(
        draws in draws(16, Database::RefusesSome), setup in setups(), loses_answers: bool
    ) {
        let epochs = cut(&topic(&draws, Keyed::Anyhow), &draws);
        let world = world(loses_answers);
        let ran = run(&setup, &epochs, &world);
        assert_agrees(&lock(&world), &ran.totals, &epochs, &fold(&epochs));
        let mut next = BTreeMap::new();
        for record in epochs.iter().flat_map(Epoch::records) {
            next.insert(record.partition, record.offset + 1);
        }
        assert_eq!(ran.committed, next, "all that was read can be committed");
    }

    /// The same with more jobs than a row remembers, when the window holds them all and one epoch
    /// is done before the next.
    #[test]
    fn the_window_remembers_what_the_row_forgot(
        draws in draws(60, Database::RefusesSome), setup in setups(), loses_answers: bool
    ) {
        let draws: Vec<Draw> = draws.into_iter().map(|draw| Draw { draft: draw.draft % 2, ..draw }).collect();
        let epochs = cut(&topic(&draws, Keyed::Anyhow), &draws);
        let world = world(loses_answers);
        let setup = Setup { dedupe_jobs: 1_000, epochs_in_flight: 1, ..setup };
        let ran = run(&setup, &epochs, &world);
        assert_agrees(&lock(&world), &ran.totals, &epochs, &fold(&epochs));
    }

    /// With more jobs than row and window remember, a duplicate may be taken for a new event, and
    /// no more than that: the row holds the images of an event of its own, no older than the one it
    /// should hold. (What is refused or replayed counts otherwise, depending on what is remembered;
    /// so there is none here.)
    #[test]
    fn what_is_forgotten_costs_no_more_than_a_duplicate(
        draws in draws(60, Database::AcceptsAll), setup in setups()
    ) {
        let draws: Vec<Draw> =
            draws.into_iter().map(|draw| Draw { draft: 0, replayed: false, ..draw }).collect();
        let epochs = cut(&topic(&draws, Keyed::Anyhow), &draws);
        let world = world(false);
        run(&setup, &epochs, &world);
        let (world, expected) = (lock(&world), fold(&epochs));
        let rows = world.rows();
        for (draft, row) in &rows {
            assert!(row.applied >= expected.rows[draft].applied);
            let jobs: BTreeSet<&String> = row.recent.iter().map(|(_, job)| job).collect();
            assert_eq!(jobs.len(), row.recent.len().min(16), "a job is remembered once");
            if let Some(applied) = row.applied {
                let at = (applied.partition, applied.offset);
                assert!(row.images.as_ref().unwrap().contains(&format!("/cdn/{}/{}/", at.0, at.1)));
                assert_eq!(world.fates[&at], Fate::Applied);
            }
        }
    }
}

proptest! {
    // Threads that wait for each other are slow on a busy machine.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 8))]

    /// The same with workers that run as they like.
    #[test]
    fn the_graph_does_what_the_model_does_in_any_order(
        draws in draws(16, Database::RefusesSome), setup in setups(), loses_answers: bool
    ) {
        let epochs = cut(&topic(&draws, Keyed::Anyhow), &draws);
        let world = world(loses_answers);
        let ran = run(&Setup { in_turns: false, ..setup }, &epochs, &world);
        assert_agrees(&lock(&world), &ran.totals, &epochs, &fold(&epochs));
    }
}
