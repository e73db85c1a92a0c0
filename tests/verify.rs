//! verify: clean worlds have no difference, whatever was published and whatever runs beside it;
//! every difference is named, and mended.

use std::collections::BTreeSet;

use contentflow::generate::Mix;
use dataflows::verify::judge::Kind;
use redis::Commands;
use serde_json::Value;

use crate::world::{
    Ended, World, body, create_topic, delete_topic, event, eventually, images, record,
};

mod made_again;
mod orphans;
mod outages;
mod refused;

/// Differences as (kind, draft).
type Found = BTreeSet<(String, String)>;

fn lines(ended: &Ended) -> Vec<Value> {
    assert!(matches!(ended.code(), Some(0 | 3)), "{}", ended.err);
    ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The differences that `verify` finds.
fn differences(world: &World) -> Found {
    let ended = world.call(&["verify", "--json"]);
    let lines = lines(&ended);
    assert_eq!(ended.code() == Some(0), lines.is_empty(), "{}", ended.out);
    let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    lines.iter().map(|line| (text(line, "kind"), text(line, "draft"))).collect()
}

fn found<const N: usize>(differences: [(&str, &str); N]) -> Found {
    differences.map(|(kind, draft)| (kind.to_owned(), draft.to_owned())).into()
}

/// A draft as a reader caches it.
fn cache(world: &World, id: &str) {
    world.call(&["draft", "get", id]).success();
}

#[test]
fn a_clean_world_agrees_and_one_wrong_row_is_named() {
    let world = World::new("verify-first");
    world.drafts(["d1", "d2"]);
    world.publish([event("d1", "job-1"), event("d1", "job-2").at(1), event("d2", "job-3")]);
    world.run_until_caught_up();
    assert_eq!(differences(&world), found([]));

    world.database.sql("UPDATE event_drafts SET content_images = '{}' WHERE event_draft_id = 'd1'");
    assert_eq!(differences(&world), found([("images-differ", "d1")]));
    let table = world.call(&["verify"]);
    assert_eq!(table.code(), Some(3), "{}", table.err);
    assert!(table.out.contains("images-differ  d1"), "{}", table.out);
}

#[test]
fn the_readme_knows_every_kind_of_difference() {
    let readme = include_str!("../README.md");
    for kind in Kind::ALL {
        assert!(readme.contains(&format!("`{}`", kind.code())), "{kind:?}");
    }
}

#[test]
fn random_loads_leave_no_difference() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mix = Mix {
        seed,
        events: 3_000,
        drafts: 150,
        start_ms: 1_700_000_000_000,
        spacing_us: 1_000,
        duplicates: 0.1,
        stale: 0.1,
        bad: 0.05,
        foreign: 0.05,
        ..Mix::default()
    };
    let world = World::new("verify-load");
    world.load(mix);
    // The database refuses some as well, and some drafts come too late for their events.
    world.refuse_jobs(&["refused"]);
    let refused = event("draft-0000007", "refused").at(200_000_100_000);
    let late = event("late", "too-early");
    world.publish([refused, late, event("late", "too-early-2").at(7)]);
    world.run_until_caught_up();
    world.drafts(["late"]);
    world.cache.connection().del::<_, ()>("event:draft:late").unwrap();
    assert!(world.rejects().values().any(|reason| reason == "database-refused"));
    assert_eq!(differences(&world), found([]));

    // Dead letters that are replayed count again, and only then.
    world.call(&["dlq", "replay", "--reason", "unknown-draft"]).success();
    world.run_until_caught_up();
    assert_eq!(world.row("late").job(), Some("too-early-2"));
    assert_eq!(differences(&world), found([]));
    world
        .database
        .sql("UPDATE event_drafts SET content_job_id = 'x' WHERE event_draft_id = 'late'");
    assert_eq!(differences(&world), found([("job-differs", "late")]));
}

