//! Events of drafts that do not exist, or not yet.

use crate::world::{World, event, eventually, images, meanwhile};

#[test]
fn e17_an_event_whose_draft_never_comes_is_rejected_after_the_retries() {
    let mut world = World::new("unknown");
    world.set("run.retry_backoff_ms", 20);
    world.drafts(["d1"]);
    // Two events of one draft that does not exist, and one that is none of their business.
    let places = world.publish([
        event("ghost", "job-1").at(1).on(0),
        event("ghost", "job-2").at(2).on(0),
        event("d1", "job-3").on(0),
    ]);

    let report = world.run_until_caught_up();

    assert_eq!(report.outcomes(), [3, 1, 0, 0, 0, 2]);
    let unknown = |index: usize| (places[index], "unknown-draft".to_owned());
    assert_eq!(world.rejects(), [unknown(0), unknown(1)].into());
    for letter in world.dead_letters() {
        assert_eq!(letter.header("dlq.attempts"), Some("4"), "the first try and three retries");
        assert_eq!(letter.header("dlq.stage"), Some("write"));
    }
    assert_eq!(world.row("d1").images(), &images("job-3"));
    assert_eq!(world.committed(), world.ends());
}

#[test]
fn e17_a_draft_that_is_created_meanwhile_gets_its_images_and_nobody_waits_for_it() {
    let mut world = World::new("late");
    world.set("run.retry_backoff_ms", 2_500);
    world.drafts(["d1", "d2"]);
    world.publish([
        event("late", "job-0").on(2),
        event("d1", "job-1").on(0),
        event("d2", "job-2").on(2),
    ]);
    let running = world.start(&["run", "--until-caught-up", "--report", "json"]);

    eventually("the others are through", || {
        world.rows_with_images() == 2 && world.cache.keys() == 0
    });
    meanwhile("the late one is waited for", || !world.committed().contains_key(&2));
    world.drafts(["late"]);

    assert_eq!(running.wait().report().outcomes(), [3, 3, 0, 0, 0, 0]);
    assert_eq!(world.row("late").images(), &images("job-0"));
    assert_eq!(world.cached("late"), None);
    assert!(world.dead_letters().is_empty());
    assert_eq!(world.committed(), world.ends());
}

/// All that a run may have under way waits here, and all of it becomes dead letters at once.
#[test]
fn a_backlog_of_unknown_drafts_keeps_to_the_memory_of_a_run() {
    const EVENTS: i64 = 180_000;
    const MEMORY_MAX_KIB: u64 = 512_000_000 / 1024;
    let mut world = World::new("unknown-backlog");
    world.set("run.workers", 2);
    let events = EVENTS.to_string();
    world.call(&["publish", "--generate", &events, "--drafts", &events]).success();
    let mut running = world.start(&["run", "--until-caught-up", "--report", "json"]);

    let mut peak_kib = 0;
    for so_many in (0..EVENTS).step_by(20_000) {
        // It takes as long as it takes, if only it goes on.
        eventually("more is committed", || {
            peak_kib = running.peak_memory_kib().unwrap_or(peak_kib);
            running.has_ended() || world.committed().values().sum::<i64>() > so_many
        });
    }
    eprintln!("{peak_kib} KiB at the peak");
    let report = running.wait().report();
    assert_eq!(report.outcomes(), [EVENTS, 0, 0, 0, 0, EVENTS].map(i64::cast_unsigned));
    assert!((1..=MEMORY_MAX_KIB).contains(&peak_kib), "{peak_kib} KiB");
}
