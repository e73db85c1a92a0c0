//! Headers that no client library would send.

use dataflows::reject::Reason;

use crate::world::{RawRecord, World, body, event, images, produce_raw};

#[test]
fn g_a_header_name_that_is_not_utf8_costs_only_its_record() {
    let world = World::new("header-name");
    world.drafts(["d0", "d1", "d2"]);
    let value = body("d1", "job-1").to_string();
    let headers: [(&[u8], &[u8]); 3] =
        [(b"eventType", b"ContentCreated"), (b"\xff\xfe", b"lost"), (b"own", b"\xff")];
    let record = RawRecord {
        key: b"d1",
        value: value.as_bytes(),
        timestamp_ms: 1_500_000_000_000,
        headers: &headers,
    };
    world.publish([event("d0", "job-0").on(0)]);
    produce_raw(world.topic(), 0, &record);
    // Of another type: it is skipped, whatever else is wrong with it.
    let other = [(headers[1].0, headers[1].1), (b"ce_type".as_slice(), b"Other".as_slice())];
    produce_raw(world.topic(), 0, &RawRecord { headers: &other, ..record });
    world.publish([event("d2", "job-2").on(0)]);

    let report = world.run_until_caught_up();

    assert_eq!(report.outcomes(), [4, 2, 0, 0, 1, 1]);
    assert_eq!(world.rejects(), [((0, 1), Reason::NotUtf8.code().to_owned())].into());
    let [letter] = <[_; 1]>::try_from(world.dead_letters()).unwrap();
    assert_eq!(letter.key.as_deref(), Some(b"d1".as_slice()));
    assert_eq!(letter.value.as_deref(), Some(value.as_bytes()));
    let message = letter.header("dlq.message").unwrap();
    assert!(message.contains("header 2") && message.contains("not carried"), "{message}");
    // All that can be carried.
    let carried = [("eventType", b"ContentCreated".as_slice()), ("own", b"\xff")];
    let carried = carried.map(|(name, value)| (name.to_owned(), Some(value.to_vec())));
    assert_eq!(letter.own().headers, carried);
    assert!(world.row("d1").is_untouched());
    assert_eq!(world.committed(), world.ends());

    // Published again from its dead letter it has lost the header, and nothing is wrong with it any
    // more.
    world.call(&["dlq", "replay", "--all"]).success();
    assert_eq!(world.run_until_caught_up().outcomes(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(world.row("d1").images(), &images("job-1"));
}

#[test]
fn g_a_dead_letter_with_a_header_name_that_is_not_utf8_can_be_listed_and_shown() {
    let world = World::new("header-letter");
    let headers: [(&[u8], &[u8]); 6] = [
        (b"\xff", b"x"),
        (b"dlq.reason", b"not-json"),
        (b"dlq.topic", world.topic().as_bytes()),
        (b"dlq.partition", b"0"),
        (b"dlq.offset", b"0"),
        (b"dlq.timestamp", b"1500000000000"),
    ];
    let record = RawRecord { key: b"", value: b"x", timestamp_ms: 1, headers: &headers };
    produce_raw(world.dead_letter_topic(), 0, &record);

    assert!(world.call(&["dlq", "list"]).success().contains("not-json"));
    let shown = world.call(&["dlq", "show", "0:0"]);
    assert!(shown.success().contains("header 1: (its name is not UTF-8)"), "{shown:?}");
    world.call(&["dlq", "replay", "--all"]).success();
    let replayed = world.records().pop().unwrap();
    assert_eq!(replayed.value.as_deref(), Some(b"x".as_slice()));
}
