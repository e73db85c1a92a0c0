//! Dead letters: written, listed, counted, shown and replayed.

use std::time::Duration;

use contentflow::dead_letters::{self, DeadLetter, DlqError, Place, Replayed, Which};
use dataflows::reject::Reason;
use rdkafka::message::{Headers, OwnedHeaders};

use crate::support::{Corner, Record, output};
use crate::world::{delete_topic, eventually, is_gone};

const OLD_MS: i64 = 1_500_000_000_000;

fn header(name: &str, value: Option<&[u8]>) -> (String, Option<Vec<u8>>) {
    (name.to_owned(), value.map(<[u8]>::to_vec))
}

/// The dead letter of a record, as the sink would write it; as a reference if `large`.
fn letter(topic: &str, record: &Record, reason: Reason, large: bool) -> Record {
    let letter = DeadLetter {
        reason,
        message: "what is wrong\u{1b}[2J",
        topic,
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        attempts: 1,
        stage: "accept",
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())),
    };
    let pairs = |headers: &OwnedHeaders| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect()
    };
    let (key, value, headers) = if large {
        let reference = letter.reference();
        (reference.key.map(<[u8]>::to_vec), Some(reference.value), pairs(&reference.headers))
    } else {
        (record.key.clone(), record.value.clone(), pairs(&letter.headers()))
    };
    Record {
        partition: record.partition % 2,
        offset: 0,
        timestamp_ms: OLD_MS + 1,
        key,
        value,
        headers,
    }
}

/// Publishes the records to the topic and their dead letters to theirs.
fn bury(corner: &Corner, records: &[Record], reason: Reason) -> Vec<Record> {
    corner.produce(corner.topic(), records).unwrap();
    let stored = corner.read(corner.topic());
    let letters: Vec<Record> =
        stored.iter().map(|record| letter(corner.topic(), record, reason, false)).collect();
    corner.produce(&corner.config.dead_letters.topic, &letters).unwrap();
    stored
}

fn simple(partition: i32, value: &str) -> Record {
    Record {
        partition,
        timestamp_ms: OLD_MS,
        key: Some(b"draft-1".to_vec()),
        value: Some(value.as_bytes().to_vec()),
        ..Record::default()
    }
}

fn replay(corner: &Corner, which: &Which, again: bool) -> (Replayed, String) {
    let (result, text) = output(|out| dead_letters::replay(&corner.config, which, again, out));
    crate::world::await_transaction(&format!("{}.replay", corner.config.dead_letters.topic));
    (result.unwrap_or_else(|error| panic!("{error}: {text}")), text)
}

fn count(corner: &Corner) -> String {
    let (result, text) = output(|out| dead_letters::count(&corner.config, false, out));
    result.unwrap();
    text.trim().to_owned()
}

#[test]
fn h7_a_replayed_record_is_byte_for_byte_what_was_rejected() {
    let corner = Corner::new("roundtrip", 3);
    let odd_headers = vec![
        header("eventType", Some(b"ContentCreated")),
        header("null", None),
        header("empty", Some(b"")),
        header("twice", Some(b"\xff\x00\xfe")),
        header("twice", Some(b"2")),
    ];
    let records = [
        Record { headers: odd_headers, ..simple(0, "not json \u{1b}[2J") },
        Record { value: None, ..simple(1, "") },
        Record { value: Some(Vec::new()), ..simple(2, "") },
        Record { key: None, value: Some((0..=255).collect()), ..simple(0, "") },
        Record { key: Some(Vec::new()), ..simple(1, "{}") },
        Record { key: Some(b"\xff\x00".to_vec()), timestamp_ms: 1, ..simple(2, "{}") },
        Record { value: Some(vec![b'x'; 1_000_000]), ..simple(2, "") },
    ];
    let stored = bury(&corner, &records, Reason::NotJson);
    // A crash can leave the same letter twice.
    let copy = letter(corner.topic(), &stored[0], Reason::NotJson, false);
    corner.produce(&corner.config.dead_letters.topic, &[copy]).unwrap();
    assert_eq!(count(&corner), "7");

    let (replayed, text) = replay(&corner, &Which::All, false);
    assert_eq!(replayed, Replayed { replayed: 7, ..Replayed::default() }, "{text}");
    let after = corner.read(corner.topic());
    for partition in 0..3 {
        let of = |records: &[Record]| -> Vec<Record> {
            records.iter().filter(|record| record.partition == partition).map(Record::own).collect()
        };
        let (before, after) = (of(&stored), of(&after));
        assert_eq!(after[before.len()..], before, "partition {partition}");
    }
    for record in after.iter().filter(|record| record.header("dlq.replays").is_some()) {
        assert_eq!(record.header("dlq.replays").unwrap(), "1");
        assert_eq!(record.header("dlq.timestamp").unwrap(), record.timestamp_ms.to_string());
        assert_eq!(record.headers.iter().filter(|(name, _)| name.starts_with("dlq.")).count(), 2);
    }

    // What was replayed is remembered, and still counts as a dead letter; the marks do not.
    assert_eq!(
        replay(&corner, &Which::All, false).0,
        Replayed { already: 7, ..Replayed::default() }
    );
    assert_eq!(count(&corner), "7");
    assert_eq!(corner.read(corner.topic()).len(), 14);
    // Somebody may insist.
    assert_eq!(
        replay(&corner, &Which::All, true).0,
        Replayed { replayed: 7, ..Replayed::default() }
    );
    assert_eq!(corner.read(corner.topic()).len(), 21);
    // But no record is replayed more than three times.
    assert_eq!(
        replay(&corner, &Which::All, true).0,
        Replayed { replayed: 7, ..Replayed::default() }
    );
    let after = corner.read(corner.topic());
    for replays in ["1", "2", "3"] {
        let times = |record: &&Record| record.header("dlq.replays").as_deref() == Some(replays);
        assert_eq!(after.iter().filter(times).count(), 7, "{replays}");
    }
    let (refused, text) = replay(&corner, &Which::All, true);
    assert_eq!(refused, Replayed { refused: 7, ..Replayed::default() }, "{text}");
    assert_eq!(corner.read(corner.topic()).len(), 28);
}

