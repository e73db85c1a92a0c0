//! What a tune says when it cannot begin.

use serde_json::{Value, json};

use super::{scratch_tables, slow_rows, tune};
use crate::world::{Ended, World, event, record};

/// Has the program connect as that role.
fn connect_as(world: &mut World, role: &str) {
    let owner = world.database.url.clone();
    let (_, address) = owner.split_once("://").unwrap().1.split_once('@').unwrap();
    world.set("database.url", format!("postgres://{role}@{address}"));
}

/// Drops a role with all that it owns.
fn drop_role(world: &World, role: &str) {
    world.database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// What a tune says to a role, which is dropped then.
fn tune_as(world: &mut World, role: &str) -> Ended {
    connect_as(world, role);
    let ended = tune(world, &[]);
    drop_role(world, role);
    ended
}

#[test]
fn values_are_held_to_the_limits_of_the_configuration() {
    let world = World::new("tune-values");
    let cases = [
        (["--workers", "0"], "run.workers = 0 (from flag --workers) is out of range"),
        (["--workers", "1,x"], "run.workers"),
        (["--connections", "65"], "database.connections = 65"),
        (["--batch-rows", "-5"], "database.batch_rows = -5"),
        (["--linger-ms", "1.5"], "run.linger_ms"),
        (["--events", "0"], "--events"),
        (["--chart", "chart.png"], "neither an .svg nor an .html"),
    ];
    for (flags, expected) in cases {
        let words = [&["tune"], &flags[..]].concat();
        let ended = world.call(&words);
        assert!(ended.failure(2).contains(expected), "{flags:?}: {}", ended.err);
    }
    let ended = tune(&world, &["--chart", "no-such-directory/chart.svg"]);
    assert!(ended.failure(1).contains("cannot be written"), "{}", ended.err);
}

#[test]
fn a_topic_with_nothing_to_measure_is_said_to_be_so() {
    let mut world = World::new("tune-nothing");
    let ended = tune(&world, &[]);
    assert!(ended.failure(1).contains("has no records"), "{}", ended.err);
    world.publish([record("no event"), record("neither")]);
    let ended = tune(&world, &[]);
    assert!(ended.failure(1).contains("of the newest 2 records of "), "{}", ended.err);
    world.publish([event("nobody's", "job-1")]);
    let ended = tune(&world, &[]);
    let text = ended.failure(1);
    assert!(text.contains("are about 1 draft, and the table event_drafts has no row"), "{text}");
    assert!(text.contains("hint: ") && text.contains("--effects none"), "{text}");
    assert_eq!(scratch_tables(&world), 0);
    world.set("kafka.topic", "no-such-topic");
    let ended = tune(&world, &[]);
    assert!(ended.failure(1).contains("no-such-topic does not exist"), "{}", ended.err);
}

#[test]
fn a_missing_table_and_a_missing_right_are_told_with_what_to_do() {
    let mut world = World::without_table("tune-rights");
    world.publish([event("d1", "job-1")]);
    let ended = tune(&world, &[]);
    assert!(ended.failure(1).contains("event_drafts does not exist"), "{}", ended.err);
    world.call(&["migrate"]).success();
    world.drafts(["d1"]);
    let role = format!("guest_{:08x}", fastrand::u32(..));
    world.database.sql(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE ON event_drafts TO {role};
         REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    ));
    let ended = tune_as(&mut world, &role);
    let text = ended.failure(1);
    assert!(text.contains("cannot be made") && text.contains("permission denied"), "{text}");
    assert!(text.contains(&format!("GRANT CREATE ON SCHEMA \"public\" TO \"{role}\"")), "{text}");
    assert!(text.contains("--effects none"), "{text}");
}

#[test]
fn a_budget_too_small_for_one_trial_is_said_to_be() {
    let world = World::new("tune-budget");
    world.drafts((0..300).map(|n| format!("d{n}")));
    world.publish((0..300).map(|n| event(&format!("d{n}"), &format!("job-{n}"))));
    slow_rows(&world, 5.0);
    // Twice: the later flag would be a contradiction.
    let ended = world.call(&["tune", "--budget", "1", "--workers", "1"]);
    let text = ended.failure(1);
    assert!(
        text.contains("the budget is 1 s") && text.contains("hint: give it --budget "),
        "{text}"
    );
    assert_eq!(scratch_tables(&world), 0);
}

