//! Poison: each alone, and each inside a batch of 499 good events. One dead letter, and the others
//! do not notice.

use std::collections::BTreeMap;

use serde_json::json;

use crate::rejects::bad_records;
use crate::world::{Record, World, body, event, images, record};

use super::stores::single;

/// What a producer can send that no event is, with the code of its dead letter.
fn poisons() -> Vec<(&'static str, Record)> {
    let good = body("d1", "job-1").to_string();
    let with = |more: &[u8]| record([b"{", more, b",", &good.as_bytes()[1..]].concat());
    let instead = |from: &str, to: &str| record(good.replacen(from, to, 1));
    let url = |url: &str| instead("https://cdn.example.com/job-1/fancy.png", url);
    let digits = "9".repeat(256);
    let mut poisons = bad_records();
    poisons.extend([
        // In fields that nobody looks at.
        ("not-utf8", with(b"\"note\":\"\xff\"")),
        ("not-json", with(br#""note":"\ud800""#)),
        ("not-json", with(b"\"note\":\"a\nb\"")),
        ("not-json", with(b"\"note\":NaN")),
        ("not-json", with(b"\"note\":01")),
        ("not-json", record(&good.as_bytes()[..good.len() - 1])),
        ("not-json", record(format!("{good}\0"))),
        ("not-json", record(good.replace('"', "'"))),
        // A list of the fields is no object, nor is anything else.
        ("not-an-object", record(json!(["job-1", "d1", images("job-1")]).to_string())),
        ("not-an-object", record("null")),
        ("not-an-object", record("7")),
        ("duplicate-key", with(br#""eventDraftId":"d2""#)),
        ("duplicate-key", with(br#""imageUrls":{}"#)),
        ("wrong-type", instead("\"job-1\"", "[\"job-1\"]")),
        ("wrong-type", instead("\"d1\"", "{}")),
        ("id-too-long", instead("\"d1\"", &digits)),
        ("id-control-character", instead("\"d1\"", r#""d1\r\nFLUSHALL\r\n""#)),
        ("id-control-character", instead("\"d1\"", r#""\u001b[2J""#)),
        // What jsonb would refuse, and its whole statement with it.
        ("bad-url", url(r"https://a/\u0000")),
        ("bad-url", url("https://a/b c")),
        ("bad-url", url("https://a:99999/")),
        ("bad-url", url("/relative.png")),
        ("bad-url", url("javascript:alert(1)")),
        ("bad-url", url("https://")),
        // Compressed, it fits into a topic that takes a mebibyte.
        ("value-too-large", record(format!("{{\"x\":\"{}\"}}", "x".repeat(5_000_000)))),
    ]);
    poisons
}

#[test]
fn g_each_poison_among_499_good_events_is_one_dead_letter_and_costs_them_nothing() {
    let mut world = single(World::new("g-among"));
    world.set("run.epoch_records", 500);
    world.set("run.linger_ms", 60_000);
    world.set("run.retries", 0);
    let drafts: Vec<String> = (0..499).map(|number| format!("draft-{number}")).collect();
    world.drafts(&drafts);
    let poisons = poisons();
    let batches = i64::try_from(poisons.len()).unwrap();
    // Each batch is an epoch, and has a newer event for each of the drafts.
    let mut records = Vec::new();
    let mut expected = BTreeMap::new();
    for (batch, (code, poison)) in (0..).zip(poisons) {
        let mut good: Vec<Record> = drafts
            .iter()
            .map(|draft| event(draft, &format!("job-{batch}")).at(batch).on(0))
            .collect();
        let place = usize::try_from(batch * 37 % 500).unwrap();
        good.insert(place, poison.on(0));
        expected.insert((0, batch * 500 + batch * 37 % 500), code.to_owned());
        records.extend(good);
    }
    world.publish(records);

    let report = world.run_until_caught_up();

    let all = u64::try_from(batches).unwrap();
    assert_eq!((report.read, report.rejected, report.duplicate), (500 * all, all, 0));
    // An epoch may take in a record more, and have two events of one draft then.
    assert_eq!(report.applied + report.superseded, 499 * all);
    assert_eq!(world.rejects(), expected);
    let (rows, last) = (world.rows(), format!("job-{}", batches - 1));
    for draft in &drafts {
        assert_eq!(rows[draft].images(), &images(&last), "{draft}");
    }
    assert_eq!(world.cache.keys(), 0);
    assert_eq!(world.committed(), world.ends());
}

#[test]
fn g_each_poison_alone_is_one_dead_letter() {
    let mut world = single(World::new("g-alone"));
    world.set("run.epoch_records", 1);
    world.set("run.retries", 0);
    let (codes, poisons): (Vec<_>, Vec<_>) = poisons().into_iter().unzip();
    world.publish(poisons.into_iter().map(|poison| poison.on(0)));

    let report = world.run_until_caught_up();

    let all = u64::try_from(codes.len()).unwrap();
    assert_eq!(report.outcomes(), [all, 0, 0, 0, 0, all]);
    let reasons: Vec<String> = world.rejects().into_values().collect();
    assert_eq!(reasons, codes);
    assert_eq!(world.committed(), world.ends());
}

#[test]
fn g_hostile_job_ids_are_kept_byte_for_byte() {
    let world = single(World::new("g-jobs"));
    world.drafts(["d1"]);
    let hostile = [
        "NULL",
        "null",
        "a,b",
        "{a}",
        "{",
        "}",
        "\"",
        "\\",
        "\\\"",
        "'",
        "''",
        " ",
        "\u{a0}x",
        "a ",
        "ä\u{301}\u{202e}",
    ];
    // A blank one is none.
    let hostile: Vec<&str> = hostile.into_iter().filter(|job| !job.trim().is_empty()).collect();
    let events = || {
        (0..).zip(&hostile).map(|(number, job)| {
            let mut event = body("d1", "job");
            event["jobId"] = json!(job);
            record(event.to_string()).at(number).on(0)
        })
    };
    world.publish(events());
    let count = u64::try_from(hostile.len()).unwrap();
    let first = world.run_until_caught_up();
    assert_eq!((first.read, first.applied + first.superseded), (count, count));
    let newest_first: Vec<&str> = hostile.iter().rev().copied().collect();
    assert_eq!(world.row("d1").jobs(), newest_first);

    // The row knows each of them again.
    world.publish(events());
    assert_eq!(world.run_until_caught_up().outcomes(), [count, 0, count, 0, 0, 0]);
}
