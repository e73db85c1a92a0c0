//! A watch while its servers go away.

use redis::Commands;

use crate::world::{PrivateKafka, Running, World, event, eventually};

/// A world in which d1 and d2 are as they should be.
fn settled(mut world: World) -> World {
    world.set("kafka.properties.socket.timeout.ms", 2_000);
    world.drafts(["d1", "d2"]);
    world.publish([event("d1", "job-1"), event("d2", "job-2")]);
    world.run_until_caught_up();
    world
}

fn watch(world: &World) -> Running {
    let watch = world.start(&["verify", "--watch", "--interval", "0"]);
    eventually("it watches", || watch.out().contains("watching 2 rows"));
    watch
}

/// What is wrong by now is told by the same process, once, and that it is mended.
fn goes_on(world: &World, watch: Running) {
    eventually("it goes on", || watch.err().contains("resumed"));
    eventually("it appears", || watch.out().contains("appeared  images-differ  d1"));
    world.call(&["verify", "--repair"]).success();
    eventually("it goes", || watch.out().contains("gone      images-differ  d1"));
    let ended = watch.stop();
    assert_eq!(ended.code(), Some(0), "{}", ended.err);
    assert_eq!(ended.out.lines().count(), 3, "nothing else: {}", ended.out);
    assert_eq!(ended.err.matches("held:").count(), ended.err.matches("resumed").count());
}

fn make_wrong(world: &World) {
    world.database.sql("UPDATE event_drafts SET content_images = '{}' WHERE event_draft_id = 'd1'");
}

#[test]
fn a_watch_waits_for_a_database_that_is_away_and_goes_on() {
    let mut world = settled(World::new("watch-database"));
    let wire = world.wire_to_database();
    let watch = watch(&world);
    wire.cut();
    eventually("it is held", || watch.err().contains("held:"));
    make_wrong(&world);
    world.unwire_database();
    wire.open();
    goes_on(&world, watch);
}

#[test]
fn a_watch_waits_for_a_cache_that_is_away_and_goes_on() {
    let mut world = settled(World::new("watch-cache"));
    let wire = world.wire_to_cache();
    let watch = watch(&world);
    wire.cut();
    eventually("it is held", || watch.err().contains("held:"));
    make_wrong(&world);
    world.unwire_cache();
    wire.open();
    goes_on(&world, watch);
}

#[test]
fn a_watch_waits_for_a_broker_that_is_away_and_goes_on() {
    let kafka = PrivateKafka::lease();
    let world = settled(kafka.world("watch-broker"));
    let watch = watch(&world);
    kafka.stop();
    eventually("it is held", || watch.err().contains("held:"));
    make_wrong(&world);
    kafka.restart();
    goes_on(&world, watch);
}

#[test]
fn a_watch_that_is_held_ends_when_it_is_told_to() {
    let mut world = settled(World::new("watch-stop"));
    let wire = world.wire_to_database();
    let watch = watch(&world);
    wire.cut();
    eventually("it is held", || watch.err().contains("held:"));
    let ended = watch.stop();
    assert_eq!(ended.code(), Some(0), "{}", ended.err);
}

#[test]
fn a_watch_that_is_stopped_before_it_has_compared_anything_does_not_say_that_all_agrees() {
    let mut world = settled(World::new("watch-early"));
    world.set("database.lock_timeout_ms", 20_000);
    make_wrong(&world);
    let locked = world.database.session();
    locked.sql("BEGIN; LOCK TABLE event_drafts");
    let watch = world.start(&["verify", "--watch", "--interval", "0"]);
    eventually("it waits for the rows", || world.database.somebody_waits());
    watch.terminate();
    eventually("it is told", || watch.err().contains("stopping"));
    locked.sql("ROLLBACK");
    let ended = watch.wait();
    assert!(ended.failure(1).contains("nothing is known yet"), "{}", ended.err);
}

#[test]
fn with_on_outage_exit_a_watch_ends_with_code_75() {
    let mut world = settled(World::new("watch-exit"));
    world.set("run.on_outage", "exit");
    let wire = world.wire_to_database();
    let watch = watch(&world);
    wire.cut();
    let ended = watch.wait();
    assert!(!ended.failure(75).contains("held:"), "{}", ended.err);
}

#[test]
fn a_repair_that_loses_the_database_has_deleted_the_keys_of_what_it_has_written() {
    let mut world = settled(World::new("repair-cut"));
    world.set("database.batch_rows", 1);
    for draft in ["d1", "d2"] {
        world.call(&["draft", "get", draft]).success();
    }
    world.database.sql("UPDATE event_drafts SET content_images = '{}'");
    let locked = world.database.session();
    locked.sql("BEGIN; SELECT FROM event_drafts WHERE event_draft_id = 'd2' FOR UPDATE");
    world.set("database.lock_timeout_ms", 20_000);
    let repairing = world.start(&["verify", "--repair"]);
    eventually("the second row is waited for", || world.database.somebody_waits());
    world.database.cut_sessions();

    let ended = repairing.wait();
    assert!(ended.failure(75).contains("terminating connection"), "{}", ended.err);
    locked.sql("ROLLBACK");
    assert_ne!(world.row("d1").images(), "{}", "the first one is written");
    assert!(world.cached_among(["d1"]).is_empty(), "and nobody reads its old value");
}

#[test]
fn a_verification_that_loses_the_cache_ends_with_code_75() {
    let mut world = settled(World::new("verify-cache-cut"));
    // So that the connection is lost in the middle of what is cached.
    let cached = "x".repeat(100_000);
    world.cache.connection().set::<_, _, ()>("event:draft:d1", cached).unwrap();
    let wire = world.wire_to_cache();
    wire.trap_answer(10_000);
    let ended = world.call(&["verify"]);
    let error = ended.failure(75);
    assert!(error.contains("the cache failed") && !error.contains("rights"), "{error}");
    assert!(wire.is_sprung());
}
