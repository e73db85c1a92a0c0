use dataflows::reject::Stage;
use rdkafka::message::Headers;

use super::*;

type Own<'a> = &'a [(&'a str, Option<&'a [u8]>)];

fn letter<'a>(
    value: Option<&'a [u8]>,
    headers: Own<'a>,
) -> DeadLetter<'a, impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone> {
    DeadLetter {
        reason: Reason::BadUrl,
        message: "imageUrls.fancy is not an absolute URL",
        topic: "event-topic",
        partition: 3,
        offset: 42,
        timestamp_ms: 1_700_000_000_000,
        attempts: 1,
        stage: Stage::Accept.name(),
        key: Some(b"draft-1"),
        value,
        headers: headers.iter().copied(),
    }
}

fn pairs(headers: &OwnedHeaders) -> Vec<(String, Option<Vec<u8>>)> {
    headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
}

fn text(headers: &OwnedHeaders, name: &str) -> String {
    let found: Vec<_> = pairs(headers).into_iter().filter(|(key, _)| key == name).collect();
    assert_eq!(found.len(), 1, "{name} stands once");
    String::from_utf8(found[0].1.clone().unwrap()).unwrap()
}

#[test]
fn the_records_own_headers_come_first_and_unchanged() {
    let own: Own<'_> = &[
        ("eventType", Some(b"ContentCreated")),
        ("empty", Some(b"")),
        ("null", None),
        ("twice", Some(b"\xff\x00")),
        ("twice", Some(b"2")),
        ("dlq.unknown", Some(b"somebody else's")),
    ];
    let headers = letter(Some(b"{}"), own).headers();
    let expected: Vec<_> =
        own.iter().map(|(key, value)| ((*key).to_owned(), value.map(<[u8]>::to_vec))).collect();
    assert_eq!(pairs(&headers)[..own.len()], expected);
    assert_eq!(pairs(&headers).len(), own.len() + 9);
    assert_eq!(text(&headers, "dlq.reason"), "bad-url");
    assert_eq!(text(&headers, "dlq.message"), "imageUrls.fancy is not an absolute URL");
    assert_eq!(text(&headers, "dlq.topic"), "event-topic");
    assert_eq!(text(&headers, "dlq.partition"), "3");
    assert_eq!(text(&headers, "dlq.offset"), "42");
    assert_eq!(text(&headers, "dlq.timestamp"), "1700000000000");
    assert_eq!(text(&headers, "dlq.attempts"), "1");
    assert_eq!(text(&headers, "dlq.stage"), "accept");
    assert_eq!(text(&headers, "dlq.replays"), "0");
}

#[test]
fn a_replayed_record_keeps_its_first_timestamp_and_its_count_of_replays() {
    let own: Own<'_> = &[
        ("dlq.reason", Some(b"unknown-draft")),
        ("a", Some(b"1")),
        ("dlq.replays", Some(b"2")),
        ("dlq.timestamp", Some(b"1600000000000")),
    ];
    let headers = letter(None, own).headers();
    assert_eq!(pairs(&headers)[0].0, "a");
    assert_eq!(text(&headers, "dlq.reason"), "bad-url");
    assert_eq!(text(&headers, "dlq.replays"), "2");
    assert_eq!(text(&headers, "dlq.timestamp"), "1600000000000");
}

#[test]
fn forged_counts_are_not_believed() {
    let own: Own<'_> = &[("dlq.replays", Some(b"-1")), ("dlq.timestamp", Some(b"\xff"))];
    let headers = letter(None, own).headers();
    assert_eq!(text(&headers, "dlq.replays"), "0");
    assert_eq!(text(&headers, "dlq.timestamp"), "1700000000000");
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let message = "ä".repeat(600);
    let long = DeadLetter { message: &format!("x{message}"), ..letter(None, &[]) };
    assert_eq!(text(&long.headers(), "dlq.message").len(), 1023);
}

#[test]
fn a_reference_says_where_the_record_is_and_how_to_recognise_it() {
    let value = "ä".repeat(600_000);
    let own: Own<'_> = &[("large", Some(value.as_bytes()))];
    let letter = letter(Some(value.as_bytes()), own);
    let reference = letter.reference();
    assert_eq!(reference.key, Some(b"draft-1".as_slice()));
    assert_eq!(text(&reference.headers, "dlq.reference"), "true");
    assert_eq!(text(&reference.headers, "dlq.reason"), "bad-url");
    assert_eq!(pairs(&reference.headers).len(), 10);
    let json: serde_json::Value = serde_json::from_slice(&reference.value).unwrap();
    assert_eq!(json["topic"], "event-topic");
    assert_eq!((json["partition"].as_i64(), json["offset"].as_i64()), (Some(3), Some(42)));
    assert_eq!(json["size"], 1_200_000);
    assert_eq!(json["sha256"], hex(&Sha256::digest(value.as_bytes())));
    assert_eq!(json["head"].as_str().unwrap(), "ä".repeat(32 * 1024));
    assert!(reference.value.len() < 70_000);
}

#[test]
fn the_head_is_text_where_it_is_text_even_when_cut_through_a_character() {
    let (head, encoding) = super::head(format!("x{}", "ä".repeat(40_000)).as_bytes());
    assert_eq!((head.len(), encoding), (64 * 1024 - 1, "utf-8"));
    assert_eq!(super::head(b"\xffab"), (String::from("ff6162"), "hex"));
    // What ends in the middle of a character by itself is not text.
    assert_eq!(super::head(b"a\xc3"), (String::from("61c3"), "hex"));
}

#[test]
fn a_large_key_and_a_null_value_are_left_out_of_a_reference() {
    let key = vec![b'k'; 1_100_000];
    let reference = DeadLetter { key: Some(&key), ..letter(None, &[]) }.reference();
    assert_eq!(reference.key, None);
    let json: serde_json::Value = serde_json::from_slice(&reference.value).unwrap();
    assert!(json["sha256"].is_null() && json["size"].is_null());
}

#[test]
fn a_place_is_read_as_it_is_written() {
    assert_eq!("3:42".parse(), Ok(Place { partition: 3, offset: 42 }));
    assert_eq!(Place { partition: 3, offset: 42 }.to_string(), "3:42");
    for wrong in ["", "3", "3:", ":4", "-1:4", "3:-4", "3:4:5", "a:b"] {
        assert!(wrong.parse::<Place>().is_err(), "{wrong}");
    }
}
