//! Records that are no events: each ends among the dead letters with its code, byte for byte, and
//! can be replayed.

use serde_json::{Value, json};

use crate::world::{Record, World, await_transaction, body, event, images, record};

/// Every code that a producer can bring about where ids are texts, with a record for it.
pub(crate) fn bad_records() -> Vec<(&'static str, Record)> {
    let with = |field: &str, value: Value| {
        let mut event = body("d1", "job-1");
        event[field] = value;
        record(event.to_string())
    };
    let without = |field: &str| {
        let mut event = body("d1", "job-1");
        event.as_object_mut().unwrap().remove(field);
        record(event.to_string())
    };
    let with_image = |style: &str, url: Value| {
        let mut urls = images("job-1");
        urls[style] = url;
        with("imageUrls", urls)
    };
    let good = body("d1", "job-1").to_string();
    let array = json!([
        { "style": "simple", "url": "https://a/1" }, { "style": "simple", "url": "https://a/2" },
        { "style": "fancy", "url": "https://a/3" }, { "style": "trendy", "url": "https://a/4" },
    ]);
    let mut styles = images("job-1");
    styles.as_object_mut().unwrap().remove("trendy");
    let deep = format!("{{\"x\":{}{},{}", "[".repeat(64), "]".repeat(64), &good[1..]);
    vec![
        ("null-value", Record { value: None, ..record("") }),
        ("not-utf8", record(b"{\"jobId\":\"\xff\"}".to_vec())),
        ("not-json", record("")),
        ("not-json", record("rubbish")),
        ("not-json", record(format!("\u{feff}{good}"))),
        ("not-json", record(format!("{good} {good}"))),
        ("not-json", record(good.replace("job-1", "\\ud800"))),
        ("not-an-object", record(format!("[{good}]"))),
        ("missing-field", record("{}")),
        ("missing-field", without("jobId")),
        ("missing-field", without("eventDraftId")),
        ("missing-field", without("imageUrls")),
        ("wrong-type", with("jobId", json!(true))),
        ("wrong-type", with("eventDraftId", json!(1.5))),
        ("wrong-type", with("imageUrls", json!("https://a/"))),
        ("wrong-type", with("eventType", json!(1))),
        ("blank-id", with("jobId", json!(" \t"))),
        ("blank-id", with("eventDraftId", json!(""))),
        ("id-too-long", with("eventDraftId", json!("x".repeat(256)))),
        ("id-control-character", with("eventDraftId", json!("d\u{0}1"))),
        ("missing-style", with("imageUrls", styles)),
        ("unknown-style", with_image("baroque", json!("https://a/"))),
        ("duplicate-style", with("imageUrls", array)),
        ("duplicate-key", record(good.replacen('{', "{\"jobId\":\"job-0\",", 1))),
        ("bad-url", with_image("fancy", json!("ftp://a/"))),
        ("bad-url", with_image("fancy", json!("https:///x"))),
        ("bad-url", with_image("fancy", json!("https://user:secret-in-url@a/"))),
        ("url-too-long", with_image("fancy", json!(format!("https://a/{}", "x".repeat(2_048))))),
        ("too-deep", record(deep)),
        ("unknown-draft", event("ghost", "job-1")),
    ]
}

/// What a producer may put around a value, and a dead letter must keep.
fn odd(record: Record, number: usize) -> Record {
    let record = record.at(i64::try_from(number).unwrap());
    match number % 4 {
        0 => record,
        1 => record.keyed(b"\x00\xff binary".to_vec()).with_null("null").with("", "no name"),
        2 => record.keyed("").with("binary", b"\xff\x00\xfe").with("empty", ""),
        _ => record.keyed("k").with("twice", "1").with("other", "ü").with("twice", "2"),
    }
}

