//! Topics that are deleted and made again, before they are read or meanwhile.

use super::{differences, found};
use crate::world::{
    Ended, PARTITIONS, PrivateKafka, Record, World, create_topic, delete_topic, event, eventually,
    record,
};

/// It says what has happened to the topic, and what to do.
fn ends_for_another_topic(ended: &Ended, topic: &str) {
    let error = ended.failure(1);
    let what = format!("error: the topic {topic} was deleted and made again while it was read");
    assert!(error.contains(&what), "{error}");
    assert!(error.contains("hint: start again"), "{error}");
}

const IDS: [&str; 4] = ["d0", "d1", "d2", "d3"];

/// So many events of each draft, each draft in its partition.
fn events(job: &str, count: i64, ms: i64) -> impl Iterator<Item = Record> {
    (0..count).flat_map(move |number| {
        let of = move |(id, partition)| event(id, &format!("{job}-{number}")).on(partition);
        IDS.into_iter().zip(0..).map(move |draft| of(draft).at(ms + number))
    })
}

/// A world in which each partition has ten events, and one row is not as it should be.
fn with_a_wrong_row(name: &str) -> World {
    let world = World::new(name);
    world.drafts(IDS);
    world.publish(events("old", 10, 1_000));
    world.run_until_caught_up();
    world.database.sql("UPDATE event_drafts SET content_images = '{}' WHERE event_draft_id = 'd1'");
    world
}

/// What is at the old offsets of the new topic is not what was there, and older: rows would be
/// moved back to it.
#[test]
fn d4_a_longer_topic_made_again_under_a_repair_ends_it_before_it_writes_anything() {
    let mut world = with_a_wrong_row("verify-made-longer");
    world.set("database.lock_timeout_ms", 20_000);
    let rows = world.rows();
    let locked = world.database.session();
    locked.sql("BEGIN; LOCK TABLE event_drafts");
    let repair = world.start(&["-vv", "verify", "--repair", "--json"]);
    // It knows by now up to where it will read the topic.
    eventually("it waits for the rows", || world.database.somebody_waits());
    world.cluster().make_again_with(world.topic(), PARTITIONS, events("new", 30, 0));
    locked.sql("ROLLBACK");

    let ended = repair.wait();
    ends_for_another_topic(&ended, world.topic());
    assert_eq!(ended.out, "", "half of a comparison is none");
    assert!(!ended.err.contains("changed id"), "nobody has asked for the client's debug lines");
    assert_eq!(world.rows(), rows, "nothing is written");
}

/// A watch that has read the old topic reads nothing of the new one, which is not as long as what
/// it has read.
#[test]
fn d4_a_shorter_topic_made_again_between_the_rounds_of_a_watch_ends_it() {
    let world = with_a_wrong_row("watch-made-shorter");
    let watch = world.start(&["verify", "--watch", "--interval", "0"]);
    eventually("it watches", || watch.out().contains("appeared  images-differ  d1"));
    let frozen = watch.freeze();
    world.cluster().make_again_with(world.topic(), PARTITIONS, events("new", 2, 0));
    drop(frozen);

    let ended = watch.wait();
    ends_for_another_topic(&ended, world.topic());
    assert_eq!(ended.out.lines().count(), 2, "nothing else: {}", ended.out);
}

/// Enough fetches that it is in the middle for a long time on a slow wire.
const BATCHES: i64 = 40;

#[test]
fn d4_a_longer_topic_made_again_in_the_middle_of_reading_dead_letters_ends_it() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("dlq-made-longer");
    // Of each partition one batch is fetched at a time.
    world.set("kafka.properties.queued.min.messages", 1);
    world.set("kafka.properties.fetch.message.max.bytes", 1);
    let topic = world.dead_letter_topic();
    let strangers = || (0..2).map(|partition| record("no dead letter").on(partition));
    for _ in 0..BATCHES {
        assert!(kafka.cluster.publish_to(topic, strangers()).iter().all(Result::is_ok));
    }
    kafka.slowness.set(200);
    let reading = world.start(&["dlq", "count"]);
    eventually("it is in the middle", || reading.err().contains("not a dead letter"));
    kafka.wire.hold();
    let new = (0..2 * BATCHES).flat_map(|_| strangers());
    kafka.cluster.make_again_with(topic, 2, new);
    kafka.slowness.set(0);
    kafka.wire.open();

    let ended = reading.wait();
    ends_for_another_topic(&ended, topic);
    assert_eq!(ended.out, "", "half of a count is none");
    world.call(&["dlq", "count"]).success();
}

/// It keeps its time, and says nothing of how old a topic is that was made after that.
#[test]
fn a_replayed_dead_letter_in_a_topic_made_again_makes_no_row_unknown() {
    let world = World::new("verify-again-replayed");
    world.drafts(["d1", "d2", "d3"]);
    world.publish([event("d1", "old").on(0).at(500)]);
    world.run_until_caught_up();
    delete_topic(world.topic());
    create_topic(world.topic(), 1, &[]);
    world.delete_group();
    world.publish([
        event("d2", "new").on(0).at(1_000),
        event("d3", "replayed").on(0).at(100).with("dlq.replays", "1"),
    ]);
    world.run_until_caught_up();
    assert_eq!(differences(&world), found([]));
}
