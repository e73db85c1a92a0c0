//! Mistakes of whoever starts it: an error says what is wrong and what to do, with the right exit
//! code.

use crate::world::{Ended, World};

/// Checks an error: its code, and that it has an error line and a hint with these words.
#[track_caller]
fn says(ended: &Ended, code: i32, error: &str, hint: &str) {
    let text = ended.failure(code);
    let find = |prefix: &str, words: &str| {
        text.lines().any(|line| line.starts_with(prefix) && line.contains(words))
    };
    assert!(find("error: ", error), "no error {error:?} in: {text}");
    assert!(find("hint: ", hint), "no hint {hint:?} in: {text}");
    assert_eq!(ended.out, "", "nothing on standard output");
}

/// A port on which nobody listens: it was free a moment ago.
fn closed_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let mut world = World::new("missing");
    let run = |world: &World| world.call(&["run", "--until-caught-up"]);
    let valid = |world: &World, key: &str| match key {
        "kafka.topic" => world.topic().to_owned(),
        "dead_letters.topic" => world.dead_letter_topic().to_owned(),
        "database.url" => world.database.url.clone(),
        _ => world.cache.url.clone(),
    };
    let no_database = format!("{}_gone", world.database.url);
    let nobody = world.database.url.replacen("://", "://nobody:x@", 1);
    let nobody = nobody.replacen("@contentflow@", "@", 1);
    let no_postgres = format!("postgres://x@{}/x", closed_port());
    let no_redis = format!("redis://{}/0", closed_port());
    // What a person must mend ends with 1. A server that is away may come back: 75.
    let wrong = [
        ("kafka.topic", "no-such-topic", 1, "topic: no-such-topic does not exist", "create it"),
        (
            "dead_letters.topic",
            "no.dlq",
            1,
            "dead-letter topic: no.dlq does not exist",
            "create it",
        ),
        ("database.url", &no_database[..], 1, "has no database", "create it, or name another"),
        ("database.url", &nobody[..], 1, "does not let us in", "check user and password"),
        (
            "database.url",
            &no_postgres[..],
            75,
            "PostgreSQL cannot be reached",
            "start the server, or set database.url",
        ),
        (
            "cache.url",
            &no_redis[..],
            75,
            "Redis cannot be reached",
            "start the server, or set cache.url",
        ),
    ];
    for (key, value, code, error, hint) in wrong {
        world.set(key, value);
        says(&run(&world), code, error, hint);
        let right = valid(&world, key);
        world.set(key, right);
    }
    // Two servers that are away are both named.
    world.set("database.url", &no_postgres);
    world.set("cache.url", &no_redis);
    let ended = run(&world);
    says(&ended, 75, "PostgreSQL cannot be reached", "start the server");
    says(&ended, 75, "Redis cannot be reached", "start the server");
    let right = valid(&world, "database.url");
    world.set("database.url", right);
    // Several at once are all named.
    world.set("kafka.topic", "no-such-topic");
    let ended = run(&world);
    says(&ended, 1, "no-such-topic does not exist", "create it");
    says(&ended, 1, "Redis cannot be reached", "start the server");
    assert!(world.committed().is_empty());
}

#[test]
fn a_table_that_is_not_there_or_not_complete_is_named() {
    let world = World::without_table("tables");
    let run = || world.call(&["run", "--until-caught-up"]);
    says(&run(), 1, "event_drafts does not exist", "contentflow migrate");
    let check = world.call(&["check"]);
    assert_eq!(check.code(), Some(1));
    assert!(check.out.contains("event_drafts does not exist"), "{}", check.out);

    world.call(&["migrate"]).success();
    world.call(&["check"]).success();
    world.database.sql("ALTER TABLE event_drafts RENAME COLUMN content_older_jobs TO other");
    says(&run(), 1, "there is no content_older_jobs", "contentflow migrate");
    world.database.sql("ALTER TABLE event_drafts RENAME COLUMN other TO content_older_jobs");
    world.database.sql("ALTER TABLE event_drafts RENAME COLUMN content_images TO images");
    says(&run(), 1, "there is no content_images", "add them");
    world.database.sql("ALTER TABLE event_drafts RENAME COLUMN images TO content_images");
    world.database.sql("ALTER TABLE event_drafts ALTER COLUMN content_images TYPE json");
    says(&run(), 1, "content_images is json, not jsonb", "TYPE jsonb USING content_images::jsonb");
    world.database.sql(
        "ALTER TABLE event_drafts ALTER COLUMN content_images TYPE jsonb USING content_images::jsonb",
    );
    world.database.sql("ALTER TABLE event_drafts DROP CONSTRAINT event_drafts_pkey");
    says(&run(), 1, "event_draft_id has no index", "primary key");
}