#[test]
fn g_every_reject_is_a_dead_letter_with_its_code_and_byte_for_byte_what_it_was() {
    let mut world = World::new("rejects");
    world.set("run.retry_backoff_ms", 1);
    world.drafts(["d1"]);
    let untouched = world.row("d1");
    let (codes, records): (Vec<_>, Vec<_>) = bad_records()
        .into_iter()
        .enumerate()
        .map(|(number, (code, record))| (code, odd(record, number)))
        .unzip();
    let places = world.publish(records.clone());

    let report = world.run_until_caught_up();

    let total = u64::try_from(records.len()).unwrap();
    assert_eq!(report.outcomes(), [total, 0, 0, 0, 0, total]);
    assert_eq!(world.row("d1"), untouched);
    assert_eq!(world.cached("d1").as_deref(), Some("cached d1"));
    assert_eq!(world.committed(), world.ends());
    let letters = world.dead_letters();
    for ((code, record), (partition, offset)) in codes.iter().zip(&records).zip(&places) {
        let is_its = |letter: &&Record| {
            letter.header("dlq.partition") == Some(&partition.to_string())
                && letter.header("dlq.offset") == Some(&offset.to_string())
        };
        let letter = letters.iter().find(is_its).unwrap_or_else(|| panic!("no letter: {code}"));
        assert_eq!(letter.header("dlq.reason"), Some(*code), "{record:?}");
        let own = letter.own();
        assert_eq!(
            (&own.key, &own.value, &own.headers),
            (&record.key, &record.value, &record.headers)
        );
        let added: Vec<_> =
            letter.headers[own.headers.len()..].iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "dlq.reason",
            "dlq.message",
            "dlq.topic",
            "dlq.partition",
            "dlq.offset",
            "dlq.timestamp",
            "dlq.attempts",
            "dlq.stage",
            "dlq.replays",
        ];
        assert_eq!(added, expected, "behind its own, each once");
        assert_eq!(letter.header("dlq.topic"), Some(world.topic()));
        assert_eq!(letter.header("dlq.timestamp"), Some(record.timestamp_ms.to_string().as_str()));
        assert_eq!(letter.header("dlq.replays"), Some("0"));
        let tried = if *code == "unknown-draft" { ("4", "write") } else { ("0", "accept") };
        assert_eq!(
            (letter.header("dlq.attempts").unwrap(), letter.header("dlq.stage").unwrap()),
            tried
        );
        let message = letter.header("dlq.message").unwrap();
        assert!(!message.is_empty() && message.len() < 300, "{message}");
        assert!(!message.contains("secret-in-url"), "{message}");
    }
    assert_eq!(letters.len(), records.len());
}

