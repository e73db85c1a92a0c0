use super::*;
use crate::accept::sort;
use crate::record::RawRecord;
use crate::reject::Reason;
use crate::validate::DraftIdType;

/// An event at `(partition, offset)`, stamped `timestamp_ms`. Its images tell its job.
pub(crate) fn change(
    (partition, offset): (i32, i64),
    timestamp_ms: i64,
    job: &str,
    draft: &str,
) -> Change {
    let stamped_by_topic = false;
    change_of((partition, offset, timestamp_ms, stamped_by_topic), job, draft, &[])
}

fn change_of(
    (partition, offset, timestamp_ms, stamped_by_topic): (i32, i64, i64, bool),
    job: &str,
    draft: &str,
    headers: &[(&str, &[u8])],
) -> Change {
    let value = format!(
        r#"{{"jobId":"{job}","eventDraftId":"{draft}","imageUrls":{{"trendy":"http://t/{job}","simple":"http://s","fancy":"http://f"}}}}"#
    );
    let value = Some(value.as_bytes());
    let key: Option<&[u8]> = Some(draft.as_bytes());
    let record = RawRecord { partition, offset, timestamp_ms, stamped_by_topic, key, value };
    let mut chunk = Chunk::default();
    // Never the first of its chunk: an index mixed up would show, or a place.
    chunk.push(RawRecord { value: None, key: Some(b"another's"), ..record }, []);
    chunk.push(record, headers.iter().map(|(name, value)| (*name, Some(*value))));
    let mut sorted = sort(chunk, DraftIdType::Text { max_chars: None });
    sorted.changes.pop().expect("the event is well-formed")
}

/// What the stages see of an event.
fn told(change: &Change) -> impl PartialEq + std::fmt::Debug + use<> {
    let ids = [change.job_id(), change.draft_id()].map(str::to_owned);
    let hashes = [change.job_hash(), change.draft_hash()];
    let kept = [change.has_images(), change.has_record()];
    (ids, hashes, kept, change.images(), change.position(), change.replayed())
}

#[test]
fn an_event_that_is_moved_out_of_its_chunk_is_the_same_and_lets_go_of_it() {
    let headers: [(&str, &[u8]); 2] = [("eventType", b"ContentCreated"), (REPLAYS, b"1")];
    let before = change_of((3, 7, 5, true), "job", "draft", &headers);
    let chunk = Arc::downgrade(&before.arena);
    let mut after = before.clone();
    let bytes = after.move_out();
    let record = |change: &Change| {
        let record = change.record().unwrap();
        let [key, value] = [record.key(), record.value()].map(|it| it.map(<[u8]>::to_vec));
        let headers: Vec<_> = record
            .headers()
            .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
            .collect();
        (
            record.partition(),
            record.offset(),
            record.timestamp_ms(),
            record.stamped_by_topic(),
            key,
            value,
            headers,
        )
    };
    assert_eq!(told(&after), told(&before));
    assert_eq!(record(&after), record(&before));
    assert!(bytes > record(&after).5.unwrap().len());
    drop(before);
    assert!(chunk.upgrade().is_none(), "nothing keeps the chunk");
}

/// A batch of a replay has thousands of events, and one of them may be held for hours.
#[test]
fn an_event_of_a_replay_that_is_moved_out_is_the_same_and_lets_go_of_its_batch() {
    let at = |offset| Position { timestamp_ms: 5, offset, partition: 3 };
    let images = change((3, 2), 5, "newest", "draft").images();
    let mut husks = Husks::with_capacity(2, 0);
    husks.begin("draft", hash("draft"), at(2), &images);
    husks.push(at(1), "older", true);
    husks.push(at(2), "newest", false);
    let before: Vec<Change> = husks.finish().collect();
    assert_eq!(before[1].images(), images);
    let batch = Arc::downgrade(&before[0].arena);
    let mut after = before.clone();
    for (after, before) in after.iter_mut().zip(&before) {
        let bytes = after.move_out();
        assert!(bytes >= "draftolder".len(), "{bytes}");
        assert_eq!(told(after), told(before));
        let refused = after.clone().refuse(Fault::new(Reason::UnknownDraft, "no"), 1);
        let (offset, value) = (refused.record().offset(), refused.record().value());
        assert_eq!((offset, value), (before.position().offset, None));
    }
    drop(before);
    assert!(batch.upgrade().is_none(), "nothing keeps the batch");
}