#[test]
fn h4_a_record_too_large_for_the_dead_letters_is_fetched_from_its_own_place() {
    let corner = Corner::with_dead_letters("oversize", 1, &[("max.message.bytes", "200000")]);
    let large = Record { value: Some(vec![b'\xff'; 300_000]), ..simple(0, "") };
    let headers = vec![header("own", Some(b"1")), header("null", None)];
    corner
        .produce(corner.topic(), &[simple(0, "a"), Record { headers, ..large }, simple(0, "c")])
        .unwrap();
    let stored = corner.read(corner.topic());
    let whole = letter(corner.topic(), &stored[1], Reason::NotUtf8, false);
    assert!(
        corner.produce(&corner.config.dead_letters.topic, &[whole]).is_err(),
        "it is too large"
    );
    let reference = letter(corner.topic(), &stored[1], Reason::NotUtf8, true);
    // A reference to something else than what stands at its place.
    let other =
        letter(corner.topic(), &Record { offset: 2, ..stored[1].clone() }, Reason::NotUtf8, true);
    let gone =
        letter(corner.topic(), &Record { offset: 77, ..stored[1].clone() }, Reason::NotUtf8, true);
    corner.produce(&corner.config.dead_letters.topic, &[reference, other, gone]).unwrap();

    let (replayed, text) = replay(&corner, &Which::Reason(Reason::NotUtf8), false);
    assert_eq!(replayed, Replayed { replayed: 1, failed: 2, ..Replayed::default() }, "{text}");
    assert!(
        text.contains("the SHA-256 differs") && text.contains("no longer in its topic"),
        "{text}"
    );
    assert!(!replayed.is_success(&Which::All));
    assert_eq!(corner.read(corner.topic())[3].own(), stored[1].own());
}

#[test]
fn a_record_is_replayed_three_times_at_most() {
    let corner = Corner::new("thrice", 1);
    let mut record = simple(0, "{}");
    for life in 0..=3 {
        corner.produce(corner.topic(), &[record.clone()]).unwrap();
        let rejected = corner.read(corner.topic()).pop().unwrap();
        assert_eq!(
            rejected.header("dlq.replays").unwrap_or_default(),
            if life == 0 { String::new() } else { life.to_string() }
        );
        let letter = letter(corner.topic(), &rejected, Reason::UnknownDraft, false);
        corner.produce(&corner.config.dead_letters.topic, &[letter]).unwrap();
        let place = Place {
            partition: 0,
            offset: corner.read(&corner.config.dead_letters.topic).pop().unwrap().offset,
        };
        let (replayed, text) = replay(&corner, &Which::At(place), false);
        if life < 3 {
            assert_eq!(replayed.replayed, 1, "{text}");
            record = corner.read(corner.topic()).pop().unwrap();
            assert_eq!(record.timestamp_ms, OLD_MS);
        } else {
            assert_eq!(replayed, Replayed { refused: 1, ..Replayed::default() }, "{text}");
            assert!(text.contains("replayed 3 times"), "{text}");
            assert!(!replayed.is_success(&Which::At(place)));
            assert!(replayed.is_success(&Which::All));
        }
    }
}

