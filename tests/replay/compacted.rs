//! Large epochs in little memory, and what is read again because it was dropped.

use contentflow::generate::Mix;

use super::replay;
use crate::interruptions::mixed;
use crate::world::{Record, World, event, images};

#[test]
fn an_epoch_ends_when_the_memory_is_full_and_the_rows_are_the_same() {
    let mut world = World::new("replay-memory");
    world.set("run.retry_backoff_ms", 5);
    let load = world.load(Mix { drafts: 2_000, ..mixed(15, 12_000) });
    let parts = replay(&world, &["--memory", "1MiB"]);
    assert!(parts.epochs > 1, "{parts:?}");
    world.assert_rows(&load);
    let rows = world.rows();

    // By the configuration, too.
    world.set("replay.memory_bytes", 1_048_576);
    let again = replay(&world, &[]);
    assert!(again.epochs > 1, "{again:?}");
    assert_eq!((again.rows_written, again.report.read), (0, 12_000));
    assert_eq!(world.rows(), rows);
    let text = world.call(&["replay", "--memory", "1KiB"]);
    assert!(text.failure(2).contains("replay.memory_bytes"), "{}", text.err);
}

#[test]
fn many_events_of_few_drafts_are_one_epoch_in_little_memory_and_one_write_a_draft() {
    let world = World::new("replay-compacts");
    let mix = Mix { events: 60_000, drafts: 1_000, ..Mix::default() };
    let drafts = mix.drafts;
    let load = world.load(mix);
    // As they come, they would take up twice as much.
    let replayed = replay(&world, &["--memory", "24MiB"]);
    assert_eq!((replayed.report.read, replayed.epochs), (60_000, 1));
    assert_eq!(replayed.rows_written, drafts);
    assert_eq!(replayed.report.applied, drafts);
    assert_eq!(replayed.report.superseded, 60_000 - drafts);
    // A draft whose events are answered in two parts has its key deleted twice.
    assert!((drafts..2 * drafts).contains(&replayed.report.deletes), "{replayed:?}");
    world.assert_rows(&load);
}

#[test]
fn when_the_newest_is_refused_the_next_one_gets_its_turn_though_its_images_were_dropped() {
    let world = World::new("replay-refused");
    let drafts = ["d1", "d2", "d3", "d4"];
    world.drafts(drafts);
    world.refuse_jobs(&["bad", "worse"]);
    let events = |draft: &str, jobs: &[&str]| -> Vec<Record> {
        let at = (1..).zip(jobs);
        at.map(|(ms, job)| event(draft, job).at(ms).on(0)).collect()
    };
    world.publish(events("d1", &["old", "good", "bad", "worse"]));
    world.publish(events("d2", &["old", "good"]));
    world.publish(events("d3", &["bad"]));
    world.publish(events("d4", &["worse", "bad"]));
    let unknown = world.publish(events("ghost", &["a", "b"]));

    let first = replay(&world, &[]);

    assert_eq!(first.report.outcomes(), [11, 2, 0, 2, 0, 7]);
    let rows = world.rows();
    for draft in ["d1", "d2"] {
        assert_eq!(rows[draft].images(), &images("good"), "{draft}");
        assert_eq!(rows[draft].jobs(), ["good", "old"], "{draft}");
    }
    assert!(rows["d3"].is_untouched() && rows["d4"].is_untouched());
    assert!(world.dead_letters().is_empty());

    // As dead letters they are what they were, byte for byte.
    let loud = replay(&world, &["--dead-letters"]);
    assert_eq!(loud.report.outcomes(), [11, 0, 4, 0, 0, 7]);
    let letters = world.dead_letters();
    let reasons: Vec<_> = world.rejects().into_values().collect();
    assert_eq!(reasons.iter().filter(|reason| *reason == "database-refused").count(), 5);
    let records = world.records();
    for letter in &letters {
        let offset: i64 = letter.header("dlq.offset").unwrap().parse().unwrap();
        let original = records.iter().find(|record| record.offset == offset).unwrap().own();
        assert_eq!((&letter.own().value, &letter.own().key), (&original.value, &original.key));
    }
    assert_eq!(letters.len(), 7);
    assert!(unknown.iter().all(|place| world.rejects()[place] == "unknown-draft"));
    assert_eq!(world.rows(), rows);
}

#[test]
fn a_draft_with_thousands_of_events_is_read_again_in_parts() {
    let world = World::new("replay-refused-many");
    world.drafts(["d1"]);
    world.refuse_jobs(&["job-2499"]);
    world.publish((0..2_500).map(|number| {
        event("d1", &format!("job-{number}")).at(number).on(i32::try_from(number % 2).unwrap())
    }));

    let replayed = replay(&world, &["--dead-letters"]);

    assert_eq!(replayed.report.outcomes(), [2_500, 1, 0, 2_498, 0, 1]);
    assert_eq!(world.row("d1").images(), &images("job-2498"));
    assert_eq!(world.dead_letters().len(), 1);
}

#[test]
fn an_older_event_wins_where_the_row_knows_the_newest() {
    let world = World::new("replay-known");
    world.drafts(["d1"]);
    world.publish([event("d1", "x").at(1).on(0)]);
    replay(&world, &[]);
    world.publish([event("d1", "y").at(5).on(0), event("d1", "x").at(9).on(0)]);
    let replayed = replay(&world, &["--from-offsets", "0:1"]);
    assert_eq!(replayed.report.outcomes(), [2, 1, 1, 0, 0, 0]);
    assert_eq!(world.row("d1").images(), &images("y"));
    assert_eq!(world.row("d1").jobs(), ["y", "x"]);
}
