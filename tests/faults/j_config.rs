//! Configurations that cannot be right, in the program itself: it does not start, with exit code 2,
//! and names the key.

use crate::world::{World, event};

const SECRET: &str = "s3nTinel";

#[test]
fn j3_a_configuration_that_cannot_be_right_is_refused_and_nothing_is_read() {
    let wrong = [
        ("kafka.properties.enable.auto.commit", "true", "durable"),
        ("kafka.properties.enable.auto.offset.store", "true", "durable"),
        ("kafka.properties.acks", "0", "in-sync replicas"),
        ("kafka.properties.isolation.level", "read_uncommitted", "committed transactions"),
        ("kafka.properties.auto.offset.reset", "latest", "run.on_data_loss"),
        ("kafka.properties.group.id", "another", "kafka.group"),
        ("kafka.properties.no.such", "1", "No such configuration property"),
        ("kafka.brokers", "host:port", "port"),
        ("kafka.topic", "a b", "kafka.topic"),
        ("run.workers", "0", "from 1 to"),
        ("run.workers", "many", "whole number"),
        ("run.worker", "1", "run.workers"),
        ("run.on_outage", "ignore", "wait"),
        ("run.drain_timeout_s", "300", "max.poll.interval.ms"),
        ("kafka.properties.max.poll.interval.ms", "30000", "max.poll.interval.ms"),
        ("database.lock_timeout_ms", "30000", "statement_timeout_ms"),
        ("database.table", "a;b", "database.table"),
        ("database.url", "postgres://u:s3nTinel@h/d?sslmode=perhaps", "sslmode"),
        ("database.url", "postgres://u:s3nTinel", "database.url"),
        ("cache.url", "http://:s3nTinel@h", "redis://"),
        ("cache.url", "redis://:s3nTinel@h/zero", "database number"),
        ("cache.key", "event:draft", "{id}"),
    ];
    let mut world = World::without_table("j3");
    world.publish([event("d1", "job").on(0)]);
    for (key, value, words) in wrong {
        world.set(key, value);
        let refused = world.call(&["run", "--until-caught-up"]);
        let error = refused.failure(2);
        assert!(error.contains(words) && error.contains("hint: "), "{key} = {value}: {error}");
        // What is wrong with two keys together is told of the one that is ours.
        let named = if words == "max.poll.interval.ms" { "run.drain_timeout_s" } else { key };
        assert!(error.contains(named), "{key} = {value}: {error}");
        assert!(!error.contains(SECRET) && refused.out.is_empty(), "{key}: {error}");
        world.unset(key);
    }
    assert!(world.committed().is_empty());
}

#[test]
fn j3_dead_letters_in_the_topic_itself_are_refused() {
    let mut world = World::without_table("j3-loop");
    world.set("dead_letters.topic", world.topic().to_owned());
    let refused = world.call(&["run"]);
    assert!(refused.failure(2).contains("kafka.topic itself"), "{}", refused.err);
}

#[test]
fn j3_properties_that_contradict_each_other_are_told_by_a_check_and_by_whoever_needs_them() {
    let mut world = World::new("j3-properties");
    world.drafts(["d1"]);
    world.publish([event("d1", "job").on(0)]);
    let run = &["run", "--until-caught-up"][..];
    for (name, value, commands) in [
        ("session.timeout.ms", 400_000, [run, &["replay"], &["tune"]]),
        // Of the producer of dead letters.
        ("max.in.flight", 6, [run, &["replay", "--dead-letters"], &["publish", "--generate", "1"]]),
    ] {
        let key = format!("kafka.properties.{name}");
        world.set(&key, value);
        let check = world.call(&["check"]);
        assert_eq!(check.code(), Some(2), "{name}: {}", check.out);
        assert!(check.out.contains("FAIL") && check.out.contains(name), "{}", check.out);
        for command in commands {
            let refused = world.call(command);
            let error = refused.failure(2);
            assert!(error.contains(name), "{command:?}: {error}");
            assert!(error.contains("hint: check [kafka.properties]"), "{command:?}: {error}");
        }
        world.unset(&key);
    }
    assert!(world.committed().is_empty());
}
