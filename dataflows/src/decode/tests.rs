//! Records as they might come, and what becomes of each.

mod fields;
mod json;
mod properties;
mod types;

use crate::decode::{Decoded, decode};
use crate::record::{Chunk, RawRecord};
use crate::reject::Fault;
use crate::validate::DraftIdType;

const TEXT: DraftIdType = DraftIdType::Text { max_chars: None };
const IMAGES: &str =
    r#"{"simple":"https://cdn/s.png","fancy":"https://cdn/f.png","trendy":"https://cdn/t.png"}"#;
const FIELDS: &str = r#""jobId":"job-1","eventDraftId":"draft-1","imageUrls":{"simple":"https://cdn/s.png","fancy":"https://cdn/f.png","trendy":"https://cdn/t.png"}"#;

/// What became of a record, free of the chunk.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Event { job_id: String, draft_id: String, urls: [String; 3] },
    Skipped,
    Rejected(Fault),
}

type Headers<'a> = &'a [(&'a str, Option<&'a [u8]>)];

fn outcome(value: Option<&[u8]>, headers: Headers<'_>, draft_ids: DraftIdType) -> Outcome {
    let mut chunk = Chunk::default();
    let record = RawRecord { value, ..RawRecord::default() };
    chunk.push(record, headers.iter().copied());
    match decode(chunk.record(0), draft_ids) {
        Decoded::Event(event) => Outcome::Event {
            job_id: event.job_id.into_owned(),
            draft_id: event.draft_id.into_owned(),
            urls: event.urls.map(String::from),
        },
        Decoded::Skipped => Outcome::Skipped,
        Decoded::Rejected(fault) => Outcome::Rejected(fault),
    }
}

/// In a word: `event`, `skipped`, or the code of the rejection.
fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Event { .. } => "event",
        Outcome::Skipped => "skipped",
        Outcome::Rejected(fault) => fault.reason.code(),
    }
}

fn check_with(value: Option<&[u8]>, headers: Headers<'_>, expected: &str) {
    let outcome = outcome(value, headers, TEXT);
    let shown = value.map(|value| String::from_utf8_lossy(&value[..value.len().min(300)]));
    assert_eq!(word(&outcome), expected, "{outcome:?} of {shown:?} with {headers:?}");
}

fn check(value: impl AsRef<[u8]>, expected: &str) {
    check_with(Some(value.as_ref()), &[], expected);
}

/// A rejection with its message in full.
fn check_message(value: impl AsRef<[u8]>, code: &str, message: &str) {
    match outcome(Some(value.as_ref()), &[], TEXT) {
        Outcome::Rejected(fault) => {
            assert_eq!((fault.reason.code(), fault.message.as_str()), (code, message))
        }
        other => panic!("{other:?}, expected {code} {message}"),
    }
}

fn check_ids(value: impl AsRef<[u8]>, job_id: &str, draft_id: &str) {
    match outcome(Some(value.as_ref()), &[], TEXT) {
        Outcome::Event { job_id: job, draft_id: draft, .. } => {
            assert_eq!((&*job, &*draft), (job_id, draft_id))
        }
        other => panic!("{other:?}, expected an event of {job_id:?}"),
    }
}

/// An event with these three values, given as JSON.
fn event(job_id: &str, draft_id: &str, images: &str) -> String {
    format!(r#"{{"jobId":{job_id},"eventDraftId":{draft_id},"imageUrls":{images}}}"#)
}

fn with_job_id(job_id: &str) -> String {
    event(job_id, r#""draft-1""#, IMAGES)
}

fn with_images(images: &str) -> String {
    event(r#""job-1""#, r#""draft-1""#, images)
}

/// An event whose fancy URL, given as JSON, is under test.
fn with_fancy(url: &str) -> String {
    with_images(&format!(r#"{{"simple":"http://a/","fancy":{url},"trendy":"http://b/"}}"#))
}

#[test]
fn a_plain_event_is_taken_as_it_is() {
    let value = format!(r#"{{"eventType":"ContentCreated",{FIELDS}}}"#);
    let expected = Outcome::Event {
        job_id: "job-1".into(),
        draft_id: "draft-1".into(),
        urls: ["https://cdn/s.png", "https://cdn/f.png", "https://cdn/t.png"].map(String::from),
    };
    assert_eq!(outcome(Some(value.as_bytes()), &[], TEXT), expected);
}

#[test]
fn a_plain_event_borrows_everything_from_its_chunk() {
    use std::borrow::Cow::Borrowed;
    let mut chunk = Chunk::default();
    let value = event(r#""job-1""#, r#""0e37df36-f698-11e6-8dd4-cb9ced3df976""#, IMAGES);
    let value = Some(value.as_bytes());
    let record = RawRecord { value, ..RawRecord::default() };
    chunk.push(record, []);
    for column in [TEXT, DraftIdType::Text { max_chars: Some(36) }, DraftIdType::Uuid] {
        let Decoded::Event(event) = decode(chunk.record(0), column) else {
            panic!("a plain event")
        };
        assert!(matches!((event.job_id, event.draft_id), (Borrowed(_), Borrowed(_))), "{column:?}");
        assert!(event.urls.iter().all(|url| matches!(url, Borrowed(_))));
    }
}
