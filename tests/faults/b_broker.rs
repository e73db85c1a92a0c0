//! The broker stops, dies, freezes, and comes back.

use std::time::{Duration, Instant};

use super::a_effects::written;
use crate::interruptions::mixed;
use crate::world::{Load, PrivateKafka, Running, World, event, eventually, images};

/// A load of so many events, in the middle of which something is about to happen.
fn busy(kafka: &PrivateKafka, name: &str, events: u64) -> (World, Load, Running) {
    let mut world = kafka.world(name);
    world.set("run.epoch_records", 200);
    world.set("run.retry_backoff_ms", 5);
    world.slow_down(20);
    let load = world.load(mixed(29, events));
    let running = world.start_run();
    eventually("some of it is done", || !world.committed().is_empty());
    assert_ne!(world.committed(), world.ends(), "it is in the middle");
    (world, load, running)
}

/// The same process gets through with what is left.
fn finishes(world: &World, load: &Load, running: Running) {
    eventually("all is committed", || world.committed() == world.ends());
    let report = running.stop().report();
    assert!(report.read >= load.events(), "{report:?}");
    world.assert_done(load);
}

#[test]
fn b1_after_a_restart_of_the_broker_the_same_process_goes_on() {
    let kafka = PrivateKafka::lease();
    let (world, load, running) = busy(&kafka, "b1", 3_000);
    kafka.stop();
    kafka.restart();
    world.speed_up();
    finishes(&world, &load, running);
}

#[test]
fn b2_b4_when_the_broker_dies_before_a_commit_the_offset_is_committed_later() {
    let kafka = PrivateKafka::lease();
    let (world, running, cache) = written(kafka.world("b2"));
    world.drafts(["d2"]);
    let written = world.row("d1");
    kafka.kill();
    cache.open();
    eventually("the key is deleted", || world.cached("d1").is_none());
    // The commit is sent to nobody.
    std::thread::sleep(Duration::from_millis(700));
    kafka.restart();

    eventually("the offset is committed", || world.committed() == [(0, 2)].into());
    world.publish([event("d2", "job-2").on(0)]);
    eventually("it goes on", || world.committed() == [(0, 3)].into());
    assert_eq!(world.row("d1"), written, "not even xmin has changed");
    assert_eq!(world.row("d2").images(), &images("job-2"));
    assert_eq!(world.cache.keys(), 0);
    // Read again or not: a killed broker may have forgotten that we were a member.
    let report = running.stop().report();
    assert_eq!((report.applied, report.rejected), (3, 0), "{report:?}");
    assert!(world.dead_letters().is_empty());
}

#[test]
fn b2_after_a_crash_of_the_broker_the_same_process_goes_on() {
    let kafka = PrivateKafka::lease();
    let (world, load, running) = busy(&kafka, "b2-load", 3_000);
    kafka.kill();
    kafka.restart();
    world.speed_up();
    finishes(&world, &load, running);
}

#[test]
fn b3_a_broker_that_hangs_during_a_commit_costs_nothing_but_time() {
    let kafka = PrivateKafka::lease();
    let (world, running, cache) = written(kafka.world("b3"));
    let rows = world.rows();
    kafka.freeze();
    cache.open();
    eventually("the key is deleted", || world.cache.keys() == 0);
    // Longer than a session: the broker finds it expired when it wakes.
    std::thread::sleep(Duration::from_secs(4));
    kafka.thaw();

    eventually("the offset is committed", || world.committed() == [(0, 2)].into());
    assert_eq!(world.rows(), rows, "not even xmin has changed");
    let report = running.stop().report();
    assert_eq!((report.applied, report.rejected), (2, 0), "{report:?}");
}

