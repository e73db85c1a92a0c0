//! Watching a run: the page, the snapshot, the metrics and the health tell what is so, to those who
//! may know, and cost nothing.

use contentflow::generate::Mix;
use serde_json::{Value, json};

use crate::interruptions::mixed;
use crate::world::{Page, World, event, eventually, record};

mod guard;
mod health;
mod metrics;
mod ops;
mod serving;

/// The record counts of a snapshot, in the order of the report's.
fn outcomes(status: &Value) -> [u64; 6] {
    ["read", "applied", "duplicate", "superseded", "skipped", "rejected"]
        .map(|name| status["outcomes"][name].as_u64().unwrap())
}

#[test]
fn the_snapshot_and_the_metrics_say_what_the_report_says_at_the_end() {
    let mut world = World::new("watched");
    world.set("run.retry_backoff_ms", 5);
    let load = world.load(mixed(61, 6_000));
    world.publish([event("ghost", "j1"), record("[]")]);
    let events = load.events() + 2;
    let (running, page) = world.start_watched();
    eventually("all is through", || {
        let [read, outcomes @ ..] = outcomes(&page.status());
        read == events && outcomes.iter().sum::<u64>() == events
    });
    // The broker knows of a commit a moment before we know its answer.
    eventually("all is committed", || {
        let status = page.status();
        let parts = status["partitions"].as_array().unwrap();
        parts.len() == 4 && parts.iter().all(|part| part["committed"] == part["end"])
    });
    assert_eq!(world.committed(), world.ends());
    let (status, metrics) = (page.status(), page.get("/metrics").body);

    let report = running.stop().report();

    assert_eq!(outcomes(&status), report.outcomes());
    assert_eq!(status["rejected_by_reason"], json!(report.rejected_by_reason));
    let told = |name: &str| status["outcomes"][name].as_u64().unwrap();
    assert_eq!((told("deletes"), told("keys_deleted")), (report.deletes, report.keys_deleted));
    assert_eq!((&status["state"], &status["ready"]), (&json!("running"), &json!(true)));
    assert_eq!((&status["topic"], &status["group"]), (&json!(world.topic()), &json!(world.name)));
    for part in status["partitions"].as_array().unwrap() {
        let number = i32::try_from(part["partition"].as_i64().unwrap()).unwrap();
        let end = world.ends()[&number];
        assert_eq!(
            ["position", "committed", "end", "lag"].map(|name| part[name].as_i64().unwrap()),
            [end, end, end, 0]
        );
    }
    let value = |series: &str| -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series}\n{metrics}")).parse().unwrap()
    };
    assert_eq!(value("contentflow_records_read_total"), report.read);
    for (outcome, count) in ["applied", "duplicate", "superseded", "skipped", "rejected"]
        .into_iter()
        .zip(&report.outcomes()[1..])
    {
        let series = format!("contentflow_records_total{{outcome=\"{outcome}\"}}");
        assert_eq!(value(&series), *count, "{outcome}");
    }
    for (reason, count) in &report.rejected_by_reason {
        let series = format!("contentflow_records_rejected_total{{reason=\"{reason}\"}}");
        assert_eq!(value(&series), *count, "{reason}");
    }
    // What reached its row has a latency; each dead letter was in a batch; and timely's log knows
    // each record, too.
    let [_, applied, duplicate, superseded, skipped, rejected] = report.outcomes();
    let settled = applied + duplicate + superseded;
    assert_eq!(value("contentflow_end_to_end_latency_seconds_count"), settled);
    let sum = |stage: &str| -> u64 {
        let of = |worker| {
            format!(
                "contentflow_worker_stage_records_total{{worker=\"{worker}\",stage=\"{stage}\"}}"
            )
        };
        (0..2).map(|worker| value(&of(worker))).sum()
    };
    assert_eq!(sum("decode"), report.read);
    // A draft's events share a key, those of one batch even a DEL.
    assert!((report.deletes..=settled).contains(&sum("invalidate")), "{}", sum("invalidate"));
    let taken = |effect: &str| {
        value(&format!("contentflow_effect_batch_records_sum{{effect=\"{effect}\"}}"))
    };
    assert_eq!(["write", "invalidate"].map(sum), ["write", "invalidate"].map(taken));
    assert_eq!(sum("dead-letter"), rejected);
    let unknown = report.rejected_by_reason["unknown-draft"];
    assert_eq!(sum("dedupe"), report.read - skipped - (rejected - unknown));
    assert!(value("contentflow_effect_duration_seconds_count{effect=\"write\"}") > 0);
    assert_eq!(taken("dead-letter"), rejected);
}

