//! PostgreSQL is away, in one way or another: the work is held, nothing is charged to any event,
//! and it resumes by itself.

use crate::interruptions::mixed;
use crate::world::private::{Postgres, SmallDisk, signal};
use crate::world::{World, event, eventually, images, meanwhile};

use super::stores::{connected, held, resumes, says_so, single, through};

/// One event while the server is out as `break_it` makes it, until `mend_it`.
fn survives(world: &World, reason: &str, break_it: impl FnOnce(), mend_it: impl FnOnce()) {
    let running = connected(world);
    world.drafts(["d1"]);
    break_it();
    world.publish([event("d1", "job-1").on(0)]);
    held(&running, reason);
    meanwhile("nothing is committed", || world.committed() == through(1));
    mend_it();
    resumes(world, running, &[("d1", "job-1")], 1);
}

#[test]
fn e1_a_fast_restart_of_postgresql_is_waited_for() {
    let server = Postgres::start();
    let world = single(World::on_postgres("e1", &server));
    survives(&world, "postgresql", || server.end("INT"), || server.start_again());
}

#[test]
fn e2_a_killed_backend_and_the_recovery_of_the_whole_server_lose_nothing() {
    let server = Postgres::start();
    let mut world = single(World::on_postgres("e2", &server));
    world.set("run.epoch_records", 200);
    world.slow_down(20);
    let load = world.load(mixed(2, 3_000));
    let running = world.start(&["run", "--until-caught-up", "--report", "json"]);
    eventually("some of it is done", || world.rows_with_images() > 100);

    let backends = world.database.backends();
    signal(&backends[..1], "KILL");

    let ended = running.wait();
    assert_eq!(ended.report().read, load.events());
    assert!(server.log().contains("all server processes terminated; reinitializing"));
    assert!(ended.err.contains("held") && ended.err.contains("resumed"), "{}", ended.err);
    world.assert_done(&load);
}

/// Has the UPDATE of `draft` wait, at the time that the trigger is given, until the returned
/// session lets it go on.
fn waits_for(world: &World, draft: &str, trigger: &str) -> impl FnOnce() {
    let gate = world.database.session();
    gate.sql("SELECT pg_advisory_lock(1)");
    world.database.sql(&format!(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.event_draft_id = '{draft}' THEN PERFORM pg_advisory_xact_lock(1); END IF; RETURN NEW;
         END $$;
         CREATE {trigger} FOR EACH ROW EXECUTE FUNCTION wait()"
    ));
    move || drop(gate.sql("SELECT pg_advisory_unlock(1)"))
}

#[test]
fn e3_a_session_that_is_terminated_idle_or_in_its_statement_or_in_its_commit_is_replaced() {
    let in_statement = "TRIGGER wait BEFORE UPDATE ON event_drafts";
    let in_commit =
        "CONSTRAINT TRIGGER wait AFTER UPDATE ON event_drafts DEFERRABLE INITIALLY DEFERRED";
    for (when, trigger) in
        [("idle", None), ("statement", Some(in_statement)), ("commit", Some(in_commit))]
    {
        let mut world = single(World::new(&format!("e3-{when}")));
        world.set("database.lock_timeout_ms", 25_000);
        let running = connected(&world);
        world.drafts(["d1"]);
        let untouched = world.row("d1");
        let let_go = trigger.map(|trigger| waits_for(&world, "d1", trigger));
        if trigger.is_some() {
            world.publish([event("d1", "job-1").on(0)]);
            eventually("it is in the middle", || world.database.somebody_waits());
        }
        assert_eq!(world.database.cut_sessions(), 1);
        if trigger.is_some() {
            says_so(&running, &["connection lost, making another one", "57P01"]);
            assert_eq!(world.row("d1"), untouched, "rolled back");
        } else {
            world.publish([event("d1", "job-1").on(0)]);
        }
        let_go.into_iter().for_each(|let_go| let_go());
        eventually("it has resumed", || world.committed() == through(2));
        let ended = running.stop();
        assert_eq!(
            ended.report().outcomes(),
            [2, 2, 0, 0, 0, 0],
            "{when}: not even a retry is charged"
        );
        assert!(!ended.err.contains("held"), "the server was there: {}", ended.err);
        assert_eq!(world.row("d1").images(), &images("job-1"));
    }
}

#[test]
fn e5_a_frozen_postgresql_is_noticed_by_our_own_deadline() {
    let server = Postgres::start();
    let mut world = single(World::on_postgres("e5", &server));
    world.set("database.statement_timeout_ms", 200);
    world.set("database.lock_timeout_ms", 100);
    let running = connected(&world);
    world.drafts(["d1"]);
    let frozen = server.freeze();
    world.publish([event("d1", "job-1").on(0)]);
    // The kernel takes new connections for a frozen server: those need a deadline too.
    held(&running, "no answer within");
    meanwhile("nothing is committed", || world.committed() == through(1));
    frozen.thaw();
    resumes(&world, running, &[("d1", "job-1")], 1);
}

#[test]
fn e7_a_wire_that_swallows_everything_is_given_up_and_what_it_delivers_later_changes_nothing() {
    let mut world = single(World::new("e7"));
    world.set("database.statement_timeout_ms", 200);
    world.set("database.lock_timeout_ms", 100);
    let wire = world.wire_to_database();
    let running = connected(&world);
    world.drafts(["d1"]);
    wire.hold();
    world.publish([event("d1", "job-1").at(1_000).on(0)]);
    held(&running, "no answer within");
    // Everything that was swallowed arrives now, on connections that nobody waits for.
    wire.open();
    eventually("it has resumed", || world.committed() == through(2));
    world.publish([event("d1", "job-2").at(2_000).on(0)]);
    resumes(&world, running, &[("d1", "job-2")], 2);
}

