//! Instances that are silent for too long, or for ever.

use fastrand::Rng;

use crate::interruptions::mixed;
use crate::world::{PrivateKafka, event, eventually, images, meanwhile};

#[test]
fn c3_an_instance_frozen_beyond_its_session_neither_writes_nor_commits_over_its_successor() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("c3");
    world.set("kafka.properties.session.timeout.ms", 1_500);
    world.set("kafka.properties.debug", "fetch");
    let wire = world.wire_to_database();
    world.drafts(["d0", "d1"]);
    let first = world.start(&["-vv", "run", "--report", "json"]);
    world.publish([event("d0", "job-0").on(0)]);
    eventually("the first event is through", || world.committed() == [(0, 1)].into());
    wire.hold();
    let before = super::a_effects::fetches(&first);
    world.publish([event("d1", "job-1").at(1).on(0)]);
    eventually("it is fetched", || super::a_effects::fetches(&first) > before);
    // Its UPDATE is on the way now.
    meanwhile("it waits", || world.row("d1").is_untouched());
    let frozen = first.freeze();

    world.unwire_database();
    let second = world.start_run();
    world.publish([event("d1", "job-2").at(2).on(0)]);
    eventually("its successor goes on", || world.committed() == [(0, 3)].into());
    let written = world.row("d1");
    assert_eq!(written.images(), &images("job-2"));
    // The statement of the frozen one arrives.
    wire.open();
    meanwhile("it changes nothing", || world.row("d1") == written);

    drop(frozen);
    eventually("it finds out", || first.err().contains("lost: what is in flight"));
    meanwhile("it commits nothing", || world.committed() == [(0, 3)].into());
    assert_eq!(world.row("d1"), written, "not even xmin has changed");
    // Both are members again.
    world.publish((0..4).map(|partition| event("d0", "job-3").at(3).on(partition)));
    eventually("they share the work", || world.committed() == world.ends());
    first.stop().success();
    second.stop().success();
    assert!(world.dead_letters().is_empty());
}

#[test]
fn c4_a_database_that_is_out_for_longer_than_the_poll_interval_costs_no_partition() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("c4");
    world.set("kafka.properties.session.timeout.ms", 1_000);
    world.set("kafka.properties.max.poll.interval.ms", 2_000);
    world.set("run.drain_timeout_s", 1);
    world.set("run.epoch_records", 100);
    world.set("run.retry_backoff_ms", 5);
    let wire = world.wire_to_database();
    let load = world.load(mixed(47, 2_000));
    let running = world.start_run();
    eventually("it is at work", || !world.committed().is_empty());
    wire.cut();
    std::thread::sleep(std::time::Duration::from_secs(5));
    wire.open();
    eventually("all is committed", || world.committed() == world.ends());
    let ended = running.stop();
    assert_eq!(ended.report().read, load.events(), "nothing is read twice");
    assert_eq!(ended.err.matches("assigned").count(), 1, "{}", ended.err);
    assert!(!ended.err.contains("lost:"), "{}", ended.err);
    world.assert_done(&load);
}

#[test]
fn c5_instances_killed_at_random_lose_nothing() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("c5");
    world.set("run.epoch_records", 100);
    world.set("run.retry_backoff_ms", 5);
    world.slow_down(10);
    let load = world.load(mixed(seed, 6_000));
    world.set("kafka.properties.session.timeout.ms", 1_500);
    let mut running = [world.start_run(), world.start_run()];
    for _ in 0..6 {
        let doomed = rng.usize(0..2);
        eventually("it is at work", || running[doomed].err().contains("assigned"));
        std::thread::sleep(std::time::Duration::from_millis(rng.u64(0..500)));
        let next = world.start_run();
        assert!(std::mem::replace(&mut running[doomed], next).kill().was_killed());
    }
    world.speed_up();
    eventually("all is committed", || world.committed() == world.ends());
    for instance in running {
        instance.stop().success();
    }
    world.assert_done(&load);
}
