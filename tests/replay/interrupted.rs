//! Replays that end early, and those that have to wait.

use contentflow::generate::Mix;

use super::{replay, replayed};
use crate::world::private::signal;
use crate::world::{
    Ended, Offsets, PARTITIONS, Session, World, create_topic, delete_topic, event, eventually,
    images,
};

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
fn a_topic_that_is_made_again_under_a_replay_ends_it() {
    let mut world = World::new("replay-made-again");
    world.set("kafka.properties.topic.metadata.refresh.interval.ms", 500);
    world.set("kafka.properties.topic.metadata.propagation.max.ms", 500);
    // Little is fetched ahead, so that the rest is in the topic alone.
    world.set("kafka.properties.queued.min.messages", 1);
    world.set("kafka.properties.fetch.message.max.bytes", 1_000);
    world.load(one_event_a_draft());
    let locked = obstacle(&world);
    let running = world.start(&IN_PARTS);
    eventually("it waits for a row", || world.database.somebody_waits());
    delete_topic(world.topic());
    eventually("it can be made again", || world.cluster().is_gone(world.topic()));
    create_topic(world.topic(), PARTITIONS, &[]);
    locked.sql("ROLLBACK");

    let ended = running.wait();
    let error = ended.failure(1);
    assert!(error.contains("ends at offset 0") && error.contains("made again"), "{error}");
    assert!(error.contains("hint: start again, from the topic's beginning"), "{error}");
    replay(&world, &[]);
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
