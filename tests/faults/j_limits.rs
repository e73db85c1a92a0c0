//! Too few files, too little memory: an end with an error, and nothing is lost.

use std::time::{Duration, Instant};

use crate::interruptions::mixed;
use crate::world::World;

/// How long one that goes on under its limit is watched.
const PATIENCE: Duration = Duration::from_secs(4);

#[test]
fn j8_a_process_without_files_or_memory_fails_or_holds_and_loses_nothing() {
    let mut world = World::new("j8");
    world.set("run.epoch_records", 200);
    world.set("run.retry_backoff_ms", 5);
    // A member that comes back under its name need not wait until the one that was killed is given
    // up.
    world.set("kafka.properties.group.instance.id", "the only one");
    world.slow_down(5);
    let load = world.load(mixed(8, 3_000));
    let start = |limit: &str| {
        let limited = ["/usr/bin/prlimit", limit];
        world.start_under(&limited, &["run", "--report", "json"])
    };
    // What it inherits counts too, and only that differs from place to place: fewer than it opens
    // for itself alone.
    for hopeless in ["--nofile=5", "--as=100000000"] {
        let ended = start(hopeless).wait();
        assert_ne!(ended.code(), Some(0), "{hopeless}");
        assert!(!ended.err.is_empty(), "{hopeless}: it says why");
    }
    // Under these it may start, and come to its limit later or never.
    for tight in ["--nofile=10", "--nofile=20", "--nofile=30", "--nofile=40", "--as=400000000"] {
        let mut running = start(tight);
        let since = Instant::now();
        while !running.has_ended() && since.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        if running.has_ended() {
            assert_ne!(running.wait().code(), Some(0), "{tight}: nobody has asked it to stop");
        } else {
            running.kill();
        }
    }
    world.speed_up();
    world.run_until_caught_up();
    world.assert_done(&load);
}
