//! `replay`: the whole topic once more, outside the consumer group.

use std::collections::BTreeMap;

use contentflow::generate::{Kind, Mix};
use serde::Deserialize;

use crate::interruptions::mixed;
use crate::world::{Ended, Offsets, PARTITIONS, Report, World, event, eventually, images};

mod interrupted;
mod options;
mod compacted;

/// The report of a replay.
#[derive(Clone, Debug, Deserialize)]
struct Replayed {
    #[serde(flatten)]
    report: Report,
    rows_written: u64,
    rows_to_write: Option<u64>,
    epochs: u64,
    complete: bool,
    next: BTreeMap<i32, i64>,
}

fn replayed(ended: &Ended) -> Replayed {
    ended.report();
    serde_json::from_str(ended.success()).unwrap()
}

/// What it reports that was stopped before the end.
fn stopped(ended: &Ended) -> Replayed {
    assert!(ended.failure(1).contains("stopped before the end"), "{}", ended.err);
    let replayed: Replayed = serde_json::from_str(&ended.out).unwrap();
    assert!(!replayed.complete, "{}", ended.out);
    replayed
}

/// Replays to the end.
fn replay(world: &World, flags: &[&str]) -> Replayed {
    let ended = world.call(&[&["replay", "--report", "json"], flags].concat());
    let replayed = replayed(&ended);
    assert!(replayed.complete, "{}", ended.err);
    replayed
}

#[test]
fn a_replay_makes_the_rows_of_the_whole_topic_and_leaves_the_group_alone() {
    let mut world = World::new("replay");
    world.set("run.retry_backoff_ms", 5);
    let load = world.load(mixed(11, 4_000));
    world.commit(1, 3);

    let first = replay(&world, &[]);

    world.assert_rows(&load);
    assert_eq!(first.report.read, 4_000);
    assert_eq!(first.report.skipped, load.count(|kind| kind == Kind::Foreign));
    assert_eq!(first.report.rejected, load.count(|kind| matches!(kind, Kind::Bad(_))));
    assert_eq!(first.report.duplicate, load.count(|kind| kind == Kind::Duplicate));
    assert_eq!(first.epochs, 1);
    assert_eq!(first.rows_written, world.rows_with_images(), "each row once, however many events");
    assert_eq!(first.report.read_to(), world.ends());
    assert_eq!(Offsets::from_iter(first.next), world.ends());
    assert!(world.rejects().is_empty(), "the dead letters are for those who ask for them");
    assert_eq!(world.committed(), [(1, 3)].into(), "the group stands where it stood");

    // Of a topic whose rows are up to date nothing is written, but every key is deleted that may
    // hold an old value.
    let rows = world.rows();
    let draft = rows.iter().find(|(_, row)| !row.is_untouched()).unwrap().0;
    world.cache_again(draft);
    let again = replay(&world, &["-w", "3"]);
    assert_eq!(world.rows(), rows, "not even xmin has changed");
    assert_eq!((again.rows_written, again.report.applied), (0, 0));
    assert_eq!((again.report.read, again.report.workers), (4_000, 3));
    assert_eq!(again.report.keys_deleted, 1);
    assert_eq!(world.cached(draft), None);
    assert_eq!(world.committed(), [(1, 3)].into());
}

#[test]
fn the_group_has_no_offsets_and_no_member_after_a_replay_of_a_topic_that_it_never_read() {
    let world = World::new("replay-no-group");
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1")]);
    let running = world.start_run();
    eventually("it runs", || running.err().contains("assigned"));
    running.stop();
    world.delete_group();
    assert_eq!(replay(&world, &[]).report.read, 1);
    assert_eq!(world.committed(), Offsets::new());
}

#[test]
fn only_the_partitions_that_were_named_are_read() {
    let world = World::new("replay-partitions");
    let drafts = ["d0", "d1", "d2", "d3"];
    world.drafts(drafts);
    world.publish((0..).zip(drafts).map(|(partition, draft)| event(draft, "job").on(partition)));
    let read = replay(&world, &["--partitions", "0,2-3"]);
    assert_eq!(read.report.outcomes(), [3, 3, 0, 0, 0, 0]);
    assert_eq!(read.report.read_to(), [(0, 1), (2, 1), (3, 1)].into());
    let rows = world.rows();
    assert!(rows["d1"].is_untouched());
    assert!(["d0", "d2", "d3"].into_iter().all(|draft| rows[draft].images() == &images("job")));

    let unknown = world.call(&["replay", "--partitions", "1,7"]);
    let text = unknown.failure(1);
    let expected = format!("error: the topic {} has no partition 7", world.topic());
    assert!(text.contains(&expected) && text.contains("hint: its partitions are 0 to 3"), "{text}");
    for nonsense in ["3-1", "a", ""] {
        world.call(&["replay", "--partitions", nonsense]).failure(2);
    }
    assert!(world.rows()["d1"].is_untouched());
}

