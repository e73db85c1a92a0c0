//! Servers that are away: the work waits, resumes by itself, and no event is charged for it.

use std::time::{Duration, Instant};

use contentflow::generate::Mix;

use crate::interruptions::mixed;
use crate::world::private::Redis;
use crate::world::{Load, PrivateKafka, Proxy, Running, World, event, eventually};

/// For how long a server is away.
const AWAY: Duration = Duration::from_millis(2_000);

/// A load in the middle of which something is about to happen.
fn busy(world: &mut World) -> (Load, Running) {
    world.set("run.epoch_records", 200);
    world.set("run.retry_backoff_ms", 5);
    world.slow_down(20);
    let load = world.load(mixed(23, 6_000));
    let running = world.start(&["run", "--until-caught-up", "--report", "json"]);
    eventually("some of it is done", || world.rows_with_images() > 200);
    (load, running)
}

/// The rest of the load after the outage.
fn finishes(world: &World, load: &Load, running: Running) {
    let ended = running.wait();
    let report = ended.report();
    assert_eq!(report.read, load.events());
    assert!(ended.err.contains("held") && ended.err.contains("resumed"), "{}", ended.err);
    world.assert_done(load);
}

#[test]
fn e3_e14_a_database_that_shuts_everybody_out_for_a_while_loses_nothing() {
    let mut world = World::new("shut-out");
    let (load, running) = busy(&mut world);
    let allow = |allowed: bool| {
        let name = &world.database.name;
        world.database.server.sql(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}"));
    };

    // Its sessions are ended again and again; it comes back each time.
    for _ in 0..5 {
        eventually("its sessions are ended", || world.database.cut_sessions() > 0);
    }
    allow(false);
    // One that was being let in when the door was closed may turn up a moment later.
    let mut quiet = 0;
    eventually("nobody is left", || {
        quiet = if world.database.cut_sessions() == 0 { quiet + 1 } else { 0 };
        quiet == 30
    });
    let (done, since) = (world.rows_with_images(), Instant::now());
    while since.elapsed() < AWAY {
        assert_eq!(world.rows_with_images(), done, "nothing is written meanwhile");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_ne!(world.committed(), world.ends(), "it was in the middle");
    allow(true);

    finishes(&world, &load, running);
}

#[test]
fn a_database_that_cannot_be_reached_for_a_while_loses_nothing() {
    let mut world = World::new("database-away");
    let wire = world.wire_to_database();
    let (load, running) = busy(&mut world);
    wire.cut();
    eventually("the outage is noticed", || running.err().contains("held"));
    std::thread::sleep(AWAY);
    assert_ne!(world.committed(), world.ends(), "it was in the middle");
    wire.open();
    finishes(&world, &load, running);
}

#[test]
fn an_outage_tells_when_its_cause_has_changed() {
    let mut world = World::new("causes");
    let wire = world.wire_to_database();
    let (load, running) = busy(&mut world);
    wire.cut();
    eventually("the outage is noticed", || running.err().contains("held: "));
    let name = &world.database.name;
    let allow = |allowed: bool| {
        world.database.server.sql(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}"));
    };
    allow(false);
    wire.open();
    eventually("the new cause is told", || {
        let err = running.err();
        err.lines().any(|line| {
            line.contains("still held") && line.contains("not currently accepting connections")
        })
    });
    allow(true);
    finishes(&world, &load, running);
}

#[test]
fn f1_a_cache_that_is_away_for_a_while_loses_nothing() {
    let mut world = World::new("cache-away");
    let wire = world.wire_to_cache();
    let (load, running) = busy(&mut world);
    wire.cut();
    eventually("the outage is noticed", || running.err().contains("held"));
    let committed = world.committed();
    std::thread::sleep(AWAY);
    // What was already under way may still arrive; without its DELs nothing new becomes
    // committable.
    let later = world.committed();
    assert!(
        later.values().sum::<i64>() - committed.values().sum::<i64>() <= 1_000,
        "{committed:?} {later:?}"
    );
    assert_ne!(later, world.ends(), "it was in the middle");
    wire.open();
    finishes(&world, &load, running);
}

/// Runs into an outage with `on_outage = "exit"`.
fn exits(name: &str, wire_before: fn(&mut World) -> Proxy, dependency: &str) {
    let mut world = World::new(name);
    let wire = wire_before(&mut world);
    world.set("run.on_outage", "exit");
    world.set("run.epoch_records", 200);
    world.slow_down(20);
    let load = world.load(Mix { events: 6_000, drafts: 6_000, ..Mix::default() });
    let running = world.start_run();
    eventually("some of it is committed", || !world.committed().is_empty());
    wire.cut();

    let ended = running.wait();

    let error = ended.failure(75);
    assert!(error.contains(&format!("{dependency} is out")), "{error}");
    let committed = world.committed();
    assert_ne!(committed, world.ends(), "it was in the middle");
    // Whatever is committed has its outcome: the row is written and the key is gone.
    let rows = world.rows();
    for record in world.records() {
        if record.offset < committed.get(&record.partition.unwrap()).copied().unwrap_or(0) {
            let draft = String::from_utf8(record.key.unwrap()).unwrap();
            assert!(rows[&draft].job().is_some(), "{draft}");
        }
    }
    let total: i64 = committed.values().sum();
    assert!(world.cache.keys() <= 6_000 - u64::try_from(total).unwrap());
    wire.open();
    world.speed_up();
    world.run_until_caught_up();
    world.assert_done(&load);
}

#[test]
fn with_on_outage_exit_a_lost_database_ends_the_run_with_code_75() {
    exits("exit-database", World::wire_to_database, "postgresql");
}

#[test]
fn with_on_outage_exit_lost_brokers_end_the_run_with_code_75() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("exit-kafka");
    world.set("run.on_outage", "exit");
    world.drafts(["d1", "d2"]);
    let running = world.start_run();
    world.publish([event("d1", "job-1").on(0)]);
    eventually("the first event is through", || world.committed() == [(0, 1)].into());
    kafka.wire.cut();
    kafka.wire.open();
    world.publish([event("d2", "job-2").on(0)]);
    eventually("connections are made again", || world.committed() == [(0, 2)].into());
    kafka.stop();

    let ended = running.wait();

    // The topics are deleted at the end.
    kafka.restart();
    let error = ended.failure(75);
    assert!(error.contains("kafka is out: no broker answers at 127.0.0.1:"), "{error}");
}