#[test]
fn the_first_timestamp_survives_whatever_the_topic_makes_of_it() {
    let corner = Corner::new("timestamps", 1);
    let stamping = format!("{}-stamping", corner.topic());
    corner.create_topic(&stamping, 1, &[("message.timestamp.type", "LogAppendTime")]);
    let times_ms = [OLD_MS, 0, -1];
    let rejected = |timestamp_ms: i64, topic: &str| {
        let record = Record { timestamp_ms, offset: timestamp_ms.abs(), ..simple(0, "x") };
        letter(topic, &record, Reason::NotJson, false)
    };
    for topic in [corner.topic(), &stamping] {
        let letters = times_ms.map(|timestamp_ms| rejected(timestamp_ms, topic));
        corner.produce(&corner.config.dead_letters.topic, &letters).unwrap();
    }
    let (replayed, text) = replay(&corner, &Which::All, false);
    assert_eq!(replayed, Replayed { replayed: 6, ..Replayed::default() }, "{text}");
    let headers = |records: &[Record]| -> Vec<String> {
        records.iter().map(|record| record.header("dlq.timestamp").unwrap()).collect()
    };
    let (plain, stamped) = (corner.read(corner.topic()), corner.read(&stamping));
    assert_eq!(headers(&plain), times_ms.map(|time| time.to_string()));
    assert_eq!(headers(&stamped), times_ms.map(|time| time.to_string()));
    let stored: Vec<i64> = plain.iter().map(|record| record.timestamp_ms).collect();
    // The client cannot send a 0: it would take it for now.
    assert_eq!(stored, [OLD_MS, 1, -1]);
}

#[test]
fn what_is_new_is_taken_and_what_is_asked_for() {
    let corner = Corner::new("new", 2);
    bury(&corner, &[simple(0, "a"), simple(1, "b")], Reason::NotJson);
    assert_eq!(replay(&corner, &Which::Reason(Reason::BadUrl), false).0, Replayed::default());
    assert_eq!(replay(&corner, &Which::At(Place { partition: 1, offset: 0 }), false).0.replayed, 1);
    assert_eq!(
        replay(&corner, &Which::All, false).0,
        Replayed { replayed: 1, already: 1, ..Replayed::default() }
    );
    let missing = Which::At(Place { partition: 1, offset: 1 });
    let (result, _) = output(|out| dead_letters::replay(&corner.config, &missing, false, out));
    assert!(matches!(result, Err(DlqError::NotThere { .. })), "a mark is no letter: {result:?}");
}

#[test]
fn one_that_cannot_be_replayed_does_not_keep_back_the_others() {
    let corner = Corner::new("neighbours", 1);
    let stored = bury(&corner, &[simple(0, "a"), simple(0, "b")], Reason::NotJson);
    let elsewhere = format!("{}-gone", corner.topic());
    let lost = letter(&elsewhere, &stored[0], Reason::NotJson, false);
    // The topic takes only small records: the broker refuses this one inside the transaction.
    let narrow = format!("{}-narrow", corner.topic());
    corner.create_topic(&narrow, 1, &[("max.message.bytes", "1000")]);
    let wide = Record { value: Some(vec![b'w'; 5_000]), ..stored[1].clone() };
    let refused = letter(&narrow, &wide, Reason::NotJson, false);
    corner.produce(&corner.config.dead_letters.topic, &[lost, refused]).unwrap();

    let (replayed, text) = replay(&corner, &Which::All, false);
    assert_eq!(replayed, Replayed { replayed: 2, failed: 2, ..Replayed::default() }, "{text}");
    assert!(text.contains("does not exist") && text.contains("size"), "{text}");
    assert_eq!(corner.read(corner.topic()).len(), 4);
    let again = replay(&corner, &Which::All, false).0;
    assert_eq!(again, Replayed { already: 2, failed: 2, ..Replayed::default() });
}

#[test]
fn a_topic_made_again_has_new_records_at_the_old_offsets() {
    let corner = Corner::new("recreated", 1);
    bury(&corner, &[simple(0, "old")], Reason::NotJson);
    assert_eq!(replay(&corner, &Which::All, false).0.replayed, 1);
    delete_topic(corner.topic());
    eventually("it is gone", || is_gone(corner.topic()));
    corner.create_topic(corner.topic(), 1, &[]);
    bury(&corner, &[Record { timestamp_ms: OLD_MS + 5, ..simple(0, "new") }], Reason::NotJson);
    assert_eq!(count(&corner), "2");
    let (replayed, _) = replay(&corner, &Which::All, false);
    assert_eq!(replayed, Replayed { replayed: 1, already: 1, ..Replayed::default() });
    assert_eq!(corner.read(corner.topic())[1].value, Some(b"new".to_vec()));
}

