//! Topics that are missing, deleted, made again and cut short; offsets that somebody has moved.

use crate::interruptions::mixed;
use crate::world::{
    PARTITIONS, World, create_topic, delete_topic, event, eventually, images, meanwhile,
};

/// How many epochs may be under way where it is of interest.
const EPOCHS_IN_FLIGHT: usize = 3;

/// Deletes the topic and makes it again, empty, once that is `noticed`, and the group's offsets
/// have gone with it.
fn make_again(world: &World, noticed: impl Fn() -> bool) {
    delete_topic(world.topic());
    eventually("it can be made again", || {
        world.cluster().is_gone(world.topic()) && world.committed().is_empty() && noticed()
    });
    create_topic(world.topic(), PARTITIONS, &[]);
}

#[test]
fn d3_a_topic_that_is_missing_at_the_start_is_named_and_not_made() {
    let world = World::new("d3");
    world.drafts(["d1"]);
    for (topic, partitions) in [(world.topic(), PARTITIONS), (world.dead_letter_topic(), 2)] {
        delete_topic(topic);
        eventually("it is gone", || world.cluster().is_gone(topic));
        let ended = world.call(&["run", "--until-caught-up"]);
        let error = ended.failure(1);
        assert!(error.contains(topic) && error.contains("does not exist"), "{error}");
        assert!(world.cluster().is_gone(topic), "nobody has made it by the way");
        create_topic(topic, partitions, &[]);
    }
    world.publish([event("d1", "job-1").on(0)]);
    assert_eq!(world.run_until_caught_up().outcomes(), [1, 1, 0, 0, 0, 0]);
}

/// The topic is made again with so many new records, under a consumer that has read five of the old
/// one.
fn made_again_under_a_consumer(policy: &str, records: i64, is_noticed: bool) {
    let mut world = World::new(&format!("d4-{policy}-{records}"));
    world.set("run.on_data_loss", policy);
    world.set("kafka.properties.topic.metadata.refresh.interval.ms", 500);
    world.set("kafka.properties.topic.metadata.propagation.max.ms", 500);
    world.set("kafka.properties.group.instance.id", "the only one");
    let drafts: Vec<String> = (0..records).map(|number| format!("d{number}")).collect();
    world.drafts(&drafts);
    let mut running = world.start_run();
    world.publish((0..5).map(|number| event("d0", &format!("old-{number}")).at(number).on(0)));
    eventually("the old topic is read", || world.committed() == [(0, 5)].into());
    make_again(&world, || !is_noticed || running.err().contains("lost:"));

    // Where the old records stood; newer, as their time says, and not as their offsets do.
    let cluster = crate::world::Cluster::at(&world.cluster().brokers);
    let new = drafts.iter().zip(100..).map(|(draft, ms)| event(draft, "new").at(ms).on(0));
    assert!(cluster.publish_to(world.topic(), new).iter().all(Result::is_ok));
    let all_read = || world.rows().values().all(|row| row.job() == Some("new"));
    eventually("the new topic is read from its beginning", || {
        if running.has_ended() {
            let error = std::mem::replace(&mut running, world.start_run()).wait();
            let error = error.failure(1);
            assert!(policy == "stop" && error.contains("records are missing"), "{error}");
        }
        all_read()
    });
    running.stop().success();
    assert_eq!(world.run_until_caught_up().outcomes(), [0; 6]);
    assert_eq!(world.committed(), [(0, records)].into());
    assert!(world.dead_letters().is_empty());
}

#[test]
fn d4_a_shorter_topic_made_again_under_a_running_consumer_is_read_from_its_beginning() {
    made_again_under_a_consumer("stop", 2, false);
    made_again_under_a_consumer("continue", 2, false);
}

#[test]
fn d4_a_longer_topic_made_again_under_a_running_consumer_is_read_from_its_beginning() {
    made_again_under_a_consumer("stop", 12, true);
}

/// The client reads on at the old position of the new topic, if nobody tells it otherwise.
#[test]
fn d4_a_longer_topic_made_again_before_anybody_notices_is_read_from_its_beginning() {
    made_again_under_a_consumer("stop", 12, false);
}