#[test]
fn each_kind_of_difference_is_found_and_mended() {
    let world = World::new("verify-kinds");
    let ids: Vec<String> = (0..9).map(|number| format!("d{number}")).collect();
    let first = ids.iter().map(|id| event(id, &format!("{id}-first")));
    let second = ids.iter().map(|id| event(id, &format!("{id}-second")).at(5));
    world.drafts(&ids);
    world.publish(first.chain(second));
    world.run_until_caught_up();
    let right = world.contents();
    (0..9).for_each(|number| cache(&world, &ids[number]));
    assert_eq!(differences(&world), found([]));

    let update = |id: &str, set: &str| {
        world.database.sql(&format!("UPDATE event_drafts SET {set} WHERE event_draft_id = '{id}'"));
        world.cache.connection().del::<_, ()>(format!("event:draft:{id}")).unwrap();
    };
    update("d0", "content_images = NULL");
    let none = "content_images = NULL, content_job_id = NULL, content_event_at = '-infinity', content_event_offset = -1, \
         content_event_partition = -1, content_older_jobs = NULL, content_older_positions = NULL";
    update("d1", none);
    update("d2", "content_job_id = 'another'");
    update("d3", "content_older_jobs = NULL, content_older_positions = NULL");
    update("d4", "content_older_jobs = '{NULL,\"x\"}'");
    update("d5", "content_event_at = now(), content_event_offset = 999");
    update("d6", "content_event_at = 'infinity'");
    let mut redis = world.cache.connection();
    redis.set::<_, _, ()>("event:draft:d7", "no draft").unwrap();
    let old = r#"{"event_draft_id":"d8","content_images":{"simple":"old"}}"#;
    redis.set::<_, _, ()>("event:draft:d8", old).unwrap();
    let planted = found([
        ("images-differ", "d0"),
        ("row-behind", "d1"),
        ("job-differs", "d2"),
        ("memory-differs", "d3"),
        ("memory-differs", "d4"),
        ("unknown-event", "d5"),
        ("unknown-event", "d6"),
        ("cached-unreadable", "d7"),
        ("cached-differs", "d8"),
    ]);
    assert_eq!(differences(&world), planted);
    assert_ne!(world.contents(), right);
    let shown = world.call(&["verify", "--limit", "4"]);
    assert!(shown.out.contains("… and 5 more"), "{}", shown.out);

    let mended = world.call(&["verify", "--repair", "--json"]);
    assert_eq!(mended.code(), Some(0), "{}\n{}", mended.out, mended.err);
    let lines = lines(&mended);
    assert_eq!(lines.len(), planted.len());
    assert!(lines.iter().all(|line| line["mended"] == true), "{}", mended.out);
    assert_eq!(world.contents(), right);
    assert_eq!(world.cached_among(["d7", "d8"]), Vec::<&str>::new());
    assert_eq!(differences(&world), found([]));
    // And there is nothing left to repair.
    let rows = world.rows();
    world.call(&["verify", "--repair"]).success();
    assert_eq!(world.rows(), rows);
}

#[test]
fn what_cannot_be_mended_stays_and_is_said() {
    let world = World::new("verify-unmended");
    world.drafts(["d1", "d2"]);
    world.publish([event("d1", "job-1").on(0), event("d1", "job-2").on(0).at(3)]);
    world.run_until_caught_up();
    // An event that nobody knows, in a row of which the topic has nothing: what it holds may be all
    // there is.
    world.database.sql(
        "UPDATE event_drafts SET content_event_at = now(), content_event_offset = 1, content_event_partition = 0,
             content_images = '{}' WHERE event_draft_id = 'd2'",
    );
    world.cache.connection().del::<_, ()>("event:draft:d2").unwrap();
    // And a row that the database lets nobody write.
    world.database.sql("UPDATE event_drafts SET content_images = NULL WHERE event_draft_id = 'd1'");
    world.database.sql(
        "ALTER TABLE event_drafts ADD CONSTRAINT no_more CHECK (content_job_id <> 'job-2') NOT VALID",
    );
    let left = found([("images-differ", "d1"), ("unknown-event", "d2")]);
    assert_eq!(differences(&world), left);
    let rows = world.rows();
    let ended = world.call(&["verify", "--repair", "--json"]);
    assert_eq!(ended.code(), Some(3));
    assert!(lines(&ended).iter().all(|line| line["mended"] == false), "{}", ended.out);
    assert!(ended.err.contains("no_more"), "{}", ended.err);
    assert_eq!(world.rows(), rows);
}