#[test]
fn e7_a_host_that_says_nothing_keeps_nobody_from_the_next_one() {
    let mut world = World::new("e7-hosts");
    // The kernel takes connections for it, and nobody else does.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (start, rest) = world.database.url.split_once("://").unwrap();
    let (user, server) = rest.rsplit_once('@').map_or(("", rest), |(user, it)| (user, it));
    let at = if user.is_empty() { "" } else { "@" };
    let address = silent.local_addr().unwrap();
    let url = format!("{start}://{user}{at}{address},{server}?target_session_attrs=read-write");
    world.set("database.url", url);
    world.call(&["migrate", "--status"]).success();
}

#[test]
fn e7_an_outage_is_over_with_the_first_answer_also_if_that_says_that_somebody_holds_the_row() {
    let mut world = single(World::new("e7-locked"));
    world.set("database.statement_timeout_ms", 200);
    world.set("database.lock_timeout_ms", 100);
    let wire = world.wire_to_database();
    let running = connected(&world);
    world.drafts(["d1"]);
    let blocker = world.database.session();
    blocker.sql("BEGIN; SELECT FROM event_drafts WHERE event_draft_id = 'd1' FOR UPDATE");
    wire.hold();
    world.publish([event("d1", "job-1").on(0)]);
    held(&running, "no answer within");
    wire.open();
    eventually("the outage is over, whoever holds the row", || running.err().contains("resumed"));
    meanwhile("the row is waited for", || world.committed() == through(1));
    blocker.sql("COMMIT");
    resumes(&world, running, &[("d1", "job-1")], 1);
}

#[test]
fn e12_a_database_that_has_become_read_only_is_waited_for() {
    let server = Postgres::start();
    let world = single(World::on_postgres("e12", &server));
    let alter = |what: &str| {
        world.database.sql(&format!("ALTER SYSTEM {what}"));
        world.database.sql("SELECT pg_reload_conf()");
    };
    let read_only = || alter("SET default_transaction_read_only = on");
    survives(&world, "25006", read_only, || alter("RESET default_transaction_read_only"));
}

#[test]
fn e13_a_full_disk_is_waited_for() {
    let server = Postgres::start();
    let Some(disk) = SmallDisk::mount(&server) else {
        eprintln!("not shown: to mount a small disk takes root");
        return;
    };
    let world = single(World::on_postgres("e13", &server));
    let location = disk.path.display();
    world.database.sql(&format!("CREATE TABLESPACE small LOCATION '{location}'"));
    world.database.sql("ALTER TABLE event_drafts SET TABLESPACE small");
    let running = connected(&world);
    // An update writes another version of the row: so many of them need new pages.
    let (drafts, jobs): (Vec<_>, Vec<_>) =
        (1..=500).map(|number| (format!("d{number}"), format!("job-{number}"))).unzip();
    world.drafts(&drafts);
    let events: Vec<(&str, &str)> =
        drafts.iter().zip(&jobs).map(|(draft, job)| (draft.as_str(), job.as_str())).collect();
    disk.fill();
    world.publish(events.iter().map(|(draft, job)| event(draft, job).on(0)));
    held(&running, "53100");
    meanwhile("the offset of the last one waits", || world.committed() != world.ends());
    disk.free();
    resumes(&world, running, &events[..1], events.len());
    assert_eq!(world.rows_with_images(), 501);
}

#[test]
fn e14_a_server_without_a_free_connection_is_waited_for() {
    let server = Postgres::start();
    let world = single(World::on_postgres("e14", &server));
    world.database.sql("ALTER SYSTEM SET max_connections = 12");
    server.end("INT");
    server.start_again();
    let running = connected(&world);
    world.drafts(["d1"]);
    assert!(world.database.cut_sessions() > 0);
    eventually("they are gone", || world.database.backends().is_empty());
    let hogs: Vec<_> = std::iter::from_fn(|| world.database.try_session()).collect();
    assert!(!hogs.is_empty());
    world.publish([event("d1", "job-1").on(0)]);
    held(&running, "postgresql");
    // Once it was refused to us, the other times to the program.
    let refusals = || server.log().matches("too many clients already").count();
    eventually("it is refused again and again", || refusals() >= 4);
    meanwhile("nothing is committed", || world.committed() == through(1));
    drop(hogs);
    resumes(&world, running, &[("d1", "job-1")], 1);
}

#[test]
fn e21_a_foreign_server_that_a_trigger_writes_to_and_that_is_away_is_waited_for() {
    let world = single(World::new("e21"));
    // As a wrapper says it that has no connection to its server.
    world.database.sql(
        "CREATE TABLE away ();
         CREATE FUNCTION copy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF EXISTS (SELECT FROM away) THEN RAISE 'no connection to copies' USING ERRCODE = 'HV00N'; END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER copy BEFORE UPDATE ON event_drafts FOR EACH ROW EXECUTE FUNCTION copy()",
    );
    let sql = |statement: &str| drop(world.database.sql(statement));
    let go_away = || sql("INSERT INTO away DEFAULT VALUES");
    survives(&world, "HV00N", go_away, || sql("DELETE FROM away"));
}