#[test]
fn d5_a_topic_made_again_while_nobody_runs_is_read_from_its_beginning() {
    let world = World::new("d5");
    world.drafts(["d1", "d2"]);
    world.publish((0..5).map(|number| event("d1", &format!("old-{number}")).at(number).on(0)));
    assert_eq!(world.run_until_caught_up().read, 5);
    make_again(&world, || true);
    let cluster = crate::world::Cluster::at(&world.cluster().brokers);
    let new = (0..7).map(|number| event("d1", &format!("new-{number}")).at(100 + number).on(0));
    assert!(cluster.publish_to(world.topic(), new).iter().all(Result::is_ok));

    let report = world.run_until_caught_up();

    assert_eq!(report.read, 7);
    assert_eq!(report.partitions[0].first_offset, 0);
    assert_eq!(world.row("d1").images(), &images("new-6"));
    assert_eq!(world.committed(), [(0, 7)].into());
}

#[test]
fn d6_records_that_retention_deletes_during_an_outage_are_counted_exactly() {
    for policy in ["stop", "continue"] {
        let mut world = World::new("d6");
        world.set("run.epoch_records", 1);
        world.set("run.epochs_in_flight", EPOCHS_IN_FLIGHT);
        world.set("run.on_data_loss", policy);
        world.set("kafka.properties.group.instance.id", "the only one");
        // Little is fetched ahead, so that the rest is still in the topic alone.
        world.set("kafka.properties.queued.min.messages", 1);
        world.set("kafka.properties.fetch.message.max.bytes", 1_000);
        let wire = world.wire_to_database();
        let drafts: Vec<String> = (0..40).map(|number| format!("d{number}")).collect();
        world.drafts(&drafts);
        let running = world.start(&["-v", "run", "--report", "json"]);
        let numbered = |number: usize| event(&drafts[number], "job").on(0);
        world.publish([numbered(0)]);
        eventually("it is at work", || world.committed() == [(0, 1)].into());
        wire.hold();
        for number in 1..40 {
            world.publish([numbered(number)]);
        }
        eventually("it is full", || running.err().contains("paused"));
        world.delete_records(0, 38);
        wire.open();

        let ended = match policy {
            "stop" => {
                // Which of them it has still read decides how many are lost: it says between which
                // offsets.
                let ended = running.wait();
                let error = ended.failure(1);
                assert!(
                    error.contains("partition 0") && error.contains("deleted by retention"),
                    "{error}"
                );
                ended
            }
            _ => {
                eventually("it goes on with what there is", || {
                    world.committed() == [(0, 40)].into()
                });
                let ended = running.stop();
                ended.success();
                ended
            }
        };
        let lost = (1..38).filter(|number| world.row(&drafts[*number]).is_untouched()).count();
        assert!(lost > 0, "it was in the middle");
        assert!(ended.err.contains(&format!("{lost} records")), "{lost}: {}", ended.err);
        if policy == "stop" {
            // Who ends at once may leave a row that is written and not committed: it is counted
            // once more.
            let left = usize::try_from(38 - world.committed()[&0]).unwrap();
            assert!((lost..=lost + EPOCHS_IN_FLIGHT).contains(&left), "{lost}, {left}");
            world.unwire_database();
            let again = world.call(&["run", "--until-caught-up"]);
            assert!(again.failure(1).contains(&format!("{left} records")), "{again:?}");
        }
    }
}

#[test]
fn b12_d7_a_group_whose_offsets_are_gone_or_set_back_changes_no_row() {
    let mut world = World::new("d7");
    world.set("run.retry_backoff_ms", 5);
    let load = world.load(mixed(43, 2_000));
    world.run_until_caught_up();
    world.assert_done(&load);
    let rows = world.rows();
    for reset in ["deleted", "earliest"] {
        match reset {
            "deleted" => world.delete_group(),
            _ => (0..PARTITIONS).for_each(|partition| world.commit(partition, 0)),
        }
        let again = world.run_until_caught_up();
        assert_eq!((again.read, again.applied), (2_000, 0), "{reset}");
        assert_eq!(world.rows(), rows, "{reset}: not even xmin has changed");
        world.assert_done(&load);
    }
}

#[test]
fn d7_a_group_that_is_set_forward_skips_what_it_is_told_to_and_says_from_where_it_read() {
    let world = World::new("d7-forward");
    world.drafts(["d1", "d2", "d3"]);
    world.publish(["d1", "d2", "d3"].map(|draft| event(draft, "job").on(0)));
    world.commit(0, 2);
    let report = world.run_until_caught_up();
    assert_eq!(report.outcomes(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(report.partitions[0].first_offset, 2);
    let rows = world.rows();
    assert!(rows["d1"].is_untouched() && rows["d2"].is_untouched());
    meanwhile("the offset stays", || world.committed() == [(0, 3)].into());
}