#[test]
fn a_table_that_is_not_of_drafts_is_not_migrated() {
    let mut world = World::new("not-drafts");
    world.database.sql("CREATE TABLE users (id text PRIMARY KEY, updated_at timestamptz)");
    world.set("database.table", "users");
    let ended = world.call(&["migrate"]);
    says(&ended, 1, "has no event_draft_id, no content_images", "set database.table");
    let left = world.database.value(
        "SELECT count(*)::text FROM pg_attribute WHERE attrelid = 'users'::regclass AND attnum > 0",
    );
    assert_eq!(left, "2", "nothing was changed");
    assert!(world.call(&["migrate", "--status"]).success().contains("pending"));
}

#[test]
fn a_table_that_another_build_has_migrated_is_left_alone() {
    let world = World::new("other-build");
    world
        .database
        .sql("UPDATE contentflow_migrations_event_drafts SET version = 2 WHERE version = 3");
    let ended = world.call(&["migrate"]);
    says(&ended, 1, "has the migration V2", "replay the topic");
    says(&ended, 1, "which this program does not know", "use that one");
    let status = world.call(&["migrate", "--status"]);
    assert!(status.success().contains("V2 of another contentflow"), "{}", status.out);
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let mut world = World::new("no-broker");
    let address = closed_port();
    world.set("kafka.brokers", &address);
    says(&world.call(&["run"]), 75, &format!("no broker answers at {address}"), "kafka.brokers");
    says(&world.call(&["dlq", "count"]), 75, "no broker answers", "kafka.brokers");
}

#[test]
fn j3_a_wrong_setting_is_named_with_its_remedy() {
    let mut world = World::new("settings");
    says(&world.call(&["run", "-w", "0"]), 2, "run.workers", "from 1 to 256");
    for workers in ["-3", "257", "many", "1.5", "99999999999999999999"] {
        let ended = world.call(&["run", "-w", workers]);
        says(&ended, 2, "run.workers", "from 1 to 256");
        assert!(ended.err.contains(workers) && ended.err.contains("--workers"), "{}", ended.err);
    }
    let usage = world.call(&["run", "--wrokers", "3"]);
    assert!(usage.failure(2).contains("--workers"), "it guesses what was meant: {}", usage.err);
    assert!(world.call(&["dlq", "replay"]).failure(2).contains("--all"));
    assert!(world.call(&["dlq", "list", "--reason", "no-reason"]).failure(2).contains("not-json"));
    assert!(world.call(&["dlq", "show", "7"]).failure(2).contains("PARTITION:OFFSET"));

    world.set("kafka.tpoic", "x");
    let unknown = world.call(&["run"]);
    says(&unknown, 2, "kafka.tpoic", "kafka.topic");
    // Every command reads the same configuration.
    says(&world.call(&["dlq", "count"]), 2, "kafka.tpoic", "kafka.topic");
    assert_eq!(world.call(&["check"]).code(), Some(2));
}

#[test]
fn mistakes_of_the_other_commands_are_named_too() {
    let world = World::new("commands-mistakes");
    says(&world.call(&["draft", "get", "nobody"]), 1, "there is no draft \"nobody\"", "draft list");
    world.call(&["draft", "put", "d1"]).success();
    for (id, what) in [("", "blank"), ("a\tb", "control"), (&"x".repeat(300), "255")] {
        assert!(world.call(&["draft", "put", id]).failure(2).contains(what), "{id:?}");
    }
    assert!(world.call(&["draft", "put", "d1"]).failure(1).contains("exists already"));
    assert!(
        world
            .call(&["draft", "put", "d2", "--data", "[]"])
            .failure(2)
            .contains("not a JSON object")
    );
    says(&world.call(&["dlq", "show", "0:0"]), 1, "no dead letter at 0:0", "dlq list");
    says(&world.call(&["publish"]), 2, "nothing to publish", "--generate");
}
