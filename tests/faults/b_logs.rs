//! What can stand in a log, or be missing from it.

use crate::world::{PrivateKafka, World, event, eventually, images, meanwhile};

#[test]
fn b7_a_transaction_left_open_is_waited_for_and_skipped_when_the_broker_aborts_it() {
    let kafka = PrivateKafka::lease();
    let world = kafka.world("b7");
    world.drafts(["d1", "d2", "d3"]);
    let running = world.start_run();
    world.publish([event("d1", "job-1").on(0)]);
    eventually("the first is through", || world.committed() == [(0, 1)].into());
    // Nobody ends it.
    let open = world.begin_for(4_000, [event("d2", "never").on(0)]);
    world.publish([event("d3", "job-3").on(0)]);
    meanwhile("nothing behind it is seen", || {
        world.row("d3").is_untouched() && world.committed() == [(0, 1)].into()
    });
    eventually("the broker ends it", || world.row("d3").images() == &images("job-3"));
    eventually("the offset too", || world.committed() == [(0, 3)].into());
    assert!(world.row("d2").is_untouched());
    assert_eq!(running.stop().report().outcomes(), [2, 2, 0, 0, 0, 0]);
    drop(open);
}

#[test]
fn b7_a_group_that_is_set_behind_an_open_transaction_has_lost_nothing() {
    let world = World::new("b7-behind");
    world.drafts(["d1", "d2"]);
    let open = world.begin((0..3).map(|number| event("d1", &format!("open-{number}")).on(0)));
    world.commit(0, 3);
    let running = world.start_run();
    eventually("it is at work", || running.says_partitions("assigned"));
    meanwhile("nobody moves the offset", || world.committed() == [(0, 3)].into());
    open.abort();
    world.publish([event("d2", "job-2").on(0)]);
    eventually("it goes on", || world.committed() == [(0, 5)].into());
    let ended = running.stop();
    assert_eq!(ended.report().outcomes(), [1, 1, 0, 0, 0, 0]);
    assert!(!ended.err.contains("missing"), "{}", ended.err);
    assert!(world.row("d1").is_untouched());
    assert_eq!(world.row("d2").images(), &images("job-2"));
}

#[test]
fn b8_what_compaction_has_taken_out_is_no_loss() {
    let kafka = PrivateKafka::lease();
    let world = kafka.world("b8");
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.001"),
    ];
    world.cluster().configure_topic(world.topic(), &settings);
    world.drafts(["d1", "d2"]);
    // By their timestamps each stands in a segment of its own; only what is not in the last one is
    // compacted.
    for number in 0..12 {
        world.publish([event("d1", &format!("job-{number}")).at(number * 1_000).on(0)]);
    }
    world.publish([event("d2", "job").at(60_000).on(0)]);
    eventually("most are gone", || world.records().len() < 6);
    let left = u64::try_from(world.records().len()).unwrap();

    let report = world.run_until_caught_up();

    assert_eq!((report.read, report.rejected), (left, 0));
    assert_eq!(world.row("d1").images(), &images("job-11"));
    assert_eq!(world.row("d2").images(), &images("job"));
    assert_eq!(world.committed(), world.ends());
    assert_eq!(world.run_until_caught_up().outcomes(), [0; 6]);
}

#[test]
fn b9_a_corrupt_batch_stops_the_run_and_is_not_skipped() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("b9");
    world.set("kafka.bulk_fetch_min_records", 0);
    world.drafts(["d1", "d2", "d3"]);
    for (draft, partition) in [("d1", 0), ("d2", 0), ("d3", 0)] {
        world.publish([event(draft, &format!("job-of-{draft}")).on(partition)]);
    }
    kafka.stop();
    let file = kafka.segment(world.topic(), 0);
    let mut log = std::fs::read(&file).unwrap();
    // The end of the second of three batches of the same size.
    let at = log.len() * 2 / 3 - 20;
    log[at] ^= 1;
    std::fs::write(&file, &log).unwrap();
    kafka.restart();

    let stopped = world.start(&["run", "--until-caught-up", "--report", "json"]).wait();

    let error = stopped.failure(1);
    assert!(error.contains("corrupt"), "{error}");
    assert!(world.committed().get(&0).is_none_or(|offset| *offset <= 1), "nothing is skipped");
    assert!(world.row("d2").is_untouched());
    assert!(world.dead_letters().is_empty());
    let replay = world.call(&["replay"]);
    let error = replay.failure(1);
    assert!(error.contains("corrupt") && error.contains("--from-offsets"), "{error}");
    assert!(!error.contains("reset-offsets"), "a replay has no group to move: {error}");

    // Whoever has moved the group past it has not made it whole.
    world.commit(0, 3);
    let repair = world.call(&["verify", "--repair"]);
    let error = repair.failure(1);
    assert!(error.contains("corrupt"), "{error}");
    assert!(world.row("d2").is_untouched() && world.row("d3").is_untouched());
}

#[test]
fn b9_a_corrupt_batch_in_a_backlog_that_is_fetched_in_bulk_stops_the_run_too() {
    let kafka = PrivateKafka::lease();
    let mut world = kafka.world("b9-bulk");
    world.set("kafka.bulk_fetch_min_records", 1);
    world.drafts(["d1"]);
    // More than the client fetches ahead, or it would meet it first.
    let padded = |number: i32| {
        let padding: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(2_000).collect();
        event("d1", &format!("job-{number}")).with("padding", padding).on(0)
    };
    world.publish((0..12_000).map(padded));
    kafka.stop();
    let file = kafka.segment(world.topic(), 0);
    let mut log = std::fs::read(&file).unwrap();
    assert!(log.len() > 20_000_000, "it is not compressed away: {}", log.len());
    let at = log.len() - 100;
    log[at] ^= 1;
    std::fs::write(&file, &log).unwrap();
    kafka.restart();

    for command in ["run", "replay"] {
        let error = world.call(&[command]);
        let error = error.failure(1);
        assert!(error.contains("corrupt") && error.contains("fails its checksum"), "{error}");
    }
    assert!(world.committed().get(&0).is_none_or(|offset| *offset < 12_000));
    assert!(world.dead_letters().is_empty());
}
