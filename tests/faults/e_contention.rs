//! PostgreSQL under others' hands: slow statements, cancelled ones, conflicts. All of them are
//! tried again, none is charged.

use std::cell::Cell;

use contentflow::generate::Mix;

use crate::world::{World, event, eventually, images, meanwhile};

use super::stores::{connected, single, through};

#[test]
fn e6_slow_statements_slow_it_down_and_nothing_else() {
    let world = single(World::new("e6"));
    let running = connected(&world);
    let drafts: Vec<String> = (1..=6).map(|number| format!("d{number}")).collect();
    world.drafts(&drafts);
    world.slow_down(700);
    for (at, draft) in (2..).zip(&drafts) {
        world.publish([event(draft, "job").on(0)]);
        eventually("it is through", || world.committed() == through(at));
    }
    let said = running.err();
    assert!(!said.contains("held") && !said.contains("revoked"), "{said}");
    assert_eq!(running.stop().report().outcomes(), [7, 7, 0, 0, 0, 0]);
}

#[test]
fn e6_statements_slower_than_the_timeout_are_held_until_they_are_faster() {
    let mut world = single(World::new("e6-timeout"));
    world.set("database.statement_timeout_ms", 150);
    world.set("database.lock_timeout_ms", 100);
    let running = connected(&world);
    let drafts: Vec<String> = (1..=4).map(|number| format!("d{number}")).collect();
    world.drafts(&drafts);
    world.database.sql("CREATE SEQUENCE tries");
    world.database.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM nextval('tries'); PERFORM pg_sleep(2); RETURN NULL; END $$;
         CREATE TRIGGER slow BEFORE UPDATE ON event_drafts EXECUTE FUNCTION slow()",
    );
    world.publish(drafts.iter().map(|draft| event(draft, "job").on(0)));
    // Far more than the retries that an event has.
    eventually("it has been tried often", || {
        world.database.number("SELECT last_value FROM tries") > 30
    });
    assert_eq!(world.committed(), through(1));
    world.speed_up();
    eventually("they are through", || world.committed() == through(5));
    assert_eq!(running.stop().report().outcomes(), [5, 5, 0, 0, 0, 0]);
    assert!(world.dead_letters().is_empty(), "slowness is no fault of the rows");
}

#[test]
fn e9_two_instances_that_write_the_same_rows_do_not_deadlock() {
    let mut world = World::new("e9");
    world.set("run.epoch_records", 500);
    world.set("run.retry_backoff_ms", 5);
    let load = world.load(Mix { events: 10_000, drafts: 400, duplicates: 0.1, ..Mix::default() });
    // Not in one group: both of them read everything, and write the same rows at the same time.
    let another = format!("{}-another", world.name);
    let arguments = ["run", "--until-caught-up", "--report", "json"];
    let both =
        [world.start(&arguments), world.start(&[&arguments[..], &["--group", &another]].concat())];
    for running in both {
        assert_eq!(running.wait().report().read, load.events());
    }
    let name = &world.database.name;
    let deadlocks = format!("SELECT deadlocks FROM pg_stat_database WHERE datname = '{name}'");
    assert_eq!(world.database.server.number(&deadlocks), 0);
    assert!(world.dead_letters().is_empty());
}

#[test]
fn e11_a_serialization_failure_is_tried_again() {
    let world = single(World::new("e11"));
    let name = &world.database.name;
    world
        .database
        .server
        .sql(&format!("ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"));
    let running = connected(&world);
    let drafts: Vec<String> = (1..=20).map(|number| format!("d{number}")).collect();
    world.drafts(&drafts);
    let foreign = world.database.session();
    foreign.sql("BEGIN; UPDATE event_drafts SET title = 'foreign' WHERE event_draft_id = 'd7'");
    world.publish(drafts.iter().map(|draft| event(draft, "job").on(0)));
    eventually("it waits for d7", || world.database.somebody_waits());
    let failures = format!("SELECT xact_rollback FROM pg_stat_database WHERE datname = '{name}'");
    // The row that it waits for is not as in its snapshot any more: could not serialize access.
    foreign.sql("COMMIT");
    eventually("all are through", || world.committed() == through(21));
    assert_eq!(running.stop().report().outcomes(), [21, 21, 0, 0, 0, 0]);
    eventually("it was rolled back once", || world.database.server.number(&failures) > 0);
    for draft in &drafts {
        assert_eq!(world.row(draft).images(), &images("job"), "{draft}");
    }
    assert_eq!(world.row("d7").columns["title"], "foreign", "both have had their way");
    assert!(world.dead_letters().is_empty());
}

#[test]
fn e18_many_events_of_one_draft_in_a_batch_are_one_write() {
    let mut world = single(World::new("e18"));
    world.set("run.epoch_records", 400);
    world.set("run.linger_ms", 60_000);
    world.drafts(["d1"]);
    world.database.sql(
        "CREATE SEQUENCE writes;
         CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM nextval('writes'); RETURN NEW; END $$;
         CREATE TRIGGER count BEFORE UPDATE ON event_drafts FOR EACH ROW EXECUTE FUNCTION count_it()",
    );
    // The newest is neither the first nor the last; two share its time, and the larger offset wins.
    let time = |number: i64| if number == 123 || number == 234 { 9_000 } else { number };
    world.publish(
        (0..400).map(|number| event("d1", &format!("job-{number}")).at(time(number)).on(0)),
    );

    assert_eq!(world.run_until_caught_up().outcomes(), [400, 1, 0, 399, 0, 0]);

    let row = world.row("d1");
    assert_eq!(row.images(), &images("job-234"));
    assert_eq!(&row.jobs()[..3], ["job-234", "job-123", "job-399"]);
    assert_eq!(world.database.number("SELECT last_value FROM writes"), 1);
}

#[test]
fn e19_a_statement_that_somebody_cancels_is_tried_again_however_often() {
    let mut world = single(World::new("e19"));
    world.set("database.lock_timeout_ms", 25_000);
    let running = connected(&world);
    world.drafts(["d1"]);
    let blocker = world.database.session();
    blocker.sql("BEGIN; SELECT FROM event_drafts WHERE event_draft_id = 'd1' FOR UPDATE");
    world.publish([event("d1", "job-1").on(0)]);
    let cancelled = Cell::new(0);
    let cancel = format!(
        "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE datname = '{}'
         AND application_name = 'contentflow' AND wait_event_type = 'Lock'",
        world.database.name
    );
    // More often than the retries that an event has.
    eventually("it has been cancelled often", || {
        cancelled.set(cancelled.get() + world.database.server.number(&cancel));
        cancelled.get() >= 8
    });
    meanwhile("it is tried again", || world.committed() == through(1));
    blocker.sql("COMMIT");
    eventually("it is through", || world.committed() == through(2));
    assert_eq!(running.stop().report().outcomes(), [2, 2, 0, 0, 0, 0]);
    assert!(world.dead_letters().is_empty());
}