#[test]
fn urls_are_the_same_whether_they_stand_in_the_record_as_they_are_or_had_to_be_unescaped() {
    let urls = ["http://s/1", "https://f.example/22", "http://t/333"];
    let images =
        format!(r#"{{"simple":"{}","fancy":"{}","trendy":"{}"}}"#, urls[0], urls[1], urls[2]);
    for escaped in [&[][..], &[0], &[1, 2], &[0, 1, 2]] {
        let written = |url: usize| {
            if escaped.contains(&url) {
                urls[url].replace('/', r"\/")
            } else {
                urls[url].to_owned()
            }
        };
        let value = format!(
            r#"{{"imageUrls":{{"fancy":"{}","trendy":"{}","simple":"{}"}},"eventDraftId":"d","jobId":"j"}}"#,
            written(1),
            written(2),
            written(0),
        );
        let mut chunk = Chunk::default();
        chunk.push(RawRecord { value: Some(b"before it"), ..RawRecord::default() }, []);
        chunk.push(RawRecord { value: Some(value.as_bytes()), ..RawRecord::default() }, []);
        let sorted = sort(chunk, DraftIdType::Text { max_chars: None });
        let [change] = &sorted.changes[..] else { panic!("one event: {value}") };
        assert_eq!(change.found().images.in_record, escaped.is_empty());
        assert_eq!(change.urls(), urls.map(str::as_bytes));
        assert_eq!(change.images(), images);
        let mut moved = change.clone();
        moved.move_out();
        assert_eq!(moved.urls(), urls.map(str::as_bytes));
    }
}

fn timestamp(stamped_by_topic: bool, headers: &[(&str, &[u8])]) -> i64 {
    change_of((0, 0, 9, stamped_by_topic), "j", "d", headers).position().timestamp_ms
}

#[test]
fn an_event_keeps_its_texts_and_its_place() {
    let change = change((3, 7), 11, "j", "d");
    assert_eq!((change.job_id(), change.draft_id()), ("j", "d"));
    assert_eq!(
        change.images(),
        r#"{"simple":"http://s","fancy":"http://f","trendy":"http://t/j"}"#
    );
    assert_eq!(change.urls(), [&b"http://s"[..], b"http://f", b"http://t/j"]);
    assert_eq!(change.position(), Position { timestamp_ms: 11, offset: 7, partition: 3 });
    assert!(!change.replayed());
}

#[test]
fn the_original_time_counts_only_where_the_topic_stamps_its_own() {
    assert_eq!(timestamp(true, &[(ORIGINAL_TIMESTAMP, b"5")]), 5);
    assert_eq!(timestamp(false, &[(ORIGINAL_TIMESTAMP, b"5")]), 9);
    assert_eq!(timestamp(true, &[]), 9);
    assert_eq!(timestamp(true, &[(ORIGINAL_TIMESTAMP, b"1"), (ORIGINAL_TIMESTAMP, b"5")]), 5);
}

#[test]
fn an_original_time_that_is_none_is_ignored() {
    for nonsense in [&b""[..], b"soon", b"\xff", b"99999999999999999999"] {
        assert_eq!(timestamp(true, &[(ORIGINAL_TIMESTAMP, nonsense)]), 9);
    }
}

#[test]
fn a_replayed_record_is_known_by_its_header() {
    assert!(change_of((0, 0, 0, false), "j", "d", &[(REPLAYS, b"1")]).replayed());
}

#[test]
fn a_refused_event_becomes_its_own_record_again() {
    let rejected = change((3, 7), 11, "j", "d").refuse(Fault::new(Reason::UnknownDraft, "no"), 4);
    assert_eq!((rejected.record().partition(), rejected.record().offset()), (3, 7));
    assert_eq!(
        (rejected.stage.name(), rejected.attempts, rejected.timestamp_ms()),
        ("write", 4, 11)
    );
}

#[test]
fn newer_is_the_later_time_then_the_larger_offset_then_the_larger_partition() {
    let in_order = [((9, 9), 1), ((0, 1), 2), ((1, 1), 2), ((0, 2), 2)];
    let positions =
        in_order.map(|(at, timestamp_ms)| change(at, timestamp_ms, "j", "d").position());
    assert!(positions.is_sorted_by(|a, b| a < b));
}
