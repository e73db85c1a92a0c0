//! `replay`: the whole topic once more, outside the consumer group.

use std::collections::BTreeMap;

use contentflow::generate::{Kind, Mix};
use serde::Deserialize;

use crate::interruptions::mixed;
use crate::world::Session;
use crate::world::private::signal;
use crate::world::{Ended, Offsets, PARTITIONS, Record, Report, World, event, eventually, images};

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

    // Of a topic whose rows are up to date nothing is written, but every key is deleted that may hold an old value.
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

/// The command that a replay which has ended early tells to go on with, without the program's name.
fn way_on(ended: &Ended) -> Vec<&str> {
    let hint = ended.err.lines().find_map(|line| line.strip_prefix("hint: to go on: contentflow "));
    hint.unwrap_or_else(|| panic!("no way on: {}", ended.err)).split(' ').collect()
}

/// Locks a hundredth of the rows, so that a replay cannot get past the epoch that has one of them.
fn obstacle(world: &World) -> Session {
    let session = world.database.session();
    session.sql(
        "BEGIN; SELECT FROM event_drafts WHERE event_draft_id LIKE '%00' AND content_images IS NULL FOR UPDATE",
    );
    session
}

fn one_event_a_draft() -> Mix {
    Mix { events: 10_000, drafts: 10_000, ..Mix::default() }
}

/// In many epochs.
const IN_PARTS: [&str; 5] = ["replay", "--report", "json", "--memory", "1MiB"];

#[test]
fn a_replay_that_is_stopped_finishes_what_it_has_read_and_tells_how_to_go_on() {
    let world = World::new("replay-stop");
    let load = world.load(one_event_a_draft());
    let locked = obstacle(&world);
    let running = world.start(&IN_PARTS);
    eventually("it waits for a row", || world.database.somebody_waits());
    signal(&[running.pid()], "INT");
    eventually("it has heard", || running.err().contains("stopping"));
    locked.sql("ROLLBACK");
    let ended = running.wait();

    let first = replayed(&ended);
    assert!(!first.complete, "{first:?} {}", ended.err);
    assert!((1..10_000).contains(&first.report.read), "it was in the middle: {first:?}");
    assert_eq!(world.rows_with_images(), first.report.read, "all that was read, and no more");
    let read_to = first.report.read_to();
    assert!(read_to.iter().all(|(partition, next)| first.next[partition] == *next));

    let words = way_on(&ended);
    assert_eq!(words[..2], ["replay", "--from-offsets"]);
    assert!(ended.err.contains(" --memory 1048576 --report json\n"), "{}", ended.err);
    let rest = replayed(&world.call(&words));
    assert!(rest.complete);
    assert_eq!(rest.report.read + first.report.read, 10_000, "nothing is read twice");
    world.assert_rows(&load);
    assert_eq!(world.committed(), Offsets::new());

    // Once more from there: there is nothing.
    let next = Offsets::from_iter(rest.next);
    assert_eq!(next, world.ends());
    let all = next.iter().map(|(partition, offset)| format!("{partition}:{offset}"));
    let nothing = replay(&world, &["--from-offsets", &all.collect::<Vec<_>>().join(",")]);
    assert_eq!(nothing.report.read, 0);
}

#[test]
fn a_replay_that_is_killed_is_simply_started_again() {
    let world = World::new("replay-kill");
    let load = world.load(one_event_a_draft());
    let mut written = 0;
    for _ in 0..2 {
        let locked = obstacle(&world);
        let running = world.start(&IN_PARTS);
        eventually("some is done, and it waits", || {
            world.rows_with_images() > written && world.database.somebody_waits()
        });
        assert!(running.kill().was_killed());
        locked.sql("ROLLBACK");
        eventually("its statements are through", || world.database.backends().is_empty());
        written = world.rows_with_images();
        assert!(written < 10_000, "it was in the middle");
    }
    let last = replay(&world, &[]);
    assert_eq!(last.report.outcomes(), [10_000, 10_000 - written, written, 0, 0, 0]);
    assert_eq!(last.rows_written, 10_000 - written);
    world.assert_rows(&load);
}

#[test]
fn while_a_server_is_away_a_replay_waits_for_it() {
    let mut world = World::new("replay-outage");
    let (database, cache) = (world.wire_to_database(), world.wire_to_cache());
    world.drafts(["d1", "d2"]);
    world.publish([event("d1", "job-1").on(0), event("d2", "job-2").on(1)]);
    let locked = world.database.session();
    locked.sql("BEGIN; SELECT FROM event_drafts FOR UPDATE");
    let running = world.start(&["replay", "--report", "json"]);
    eventually("it waits for a row", || world.database.somebody_waits());
    database.cut();
    cache.cut();
    locked.sql("ROLLBACK");
    let held = |what: &str| {
        running.err().contains(&format!(
            "held: waiting for the server, no event is charged for it dependency=\"{what}\""
        ))
    };
    eventually("the database is waited for", || held("postgres"));
    database.open();
    eventually("the rows are written, and the cache is waited for", || {
        world.rows_with_images() == 2 && held("redis")
    });
    cache.open();
    let report = replayed(&running.wait()).report;
    // What was under way when the wire was cut was written, or was not.
    assert_eq!((report.read, report.applied + report.duplicate), (2, 2));
    assert_eq!(world.cached_among(["d1", "d2"]), Vec::<&str>::new());
}

#[test]
fn a_stop_that_cannot_finish_tells_from_where_to_go_on() {
    let mut world = World::new("replay-no-drain");
    world.set("run.drain_timeout_s", 1);
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1").on(2)]);
    let locked = world.database.session();
    locked.sql("BEGIN; SELECT FROM event_drafts FOR UPDATE");
    let running = world.start(&["replay"]);
    eventually("it waits for the row", || world.database.somebody_waits());
    running.terminate();
    let ended = running.wait();
    assert!(ended.failure(1).contains("not drained"), "{}", ended.err);
    let words = way_on(&ended);
    assert_eq!(words, ["replay", "--from-offsets", "0:0,1:0,2:0,3:0"], "nothing is durable yet");
    locked.sql("ROLLBACK");
    world.call(&words).success();
    assert_eq!(world.row("d1").images(), &images("job-1"));
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
    open.commit();
    assert_eq!(replay(&world, &[]).report.outcomes(), [2, 1, 1, 0, 0, 0]);
    assert!(world.row("d2").is_untouched());
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