/// Each record of the topic stands there as it was first published and as it was replayed.
fn assert_each_replayed_once(corner: &Corner, records: usize) {
    let read = corner.read(corner.topic()).into_iter();
    let mut values: Vec<Vec<u8>> = read.filter_map(|record| record.value).collect();
    values.sort();
    assert_eq!(values.len(), 2 * records);
    assert!(values.chunks(2).all(|pair| pair[0] == pair[1]));
}

fn numbered(records: i32) -> Vec<Record> {
    (0..records).map(|number| simple(number % 2, &format!("record {number}"))).collect()
}

#[test]
fn h7_two_replays_at_once_publish_each_record_once() {
    let corner = Corner::new("twice", 2);
    bury(&corner, &numbered(2_000), Reason::NotJson);
    std::thread::scope(|scope| {
        for pause_ms in [0, 100, 200, 300] {
            let config = &corner.config;
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(pause_ms));
                // All but the last may be told that another one has taken over.
                drop(dead_letters::replay(config, &Which::All, false, &mut Vec::new()));
            });
        }
    });
    replay(&corner, &Which::All, false);
    assert_each_replayed_once(&corner, 2_000);
}

#[test]
fn h7_a_replay_that_is_killed_at_any_moment_is_taken_up_and_repeats_nothing() {
    let corner = Corner::new("killed", 2);
    bury(&corner, &numbered(10_000), Reason::NotJson);
    let replayed = || {
        let letters = corner.read(&corner.config.dead_letters.topic);
        letters.iter().filter(|record| record.header("dlq.replayed").is_some()).count()
    };
    // Each is killed as soon as it is seen to have got further than the one before; one that is
    // quicker than that is done.
    for _ in 0..4 {
        let before = replayed();
        let mut process = corner.contentflow(&["dlq", "replay", "--all"]).spawn().unwrap();
        while replayed() == before && process.try_wait().unwrap().is_none() {}
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let Replayed { replayed: rest, already, refused, failed } =
        replay(&corner, &Which::All, false).0;
    assert_eq!((rest + already, refused, failed), (10_000, 0, 0));
    assert_each_replayed_once(&corner, 10_000);
}

#[test]
fn lists_and_views_show_hostile_bytes_harmlessly() {
    let corner = Corner::new("hostile", 1);
    let record = Record {
        key: Some(b"draft\x1b[2J\r\nfake row".to_vec()),
        headers: vec![header("x\x1b", Some(b"\xff\n")), header("null", None)],
        ..simple(0, "{\"jobId\":\"a\",\"jobId\":\"b\",\"u\":\"\u{202e}x\"}")
    };
    bury(
        &corner,
        &[record, Record { value: Some(b"\x00\x1bbinary".to_vec()), ..simple(0, "") }],
        Reason::DuplicateKey,
    );
    replay(&corner, &Which::At(Place { partition: 0, offset: 0 }), false);

    let (result, table) =
        output(|out| dead_letters::list(&corner.config, &Which::All, 10, false, out));
    result.unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(
        lines[1].starts_with("0:0 ")
            && lines[1].contains(" 0:0 ")
            && lines[1].contains("duplicate-key"),
        "{table}"
    );
    assert!(lines[1].ends_with("0 (replayed)") && lines[2].ends_with(" 0"), "{table}");
    assert!(
        table.contains("what is wrong\\u{1b}[2J") && table.contains("2017-07-14T02:40:00.001Z"),
        "{table}"
    );

    let (_, json) = output(|out| dead_letters::list(&corner.config, &Which::All, 1, true, out));
    let row: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&row["place"], &row["replayed"], &row["reason"]),
        (&"0:1".into(), &false.into(), &"duplicate-key".into())
    );

    let show = |offset| {
        output(|out| dead_letters::show(&corner.config, Place { partition: 0, offset }, out))
    };
    let (_, first) = show(0);
    assert!(first.contains("key: draft\\u{1b}[2J\\r\\nfake row\n"), "{first}");
    assert!(
        first.contains("header x\\u{1b}: \\xff\\n\n") && first.contains("header null: (null)\n"),
        "{first}"
    );
    assert!(
        first.contains("  \"jobId\": \"a\",\n  \"jobId\": \"b\",\n  \"u\": \"\\u202ex\"\n"),
        "{first}"
    );
    assert!(first.contains("header dlq.reason: duplicate-key\n"), "{first}");
    let (_, second) = show(1);
    assert!(second.contains("00000000  00 1b 62 69"), "{second}");
    assert!(
        [&table, &json, &first, &second]
            .iter()
            .all(|text| !text.contains(['\u{1b}', '\r', '\u{202e}']))
    );

    let (_, counts) = output(|out| dead_letters::count(&corner.config, true, out));
    assert_eq!(counts, "reason         count\nduplicate-key  2\n");
    assert!(matches!(show(99).0, Err(DlqError::NotThere { .. })));
}