#[test]
fn a_repair_never_moves_a_row_back_behind_what_came_meanwhile() {
    let world = World::new("verify-meanwhile");
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1").on(0)]);
    world.run_until_caught_up();
    world.database.sql("UPDATE event_drafts SET content_images = '{}' WHERE event_draft_id = 'd1'");
    // Another one is writing the next event just when the repair comes.
    world.publish([event("d1", "job-2").on(0).at(5)]);
    let writer = world.database.session();
    writer.sql("BEGIN");
    let (first, ms) = (1_500_000_000_000_u64, 1_500_000_000_005_u64);
    writer.sql(&format!(
        "UPDATE event_drafts SET content_images = '{}', content_job_id = 'job-2', content_event_offset = 1,
             content_event_at = to_timestamp({ms} / 1000.0),
             content_older_jobs = ARRAY['job-1'], content_older_positions = ARRAY[{first}, 0, 0]",
        images("job-2")
    ));
    let repair = world.start(&["verify", "--repair", "--json"]);
    eventually("the repair waits for the row", || world.database.somebody_waits());
    writer.sql("COMMIT");
    let row = world.row("d1");
    let ended = repair.wait();
    assert_eq!(ended.code(), Some(0), "{}\n{}", ended.out, ended.err);
    assert_eq!(lines(&ended).len(), 1, "{}", ended.out);
    assert_eq!((row.job(), row.images()), (Some("job-2"), &images("job-2")));
    assert_eq!(world.row("d1"), row);
}

#[test]
fn a_repair_locks_rows_in_the_order_of_the_pipeline() {
    let mut world = World::new("verify-order");
    world.set("database.lock_timeout_ms", 20_000);
    let ids: Vec<String> = (10..40).map(|number| format!("d{number}")).collect();
    world.drafts(&ids);
    world.publish(ids.iter().map(|id| event(id, "job")));
    world.run_until_caught_up();
    world.database.sql("UPDATE event_drafts SET content_images = '{}'");
    // The first one of every batch of a run.
    let writer = world.database.session();
    writer.sql("BEGIN; SELECT FROM event_drafts WHERE event_draft_id = 'd10' FOR UPDATE");
    let repair = world.start(&["verify", "--repair"]);
    eventually("the repair waits for the row", || world.database.somebody_waits());
    let free = world.database.sql("SELECT event_draft_id FROM event_drafts FOR UPDATE SKIP LOCKED");
    assert_eq!(free.len(), 29, "it holds rows for which a run may wait that holds d10: {free:?}");
    writer.sql("COMMIT");
    repair.wait().success();
}

#[test]
fn lag_is_no_difference_but_a_wrong_row_is_one_also_when_newer_events_wait() {
    let world = World::new("verify-lag");
    let ids: Vec<String> = (0..20).map(|number| format!("d{number}")).collect();
    world.drafts(&ids);
    world.publish(ids.iter().map(|id| event(id, &format!("{id}-first"))));
    world.run_until_caught_up();
    world.publish(ids.iter().map(|id| event(id, &format!("{id}-second")).at(9)));
    assert_eq!(differences(&world), found([]));
    let all = world.call(&["verify", "--whole-topic", "--json"]);
    assert_eq!(lines(&all).len(), 20, "with nothing under way, they should be there");
    // Written and not committed, as when a run is killed in between.
    let group = ["run", "--until-caught-up", "--group", "another"];
    world.call(&group).success();
    assert_eq!(world.row("d3").images(), &images("d3-second"));
    world.publish(ids.iter().map(|id| event(id, &format!("{id}-third")).at(11)));
    assert_eq!(differences(&world), found([]));

    world.database.sql("UPDATE event_drafts SET content_images = '{}' WHERE event_draft_id = 'd3'");
    assert_eq!(differences(&world), found([("images-differ", "d3")]));
    world.call(&["verify", "--repair"]).success();
    assert_eq!(world.row("d3").images(), &images("d3-second"));
}

#[test]
fn a_group_that_has_never_been_is_not_behind() {
    let world = World::new("verify-no-group");
    world.drafts(["d1", "d2"]);
    world.publish([event("d1", "job-1"), event("d2", "job-2")]);
    world.call(&["run", "--until-caught-up", "--group", "another"]).success();
    assert_eq!(differences(&world), found([]));
    world.publish([event("d1", "job-3").at(1)]);
    assert_eq!(differences(&world), found([("row-behind", "d1")]));
}

