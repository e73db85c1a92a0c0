//! Replays that end early, and those that have to wait.

use contentflow::generate::Mix;

use super::{replay, replayed, stopped};
use crate::world::private::signal;
use crate::world::{
    Ended, Offsets, PARTITIONS, Running, Session, World, create_topic, delete_topic, event,
    eventually, images,
};

/// The command that a replay which has ended early tells to go on with, without the program's name.
fn way_on(ended: &Ended) -> Vec<&str> {
    let hint = ended.err.lines().find_map(|line| line.strip_prefix("hint: to go on: contentflow "));
    hint.unwrap_or_else(|| panic!("no way on: {}", ended.err)).split(' ').collect()
}

/// Locks a hundredth of the rows, so that a replay cannot come to its end.
fn obstacle(world: &World) -> Session {
    let session = world.database.session();
    session.sql(
        "BEGIN; SELECT FROM event_drafts WHERE event_draft_id LIKE '%00' AND content_images IS NULL FOR UPDATE",
    );
    session
}

/// Locks the table for all that would write it: nothing is written, and so a replay in parts reads
/// no more than its memory holds. (Of rows that are locked each is set aside, and the others go
/// on.)
fn barrier(world: &World) -> Session {
    let session = world.database.session();
    session.sql("BEGIN; LOCK TABLE event_drafts IN EXCLUSIVE MODE");
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
    let locked = barrier(&world);
    let running = world.start(&IN_PARTS);
    eventually("it waits for the table", || world.database.somebody_waits());
    signal(&[running.pid()], "INT");
    eventually("it has heard", || running.err().contains("stopping"));
    locked.sql("ROLLBACK");
    let ended = running.wait();

    let first = stopped(&ended);
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
    eventually("the database is waited for", || held("postgresql"));
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

/// A replay that has come to a barrier, with much of the topic unread.
fn in_the_middle(world: &mut World) -> (Running, Session) {
    world.set("kafka.properties.topic.metadata.refresh.interval.ms", 500);
    world.set("kafka.properties.topic.metadata.propagation.max.ms", 500);
    // Of each partition one batch is fetched ahead, of a megabyte at most. So some of the topic is
    // in the broker alone.
    world.set("kafka.properties.queued.min.messages", 1);
    world.set("kafka.properties.fetch.message.max.bytes", 1_000);
    world.load(Mix { events: 20_000, drafts: 20_000, ..Mix::default() });
    let locked = barrier(world);
    let running = world.start(&IN_PARTS);
    eventually("it waits for the table", || world.database.somebody_waits());
    (running, locked)
}

#[test]
fn a_topic_that_is_made_again_under_a_replay_ends_it() {
    let mut world = World::new("replay-made-again");
    let (running, locked) = in_the_middle(&mut world);
    delete_topic(world.topic());
    eventually("it can be made again", || world.cluster().is_gone(world.topic()));
    create_topic(world.topic(), PARTITIONS, &[]);
    locked.sql("ROLLBACK");

    let ended = running.wait();
    ends_for_another_topic(&world, &ended);
    replay(&world, &[]);
}

#[test]
fn d4_a_topic_that_is_deleted_under_a_replay_ends_it() {
    let mut world = World::new("replay-deleted");
    let (running, locked) = in_the_middle(&mut world);
    delete_topic(world.topic());
    eventually("it is gone", || world.cluster().is_gone(world.topic()));
    locked.sql("ROLLBACK");

    let ended = running.wait();
    let error = ended.failure(1);
    let what = format!("error: the topic {} was deleted while it was read\n", world.topic());
    assert!(error.contains(&what), "{error}");
    assert!(!error.contains("to go on"), "{error}");
}

/// The client reads on at the old position of the new topic, if nobody tells it otherwise.
#[test]
fn d4_a_longer_topic_made_again_under_a_replay_ends_it() {
    let mut world = World::new("replay-made-longer");
    world.drafts(["new"]);
    let (running, locked) = in_the_middle(&mut world);
    let ends = world.ends();
    let new = ends.iter().flat_map(|(partition, end)| {
        (0..end + 100).map(|number| event("new", &format!("new-{number}")).on(*partition))
    });
    world.cluster().make_again_with(world.topic(), PARTITIONS, new);
    assert!(ends.iter().all(|(partition, end)| world.ends()[partition] > *end), "it is longer");
    locked.sql("ROLLBACK");

    let ended = running.wait();
    ends_for_another_topic(&world, &ended);
    assert!(world.row("new").is_untouched(), "nothing of the new topic is taken in");
    replay(&world, &[]);
    assert!(!world.row("new").is_untouched());
}

#[test]
fn d4_a_record_of_another_topic_is_not_taken_for_the_one_that_is_read_again() {
    let world = World::new("replay-recalls-another");
    world.drafts(["d1", "d2"]);
    world.refuse_jobs(&["bad"]);
    let jobs = ["old", "good", "bad"];
    world.publish((1..).zip(jobs).map(|(ms, job)| event("d1", job).at(ms).on(0)));
    // A row that is refused is refused before anybody waits for its lock alone.
    let locked = barrier(&world);
    let running = world.start(&["-vv", "replay"]);
    // It is one epoch, which is written when all is read.
    eventually("it waits for the table", || world.database.somebody_waits());
    let new = (1..).zip(["x", "y", "z"]).map(|(ms, job)| event("d2", job).at(ms).on(0));
    world.cluster().make_again_with(world.topic(), PARTITIONS, new);
    locked.sql("ROLLBACK");

    let ended = running.wait();
    ends_for_another_topic(&world, &ended);
    assert!(!ended.err.contains("changed id"), "nobody has asked for the client's debug lines");
    let rows = world.rows();
    assert!(rows["d1"].is_untouched() && rows["d2"].is_untouched());
    assert!(world.dead_letters().is_empty());
}

/// It says what has happened, and offers no offsets of the old topic to go on from.
fn ends_for_another_topic(world: &World, ended: &Ended) {
    let error = ended.failure(1);
    let what = format!("error: the topic {} was deleted and made again", world.topic());
    assert!(error.contains(&what), "{error}");
    assert!(error.contains("hint: start again, from the topic's beginning"), "{error}");
    assert!(!error.contains("--from-offsets"), "{error}");
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
