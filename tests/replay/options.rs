//! What a replay writes: nothing, more than a run, or dead letters too.

use contentflow::generate::Mix;

use super::{replay, replayed};
use crate::interruptions::mixed;
use crate::world::{Offsets, Record, World, event};

#[test]
fn a_dry_run_touches_nothing_and_says_what_a_replay_would_do() {
    let mut world = World::new("replay-dry");
    world.set("run.retry_backoff_ms", 5);
    let load = world.load(mixed(13, 3_000));
    let (rows, keys) = (world.rows(), world.cache.keys());
    world.set("cache.url", "redis://127.0.0.1:1/0");
    let dry = |world: &World, flags: &[&str]| {
        let ended = world.call(&[&["replay", "--dry-run", "--report", "json"], flags].concat());
        let text = ended.success().to_owned();
        (replayed(&ended), text)
    };

    let (would, text) = dry(&world, &[]);
    let (in_parts, _) = dry(&world, &["--memory", "1MiB"]);

    assert_eq!((world.rows(), world.cache.keys()), (rows, keys), "not even xmin has changed");
    assert!(world.rejects().is_empty());
    assert_eq!(world.committed(), Offsets::new());
    assert!(text.contains("\"dry_run\":true"), "{text}");
    assert_eq!((would.rows_written, would.report.deletes), (0, 0));

    world.unwire_cache();
    let did = replay(&world, &[]);
    world.assert_rows(&load);
    assert_eq!(would.report.outcomes(), did.report.outcomes());
    assert_eq!(would.report.rejected_by_reason, did.report.rejected_by_reason);
    assert_eq!(would.rows_to_write, Some(did.rows_written));
    assert_eq!(in_parts.rows_to_write, Some(did.rows_written), "a row that changes twice is one");
    assert_eq!(did.rows_to_write, None);
    assert_eq!(dry(&world, &[]).0.rows_to_write, Some(0), "there is nothing left to do");

    let people = world.call(&["replay", "--dry-run"]);
    let people = people.success();
    assert!(people.contains("dry run: nothing was written"), "{people}");
    assert!(people.contains("would be written") && people.contains("reported only"), "{people}");
    world.call(&["replay", "--dry-run", "--dead-letters"]).failure(2);
}

#[test]
fn rewritten_are_the_images_of_the_event_that_the_row_has() {
    let world = World::new("replay-rewrite");
    world.drafts(["d1", "d2", "d3"]);
    world.publish([
        event("d1", "old").at(1).on(0),
        event("d1", "new").at(2).on(0),
        event("d1", "old").at(3).on(0),
        event("d2", "only").at(1).on(1),
        event("d3", "old").at(1).on(2),
        event("d3", "new").at(2).on(3),
    ]);
    replay(&world, &[]);
    let good = world.rows();
    world.database.sql("UPDATE event_drafts SET content_images = '{}', updated_at = '2020-01-01'");
    world.cache_again("d2");
    assert_eq!(replay(&world, &[]).rows_written, 0, "without the flag the row decides");

    let would = replay(&world, &["--rewrite", "--dry-run"]);
    assert_eq!((would.rows_to_write, would.rows_written), (Some(3), 0));
    let some = replay(&world, &["--rewrite", "--partitions", "0-2"]);

    assert_eq!(some.report.outcomes(), [5, 2, 3, 0, 0, 0]);
    assert_eq!(some.rows_written, 2);
    let rows = world.rows();
    for draft in ["d1", "d2"] {
        assert_eq!(rows[draft].content(), good[draft].content(), "{draft}");
        assert_ne!(rows[draft].updated_at(), "2020-01-01T00:00:00+00:00", "{draft}");
    }
    assert_eq!(world.cached("d2"), None);
    // What was read of it is older than what its row has.
    assert_eq!(rows["d3"].images(), &serde_json::json!({}));
    replay(&world, &["--rewrite"]);
    assert_eq!(world.rows()["d3"].content(), good["d3"].content());
}

#[test]
fn rejects_become_dead_letters_only_when_asked_to() {
    let mut world = World::new("replay-rejects");
    world.set("run.retry_backoff_ms", 5);
    let load = world.load(Mix { bad: 0.2, ..mixed(14, 1_000) });
    let quiet = replay(&world, &[]);
    assert!(world.dead_letters().is_empty());
    let loud = replay(&world, &["--dead-letters"]);
    assert_eq!(world.rejects(), load.rejects());
    assert_eq!(quiet.report.rejected_by_reason, loud.report.rejected_by_reason);
    assert_eq!(usize::try_from(loud.report.rejected), Ok(load.rejects().len()));
    let records = world.records();
    for letter in world.dead_letters() {
        let place = |name: &str| letter.header(name).unwrap().parse::<i64>().unwrap();
        let original = records.iter().find(|record| {
            (record.partition.map(i64::from), record.offset)
                == (Some(place("dlq.partition")), place("dlq.offset"))
        });
        let bytes = |record: Record| (record.key, record.value, record.headers);
        assert_eq!(bytes(letter.own()), bytes(original.unwrap().own()));
    }
    world.assert_rows(&load);

    // Who does not ask for dead letters needs no topic for them.
    world.set("dead_letters.topic", "no-such-topic");
    replay(&world, &[]);
    let text = world.call(&["replay", "--dead-letters"]);
    assert!(text.failure(1).contains("no-such-topic does not exist"), "{}", text.err);
}
