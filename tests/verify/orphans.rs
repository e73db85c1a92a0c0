//! Cached drafts that have no row.

use redis::Commands;

use super::{cache, differences, found};
use crate::world::{World, event, eventually};

#[test]
fn a_cached_draft_without_a_row_is_found_and_deleted() {
    let world = World::new("verify-orphans");
    let ids: Vec<String> = (0..3_000).map(|number| format!("d{number}")).collect();
    world.drafts(&ids);
    world.publish([event("d1", "job-1")]);
    world.run_until_caught_up();
    world.empty_cache();
    (0..20).for_each(|number| cache(&world, &ids[number]));
    // What others keep under such keys is not ours: it does not say that it is that draft.
    let mut redis = world.cache.connection();
    let other = [
        ("event:draft:d1:comments", r#"{"event_draft_id":"d1","comments":[]}"#),
        ("event:draft:lock", "held"),
        ("event:draft:nobody", r#"{"content_images":null}"#),
        ("another:event:draft:d1", r#"{"event_draft_id":"d1"}"#),
    ];
    other.iter().for_each(|(key, value)| redis.set::<_, _, ()>(*key, *value).unwrap());
    redis.rpush::<_, _, ()>("event:draft:list", 1).unwrap();
    // So many keys that the cache is gone through in parts.
    world.cache.fill(&(0..5_000).map(|number| format!("unreadable-{number}")).collect::<Vec<_>>());
    assert_eq!(differences(&world), found([]));

    world.database.sql("DELETE FROM event_drafts WHERE event_draft_id IN ('d1', 'd2')");
    let orphans = found([("cached-without-row", "d1"), ("cached-without-row", "d2")]);
    assert_eq!(differences(&world), orphans);
    let mended = world.call(&["verify", "--repair", "--json"]);
    assert_eq!(mended.code(), Some(0), "{}\n{}", mended.out, mended.err);
    assert_eq!(mended.out.matches("\"mended\":true").count(), 2, "{}", mended.out);
    assert_eq!(world.cached_among(["d1", "d2", "d3"]), ["d3"]);
    assert_eq!(differences(&world), found([]));
    for (key, value) in other {
        assert_eq!(redis.get::<_, String>(key).unwrap(), value, "{key}");
    }
}

#[test]
fn a_cached_draft_under_another_spelling_of_its_id_is_one_that_no_event_deletes() {
    let id = "0188a0f0-1111-4222-8333-abcdefabcdef";
    let create = "CREATE TABLE event_drafts (event_draft_id uuid PRIMARY KEY, content_images jsonb,
             updated_at timestamptz NOT NULL DEFAULT now())";
    let world = World::with_table("verify-spelling", create);
    world.drafts([id]);
    world.empty_cache();
    cache(&world, id);
    let mut redis = world.cache.connection();
    let draft: String = redis.get(format!("event:draft:{id}")).unwrap();
    redis.set::<_, _, ()>("event:draft:no uuid", &draft).unwrap();
    assert_eq!(differences(&world), found([]));
    let upper = id.to_uppercase();
    redis.set::<_, _, ()>(format!("event:draft:{upper}"), draft).unwrap();
    assert_eq!(differences(&world), found([("cached-without-row", &upper)]));
    world.call(&["verify", "--repair"]).success();
    assert_eq!(world.cached_among([id, &upper]), [id]);
}

#[test]
fn a_watch_says_when_a_row_is_gone_and_its_cached_draft_is_not() {
    let world = World::new("verify-watch-orphans");
    world.drafts(["d1", "d2"]);
    world.empty_cache();
    cache(&world, "d1");
    let watch = world.start(&["verify", "--watch", "--interval", "0"]);
    eventually("it watches", || watch.out().contains("watching 2 rows"));
    world.database.sql("DELETE FROM event_drafts WHERE event_draft_id = 'd1'");
    eventually("it appears", || watch.out().contains("appeared  cached-without-row  d1"));
    world.cache.connection().del::<_, ()>("event:draft:d1").unwrap();
    eventually("it goes", || watch.out().contains("gone      cached-without-row  d1"));
    let ended = watch.stop();
    assert_eq!(ended.code(), Some(0), "{}", ended.err);
    assert_eq!(ended.out.lines().count(), 3, "nothing else: {}", ended.out);
}
