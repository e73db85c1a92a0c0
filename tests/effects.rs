//! The order of effects: the row first, then the key, then the offset; and an effect whose answer
//! was lost.

use crate::world::{World, alter_topic, event, eventually, images, meanwhile, record};

#[test]
fn a_key_is_deleted_after_its_row_is_committed_and_not_before() {
    let mut world = World::new("commit-then-delete");
    // Longer than the test holds the lock.
    world.set("database.lock_timeout_ms", 25_000);
    world.drafts(["d1"]);
    let before = world.row("d1");
    // All of the UPDATE is done, only its COMMIT waits.
    world.database.sql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER wait AFTER UPDATE ON event_drafts
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()",
    );
    let blocker = world.database.session();
    blocker.sql("SELECT pg_advisory_lock(1)");
    world.publish([event("d1", "job-1")]);
    let running = world.start(&["run", "--until-caught-up", "--report", "json"]);

    eventually("the COMMIT waits", || world.database.somebody_waits());
    meanwhile("key and offset wait for the COMMIT", || {
        world.cached("d1").is_some() && world.committed().is_empty()
    });
    assert_eq!(world.row("d1"), before);

    blocker.sql("SELECT pg_advisory_unlock(1)");
    assert_eq!(running.wait().report().outcomes(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(world.row("d1").images(), &images("job-1"));
    assert_eq!(world.cached("d1"), None);
    assert_eq!(world.committed(), world.ends());
}

#[test]
fn an_offset_is_committed_after_the_key_is_deleted_and_not_before() {
    let mut world = World::new("delete-then-commit");
    let wire = world.wire_to_cache();
    world.drafts(["d1", "d2"]);
    let running = world.start_run();
    world.publish([event("d2", "job-2").on(1)]);
    eventually("the first event is through", || world.committed() == [(1, 1)].into());

    wire.hold();
    world.publish([event("d1", "job-1").on(1)]);
    eventually("the row is written", || world.row("d1").job() == Some("job-1"));
    meanwhile("the offset waits for the DEL", || world.committed() == [(1, 1)].into());
    assert!(world.cached("d1").is_some());

    wire.open();
    eventually("the offset is committed", || world.committed() == [(1, 2)].into());
    assert_eq!(world.cached("d1"), None);
    assert_eq!(running.stop().report().outcomes(), [2, 2, 0, 0, 0, 0]);
}

#[test]
fn an_offset_is_committed_after_its_dead_letter_is_acknowledged_and_not_before() {
    let world = World::new("letter-then-commit");
    world.drafts(["d1"]);
    // Not even a reference to a record fits: the broker takes nothing.
    alter_topic(world.dead_letter_topic(), "max.message.bytes", "100");
    world.publish([record("rubbish").on(0), event("d1", "job-1").on(0)]);
    let running = world.start(&["run", "--until-caught-up", "--report", "json"]);

    eventually("the neighbour is through", || world.cached("d1").is_none());
    meanwhile("the offset waits for the letter", || world.committed().is_empty());
    assert!(world.dead_letters().is_empty());

    alter_topic(world.dead_letter_topic(), "max.message.bytes", "1000000");
    let ended = running.wait();
    assert_eq!(ended.report().outcomes(), [2, 1, 0, 0, 0, 1]);
    assert!(ended.err.contains("held") && ended.err.contains("resumed"), "{}", ended.err);
    assert_eq!(world.rejects(), [((0, 0), "not-json".to_owned())].into());
    assert_eq!(world.committed(), world.ends());
}

#[test]
fn e4_f9_an_effect_whose_answer_was_lost_is_repeated_and_harms_nothing() {
    let mut world = World::new("lost-answer");
    // One worker, and so one connection that all events go through.
    world.set("run.workers", 1);
    let database = world.wire_to_database();
    let cache = world.wire_to_cache();
    world.drafts(["d0", "d1", "d2"]);
    let running = world.start_run();
    world.publish([event("d0", "job-0").on(0)]);
    eventually("the connections are there", || world.committed() == [(0, 1)].into());

    database.mute();
    world.publish([event("d1", "job-1").on(0)]);
    eventually("the row is written, the answer lost", || world.row("d1").job() == Some("job-1"));
    let written = world.row("d1");
    assert!(world.cached("d1").is_some(), "nobody knows that the row is written");
    database.cut();
    database.open();
    eventually("it is noticed", || world.committed() == [(0, 2)].into());
    assert_eq!(world.row("d1"), written, "it was not written again");
    assert_eq!(world.cached("d1"), None);

    cache.mute();
    world.publish([event("d2", "job-2").on(0)]);
    eventually("the key is deleted, the answer lost", || world.cached("d2").is_none());
    meanwhile("nobody knows that the key is deleted", || world.committed() == [(0, 2)].into());
    // What a reader caches now is from before the repeated DEL.
    world.cache_again("d2");
    cache.cut();
    cache.open();
    eventually("it is noticed", || world.committed() == [(0, 3)].into());
    assert_eq!(world.cached("d2"), None);

    let report = running.stop().report();
    assert_eq!((report.read, report.applied + report.duplicate), (3, 3));
    assert!(world.dead_letters().is_empty());
}
