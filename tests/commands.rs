//! The command line as people and scripts use it.

use std::io::{BufRead, BufReader};
use std::process::Command;

use crate::world::{Record, World, body, create_topic, delete_topic, images, read, record};

#[test]
fn publish_takes_one_event_from_flags_and_many_from_lines() {
    let world = World::new("publish");
    world.drafts(["d1", "d2", "d3"]);
    let urls = images("job-1");
    let url = |style: &str| urls[style].as_str().unwrap();
    let one = world.call(&[
        "publish",
        "--job-id",
        "job-1",
        "--draft-id",
        "d1",
        "--simple",
        url("simple"),
        "--fancy",
        url("fancy"),
        "--trendy",
        url("trendy"),
    ]);
    assert!(one.success().starts_with("published 1 event,"), "{}", one.out);

    let lines = format!("{}\n\n{}\n", body("d2", "job-2"), body("d3", "job-3"));
    let many = world.call_with_input(&["publish", "-"], &lines);
    assert!(many.success().starts_with("published 2 events"), "{}", many.out);
    let bad = format!("{}\n\n{{\"jobId\": 1}}\n{}\n", body("d2", "job-4"), body("d2", "job-5"));
    let bad = world.call_with_input(&["publish", "--ndjson"], &bad);
    let error = bad.failure(1);
    assert!(
        error.contains("line 3")
            && error.contains("missing-field")
            && error.contains("published 1"),
        "{error}"
    );
    let unfinished = world.call(&["publish", "--job-id", "job-1"]);
    assert!(unfinished.failure(2).contains("--draft-id"));

    let report = world.run_until_caught_up();
    assert_eq!(report.applied, 4 - report.superseded);
    assert_eq!(report.read, 4);
    for (draft, job) in [("d1", "job-1"), ("d2", "job-4"), ("d3", "job-3")] {
        assert_eq!(world.row(draft).images(), &images(job), "{draft}");
    }
}

#[test]
fn generated_events_follow_from_their_seed() {
    let world = World::new("generate");
    let others = ["again", "another-seed"].map(|name| format!("{}-{name}", world.topic()));
    for other in &others {
        create_topic(other, 4, &[]);
    }
    let generate = |topic: &str, seed: &str| {
        let generated = world.call(&[
            "publish",
            "--topic",
            topic,
            "--generate",
            "500",
            "--seed",
            seed,
            "--drafts",
            "50",
            "--duplicates",
            "0.1",
            "--stale",
            "0.1",
            "--bad",
            "0.2",
            "--foreign",
            "0.1",
        ]);
        assert!(generated.success().starts_with("published 500 events"), "{}", generated.out);
        // When they were published is all that differs.
        let own = |record: &Record| Record { timestamp_ms: 0, offset: 0, ..record.clone() };
        let records: Vec<Record> = read(topic).iter().map(own).collect();
        assert_eq!(records.len(), 500);
        records
    };
    let first = generate(world.topic(), "7");
    assert_eq!(generate(&others[0], "7"), first);
    assert_ne!(generate(&others[1], "8"), first);
    for other in &others {
        delete_topic(other);
    }

    let drafts =
        ["publish", "--generate", "100", "--drafts", "40", "--create-drafts", "--seed", "9"];
    world.call(&drafts).success();
    assert_eq!(world.rows().len(), 40);
    let report = world.start(&["run", "--until-caught-up"]).wait();
    assert!(report.success().contains("applied"), "{}", report.out);
    assert!(world.rows_with_images() >= 40);
}

#[test]
fn a_draft_is_created_and_read_through_the_cache_and_listed() {
    let world = World::new("draft");
    let ok = |arguments: &[&str]| world.call(arguments);
    let put = ok(&["draft", "put", "d1", "--data", r#"{"title": "Summer party"}"#]);
    assert_eq!(put.success(), "created d1\n");
    let first = ok(&["draft", "get", "d1"]);
    assert!(first.success().contains("\"title\": \"Summer party\""), "{}", first.out);
    assert!(first.err.contains("from the database, and now in the cache"), "{}", first.err);
    assert!(world.cached("d1").is_some());
    let second = ok(&["draft", "get", "d1"]);
    assert_eq!((second.success(), second.err.trim()), (first.out.as_str(), "from the cache"));

    // The event changes the row and takes the key away: the next reader sees the images.
    world.publish([crate::world::event("d1", "job-1")]);
    world.run_until_caught_up();
    let third = ok(&["draft", "get", "d1"]);
    assert!(third.success().contains("/job-1/fancy.png"), "{}", third.out);
    assert!(third.err.contains("from the database"), "{}", third.err);
    ok(&["draft", "put", "d2"]).success();
    let listed = ok(&["draft", "list", "--limit", "5"]);
    let lines: Vec<&str> = listed.success().lines().collect();
    assert_eq!(lines.len(), 3, "{}", listed.out);
    assert!(lines[1].starts_with("d2  no ") && lines[2].starts_with("d1  yes"), "{}", listed.out);
}

#[test]
fn j2_a_reader_that_has_seen_enough_is_no_error() {
    let world = World::new("head");
    // More than a pipe holds.
    world.publish((0..1_500).map(|number| record(format!("rubbish {number}"))));
    assert_eq!(world.run_until_caught_up().rejected, 1_500);
    let mut child = world.command(&["dlq", "list"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.starts_with("place"), "{line}");
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn help_version_completions_and_the_report_for_people() {
    let world = World::new("help");
    assert!(world.call(&["--help"]).success().contains("contentflow"));
    assert!(world.call(&["--version"]).success().starts_with("contentflow 0."));
    for shell in ["bash", "zsh", "fish"] {
        let script = world.call(&["completions", shell]);
        assert!(script.success().contains("until-caught-up"), "{shell}");
    }
    world.drafts(["d1"]);
    world.publish([crate::world::event("d1", "job-1").on(3), record("rubbish").on(3)]);
    let report = world.call(&["run", "--until-caught-up"]);
    for words in [
        "read                    2",
        "applied                 1",
        "not-json",
        "partition 3    offsets 0 to 1",
    ] {
        assert!(report.success().contains(words), "no {words:?} in:\n{}", report.out);
    }
    let check = world.call(&["check"]);
    for subject in
        ["configuration", "brokers", "dead-letter topic", "columns", "privileges", "cache delete"]
    {
        assert!(check.success().contains(subject), "{}", check.out);
    }
}

/// Under names of its own the allocator would serve the Rust code alone, and take no settings from
/// this variable.
#[test]
fn the_kafka_client_allocates_with_the_allocator_of_the_program() {
    let mut version = Command::new(env!("CARGO_BIN_EXE_contentflow"));
    version.arg("--version").env_clear();
    assert!(version.output().unwrap().status.success());
    let refused = version.env("MALLOC_CONF", "abort_conf:true,no_such_setting:1").output().unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("no_such_setting"), "{said}");
}
