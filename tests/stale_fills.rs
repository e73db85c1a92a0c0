//! Readers that fill the cache with what they read before the program's commit: with the lease,
//! without it, and with the second DEL.

use std::time::{Duration, Instant};

use contentflow::lease::{LASTS, Lease, lease_key};
use redis::Commands;

use crate::interruptions::mixed;
use crate::world::{World, event, eventually, meanwhile};

/// Longer than any test.
const NEVER_MS: u64 = 600_000;

fn key(draft: &str) -> String {
    format!("event:draft:{draft}")
}

/// Takes the lease, as a reader does before it reads the row.
fn take(world: &World, draft: &str) -> Lease {
    let lease = Lease::draw(&key(draft));
    // Far longer than its usual time: a slow machine must not take it away.
    let taken: Option<String> =
        lease.taking(100 * LASTS).query(&mut world.cache.connection()).unwrap();
    assert!(taken.is_some(), "nobody else is there");
    lease
}

/// Stores what was read before; whether it could.
fn fill(world: &World, lease: &Lease) -> bool {
    lease.filling("old", 100 * LASTS).query(&mut world.cache.connection()).unwrap()
}

#[test]
fn f7_a_reader_whose_lease_the_program_took_away_stores_nothing() {
    let world = World::new("f7-lease");
    world.drafts(["d1"]);
    let lease = take(&world, "d1");
    world.publish([event("d1", "job-1")]);
    world.run_until_caught_up();
    assert!(!fill(&world, &lease), "it read the row before the commit");
    assert_eq!(world.cache.keys(), 0, "neither draft nor lease");
    // A duplicate takes it away as well: the run before may have stopped between COMMIT and DEL.
    let lease = take(&world, "d1");
    world.publish([event("d1", "job-1")]);
    assert_eq!(world.run_until_caught_up().duplicate, 1);
    assert!(!fill(&world, &lease));
}

#[test]
fn f7_without_lease_and_second_del_an_old_value_stays_as_documented() {
    let world = World::new("f7-plain");
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1")]);
    let running = world.start_run();
    eventually("the event is through", || world.committed() == world.ends());
    world.cache_again("d1");
    running.stop().success();
    assert!(world.cached("d1").is_some(), "expected to be stale until its time to live is over");
}

#[test]
fn f7_the_second_del_takes_away_what_a_plain_reader_brought_back() {
    const DELAY: Duration = Duration::from_secs(3);
    let mut world = World::new("f7-second");
    world.set("cache.second_delete_after_ms", DELAY.as_millis());
    let drafts: Vec<String> = (0..10).map(|number| format!("d{number}")).collect();
    world.drafts(&drafts);
    let running = world.start_run();
    // A reader slower than the delay proves nothing, and a busy machine makes one: then the next
    // draft has its turn.
    let proved = drafts.iter().any(|draft| {
        let began = Instant::now();
        world.publish([event(draft, &format!("job-of-{draft}"))]);
        eventually("the first DEL", || world.cached(draft).is_none());
        world.cache_again(draft);
        let _: () = world.cache.connection().set(lease_key(&key(draft)), "somebody's").unwrap();
        if began.elapsed() >= DELAY {
            return false;
        }
        eventually("the second DEL", || world.cached(draft).is_none());
        assert!(began.elapsed() >= DELAY, "not before its time");
        let lease: Option<String> = world.cache.connection().get(lease_key(&key(draft))).unwrap();
        assert_eq!(lease, None, "the lease as well");
        true
    });
    assert!(proved, "each time it took longer than {DELAY:?} to store an old value");
    let report = running.stop().report();
    assert_eq!(report.deletes, report.read, "the report counts the first DELs");
}

#[test]
fn f7_offsets_do_not_wait_for_the_second_del_and_a_stop_does_it_at_once() {
    let mut world = World::new("f7-stop");
    world.set("cache.second_delete_after_ms", NEVER_MS);
    world.set("cache.batch_keys", 7);
    let drafts: Vec<String> = (0..100).map(|number| format!("d{number}")).collect();
    world.drafts(&drafts);
    world.publish(drafts.iter().map(|draft| event(draft, &format!("job-of-{draft}"))));
    let running = world.start_run();
    eventually("all is committed", || world.committed() == world.ends());
    drafts.iter().for_each(|draft| world.cache_again(draft));
    meanwhile("they wait for their time", || world.cache.keys() == 100);

    assert_eq!(running.stop().report().applied, 100);
    assert_eq!(world.cache.keys(), 0, "a stop does what is pending");
}

#[test]
fn f7_a_stop_while_the_cache_is_away_says_what_it_leaves_undone() {
    let mut world = World::new("f7-away");
    let wire = world.wire_to_cache();
    world.set("cache.timeout_ms", 500);
    world.set("cache.second_delete_after_ms", NEVER_MS);
    world.drafts(["d1", "d2", "d3"]);
    world.publish(["d1", "d2", "d3"].map(|draft| event(draft, &format!("job-of-{draft}"))));
    let running = world.start_run();
    eventually("all is committed", || world.committed() == world.ends());
    wire.cut();

    let ended = running.stop();
    assert_eq!(ended.report().applied, 3);
    let said = ended.err.lines().find(|line| line.contains("second deletes given up"));
    assert!(said.is_some_and(|line| line.contains("keys=3")), "{}", ended.err);
}

#[test]
fn f7_a_load_with_second_deletes_survives_an_outage_of_the_cache() {
    let mut world = World::new("f7-load");
    let wire = world.wire_to_cache();
    world.set("cache.second_delete_after_ms", 50);
    world.set("run.epoch_records", 200);
    world.slow_down(20);
    let load = world.load(mixed(29, 3_000));
    let running = world.start(&["run", "--until-caught-up", "--report", "json"]);
    eventually("some of it is done", || world.rows_with_images() > 200);
    wire.cut();
    eventually("the outage is noticed", || running.err().contains("held: "));
    assert_ne!(world.committed(), world.ends(), "it was in the middle");
    wire.open();
    let ended = running.wait();
    assert_eq!(ended.report().read, load.events());
    assert!(!ended.err.contains("given up"), "{}", ended.err);
    world.assert_done(&load);
}

#[test]
fn f8_what_a_reader_stores_between_commit_and_del_is_gone_after_the_del() {
    let mut world = World::new("f8");
    let wire = world.wire_to_cache();
    world.drafts(["first", "d1", "d2"]);
    let running = world.start_run();
    world.publish([event("first", "job-0").on(0)]);
    eventually("the connections are there", || world.committed() == world.ends());

    // d1 is read with the lease, d2 without, both before the commit.
    let _: u64 = world.cache.connection().del(key("d1")).unwrap();
    let lease = take(&world, "d1");
    wire.hold();
    world.publish([event("d1", "job-1").on(0), event("d2", "job-2").on(0)]);
    eventually("both are committed", || world.rows_with_images() == 3);
    assert!(fill(&world, &lease), "no DEL has taken the lease away yet");
    world.cache_again("d2");
    assert_eq!(world.cached("d1").as_deref(), Some("old"), "stale for as long as the DEL takes");

    wire.open();
    eventually("the offsets are committed", || world.committed() == world.ends());
    assert_eq!(world.cache.keys(), 0);
    running.stop().success();
}
