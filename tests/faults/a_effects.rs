//! The process is killed between two steps towards the row and the cache, and started again.

use std::time::Instant;

use crate::world::{Proxy, Running, World, event, eventually, images, meanwhile};

const DRAFTS: [&str; 4] = ["d1", "d2", "d3", "d4"];

/// A world in which one event is through, so that all connections are made when the others come.
fn warm(world: &World) -> Running {
    world.drafts(["d0"]);
    world.drafts(DRAFTS);
    let running = world.start(&["-vv", "run", "--report", "json"]);
    world.publish([event("d0", "job-0").on(0)]);
    eventually("the first event is through", || world.committed() == [(0, 1)].into());
    running
}

/// One event for each draft, together.
fn publish(world: &World) {
    world.publish(DRAFTS.map(|draft| event(draft, &format!("job-of-{draft}")).on(0)));
}

pub(super) fn world(name: &str) -> World {
    let mut world = World::new(name);
    // One connection of each kind, and one epoch for what is published together.
    world.set("run.workers", 1);
    world.set("run.linger_ms", 300);
    // The client says when it has fetched something.
    world.set("kafka.properties.debug", "fetch");
    // A member that comes back under its name need not wait until the one that was killed is given
    // up.
    world.set("kafka.properties.group.instance.id", "the only one");
    world
}

/// An event whose row is written, and whose DEL waits on the wire to the cache.
pub(super) fn written(mut world: World) -> (World, Running, Proxy) {
    let wire = world.wire_to_cache();
    world.drafts(["d0", "d1"]);
    let running = world.start_run();
    world.publish([event("d0", "job-0").on(0)]);
    eventually("the first event is through", || world.committed() == [(0, 1)].into());
    wire.hold();
    world.publish([event("d1", "job-1").on(0)]);
    eventually("the row is written", || world.row("d1").job().is_some());
    (world, running, wire)
}

/// How often it has fetched something, if its client tells.
pub(super) fn fetches(running: &Running) -> usize {
    running.err().matches("Enqueue").count()
}

/// What every restart must come to.
fn assert_all_applied(world: &World) {
    let rows = world.rows();
    for draft in DRAFTS {
        assert_eq!(rows[draft].images(), &images(&format!("job-of-{draft}")), "{draft}");
    }
    assert_eq!(world.cache.keys(), 0);
    assert_eq!(world.committed(), world.ends());
    assert!(world.dead_letters().is_empty());
}

#[test]
fn a1_records_that_were_only_polled_are_all_read_again() {
    let mut world = world("a1");
    // An epoch stays open so long: what is polled waits, not even decoded.
    world.set("run.linger_ms", 60_000);
    world.drafts(DRAFTS);
    let running = world.start(&["-vv", "run"]);
    eventually("it is running", || running.says_partitions("assigned"));
    let rows = world.rows();
    publish(&world);
    eventually("the records are fetched", || fetches(&running) > 0);
    meanwhile("nothing becomes of them", || world.rows() == rows && world.cache.keys() == 4);
    assert!(running.kill().was_killed());
    assert_eq!(world.rows(), rows, "not even xmin has changed");
    assert!(world.committed().is_empty());

    world.set("run.linger_ms", 5);
    assert_eq!(world.run_until_caught_up().outcomes(), [4, 4, 0, 0, 0, 0]);
    assert_all_applied(&world);
}

#[test]
fn a2_a_batch_that_was_not_sent_leaves_no_trace() {
    let mut world = world("a2");
    let wire = world.wire_to_database();
    let running = warm(&world);
    let rows = world.rows();
    wire.hold();
    let before = fetches(&running);
    publish(&world);
    eventually("the records are fetched", || fetches(&running) > before);
    meanwhile("nothing is written", || world.rows() == rows && world.cache.keys() == 4);
    assert!(running.kill().was_killed());
    // What waits on the wire is lost with it.
    wire.cut();
    assert_eq!(world.rows(), rows, "not even xmin has changed");
    assert_eq!(world.committed(), [(0, 1)].into());

    world.unwire_database();
    assert_eq!(world.run_until_caught_up().outcomes(), [4, 4, 0, 0, 0, 0]);
    assert_all_applied(&world);
}

#[test]
fn a3_a_statement_that_is_not_committed_is_rolled_back_or_finished_but_never_both() {
    for is_rolled_back in [true, false] {
        let world = world("a3");
        let running = warm(&world);
        // All of the UPDATE is done, only its COMMIT waits.
        world.database.sql(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER wait AFTER UPDATE ON event_drafts
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()",
        );
        let rows = world.rows();
        let blocker = world.database.session();
        blocker.sql("SELECT pg_advisory_lock(1)");
        publish(&world);
        eventually("the COMMIT waits", || world.database.somebody_waits());
        assert!(running.kill().was_killed());
        assert_eq!(world.rows(), rows);
        assert_eq!((world.cache.keys(), world.committed()), (4, [(0, 1)].into()));

        if is_rolled_back {
            // As when the server notices that nobody is there.
            assert_eq!(world.database.cut_sessions(), 1);
            blocker.sql("SELECT pg_advisory_unlock(1)");
            assert_eq!(world.rows(), rows);
            assert_eq!(world.run_until_caught_up().outcomes(), [4, 4, 0, 0, 0, 0]);
        } else {
            // The server finishes for nobody what was sent.
            blocker.sql("SELECT pg_advisory_unlock(1)");
            eventually("it is committed", || world.row("d4").job().is_some());
            let written = world.rows();
            assert_eq!(world.run_until_caught_up().outcomes(), [4, 0, 4, 0, 0, 0]);
            assert_eq!(world.rows(), written, "written once: not even xmin has changed");
        }
        assert_all_applied(&world);
    }
}