#[test]
fn a_dead_letter_is_shown_with_its_reason_and_place_and_none_of_its_payload() {
    let world = World::new("letters");
    let hostile = "<img src=x onerror=alert(1)>";
    world.publish([record(format!("{{\"jobId\": \"{hostile}\", \"secret-payload\": 1}}")).on(3)]);
    let (running, page) = world.start_watched();
    eventually("it is shown", || page.status()["dead_letters"] != json!([]));
    let status = page.status();
    let letter = &status["dead_letters"][0];
    assert_eq!(
        ["reason", "stage", "partition", "offset"].map(|name| letter[name].clone()),
        [json!("missing-field"), json!("accept"), json!(3), json!(0)]
    );
    assert!(letter["message"].as_str().unwrap().contains("eventDraftId"), "{letter}");
    assert!(letter["at_ms"].as_u64().unwrap() > 1_600_000_000_000);
    for path in ["/status.json", "/metrics"] {
        let body = page.get(path).body;
        assert!(!body.contains("secret-payload") && !body.contains("onerror"), "{body}");
    }
    running.stop().success();
}

#[test]
fn under_load_the_stages_move_and_the_one_that_limits_is_named_with_what_to_change() {
    let mut world = World::new("limits");
    world.set("run.epoch_records", 500);
    world.set("run.workers", 2);
    world.slow_down(60);
    let load = world.load(Mix { events: 20_000, drafts: 20_000, ..Mix::default() });
    let (running, page) = world.start_watched();
    let limited = page.events().find(|status| {
        let limit = &status["limit"];
        limit["stage"] == "database" && limit["busy"].as_f64() > Some(0.75)
    });
    let status = limited.unwrap();
    println!("{status:#}");
    let limit = &status["limit"];
    assert_eq!(limit["node"], "write");
    let words = limit["words"].as_str().unwrap();
    assert!(
        words.starts_with("The limit: database. The 2 connections to it are at work"),
        "{words}"
    );
    assert!(limit["advice"].as_str().unwrap().contains("more connections"), "{limit}");

    let stages = status["stages"].as_array().unwrap();
    let names: Vec<&str> = stages.iter().map(|it| it["name"].as_str().unwrap()).collect();
    let journey =
        ["source", "decode", "dedupe", "latest", "write", "invalidate", "dead-letter", "commit"];
    assert_eq!(names, journey);
    for stage in stages {
        let (name, busy) = (stage["name"].as_str().unwrap(), &stage["busy"]);
        assert!(stage["records_per_s"].as_f64().unwrap() >= 0.0, "{stage}");
        assert_eq!(busy.is_null(), name == "commit", "{stage}");
        assert!(busy.is_null() || (0.0..=1.0).contains(&busy.as_f64().unwrap()), "{stage}");
        let on_workers = ["decode", "dedupe", "latest"].contains(&name);
        let workers = stage["workers"].as_array().map_or(0, Vec::len);
        assert_eq!(workers, if on_workers { 2 } else { 0 }, "{stage}");
    }
    let moving = |name: &str| {
        let place = journey.iter().position(|it| *it == name).unwrap();
        stages[place]["records_per_s"].as_f64().unwrap() > 0.0
    };
    assert!(
        ["dedupe", "latest", "write", "invalidate", "commit"].into_iter().all(moving),
        "{status:#}"
    );
    let epochs = &status["epochs"];
    assert!(epochs["in_flight"].as_u64() <= epochs["limit"].as_u64(), "{epochs}");
    assert_eq!(epochs["limit"], 4, "the default");
    assert!(
        epochs["records_in_flight"].as_u64() > Some(0)
            && epochs["oldest_age_s"].as_f64() > Some(0.0)
    );
    let workers = status["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2);
    for worker in workers {
        let stages = worker["stages"].as_object().unwrap().values().map(|it| it.as_f64().unwrap());
        // Each is rounded by itself.
        assert!(stages.sum::<f64>() <= worker["busy"].as_f64().unwrap() + 0.01, "{worker}");
    }

    world.speed_up();
    eventually("all is through", || world.committed() == world.ends());
    assert_history(&page);
    assert_eq!(running.stop().report().read, load.events());
}

/// Once there is a point of the history, and all is quiet.
fn assert_history(page: &Page) {
    let history = |status: &Value| status["history"].clone();
    let later = page.events().find(|it| {
        it["limit"]["words"].as_str().unwrap().starts_with("Nothing limits")
            && history(it)["records_per_s"]
                .as_array()
                .unwrap()
                .iter()
                .any(|rate| rate.as_f64() > Some(0.0))
    });
    let history = history(&later.unwrap());
    assert_eq!(history["step_s"], 5);
    let points = ["records_per_s", "latency_p50_ms", "latency_p99_ms"]
        .map(|name| history[name].as_array().unwrap().clone());
    assert!(points.iter().all(|it| it.len() == points[0].len()), "{history}");
    assert!(points[1].iter().zip(&points[2]).all(|(half, most)| half.as_f64() <= most.as_f64()));
    assert!(points[1].iter().any(Value::is_number), "{history}");
}
