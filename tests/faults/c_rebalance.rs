//! Several instances share the partitions, and take them from each other in the middle of
//! something.

use crate::interruptions::mixed;
use crate::world::{Proxy, Running, World, event, eventually, images, meanwhile};

/// The first of two instances, in the middle of an event of each partition which it cannot write.
struct Stuck {
    world: World,
    wire: Proxy,
    first: Running,
}

impl Stuck {
    fn new(name: &str) -> Stuck {
        let mut world = World::new(name);
        // Four events fill it: it pauses its partitions.
        world.set("run.epoch_records", 1);
        world.set("run.drain_timeout_s", 1);
        world.set("kafka.properties.heartbeat.interval.ms", 300);
        let wire = world.wire_to_database();
        world.drafts((0..4).map(draft));
        let first = world.start(&["-v", "run", "--report", "json"]);
        world.publish((0..4).map(|partition| numbered(partition, 0)));
        eventually("all is well", || world.committed() == world.ends());
        wire.hold();
        world.publish((0..4).flat_map(|partition| [1, 2].map(|job| numbered(partition, job))));
        eventually("it is full", || first.err().contains("paused"));
        Stuck { world, wire, first }
    }

    /// Starts the second instance, which takes some of the partitions and does what there is to do.
    fn shared(&mut self) -> (Running, Vec<i32>) {
        self.world.unwire_database();
        let second = self.world.start(&["-v", "run", "--report", "json"]);
        eventually("the second has its share", || second.says_partitions("assigned"));
        let taken = || -> Vec<i32> {
            let committed = self.world.committed();
            (0..4).filter(|partition| committed[partition] == 3).collect()
        };
        eventually("it does the work of two partitions", || taken().len() == 2);
        (second, taken())
    }
}

fn draft(partition: i32) -> String {
    format!("d{partition}")
}

fn numbered(partition: i32, job: i64) -> crate::world::Record {
    event(&draft(partition), &format!("job-{job}")).at(job).on(partition)
}

#[test]
fn c1_the_old_owner_of_a_partition_neither_commits_nor_writes_over_the_new_one() {
    let mut stuck = Stuck::new("c1");
    let (second, taken) = stuck.shared();
    let Stuck { world, wire, first } = stuck;
    world.publish(taken.iter().map(|partition| numbered(*partition, 3)));
    let is_far = || taken.iter().all(|partition| world.committed()[partition] == 4);
    eventually("the second goes on", is_far);
    let written: Vec<_> = taken.iter().map(|partition| world.row(&draft(*partition))).collect();

    // Now the first gets to write what it has read before, and to commit what is still its own.
    wire.open();
    eventually("all is committed", || world.committed() == world.ends());
    meanwhile("and remains so", || is_far() && world.committed() == world.ends());

    for (partition, row) in taken.iter().zip(written) {
        assert_eq!(world.row(&draft(*partition)), row, "not even xmin has changed");
        assert_eq!(row.images(), &images("job-3"));
    }

    // They were paused as they went, and come back to a process that is not full any more.
    let second = second.stop().report();
    world.publish((0..4).map(|partition| numbered(partition, 4)));
    eventually("the first reads them again", || world.committed() == world.ends());
    let first = first.stop().report();
    assert!((first.read, second.read) >= (12, 6), "{first:?} {second:?}");
    assert_eq!(world.cache.keys(), 0);
    assert!(world.dead_letters().is_empty());
}

#[test]
fn c2_partitions_that_come_back_before_the_old_batch_ends_are_read_from_where_the_other_stopped() {
    let mut stuck = Stuck::new("c2");
    let (second, taken) = stuck.shared();
    let Stuck { world, wire, first } = stuck;
    second.stop().success();
    eventually("they come back", || first.err().matches("assigned partitions=").count() >= 2);
    eventually("the first has them again", || {
        let err = first.err();
        let last = err.rsplit("assigned partitions=").next().unwrap();
        taken.iter().all(|partition| {
            last.starts_with(|first: char| first.is_ascii_digit())
                && last.contains(&partition.to_string())
        })
    });
    meanwhile("the old batch waits", || {
        let committed = world.committed();
        (0..4).all(|partition| {
            committed[&partition] == if taken.contains(&partition) { 3 } else { 1 }
        })
    });

    wire.open();
    eventually("the old batch is through", || world.committed() == world.ends());
    meanwhile("nothing moves back", || world.committed() == world.ends());
    // And it reads on, all partitions.
    world.publish((0..4).map(|partition| numbered(partition, 4)));
    eventually("it reads on", || world.committed() == world.ends());
    first.stop().success();
    for partition in 0..4 {
        assert_eq!(world.row(&draft(partition)).images(), &images("job-4"), "{partition}");
    }
    assert!(world.dead_letters().is_empty());
}

