//! Signals, and places for output that take none: the work is not touched.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::interruptions::mixed;
use crate::world::private::{Frozen, signal};
use crate::world::{World, event, eventually, images, record};

use super::stores::{connected, held, single, through};

#[test]
fn j1_a_stop_while_idle_ends_well_and_at_once() {
    let world = single(World::new("j1-idle"));
    let running = connected(&world);
    assert_eq!(running.stop().report().outcomes(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(world.run_until_caught_up().read, 0, "nothing is read again");
}

#[test]
fn j1_a_stop_while_a_draft_is_waited_for_takes_no_longer_than_the_drain() {
    let mut world = single(World::new("j1-backoff"));
    world.set("run.retry_backoff_ms", 60_000);
    world.set("run.drain_timeout_s", 1);
    let running = connected(&world);
    world.drafts(["d1"]);
    world.publish([event("late", "job").on(0), event("d1", "job").on(0)]);
    eventually("its neighbour is through", || world.cached("d1").is_none());
    let ended = running.stop();
    assert!(ended.failure(1).contains("not drained"), "{}", ended.err);
    assert_eq!(world.committed(), through(1), "the late one has no outcome yet");
    assert!(world.dead_letters().is_empty());
    world.drafts(["late"]);
    assert_eq!(world.run_until_caught_up().outcomes(), [2, 1, 1, 0, 0, 0]);
    assert_eq!(world.row("late").images(), &images("job"));
}

#[test]
fn j1_a_stop_while_a_server_is_out_takes_no_longer_than_the_drain() {
    let mut world = single(World::new("j1-hold"));
    let wire = world.wire_to_cache();
    world.set("run.drain_timeout_s", 1);
    let running = connected(&world);
    world.drafts(["d1"]);
    wire.cut();
    world.publish([event("d1", "job").on(0)]);
    held(&running, "redis");
    let ended = running.stop();
    assert!(ended.failure(1).contains("not drained"), "{}", ended.err);
    assert_eq!(world.committed(), through(1));
    wire.open();
    assert_eq!(world.run_until_caught_up().outcomes(), [1, 0, 1, 0, 0, 0]);
    assert_eq!(world.cached("d1"), None, "a duplicate deletes the key too");
}

#[test]
fn j2_an_interrupt_drains_and_a_hangup_kills_and_neither_loses_anything() {
    for (name, ends_well) in [("INT", true), ("HUP", false)] {
        let mut world = World::new(&format!("j2-{}", name.to_lowercase()));
        world.set("run.epoch_records", 200);
        world.set("run.retry_backoff_ms", 5);
        // A member that comes back under its name need not wait until the one that was killed is
        // given up.
        world.set("kafka.properties.group.instance.id", "the only one");
        world.slow_down(20);
        let load = world.load(mixed(11, 4_000));
        // Whoever runs the tests may have had hangups ignored, which is inherited.
        let heeding = ["/usr/bin/env", "--default-signal=HUP"];
        let running = world.start_under(&heeding, &["run", "--report", "json"]);
        eventually("some of it is done", || world.rows_with_images() > 200);
        signal(&[running.pid()], name);
        let ended = running.wait();
        if ends_well {
            assert!(ended.report().read < load.events(), "it was in the middle");
        } else {
            assert_eq!(ended.signal(), Some(1));
        }
        world.speed_up();
        world.run_until_caught_up();
        world.assert_done(&load);
    }
}

/// Where output goes that nobody takes.
enum Sink {
    /// A pipe whose reader has gone away.
    ClosedPipe,
    /// A disk without a free byte.
    FullDisk,
}

#[test]
fn j2_j7_logs_and_reports_that_nobody_takes_stop_no_work() {
    for sink in [Sink::ClosedPipe, Sink::FullDisk] {
        for standard_error in [true, false] {
            let world = World::new("j7");
            world.drafts(["d1"]);
            world.publish([event("d1", "job"), record("rubbish")]);
            let mut command: Command =
                world.command(&["-vv", "run", "--until-caught-up", "--report", "json"]);
            let place = match sink {
                Sink::ClosedPipe => Stdio::piped(),
                Sink::FullDisk => OpenOptions::new().write(true).open("/dev/full").unwrap().into(),
            };
            if standard_error {
                command.stdout(Stdio::null()).stderr(place);
            } else {
                command.stderr(Stdio::null()).stdout(place);
            }
            let mut child = command.spawn().unwrap();
            drop((child.stdout.take(), child.stderr.take()));
            let code = child.wait().unwrap().code();
            assert_eq!(world.row("d1").images(), &images("job"));
            assert_eq!(world.dead_letters().len(), 1);
            assert_eq!(world.committed(), world.ends());
            let expected = match sink {
                // Nobody gets the report that was asked for.
                Sink::FullDisk if !standard_error => 1,
                _ => 0,
            };
            assert_eq!(code, Some(expected), "standard error: {standard_error}");
        }
    }
}

#[test]
fn j12_a_process_that_gets_half_of_the_time_loses_neither_partitions_nor_records() {
    let mut world = World::new("j12");
    world.set("run.epoch_records", 200);
    world.set("run.retry_backoff_ms", 5);
    world.slow_down(20);
    let load = world.load(mixed(12, 6_000));
    let mut running = world.start(&["run", "--until-caught-up", "--report", "json"]);
    let mut times = 0;
    eventually("it ends", || {
        if running.has_ended() {
            return true;
        }
        let frozen = Frozen::freeze(&[running.pid()]);
        std::thread::sleep(Duration::from_millis(100));
        frozen.thaw();
        std::thread::sleep(Duration::from_millis(100));
        times += 1;
        false
    });
    let ended = running.wait();
    assert!(times >= 5, "it stood still only {times} times");
    assert!(!ended.err.contains("lost"), "{}", ended.err);
    assert_eq!(ended.report().read, load.events());
    world.assert_done(&load);
}
