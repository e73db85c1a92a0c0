//! Keys: which of them are deleted, and that no other one is.

use std::collections::BTreeSet;

use crate::world::private::Redis;
use crate::world::{World, body, event, eventually, images, record};

use super::stores::{connected, goes_on, single, through};

#[test]
fn f4_a_redis_out_of_memory_deletes_all_the_same() {
    let server = Redis::start();
    let world = single(World::on_redis("f4", &server));
    let running = connected(&world);
    world.drafts(["d1"]);
    server.tell("CONFIG SET maxmemory-policy noeviction");
    server.tell("CONFIG SET maxmemory 1mb");
    let full = server.try_tell("SET more memory").unwrap_err();
    assert_eq!(full.code(), Some("OOM"));
    world.publish([event("d1", "job-1").on(0)]);
    eventually("it is through", || world.committed() == through(2));
    assert_eq!(world.cached("d1"), None);
    assert!(!running.err().contains("held"), "no fault: {}", running.err());
    assert_eq!(running.stop().report().outcomes(), [2, 2, 0, 0, 0, 0]);
}

#[test]
fn f9_a_pipeline_that_is_cut_between_its_replies_is_sent_again_as_a_whole() {
    let mut world = single(World::new("f9"));
    world.set("run.epoch_records", 100);
    world.set("run.linger_ms", 1_000);
    let wire = world.wire_to_cache();
    let running = connected(&world);
    let drafts: Vec<String> = (1..=100).map(|number| format!("d{number}")).collect();
    world.drafts(&drafts);
    // The reply of the leases is four bytes; that of the keys is cut in its middle.
    wire.trap_answer(6);
    world.publish(drafts.iter().map(|draft| event(draft, "job").on(0)));
    eventually("the replies are cut", || wire.is_sprung());
    let drafts: Vec<_> = drafts.iter().map(|draft| (draft.as_str(), "job")).collect();
    let ended = goes_on(&world, running, &drafts[..5], drafts.len());
    // The next connection is to be had at once, so that is no outage.
    assert!(ended.err.contains("connection lost") && !ended.err.contains("held"), "{}", ended.err);
    assert_eq!(world.cache.keys(), 0);
}

#[test]
fn f11_a_cache_that_somebody_has_flushed_is_no_fault() {
    let world = single(World::new("f11"));
    let drafts: Vec<String> = (1..=100).map(|number| format!("d{number}")).collect();
    world.drafts(&drafts);
    redis::cmd("FLUSHDB").exec(&mut world.cache.connection()).unwrap();
    world.publish(drafts.iter().map(|draft| event(draft, "job").on(0)));
    let ended = world.call(&["run", "--until-caught-up", "--report", "json"]);
    assert!(!ended.err.contains("held"), "{}", ended.err);
    let report = ended.report();
    assert_eq!(report.outcomes(), [100, 100, 0, 0, 0, 0]);
    assert_eq!((report.deletes, report.keys_deleted), (100, 0));
}

#[test]
fn f12_a_key_or_a_database_that_cannot_be_right_is_refused_at_the_start() {
    let mut world = World::new("f12");
    world.publish([event("d1", "job-1")]);
    for key in ["{id}", "event:draft:", "{id}{id}"] {
        world.set("cache.key", key);
        let refused = world.call(&["run", "--until-caught-up"]);
        assert!(refused.failure(2).contains("cache.key"), "{key}: {}", refused.err);
    }
    world.set("cache.key", "event:draft:{id}");
    let (server, _) = world.cache.url.rsplit_once('/').unwrap();
    world.set("cache.url", format!("{server}/99999"));
    let refused = world.call(&["run", "--until-caught-up"]);
    assert!(refused.failure(1).contains("database number in cache.url"), "{}", refused.err);
    assert!(world.committed().is_empty());
}

#[test]
fn f13_hostile_ids_delete_their_own_key_and_no_other() {
    let mut world = single(World::new("f13"));
    world.set("run.retries", 0);
    let hostile = [
        "*",
        "d?",
        "d[0-9]",
        " d1",
        "d1 ",
        "d 1",
        "{x}",
        "}{",
        "$6",
        "'; DROP TABLE event_drafts; --",
        "\"\\\\'\\0",
        "../../etc",
        "%2A",
        "dräft-ﬁ",
        "e\u{301}",
        "\u{202e}abc",
        "\u{feff}d1",
    ];
    // They differ from a hostile one in a byte, or match one as a pattern.
    let bystanders =
        ["d1", "d2", "dx", "x", "drAft-ﬁ", "\u{e9}", "abc", "d1  ", "a\r\nFLUSHALL\r\n"];
    let long = "x".repeat(1_000_000);
    let refused = ["a\r\nFLUSHALL\r\n", "\u{1b}[2J", "d\u{0}", "d\u{85}", long.as_str()];
    world.drafts(hostile.iter().chain(&bystanders));
    world.cache_again("nobody's");
    world.publish(hostile.iter().map(|id| event(id, "job").on(0)));
    world.publish(refused.iter().map(|id| record(body(id, "job").to_string()).on(0)));

    let ended = world.call(&["-v", "run", "--until-caught-up", "--report", "json"]);

    let [good, bad] = [hostile.len(), refused.len()].map(|count| u64::try_from(count).unwrap());
    assert_eq!(ended.report().outcomes(), [good + bad, good, 0, 0, 0, bad]);
    let left: BTreeSet<&str> = world
        .cached_among(hostile.iter().chain(&bystanders).chain(&["nobody's"]).copied())
        .into_iter()
        .collect();
    assert_eq!(left, bystanders.iter().chain(&["nobody's"]).copied().collect());
    let rows = world.rows();
    for id in hostile {
        assert_eq!(rows[id].images(), &images("job"), "{id:?}");
    }
    for id in bystanders {
        assert!(rows[id].is_untouched(), "{id:?}");
    }
    let reasons: Vec<String> = world.rejects().into_values().collect();
    let control = "id-control-character";
    assert_eq!(reasons, [control, control, control, control, "id-too-long"]);
    // Nothing of an id gets out of its line, or does something to a terminal.
    assert!(ended.err.lines().all(|line| line.starts_with("20")), "{}", ended.err);
    for letter in world.dead_letters() {
        let message = letter.header("dlq.message").unwrap();
        assert!(!message.contains(char::is_control) && message.len() < 500, "{message:?}");
    }
}