#[test]
fn c6_two_groups_by_mistake_do_everything_twice_and_end_in_the_same_rows() {
    let mut world = World::new("c6");
    world.set("run.epoch_records", 200);
    world.set("run.retry_backoff_ms", 5);
    let load = world.load(mixed(37, 4_000));
    let other = format!("{}-other", world.name);
    let run = ["run", "--until-caught-up", "--report", "json"];
    let one = world.start(&run);
    let two = world.start(&[&run[..], &["--group", &other]].concat());
    let (one, two) = (one.wait().report(), two.wait().report());
    assert_eq!((one.read, two.read), (4_000, 4_000));
    assert_eq!((one.rejected, one.skipped), (two.rejected, two.skipped));
    world.assert_done(&load);
}

#[test]
fn c7_of_two_instances_with_one_static_id_the_older_one_ends() {
    let mut world = World::new("c7");
    world.set("kafka.properties.group.instance.id", "twin");
    world.set("kafka.properties.heartbeat.interval.ms", 300);
    world.drafts(["d1", "d2"]);
    let first = world.start_run();
    world.publish([event("d1", "job-1").on(0)]);
    eventually("the first is at work", || world.committed() == [(0, 1)].into());
    let second = world.start_run();
    eventually("the second has its partitions", || second.says_partitions("assigned"));

    let error = first.wait();
    assert!(error.failure(1).to_lowercase().contains("fenced"), "{error:?}");
    world.publish([event("d2", "job-2").on(0)]);
    eventually("the second works", || world.committed() == [(0, 2)].into());
    second.stop().success();
}

#[test]
fn c8_in_a_storm_of_rebalances_the_work_goes_on() {
    storm(World::new("c8"));
}

#[test]
fn c8_it_goes_on_too_where_each_of_them_takes_all_partitions_away() {
    let mut world = World::new("c8-range");
    world.set("kafka.properties.partition.assignment.strategy", "range");
    storm(world);
}

/// Guests come and go.
fn storm(mut world: World) {
    world.set("run.epoch_records", 100);
    world.set("run.retry_backoff_ms", 5);
    world.set("kafka.properties.heartbeat.interval.ms", 300);
    world.slow_down(10);
    let load = world.load(mixed(41, 8_000));
    let steady = world.start_run();
    eventually("it is at work", || !world.committed().is_empty());
    for round in 0..6 {
        let before: i64 = world.committed().values().sum();
        let guest = world.start_run();
        eventually("the guest has its share", || guest.says_partitions("assigned"));
        guest.stop().success();
        // A round may be over sooner than the group takes a commit again.
        eventually(&format!("the work goes on after round {round}"), || {
            world.committed().values().sum::<i64>() > before || world.committed() == world.ends()
        });
    }
    world.speed_up();
    eventually("all is committed", || world.committed() == world.ends());
    steady.stop().success();
    world.assert_done(&load);
}

#[test]
fn c9_what_is_published_to_a_new_partition_before_it_is_found_is_read() {
    let mut world = World::new("c9");
    world.set("kafka.properties.topic.metadata.refresh.interval.ms", 3_000);
    world.drafts((0..8).map(draft));
    let running = world.start_run();
    world.publish([numbered(0, 0)]);
    eventually("it is at work", || world.committed() == [(0, 1)].into());
    world.cluster().add_partitions(world.topic(), 6);
    let cluster = crate::world::Cluster::at(&world.cluster().brokers);
    let new: Vec<_> =
        (1..8).map(|number| event(&draft(number), "job-1").on(4 + number % 2)).collect();
    eventually("the new partitions are led", || {
        cluster.publish_to(world.topic(), new.clone()).iter().all(Result::is_ok)
    });
    eventually("all are read", || world.rows_with_images() == 8);
    assert!(running.err().matches("assigned partitions=").count() > 1, "found later");
    running.stop().success();
    assert_eq!(world.run_until_caught_up().outcomes(), [0; 6], "all are committed");
}