#[test]
fn g_a_value_over_a_mebibyte_goes_to_the_dead_letters_by_reference_and_comes_back_whole() {
    let world = World::new("too-large");
    let mut value = body("d1", "job-1");
    // Compressed, a broker takes it.
    value["note"] = json!("x".repeat(1_100_000));
    let large = record(value.to_string()).keyed("d1").with("own", "1").on(1);
    let size = large.value.as_ref().unwrap().len();
    world.publish([large.clone()]);

    assert_eq!(world.run_until_caught_up().outcomes(), [1, 0, 0, 0, 0, 1]);

    let letter = world.dead_letters().remove(0);
    assert_eq!(letter.header("dlq.reason"), Some("value-too-large"));
    assert_eq!(letter.header("dlq.reference"), Some("true"));
    let reference: Value = serde_json::from_slice(&letter.value.unwrap()).unwrap();
    assert_eq!(
        (&reference["topic"], &reference["partition"], &reference["offset"]),
        (&json!(world.topic()), &json!(1), &json!(0))
    );
    assert_eq!(reference["size"], size);
    assert_eq!(reference["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(reference["head"].as_str().unwrap().len(), 65_536);
    assert_eq!(letter.key, large.key);
}

#[test]
fn g_a_large_value_is_a_whole_dead_letter_where_topic_and_client_take_it() {
    let mut world = World::new("large-taken");
    let takes = [("max.message.bytes", "20000000")];
    world.cluster().configure_topic(world.dead_letter_topic(), &takes);
    world.set("kafka.properties.message.max.bytes", 20_000_000);
    let large = record(format!("{{\"note\":\"{}\"}}", "x".repeat(5_000_000))).on(1);
    world.publish([large.clone()]);

    assert_eq!(world.run_until_caught_up().outcomes(), [1, 0, 0, 0, 0, 1]);

    let letter = world.dead_letters().remove(0);
    assert_eq!(letter.header("dlq.reason"), Some("value-too-large"));
    assert_eq!(letter.header("dlq.reference"), None);
    assert!(letter.value == large.value, "byte for byte");
}

#[test]
fn a_dead_letter_can_be_counted_listed_shown_and_replayed_once_its_draft_is_there() {
    let mut world = World::new("round-trip");
    world.set("run.retry_backoff_ms", 1);
    world.drafts(["d1"]);
    let places = world.publish([
        event("late", "job-1").at(1_000).on(0).with("trace", "abc"),
        event("outdated", "old").at(1_000).on(1),
        record("rubbish").on(2),
    ]);
    let original = world.records();
    assert_eq!(world.run_until_caught_up().outcomes(), [3, 0, 0, 0, 0, 3]);

    let ok = |arguments: &[&str]| world.call(arguments).success().to_owned();
    assert_eq!(ok(&["dlq", "count"]), "3\n");
    let by_reason = ok(&["dlq", "count", "--by-reason"]);
    assert_eq!(by_reason, "reason         count\nunknown-draft  2\nnot-json       1\n");
    let listed = ok(&["dlq", "list", "--json", "--reason", "unknown-draft"]);
    let listed: Vec<Value> =
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(listed.len(), 2);
    let late = listed.iter().find(|letter| letter["partition"] == places[0].0).unwrap();
    assert_eq!(
        (&late["attempts"], &late["replays"], &late["replayed"]),
        (&json!(4), &json!(0), &json!(false))
    );
    let shown = ok(&["dlq", "show", late["place"].as_str().unwrap()]);
    assert!(
        shown.contains("header dlq.reason: unknown-draft") && shown.contains("header trace: abc"),
        "{shown}"
    );
    assert!(shown.contains("\"jobId\": \"job-1\""), "{shown}");

    // Meanwhile one of the drafts has got something newer than its dead letter.
    ok(&["draft", "put", "late"]);
    ok(&["draft", "put", "outdated"]);
    world.publish([event("outdated", "new").at(2_000).on(3)]);
    assert_eq!(world.run_until_caught_up().outcomes(), [1, 1, 0, 0, 0, 0]);
    let replayed = ok(&["dlq", "replay", "--reason", "unknown-draft"]);
    assert!(replayed.starts_with("replayed 2, already replayed 0,"), "{replayed}");
    let again = ok(&["dlq", "replay", "--reason", "unknown-draft"]);
    assert!(again.starts_with("replayed 0, already replayed 2,"), "{again}");
    await_transaction(&format!("{}.replay", world.dead_letter_topic()));
    let records = world.records();
    let back: Vec<&Record> =
        records.iter().filter(|record| record.header("dlq.replays").is_some()).collect();
    assert_eq!(
        back.iter().map(|record| record.own()).collect::<Vec<_>>(),
        original[..2].iter().map(Record::own).collect::<Vec<_>>()
    );

    assert_eq!(world.run_until_caught_up().outcomes(), [2, 1, 0, 1, 0, 0]);
    assert_eq!(world.row("late").images(), &images("job-1"));
    assert_eq!(
        world.row("late").columns["content_event_at"],
        "2017-07-14T02:40:01+00:00",
        "its own time"
    );
    assert_eq!(
        (world.row("outdated").images(), world.row("outdated").jobs()),
        (&images("new"), vec!["new", "old"])
    );
    // Behind each replayed record stands the mark of its transaction's end.
    assert_eq!(world.committed(), [(0, 2), (1, 2), (2, 1), (3, 1)].into());
}

#[test]
fn a_record_that_was_replayed_three_times_is_refused_the_fourth() {
    let mut world = World::new("fourth");
    world.set("run.retries", 0);
    world.publish([event("ghost", "job-1").at(1_000).on(0)]);
    for life in 0..=3 {
        assert_eq!(world.run_until_caught_up().outcomes(), [1, 0, 0, 0, 0, 1]);
        let letter = world.dead_letters().pop().unwrap();
        assert_eq!(letter.header("dlq.replays"), Some(life.to_string().as_str()));
        assert_eq!(letter.header("dlq.timestamp"), Some("1500000001000"), "of its first life");
        let answer = world.call(&["dlq", "replay", "--all"]);
        let expected = if life < 3 {
            format!("replayed 1, already replayed {life}, refused after 3 replays 0, failed 0\n")
        } else {
            "replayed 0, already replayed 3, refused after 3 replays 1, failed 0\n".to_owned()
        };
        assert!(answer.success().ends_with(&expected), "{}", answer.out);
        await_transaction(&format!("{}.replay", world.dead_letter_topic()));
    }
    let place = world.call(&["dlq", "list", "--json"]).success().lines().last().map(|line| {
        let letter: Value = serde_json::from_str(line).unwrap();
        letter["place"].as_str().unwrap().to_owned()
    });
    let refused = world.call(&["dlq", "replay", "--offset", &place.unwrap()]);
    refused.failure(1);
    assert!(refused.out.contains("refused, it has been replayed 3 times"), "{}", refused.out);
    assert_eq!(world.records().len(), 4);
}