#[test]
fn with_on_outage_exit_lost_brokers_end_a_replay_with_code_75() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("exit-replay");
    world.set("run.on_outage", "exit");
    world.set("kafka.properties.debug", "fetch");
    // A batch at a time, each a quarter of a second on its way: ten seconds for all of it.
    world.set("kafka.properties.fetch.message.max.bytes", 1);
    world.set("kafka.properties.queued.min.messages", 1);
    world.drafts(["d1"]);
    for number in 0..40 {
        world.publish([event("d1", &format!("job-{number}")).at(number).on(0)]);
    }
    kafka.slowness.set(250);
    let running = world.start(&["-vv", "replay"]);
    eventually("it reads", || running.err().contains("Enqueue"));
    kafka.kill();

    let ended = running.wait();

    // The topics are deleted at the end.
    kafka.restart();
    let error = ended.failure(75);
    assert!(error.contains("kafka is out"), "{error}");
}

#[test]
fn with_on_outage_exit_a_lost_cache_ends_the_run_with_code_75() {
    exits("exit-cache", World::wire_to_cache, "redis");
}

#[test]
fn e3_f1_with_on_outage_exit_an_idle_connection_that_was_closed_is_made_again() {
    let server = Redis::start();
    let mut world = World::on_redis("exit-idle", &server);
    world.set("run.on_outage", "exit");
    world.set("run.workers", 1);
    world.drafts(["d1", "d2", "d3"]);
    let running = world.start_run();
    world.publish([event("d1", "job-1").on(0)]);
    eventually("the connections are there", || world.committed() == [(0, 1)].into());
    assert_eq!(world.database.cut_sessions(), 1);
    world.publish([event("d2", "job-2").on(0)]);
    eventually("a new session has written it", || world.committed() == [(0, 2)].into());
    server.tell("CLIENT KILL TYPE normal");
    world.publish([event("d3", "job-3").on(0)]);
    eventually("a new connection has deleted it", || world.committed() == [(0, 3)].into());
    assert_eq!(running.stop().report().outcomes(), [3, 3, 0, 0, 0, 0]);
}