#[test]
fn b3_a_stop_while_the_broker_hangs_ends_in_bounded_time() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("b3-stop");
    world.set("run.drain_timeout_s", 1);
    world.drafts(["d0"]);
    let running = world.start_run();
    world.publish([event("d0", "job-0").on(0)]);
    eventually("the event is through", || world.committed() == [(0, 1)].into());
    kafka.freeze();
    let since = Instant::now();
    running.terminate();
    let ended = running.wait();
    println!("it took {:?}: {:?}", since.elapsed(), ended.code());
    kafka.thaw();
    assert_eq!(ended.report().outcomes(), [1, 1, 0, 0, 0, 0]);
}

#[test]
fn b3_a_stop_whose_last_commit_the_broker_does_not_take_says_so() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("b3-uncommitted");
    world.set("run.drain_timeout_s", 20);
    world.drafts(["d0"]);
    let blocker = world.database.session();
    blocker.sql("BEGIN; SELECT FROM event_drafts WHERE event_draft_id = 'd0' FOR UPDATE");
    let running = world.start_run();
    world.publish([event("d0", "job-0").on(0)]);
    eventually("it waits for the row", || world.database.somebody_waits());
    kafka.freeze();
    running.terminate();
    blocker.sql("ROLLBACK");
    let ended = running.wait();
    kafka.thaw();
    assert!(ended.failure(1).contains("kafka has not taken its offsets"), "{}", ended.err);
    assert_eq!(world.row("d0").images(), &images("job-0"));

    // It is read again, and recognised, unless the broker has found the commit when it woke up.
    let report = world.call(&["run", "--until-caught-up", "--report", "json"]).report();
    assert_eq!((report.duplicate, report.applied), (report.read, 0), "{report:?}");
    assert_eq!(world.committed(), [(0, 1)].into());
}

#[test]
fn b5_a_slow_broker_slows_everything_down_and_breaks_nothing() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("b5");
    world.set("run.epoch_records", 500);
    world.set("run.retry_backoff_ms", 5);
    let load = world.load(mixed(31, 3_000));
    kafka.slowness.set(250);
    let since = Instant::now();
    let running = world.start(&["run", "--until-caught-up", "--report", "json"]);
    let ended = running.wait();
    assert!(since.elapsed() > Duration::from_secs(2), "it was slow");
    let report = ended.report();
    assert_eq!(report.read, load.events(), "nothing was read twice");
    assert_eq!(ended.err.matches("assigned").count(), 1, "no rebalance: {}", ended.err);
    assert!(!ended.err.contains("lost"), "{}", ended.err);
    kafka.slowness.set(0);
    world.assert_done(&load);
}

#[test]
fn b6_connections_cut_in_the_middle_of_fetching_and_producing_are_made_again() {
    let kafka = PrivateKafka::lease();
    let (world, load, running) = busy(&kafka, "b6", 6_000);
    for _ in 0..12 {
        let (committed, letters) =
            (world.committed(), world.cluster().ends(world.dead_letter_topic()));
        kafka.wire.cut();
        kafka.wire.open();
        eventually("it goes on", || {
            world.committed() != committed || world.committed() == world.ends()
        });
        eventually("the dead letters too", || {
            world.cluster().ends(world.dead_letter_topic()) != letters
                || world.committed() == world.ends()
        });
    }
    world.speed_up();
    finishes(&world, &load, running);
}

#[test]
fn b10_one_of_the_brokers_asked_first_is_enough_and_none_ends_the_run_with_its_address() {
    let mut world = World::new("b10");
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1").on(0)]);
    let brokers = world.cluster().brokers.clone();
    // At its start a run does not wait for what may be a mistake: whoever starts it again does.
    world.set("kafka.brokers", "127.0.0.1:1,127.0.0.1:2");
    let ended = world.call(&["run", "--until-caught-up"]);
    let error = ended.failure(75);
    assert!(error.contains("no broker answers at 127.0.0.1:1,127.0.0.1:2"), "{error}");
    assert!(world.row("d1").is_untouched());

    world.set("kafka.brokers", format!("127.0.0.1:1,{brokers}"));
    assert_eq!(world.run_until_caught_up().outcomes(), [1, 1, 0, 0, 0, 0]);
    assert!(world.dead_letters().is_empty());
}
