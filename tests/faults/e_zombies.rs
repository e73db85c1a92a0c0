//! Statements whose fate is unknown: cut off before they arrive or after they are done, and such as
//! come back from the dead.

use crate::world::private::{Frozen, Postgres};
use crate::world::{World, event, eventually, images};

use super::stores::{connected, held, single, through};

#[test]
fn e4_cut_off_before_the_request_or_after_the_commit_ends_the_same() {
    let mut world = single(World::new("e4"));
    let wire = world.wire_to_database();
    let running = connected(&world);
    world.drafts(["d1", "d2"]);
    let untouched = world.row("d1");

    // The request is lost: nothing has happened, and it is done now.
    wire.trap_request();
    world.publish([event("d1", "job-1").on(0)]);
    eventually("the request is lost", || wire.is_sprung());
    eventually("it is through", || world.committed() == through(2));
    assert_ne!(world.row("d1").xmin, untouched.xmin);

    // The answer is lost: all of it has happened, and the same error must not do it again.
    world.database.sql(
        "CREATE SEQUENCE writes;
         CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM nextval('writes'); RETURN NEW; END $$;
         CREATE TRIGGER count BEFORE UPDATE ON event_drafts FOR EACH ROW EXECUTE FUNCTION count_it()",
    );
    wire.trap_answer(0);
    world.publish([event("d2", "job-2").on(0)]);
    eventually("the answer is lost", || wire.is_sprung());
    eventually("it is through", || world.committed() == through(3));
    assert_eq!(world.database.number("SELECT last_value FROM writes"), 1, "written once");

    let ended = running.stop();
    assert_eq!(ended.err.matches("connection lost").count(), 2, "the same to us: {}", ended.err);
    let report = ended.report();
    assert_eq!((report.read, report.applied + report.duplicate), (3, 3), "{report:?}");
    for (draft, job) in [("d1", "job-1"), ("d2", "job-2")] {
        assert_eq!(world.row(draft).images(), &images(job));
        assert_eq!(world.cached(draft), None);
    }
    assert!(world.dead_letters().is_empty());
}

/// Has every UPDATE wait before its first row, after its snapshot was taken, until the session of
/// the result lets go. The sequence `begun` says how many have got past it.
fn gate(world: &World) -> impl FnOnce() {
    world.database.sql(
        "CREATE SEQUENCE begun;
         CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_advisory_xact_lock_shared(1); PERFORM nextval('begun'); RETURN NULL;
         END $$;
         CREATE TRIGGER wait BEFORE UPDATE ON event_drafts EXECUTE FUNCTION wait()",
    );
    let keeper = world.database.session();
    keeper.sql("SELECT pg_advisory_lock(1)");
    move || drop(keeper.sql("SELECT pg_advisory_unlock(1)"))
}

#[test]
fn e8_a_statement_thawed_after_a_newer_event_changes_nothing() {
    let server = Postgres::start();
    let mut world = single(World::on_postgres("e8", &server));
    // Longer than the test, so that the server does not cancel what it has forgotten.
    world.set("database.statement_timeout_ms", 600_000);
    world.set("database.lock_timeout_ms", 500_000);
    let wire = world.wire_to_database();
    let running = connected(&world);
    world.drafts(["d1"]);
    let open = gate(&world);
    world.publish([event("d1", "old").at(1_000).on(0)]);
    eventually("it is about to write", || world.database.somebody_waits());

    let backends = world.database.backends();
    let zombie = Frozen::freeze(&backends);
    wire.cut();
    wire.open();
    open();
    world.publish([event("d1", "new").at(2_000).on(0)]);
    eventually("both are through", || world.committed() == through(3));
    let new = world.row("d1");
    assert_eq!(new.images(), &images("new"));
    let begun = world.database.number("SELECT last_value FROM begun");

    zombie.thaw();
    eventually("the zombie has ended", || {
        backends.iter().all(|pid| !world.database.backends().contains(pid))
    });
    let begun_now = world.database.number("SELECT last_value FROM begun");
    assert_eq!(begun_now, begun + 1, "it has gone on with its UPDATE, and was not cancelled");
    assert_eq!(world.row("d1"), new, "not even written");
    assert_eq!(running.stop().report().rejected, 0);
}

#[test]
fn e5_e8_a_statement_that_is_given_up_at_the_deadline_changes_nothing_when_it_thaws() {
    let server = Postgres::start();
    let mut world = single(World::on_postgres("e5-e8", &server));
    world.set("database.statement_timeout_ms", 300);
    world.set("database.lock_timeout_ms", 200);
    let running = connected(&world);
    world.drafts(["d1"]);
    let untouched = world.row("d1");
    // One session stands still while the server is well: nothing but the client's own deadline
    // helps.
    let backends = world.database.backends();
    let zombie = Frozen::freeze(&backends);
    world.publish([event("d1", "old").at(1_000).on(0)]);
    held(&running, "no answer within");
    world.publish([event("d1", "new").at(2_000).on(0)]);
    eventually("both are through", || world.committed() == through(3));
    let new = world.row("d1");
    assert_eq!(new.images(), &images("new"));
    assert_ne!(new, untouched);

    zombie.thaw();
    eventually("the zombie has ended", || {
        backends.iter().all(|pid| !world.database.backends().contains(pid))
    });
    assert_eq!(world.row("d1"), new, "not even written");
    assert_eq!(running.stop().report().rejected, 0);
}