#[test]
fn a_topic_that_retention_has_cut_is_held_against_what_it_still_has() {
    let world = World::new("verify-retention");
    world.drafts((0..6).map(|number| format!("d{number}")));
    let numbered = |number: i32| {
        event(&format!("d{}", number % 6), &format!("job-{number}")).on(2).at(i64::from(number))
    };
    world.publish((0..24).map(numbered));
    world.run_until_caught_up();
    // The newest events of d0, d1 and d2 are gone; the rows still remember all jobs.
    world.delete_records(2, 21);
    assert_eq!(differences(&world), found([]));
    // What nobody knows any more cannot be wrong, what the topic still has can.
    for id in ["d0", "d4"] {
        let set = "UPDATE event_drafts SET content_images = '{}' WHERE event_draft_id";
        world.database.sql(&format!("{set} = '{id}'"));
    }
    assert_eq!(differences(&world), found([("images-differ", "d4")]));
    world.call(&["verify", "--repair"]).success();
    assert_eq!(world.row("d4").images(), &images("job-22"));
    assert_eq!(world.row("d4").jobs().len(), 4, "what only the row knows stays");
    world.publish([numbered(24)]);
    world.run_until_caught_up();
    assert_eq!(differences(&world), found([]));
}

#[test]
fn a_topic_that_is_made_again_says_nothing_of_what_was_before_it() {
    let world = World::new("verify-again");
    world.drafts(["d1", "d2", "d3"]);
    world.publish((0..9).map(|at| event("d1", &format!("old-{at}")).on(0).at(at)));
    world.publish([event("d2", "old").on(0).at(9), event("d3", "old").on(1).at(9)]);
    world.run_until_caught_up();
    delete_topic(world.topic());
    create_topic(world.topic(), 1, &[]);
    world.delete_group();
    world.publish([event("d2", "new").on(0).at(1_000)]);
    world.run_until_caught_up();
    assert_eq!(differences(&world), found([]));
    // What is cached must agree with its row, be its event past the end, or of a partition that is
    // not there any more.
    for id in ["d1", "d3"] {
        let old = format!(r#"{{"event_draft_id":"{id}","content_images":{{"simple":"old"}}}}"#);
        world.cache.connection().set::<_, _, ()>(format!("event:draft:{id}"), old).unwrap();
    }
    let stale = found([("cached-differs", "d1"), ("cached-differs", "d3")]);
    assert_eq!(differences(&world), stale);
    world.call(&["verify", "--repair"]).success();
    assert_eq!(world.cached_among(["d1", "d3"]), Vec::<&str>::new());
    assert_eq!(differences(&world), found([]));
    // But of what is in it, everything.
    world
        .database
        .sql("UPDATE event_drafts SET content_event_offset = 3 WHERE event_draft_id = 'd2'");
    assert_eq!(differences(&world), found([("unknown-event", "d2")]));
}

#[test]
fn ids_of_every_type_are_held_against_their_rows() {
    for (id_type, id) in [
        ("uuid", "0188a0f0-1111-4222-8333-abcdefabcdef"),
        ("bigint", "9007199254740993"),
        ("varchar(40)", "Ü \\ \"1\""),
    ] {
        let create = format!(
            "CREATE TABLE event_drafts (event_draft_id {id_type} PRIMARY KEY, content_images jsonb,
                 updated_at timestamptz NOT NULL DEFAULT now())"
        );
        let world = World::with_table("verify-ids", &create);
        world.drafts([id]);
        let given = id.to_uppercase();
        let mut body = body(&given, "job-1");
        body["jobId"] = "job \"1\" \\".into();
        world.publish([record(body.to_string()), record("{")]);
        world.run_until_caught_up();
        cache(&world, id);
        assert_eq!(differences(&world), found([]), "{id_type}");
        world.database.sql("UPDATE event_drafts SET content_older_jobs = '{other}'");
        let kinds: Vec<String> = differences(&world).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["memory-differs"], "{id_type}");
        world.call(&["verify", "--repair"]).success();
        assert_eq!(world.row(id).jobs(), ["job \"1\" \\"], "{id_type}");
    }
}

