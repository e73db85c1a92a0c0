//! The dead-letter topic goes away, is narrow, or is the wrong one.

use crate::world::{
    PrivateKafka, World, alter_topic, create_topic, delete_topic, event, eventually, meanwhile,
    record,
};

#[test]
fn h1_a_dead_letter_topic_that_goes_away_holds_the_offset_until_it_is_back() {
    let mut world = World::new("h1");
    // The client says so within a second, not within half a minute.
    world.set("kafka.properties.topic.metadata.refresh.interval.ms", 300);
    world.set("kafka.properties.topic.metadata.propagation.max.ms", 300);
    world.drafts(["d1"]);
    let running = world.start_run();
    world.publish([record("rubbish").on(0)]);
    eventually("the first is through", || world.committed() == [(0, 1)].into());
    delete_topic(world.dead_letter_topic());
    eventually("it is gone", || world.cluster().is_gone(world.dead_letter_topic()));
    world.publish([record("more rubbish").on(0), event("d1", "job-1").on(0)]);
    eventually("the neighbour is through", || world.cached("d1").is_none());
    eventually("it is held", || running.err().contains("held"));
    meanwhile("the offset waits", || world.committed() == [(0, 1)].into());

    create_topic(world.dead_letter_topic(), 2, &[]);
    eventually("it goes on by itself", || world.committed() == [(0, 3)].into());
    assert_eq!(world.rejects(), [((0, 1), "not-json".to_owned())].into());
    running.stop().success();
}

#[test]
fn h3_a_dead_letter_that_was_written_though_its_delivery_timed_out_is_written_again() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("h3");
    world.set("run.retries", 0);
    world.set("kafka.properties.debug", "fetch");
    let database = world.wire_to_database();
    world.drafts(["d0"]);
    let running = world.start(&["-vv", "run", "--report", "json"]);
    world.publish([event("unknown", "job-0").on(0)]);
    eventually("the first is through", || world.committed() == [(0, 1)].into());
    database.hold();
    let before = super::a_effects::fetches(&running);
    world.publish([event("unknown", "job-1").on(0)]);
    eventually("it is fetched", || super::a_effects::fetches(&running) > before);
    kafka.wire.mute();
    database.open();
    let copies = || world.cluster().read(world.dead_letter_topic());
    eventually("the letter is written", || copies().len() == 2);
    // Half a minute later the client gives up.
    eventually("the delivery times out", || running.err().contains("held"));
    assert_eq!(world.committed(), [(0, 1)].into());
    kafka.wire.cut();
    kafka.wire.open();

    eventually("the offset is committed", || world.committed() == [(0, 2)].into());
    let copies = copies();
    assert!(copies.len() >= 3, "the second in two copies");
    assert!(copies.iter().all(|letter| letter.header("dlq.reason") == Some("unknown-draft")));
    assert_eq!(world.dead_letters().len(), 2, "which are told to be one");
    running.stop().success();
}

/// It would keep of a draft's dead letters the last, and take none without a key.
#[test]
fn h2_a_compacted_dead_letter_topic_is_refused_and_named_where_it_becomes_one() {
    let world = World::new("h2-compacted");
    let running = world.start_run();
    world.publish([record("rubbish").on(0)]);
    eventually("the first is through", || world.committed() == [(0, 1)].into());
    let set = |policy| alter_topic(world.dead_letter_topic(), "cleanup.policy", policy);
    set("compact");
    world.publish([record("more rubbish").on(0)]);
    eventually("it says what to do", || running.err().contains("cleanup.policy"));
    meanwhile("the offset waits", || world.committed() == [(0, 1)].into());
    let check = world.call(&["check"]);
    assert_eq!(check.code(), Some(1));
    assert!(check.out.contains("is compacted"), "{}", check.out);
    let second = world.call(&["run"]);
    assert!(second.failure(1).contains("set its cleanup.policy to delete"), "{}", second.err);

    set("delete");
    eventually("it goes on by itself", || world.committed() == [(0, 2)].into());
    assert_eq!(world.dead_letters().len(), 2);
    running.stop().success();
}

#[test]
fn h5_a_dead_letter_topic_with_fewer_partitions_takes_the_letters_of_all() {
    let mut world = World::new("h5");
    let narrow = format!("{}.narrow", world.name);
    create_topic(&narrow, 1, &[]);
    world.set("dead_letters.topic", &narrow);
    world.publish((0..4).map(|partition| record("rubbish").on(partition)));
    assert_eq!(world.run_until_caught_up().outcomes(), [4, 0, 0, 0, 0, 4]);
    let letters = world.cluster().read(&narrow);
    let mut origins: Vec<_> = letters.iter().map(|letter| letter.header("dlq.partition")).collect();
    origins.sort();
    assert_eq!(origins, ["0", "1", "2", "3"].map(Some));
    assert_eq!(world.committed(), world.ends());
    delete_topic(&narrow);
}

#[test]
fn h6_the_topic_itself_cannot_be_its_dead_letter_topic() {
    let mut world = World::new("h6");
    world.publish([record("rubbish").on(0)]);
    world.set("dead_letters.topic", world.topic().to_owned());
    let ended = world.call(&["run", "--until-caught-up"]);
    let error = ended.failure(2);
    assert!(error.contains("dead_letters.topic") && error.contains("hint"), "{error}");
    assert_eq!(world.records().len(), 1);
    assert!(world.committed().is_empty());
}