#[test]
fn a4_rows_whose_commit_was_not_seen_are_duplicates_and_their_keys_are_deleted() {
    let mut world = world("a4");
    let wire = world.wire_to_database();
    let running = warm(&world);
    wire.mute();
    publish(&world);
    eventually("the rows are written", || world.rows_with_images() == 5);
    let rows = world.rows();
    meanwhile("nobody knows", || world.cache.keys() == 4 && world.committed() == [(0, 1)].into());
    assert!(running.kill().was_killed());

    world.unwire_database();
    let report = world.run_until_caught_up();
    assert_eq!(report.outcomes(), [4, 0, 4, 0, 0, 0]);
    assert_eq!(report.keys_deleted, 4);
    assert_eq!(world.rows(), rows, "not even xmin has changed");
    assert_all_applied(&world);
}

#[test]
fn a5_a_duplicate_deletes_the_key_that_the_killed_process_had_not_deleted() {
    let mut world = world("a5");
    let wire = world.wire_to_cache();
    let running = warm(&world);
    wire.hold();
    publish(&world);
    eventually("the rows are written", || world.rows_with_images() == 5);
    let rows = world.rows();
    meanwhile("the DELs wait", || world.cache.keys() == 4 && world.committed() == [(0, 1)].into());
    assert!(running.kill().was_killed());
    wire.cut();
    assert_eq!(world.cache.keys(), 4, "old values are cached until it runs again");

    world.unwire_cache();
    let report = world.run_until_caught_up();
    assert_eq!(report.outcomes(), [4, 0, 4, 0, 0, 0]);
    assert_eq!((report.deletes, report.keys_deleted), (4, 4));
    assert_eq!(world.rows(), rows, "not even xmin has changed");
    assert_all_applied(&world);
}

#[test]
fn a6_when_some_of_the_keys_are_deleted_all_of_them_are_deleted_again() {
    let mut world = world("a6");
    // One key a round trip; the answer to the first is lost, so the others are never sent.
    world.set("cache.batch_keys", 1);
    let wire = world.wire_to_cache();
    let running = warm(&world);
    wire.mute();
    publish(&world);
    eventually("one key is deleted", || world.cache.keys() == 3);
    let rows = world.rows();
    meanwhile("the others wait", || world.cache.keys() == 3);
    assert!(running.kill().was_killed());
    wire.cut();

    world.unwire_cache();
    let report = world.run_until_caught_up();
    assert_eq!(report.outcomes(), [4, 0, 4, 0, 0, 0]);
    assert_eq!((report.deletes, report.keys_deleted), (4, 3));
    assert_eq!(world.rows(), rows, "not even xmin has changed");
    assert_all_applied(&world);
}

#[test]
fn a12_a_kill_while_it_drains_costs_nothing() {
    let mut world = world("a12");
    let wire = world.wire_to_cache();
    let running = warm(&world);
    wire.hold();
    publish(&world);
    eventually("the rows are written", || world.rows_with_images() == 5);
    let rows = world.rows();
    running.terminate();
    eventually("it drains", || running.err().contains("stopping"));
    meanwhile("it waits for the cache", || world.committed() == [(0, 1)].into());
    assert!(running.kill().was_killed());
    wire.cut();

    world.unwire_cache();
    assert_eq!(world.run_until_caught_up().outcomes(), [4, 0, 4, 0, 0, 0]);
    assert_eq!(world.rows(), rows, "not even xmin has changed");
    assert_all_applied(&world);
}

#[test]
fn a13_a_worker_that_panics_takes_the_process_with_it_and_nothing_is_committed_after_it() {
    let mut world = world("a13");
    world.set("run.workers", 2);
    world.variable("PLANTED_PANIC", "job-of-d3");
    let running = warm(&world);
    publish(&world);
    let since = Instant::now();
    let ended = running.wait();
    println!("it took {:?} from the publishing", since.elapsed());
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let lines: Vec<_> = ended
        .err
        .lines()
        .filter(|line| line.starts_with("error") || line.contains("panic"))
        .collect();
    assert_eq!(lines.len(), 1, "one line says so: {}", ended.err);
    assert!(lines[0].contains("internal error") && lines[0].contains("planted"), "{lines:?}");
    meanwhile("nothing is committed", || world.committed() == [(0, 1)].into());

    world.variable("PLANTED_PANIC", "");
    assert_eq!(world.run_until_caught_up().read, 4);
    assert_all_applied(&world);
}