/// Events of the load's drafts, on and on.
fn more(mix: &Mix, number: u64) -> Mix {
    let start_ms = mix.start_ms + i64::try_from(number).unwrap() * 100_000;
    Mix { seed: mix.seed + number, start_ms, ..mix.clone() }
}

#[test]
fn a_pipeline_at_work_beside_it_gives_no_false_difference() {
    let seed = u64::from(fastrand::u32(..));
    println!("seed {seed}");
    let mix = Mix {
        seed,
        events: 1_500,
        drafts: 100,
        start_ms: 1_700_000_000_000,
        spacing_us: 1_000,
        duplicates: 0.1,
        stale: 0.1,
        bad: 0.02,
        ..Mix::default()
    };
    let mut world = World::new("verify-busy");
    // So that a draft's row has some of its events while others wait.
    world.set("run.epoch_records", 100);
    world.load(mix.clone());
    world.cache.connection().del::<_, ()>("event:draft:draft-0000001").unwrap();
    world.slow_down(20);
    let running = world.start_run();
    for number in 1..=4 {
        world.publish_load(more(&mix, number));
        // Readers fill the cache meanwhile, as they should.
        (1..=10).for_each(|draft| cache(&world, &format!("draft-{draft:07}")));
        let ended = world.call(&["verify", "--json"]);
        let unread = lines(&ended).iter().all(|line| line["kind"] == "cached-unreadable");
        assert!(unread, "{}\n{}", ended.out, ended.err);
    }
    world.speed_up();
    eventually("all is done", || world.committed() == world.ends());
    running.stop().report();
    let left: Vec<_> =
        differences(&world).into_iter().filter(|(kind, _)| kind != "cached-unreadable").collect();
    assert_eq!(left, []);
}

#[test]
fn what_is_missing_is_named() {
    let mut world = World::new("verify-mistakes");
    let says = |world: &World, code: i32, error: &str| {
        let ended = world.call(&["verify"]);
        assert!(ended.failure(code).contains(error), "{}", ended.err);
        assert_eq!(ended.out, "");
    };
    world.set("kafka.topic", "no-such-topic");
    says(&world, 1, "no-such-topic does not exist");
    let topic = world.topic().to_owned();
    world.set("kafka.topic", topic);
    world.set("cache.url", "redis://127.0.0.1:1/0");
    says(&world, 75, "Redis cannot be reached");
    world.unwire_cache();
    world.database.sql("ALTER TABLE event_drafts DROP COLUMN content_older_jobs");
    says(&world, 1, "there is no content_older_jobs");
    let usage = world.call(&["verify", "-w", "0"]);
    assert!(usage.failure(2).contains("run.workers"), "{}", usage.err);
}

#[test]
fn a_watch_says_when_a_difference_appears_and_when_it_goes_and_calls_no_lag_one() {
    let world = World::new("verify-watch");
    let ids: Vec<String> = (0..50).map(|number| format!("d{number}")).collect();
    world.drafts(&ids);
    let publish = |job: i64| {
        world.publish(ids.iter().map(|id| event(id, &format!("{id}-{job}")).at(job)));
    };
    publish(0);
    world.run_until_caught_up();
    let watch = world.start(&["verify", "--watch", "--interval", "0"]);
    eventually("it watches", || watch.out().contains("watching 50 rows"));
    let running = world.start_run();
    (1..20).for_each(publish);
    eventually("all is done", || world.committed() == world.ends());
    world.database.sql("UPDATE event_drafts SET content_images = '{}' WHERE event_draft_id = 'd7'");
    eventually("it appears", || watch.out().contains("appeared  images-differ  d7"));
    // The next event brings new images.
    world.publish([event("d7", "d7-last").at(99)]);
    eventually("it goes", || watch.out().contains("gone      images-differ  d7"));
    world.cache_again("d9");
    eventually("it appears", || watch.out().contains("appeared  cached-unreadable  d9"));
    running.stop().report();
    let ended = watch.stop();
    assert_eq!(ended.code(), Some(3), "{}", ended.err);
    assert_eq!(ended.out.lines().count(), 4, "nothing else: {}", ended.out);
}
