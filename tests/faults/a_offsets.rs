//! The process is killed between the last effect and the committed offset, or while it starts.

use std::time::Duration;

use fastrand::Rng;

use super::a_effects::{fetches, world, written};
use crate::interruptions::mixed;
use crate::world::{PrivateKafka, Record, World, event, eventually, meanwhile, record};

/// A member that comes back under its name need not wait until the one that was killed is given up.
fn the_only_one(kafka: &PrivateKafka, name: &str) -> World {
    let mut world = kafka.world(name);
    world.set("kafka.properties.group.instance.id", "the only one");
    world
}

#[test]
fn a7_what_was_done_but_not_committed_is_read_again_and_changes_nothing() {
    let kafka = PrivateKafka::lease();
    let (mut world, running, cache) = written(the_only_one(&kafka, "a7"));
    kafka.wire.hold();
    cache.open();
    eventually("the key is deleted", || world.cache.keys() == 0);
    meanwhile("the commit is on the wire", || world.committed() == [(0, 1)].into());
    let rows = world.rows();
    assert!(running.kill().was_killed());
    kafka.wire.cut();
    kafka.wire.open();

    world.unwire_cache();
    assert_eq!(world.run_until_caught_up().outcomes(), [1, 0, 1, 0, 0, 0]);
    assert_eq!(world.rows(), rows, "not even xmin has changed");
    assert_eq!(world.committed(), [(0, 2)].into());
}

#[test]
fn a8_a_commit_whose_answer_was_not_seen_has_skipped_nothing() {
    let kafka = PrivateKafka::lease();
    let (mut world, running, cache) = written(the_only_one(&kafka, "a8"));
    kafka.wire.mute();
    cache.open();
    eventually("the offset is committed", || world.committed() == [(0, 2)].into());
    assert_eq!(world.cache.keys(), 0, "and not before the key was deleted");
    let rows = world.rows();
    assert!(running.kill().was_killed());
    kafka.wire.cut();
    kafka.wire.open();

    world.unwire_cache();
    world.publish([event("d1", "job-2").at(1).on(0)]);
    assert_eq!(world.run_until_caught_up().outcomes(), [1, 1, 0, 0, 0, 0]);
    assert_ne!(world.rows(), rows);
    assert_eq!(world.committed(), [(0, 3)].into());
}

/// All copies of all dead letters.
fn copies(world: &World) -> Vec<Record> {
    world.cluster().read(world.dead_letter_topic())
}

/// Without their places in the topic, all copies are equal, byte for byte.
fn assert_equal(copies: &[Record]) {
    let same =
        |letter: &Record| Record { partition: None, offset: 0, timestamp_ms: 0, ..letter.clone() };
    assert!(copies.windows(2).all(|pair| same(&pair[0]) == same(&pair[1])), "{copies:?}");
}

#[test]
fn a9_a_dead_letter_whose_delivery_was_not_reported_is_written_again() {
    let kafka = PrivateKafka::lease();
    let mut world = the_only_one(&kafka, "a9");
    world.set("run.retries", 0);
    let database = world.wire_to_database();
    world.set("kafka.properties.debug", "fetch");
    let running = world.start(&["-vv", "run"]);
    // The producer knows its topic now.
    world.publish([event("unknown", "job-0").on(0)]);
    eventually("the first is through", || world.committed() == [(0, 1)].into());
    database.hold();
    let before = fetches(&running);
    world.publish([event("unknown", "job-1").on(0)]);
    eventually("it is fetched", || fetches(&running) > before);
    kafka.wire.mute();
    database.open();
    eventually("the letter is written", || copies(&world).len() == 2);
    meanwhile("nobody knows", || world.committed() == [(0, 1)].into());
    assert!(running.kill().was_killed());
    kafka.wire.cut();
    kafka.wire.open();

    world.unwire_database();
    assert_eq!(world.run_until_caught_up().outcomes(), [1, 0, 0, 0, 0, 1]);
    let copies = copies(&world);
    assert_eq!(copies.len(), 3, "one of the first record, two of the second");
    let second = |letter: &&Record| letter.header("dlq.offset") == Some("1");
    assert_equal(&copies.iter().filter(second).cloned().collect::<Vec<_>>());
    assert_eq!(world.dead_letters().len(), 2);
    assert_eq!(world.committed(), [(0, 2)].into());
}

#[test]
fn a10_a_dead_letter_that_was_acknowledged_but_not_committed_is_written_again() {
    let mut world = world("a10");
    let wire = world.wire_to_database();
    world.drafts(["d0", "d1"]);
    let running = world.start_run();
    world.publish([event("d0", "job-0").on(0)]);
    eventually("the first is through", || world.committed() == [(0, 1)].into());
    // The neighbour in its epoch keeps the offset back.
    wire.hold();
    world.publish([record("rubbish").on(0), event("d1", "job-1").on(0)]);
    eventually("the letter is written", || copies(&world).len() == 1);
    meanwhile("the offset waits", || world.committed() == [(0, 1)].into());
    assert!(running.kill().was_killed());
    wire.cut();

    world.unwire_database();
    assert_eq!(world.run_until_caught_up().outcomes(), [2, 1, 0, 0, 0, 1]);
    let copies = copies(&world);
    assert_eq!(copies.len(), 2);
    assert_equal(&copies);
    assert_eq!(world.rejects(), [((0, 1), "not-json".to_owned())].into());
    assert_eq!(world.committed(), [(0, 3)].into());
}

#[test]
fn a11_fifty_kills_while_it_starts_never_move_an_offset_back() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let mut world = world("a11");
    world.set("run.linger_ms", 5);
    world.set("run.epoch_records", 50);
    world.set("run.retry_backoff_ms", 5);
    world.slow_down(20);
    let load = world.load(mixed(seed, 3_000));
    let (mut committed, mut assigned) = (world.committed(), 0);
    for _ in 0..50 {
        let running = world.start_run();
        std::thread::sleep(Duration::from_millis(rng.u64(20..300)));
        let ended = running.kill();
        assert!(ended.was_killed());
        assigned += u32::from(ended.err.contains("assigned"));
        let now = world.committed();
        for (partition, offset) in &committed {
            assert!(now.get(partition) >= Some(offset), "{committed:?} {now:?}");
        }
        committed = now;
    }
    println!("{assigned} of them had their partitions");
    world.speed_up();
    world.run_until_caught_up();
    world.assert_done(&load);
}
