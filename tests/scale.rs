//! The same rows, whatever the number of workers and processes.

use std::time::Duration;

use crate::interruptions::mixed;
use crate::world::{World, eventually, record};

#[test]
fn any_number_of_workers_ends_in_the_same_rows() {
    let worlds = [1, 2, 4].map(|workers| {
        let mut world = World::new(&format!("workers-{workers}"));
        world.set("run.workers", workers);
        world.set("run.epoch_records", 300);
        world.set("run.retry_backoff_ms", 5);
        world.set("database.connections", 2);
        world
    });
    let [one, others @ ..] = worlds;
    let mix = mixed(11, 4_000);
    let load = one.load(mix.clone());
    one.run_until_caught_up();
    one.assert_done(&load);
    let rows = one.contents();
    for mut other in others {
        other.set("kafka.topic", one.topic());
        other.set("dead_letters.topic", other.dead_letter_topic().to_owned());
        other.drafts((1..=mix.drafts).map(|number| mix.draft_ids.id(number)));
        let report = other.run_until_caught_up();
        assert_eq!(report.read, 4_000);
        let contents = other.contents();
        for (id, row) in &rows {
            assert_eq!(&contents[id], row, "draft {id} with {} workers", report.workers);
        }
        assert_eq!(contents.len(), rows.len());
        assert_eq!(other.rejects(), load.rejects());
    }
}

#[test]
fn c1_two_processes_share_the_partitions_and_one_takes_over_from_the_other() {
    share(World::new("share"));
}

#[test]
fn c1_they_do_so_too_where_each_rebalance_takes_all_partitions_away() {
    for strategy in ["range", "roundrobin"] {
        let mut world = World::new(&format!("share-{strategy}"));
        world.set("kafka.properties.partition.assignment.strategy", strategy);
        share(world);
    }
}

/// At most 400 records a second: a group that comes to share takes some seconds, and small batches
/// that wait are written with one statement.
fn lasts(world: &mut World) {
    world.set("run.epoch_records", 200);
    world.set("run.epochs_in_flight", 2);
    world.set("run.retry_backoff_ms", 5);
    world.slow_down(1_000);
}

/// Has one process give some of its work to another one, and then all of it.
fn share(mut world: World) {
    lasts(&mut world);
    let load = world.load(mixed(13, 10_000));
    let first = world.start_run();
    eventually("the first is at work", || world.rows_with_images() > 100);
    let second = world.start_run();
    eventually("the second has its share", || second.says_partitions("assigned"));
    eventually("the first has given something away", || first.says_partitions("revoked"));
    let first = first.stop().report();
    assert_ne!(world.committed(), world.ends(), "it was in the middle");
    world.speed_up();
    eventually("all is committed", || world.committed() == world.ends());
    let second = second.stop().report();

    assert_eq!(
        first.read + second.read,
        load.events(),
        "handed over cleanly: nothing is read twice"
    );
    assert!(first.read > 0 && second.read > 0);
    world.assert_done(&load);
}

/// It gets no partitions at first, which is no sign that there is nothing to do.
#[test]
fn c1_a_process_that_is_to_catch_up_takes_its_share_and_stays_until_its_group_has_caught_up() {
    let mut world = World::new("catch-up-beside");
    lasts(&mut world);
    let load = world.load(mixed(17, 10_000));
    let first = world.start_run();
    eventually("the first is at work", || world.rows_with_images() > 100);
    let second = world.start(&["run", "--until-caught-up", "--report", "json"]);
    eventually("the second has its share", || second.says_partitions("assigned"));
    world.speed_up();
    assert!(second.wait().report().read > 0);
    eventually("all is committed", || world.committed() == world.ends());
    world.assert_done(&load);

    // Nobody ever commits behind the mark of a transaction that was taken back.
    world.begin([record("rubbish").on(0)]).abort();
    let third = world.start(&["run", "--until-caught-up", "--report", "json"]);
    assert_eq!(third.wait().report().read, 0);
    first.stop().success();
}

#[test]
fn c5_a_process_that_dies_is_replaced_by_the_others() {
    let mut world = World::new("replace");
    world.set("run.epoch_records", 200);
    world.set("run.retry_backoff_ms", 5);
    // The shortest that brokers allow.
    world.set("kafka.properties.session.timeout.ms", 6_000);
    world.set("kafka.properties.heartbeat.interval.ms", 500);
    world.slow_down(40);
    let load = world.load(mixed(17, 6_000));
    let doomed = world.start_run();
    eventually("the first is at work", || world.rows_with_images() > 100);
    let heir = world.start_run();
    eventually("they share", || heir.says_partitions("assigned"));
    std::thread::sleep(Duration::from_millis(fastrand::u64(0..300)));
    assert!(doomed.kill().was_killed());
    world.speed_up();
    eventually("all is committed", || world.committed() == world.ends());
    heir.stop().success();
    world.assert_done(&load);
}