#[test]
fn somebody_elses_table_and_another_tune_are_left_alone() {
    let world = World::new("tune-taken");
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1")]);
    let oid = world.database.value("SELECT 'event_drafts'::regclass::oid");
    let name = format!("contentflow_tune_{oid}");
    world.database.sql(&format!("CREATE TABLE {name} AS SELECT 42 AS precious"));
    let ended = tune(&world, &[]);
    assert!(ended.failure(1).contains("which no `contentflow tune` has made"), "{}", ended.err);
    assert_eq!(world.database.number(&format!("SELECT precious FROM {name}")), 42);
    world.database.sql(&format!("DROP TABLE {name}"));

    let other = world.database.session();
    other.sql(&format!("SELECT pg_advisory_lock(1667658862, hashtext('\"public\".\"{name}\"'))"));
    let ended = tune(&world, &[]);
    assert!(ended.failure(1).contains("another `contentflow tune` is at work"), "{}", ended.err);
}

#[test]
fn a_copy_that_would_be_replicated_is_not_made() {
    let world = World::new("tune-published");
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1")]);
    for what in ["ALL TABLES", "TABLES IN SCHEMA public"] {
        world.database.sql(&format!("CREATE PUBLICATION everything FOR {what}"));
        let ended = tune(&world, &[]);
        let text = ended.failure(1);
        assert!(text.contains("the publication everything"), "{what}: {text}");
        assert!(text.contains("hint: ") && text.contains("--effects none"), "{what}: {text}");
        assert_eq!(scratch_tables(&world), 0);
        world.database.sql("DROP PUBLICATION everything");
    }
}

#[test]
fn what_the_database_has_no_connections_for_is_left_out() {
    let mut world = World::new("tune-connections");
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1")]);
    world.database.sql("CREATE ROLE frugal LOGIN CONNECTION LIMIT 8");
    world
        .database
        .sql("GRANT ALL ON event_drafts TO frugal; GRANT CREATE ON SCHEMA public TO frugal");
    connect_as(&mut world, "frugal");
    // What is configured, which is measured otherwise whatever is to be tried, is too much as well.
    world.set("run.workers", 2);
    world.set("database.connections", 8);
    let tune = |workers, connections| {
        let lists = ["--workers", workers, "--connections", connections];
        let few =
            ["tune", "--exhaustive", "--budget", "40", "--events", "2000", "--report", "json"];
        let sizes = ["--batch-rows", "300", "--epoch-records", "500"];
        world.call(&[&few[..], &lists, &sizes].concat())
    };
    let ended = tune("1,2", "1,8");
    let report: Value = serde_json::from_str(ended.success()).unwrap();
    assert!(ended.err.contains("database.connections = 8 is left out"), "{}", ended.err);
    assert!(!ended.err.contains("run.workers = 2 is left out"), "{}", ended.err);
    assert!(
        ended.err.contains("what is configured is left out: it would take 16"),
        "{}",
        ended.err
    );
    assert_eq!((&report["present"]["connections"], &report["gain"]), (&json!(8), &Value::Null));
    let measured = report["measured"].as_array().unwrap();
    assert!(measured.iter().all(|it| it["connections"] == 1), "{measured:?}");
    let ended = tune("2", "8");
    let text = ended.failure(1);
    assert!(text.contains("the settings need 16 connections, and the database has "), "{text}");
    assert!(text.contains("hint: give it fewer --workers"), "{text}");
    assert_eq!(scratch_tables(&world), 0);
    drop_role(&world, "frugal");
}

#[test]
fn a_tune_that_fails_leaves_no_chart_behind_and_spoils_none() {
    let world = World::new("tune-no-chart");
    tune(&world, &["--chart", "new.svg"]).failure(1);
    assert!(!world.path("new.svg").exists());
    std::fs::write(world.path("old.svg"), "a chart").unwrap();
    tune(&world, &["--chart", "old.svg"]).failure(1);
    assert_eq!(world.file("old.svg"), "a chart");
}

#[test]
fn a_copy_that_another_user_has_left_behind_is_told_with_what_to_do() {
    let mut world = World::new("tune-others");
    world.drafts(["d1"]);
    world.publish([event("d1", "job-1")]);
    let oid = world.database.value("SELECT 'event_drafts'::regclass::oid");
    let name = format!("contentflow_tune_{oid}");
    let role = format!("guest_{:08x}", fastrand::u32(..));
    world.database.sql(&format!(
        "CREATE TABLE {name} (); COMMENT ON TABLE {name} IS
             'contentflow tune: a scratch copy, may be dropped at any time when no tune runs';
         CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE ON event_drafts TO {role};
         GRANT CREATE ON SCHEMA public TO {role}"
    ));
    let ended = tune_as(&mut world, &role);
    let text = ended.failure(1);
    assert!(text.contains(&name) && text.contains("must be owner"), "{text}");
    assert!(text.contains("hint: drop ") && text.contains("as its owner"), "{text}");
}
