//! Stops, crashes and restarts in the middle of a load: nothing is lost, and nothing is done twice
//! that shows.

use std::time::Duration;

use contentflow::generate::{Kind, Mix};
use fastrand::Rng;

use crate::world::private::signal;
use crate::world::{World, event, eventually};

/// A load of every kind of event, over so many drafts that no row forgets a job.
pub(crate) fn mixed(seed: u64, events: u64) -> Mix {
    Mix {
        seed,
        events,
        drafts: events / 5,
        start_ms: 1_600_000_000_000,
        duplicates: 0.1,
        stale: 0.1,
        bad: 0.02,
        foreign: 0.05,
        ..Mix::default()
    }
}

#[test]
fn a_stop_in_the_middle_of_a_load_drains_and_the_next_run_does_the_rest() {
    let mut world = World::new("drain");
    world.set("run.epoch_records", 500);
    world.slow_down(40);
    let load = world.load(Mix { events: 10_000, drafts: 10_000, ..Mix::default() });
    let running = world.start_run();
    eventually("some of it is done", || world.rows_with_images() > 1_000);

    let ended = running.stop();

    let first = ended.report();
    assert!((1_000..10_000).contains(&first.read), "it was in the middle: {first:?}");
    assert_eq!(first.outcomes(), [first.read, first.read, 0, 0, 0, 0]);
    assert_eq!(world.committed(), first.read_to(), "all that was read, and no more");
    assert_eq!(world.rows_with_images(), first.read);
    assert_eq!(world.cache.keys(), 10_000 - first.read);

    world.speed_up();
    let rest = world.run_until_caught_up();
    assert_eq!(rest.outcomes(), [10_000 - first.read, 10_000 - first.read, 0, 0, 0, 0]);
    world.assert_done(&load);
}

#[test]
fn a_run_until_caught_up_finishes_however_long_it_takes_unless_it_is_told_to_stop() {
    let mut world = World::new("no-hurry");
    world.set("run.drain_timeout_s", 1);
    world.set("database.lock_timeout_ms", 5_000);
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1").on(0)]);
    let blocker = world.database.session();
    blocker.sql("BEGIN; SELECT FROM event_drafts WHERE event_draft_id = 'd1' FOR UPDATE");
    let run = ["run", "--until-caught-up", "--report", "json"];

    let mut running = world.start(&run);
    eventually("it waits for the row", || world.database.somebody_waits());
    // Longer than a stop may take.
    std::thread::sleep(Duration::from_secs(2));
    assert!(!running.has_ended(), "{}", running.err());
    let error = running.stop();
    assert!(error.failure(1).contains("not drained"), "{error:?}");

    eventually("its session has ended", || !world.database.somebody_waits());
    let mut running = world.start(&run);
    eventually("it waits for the row", || world.database.somebody_waits());
    std::thread::sleep(Duration::from_secs(2));
    assert!(!running.has_ended(), "{}", running.err());
    blocker.sql("COMMIT");
    assert_eq!(running.wait().report().outcomes(), [1, 1, 0, 0, 0, 0]);
}

#[test]
fn a_stop_that_cannot_drain_says_so_and_commits_nothing_of_it() {
    let mut world = World::new("no-drain");
    let wire = world.wire_to_database();
    world.set("run.drain_timeout_s", 1);
    world.drafts(["d1", "d2"]);
    let running = world.start_run();
    world.publish([event("d1", "job-1").on(0)]);
    eventually("the first is through", || world.committed() == [(0, 1)].into());
    wire.cut();
    world.publish([event("d2", "job-2").on(0)]);
    eventually("the second is held", || running.err().contains("held"));

    let ended = running.stop();

    let error = ended.failure(1);
    assert!(error.contains("not drained") && error.contains("run.drain_timeout_s"), "{error}");
    assert_eq!(world.committed(), [(0, 1)].into());
    world.unwire_database();
    assert_eq!(world.run_until_caught_up().outcomes(), [1, 1, 0, 0, 0, 0]);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut world = World::new("second-signal");
    let wire = world.wire_to_cache();
    world.drafts(["d1"]);
    let mut running = world.start_run();
    eventually("it is running", || running.err().contains("assigned"));
    wire.hold();
    world.publish([event("d1", "job-1")]);
    eventually("the row is written", || world.row("d1").job().is_some());
    running.terminate();
    eventually("it drains", || running.err().contains("stopping"));
    eventually("a signal that is not the same one ends it", || {
        running.terminate();
        running.has_ended()
    });
    assert_eq!(running.wait().code(), Some(1));
    assert!(world.committed().is_empty());
}

/// As `timeout` sends one: to its command, and to the group that it is in.
#[test]
fn one_signal_that_comes_twice_is_one() {
    let mut world = World::new("signal-twice");
    let wire = world.wire_to_cache();
    world.drafts(["d1"]);
    let running = world.start_run();
    eventually("it is running", || running.err().contains("assigned"));
    wire.hold();
    world.publish([event("d1", "job-1")]);
    eventually("the row is written", || world.row("d1").job().is_some());
    signal(&[running.pid(), running.pid()], "TERM");
    eventually("it drains", || running.err().contains("stopping"));
    wire.open();
    assert_eq!(running.wait().report().outcomes(), [1, 1, 0, 0, 0, 0]);
}

#[test]
fn a1_a12_kills_at_random_moments_lose_nothing() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let mut world = World::new("kill");
    world.set("run.epoch_records", 200);
    world.set("run.retry_backoff_ms", 5);
    // A member that comes back under its name need not wait until the one that was killed is given
    // up.
    world.set("kafka.properties.group.instance.id", "the only one");
    world.slow_down(10);
    let load = world.load(mixed(seed, 8_000));
    let mut unfinished = 0;
    for _ in 0..6 {
        let running = world.start_run();
        eventually("it is running", || running.err().contains("assigned"));
        std::thread::sleep(Duration::from_millis(rng.u64(0..600)));
        assert!(running.kill().was_killed());
        unfinished += u32::from(world.committed() != world.ends());
    }
    assert!(unfinished >= 3, "most of the kills were in the middle of it: {unfinished}");

    world.speed_up();
    let before: i64 = world.committed().values().sum();
    let report = world.run_until_caught_up();

    let after: i64 = world.ends().values().sum();
    assert_eq!(
        i64::try_from(report.read).unwrap(),
        after - before,
        "what was not committed is read again"
    );
    world.assert_done(&load);
}

#[test]
fn a_new_group_reads_all_of_it_again_and_changes_no_row() {
    let mut world = World::new("again");
    world.set("run.retry_backoff_ms", 5);
    let load = world.load(mixed(7, 4_000));
    let first = world.run_until_caught_up();
    assert_eq!(first.read, 4_000);
    assert_eq!(first.skipped, load.count(|kind| kind == Kind::Foreign));
    assert_eq!(first.rejected, load.count(|kind| matches!(kind, Kind::Bad(_))));
    world.assert_done(&load);
    let rows = world.rows();

    let group = format!("{}-again", world.name);
    let ended = world
        .start(&["run", "--until-caught-up", "--report", "json", "--group", &group, "-w", "3"])
        .wait();

    let again = ended.report();
    assert_eq!((again.read, again.applied, again.workers), (4_000, 0, 3));
    assert_eq!((again.skipped, again.rejected), (first.skipped, first.rejected));
    assert_eq!(
        again.duplicate + again.superseded,
        first.applied + first.duplicate + first.superseded
    );
    assert_eq!(world.rows(), rows, "not even xmin has changed");
    world.assert_done(&load);
}