#[test]
fn it_begins_with_the_first_record_of_that_time() {
    let world = World::new("replay-from");
    let drafts = ["d0", "d1", "d2", "d3", "d4"];
    world.drafts(drafts);
    // 1,500,000,000,000 ms and 0, 1, 2, 3, 4 seconds.
    let events = (0..).zip(drafts).map(|(n, draft)| event(draft, "job").at(1_000 * n).on(0));
    world.publish(events);
    let written = |world: &World| -> Vec<String> {
        let rows = world.rows().into_iter().filter(|(_, row)| !row.is_untouched());
        rows.map(|(id, _)| id).collect()
    };

    let none = replay(&world, &["--from", "2099-01-01T00:00:00Z"]);
    assert_eq!((none.report.read, none.epochs), (0, 0));
    assert_eq!(replay(&world, &["--from", "1500000003001"]).report.read_to(), [(0, 5)].into());
    assert_eq!(written(&world), ["d4"]);
    let from = replay(&world, &["--from", "2017-07-14T04:40:02+02:00"]);
    assert_eq!(from.report.outcomes(), [3, 2, 1, 0, 0, 0]);
    assert_eq!(written(&world), ["d2", "d3", "d4"]);

    let text = world.call(&["replay", "--from", "yesterday"]);
    let text = text.failure(2);
    assert!(text.contains("yesterday") && text.contains("RFC 3339"), "{text}");
}

#[test]
fn a_topic_that_is_empty_or_missing_is_said_to_be() {
    let mut world = World::new("replay-empty");
    let nothing = replay(&world, &[]);
    assert_eq!((nothing.report.outcomes(), nothing.epochs), ([0; 6], 0));
    assert_eq!(nothing.next.len(), usize::try_from(PARTITIONS).unwrap());
    world.set("kafka.topic", "no-such-topic");
    let text = world.call(&["replay"]);
    let text = text.failure(1);
    assert!(text.contains("no-such-topic does not exist") && text.contains("hint: "), "{text}");
}

#[test]
fn offsets_that_are_not_there_are_never_skipped_quietly() {
    let mut world = World::new("replay-offsets");
    world.drafts(["d1"]);
    world.publish((0..5).map(|n| event("d1", &format!("job-{n}")).at(n).on(0)));
    world.delete_records(0, 2);
    let text = world.call(&["replay", "--from-offsets", "0:1"]);
    let text = text.failure(1);
    assert!(text.contains("begins at offset 2: 1 records from 1 on were deleted"), "{text}");
    let text = world.call(&["replay", "--from-offsets", "0:6"]);
    assert!(text.failure(1).contains("partition 0 ends at offset 5, before 6"), "{}", text.err);
    assert!(world.row("d1").is_untouched());
    world.set("run.on_data_loss", "continue");
    assert_eq!(replay(&world, &["--from-offsets", "0:1"]).report.read_to(), [(0, 5)].into());
    assert_eq!(world.row("d1").jobs(), ["job-4", "job-3", "job-2"]);
    world.call(&["replay", "--from-offsets", "0:1", "--partitions", "0"]).failure(2);
}

#[test]
fn what_is_no_record_or_comes_later_is_not_waited_for() {
    let world = World::new("replay-gaps");
    world.drafts(["d1", "d2", "d3"]);
    world.publish([event("d1", "job-1").on(0)]);
    // Ends in an aborted transaction, whose records and marker stand at the end of the partition.
    world.begin([event("d2", "job-2").on(0)]).abort();
    // A transaction that is still open hides what is behind it.
    let open = world.begin([event("d3", "job-3").on(1)]);
    let first = replay(&world, &[]);
    assert_eq!(first.report.outcomes(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(first.next[&1], 0, "what is hidden still is not passed over");
    open.commit();
    assert_eq!(replay(&world, &[]).report.outcomes(), [2, 1, 1, 0, 0, 0]);
    assert!(world.row("d2").is_untouched());
    // A transaction's marker is no record, and nothing to go past.
    let end = replay(&world, &[]).next[&1];
    assert_eq!(end, world.ends()[&1] - 1, "behind the record there is only the marker");
}

#[test]
fn a_replay_beside_a_run_comes_to_the_same_rows() {
    let mut world = World::new("replay-and-run");
    world.set("run.retry_backoff_ms", 5);
    let mix = mixed(12, 6_000);
    let first = world.load(Mix { events: 3_000, ..mixed(12, 6_000) });
    let running = world.start_run();
    let replaying = world.start(&["replay", "--memory", "1MiB", "--report", "json"]);
    let second = world.publish_load(mix);
    let replayed = replayed(&replaying.wait());
    assert!(replayed.complete);
    eventually("the run is through", || world.committed() == world.ends());
    running.stop().report();
    // Both loads have the same drafts; their events are told apart by where they stand.
    world.assert_rows(&first.joined(second));
}
