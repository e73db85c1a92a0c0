//! From one record to one event, or the reason why not.
//!
//! This is where the pipeline spends most of its processor time, so a plain record is decoded
//! without an allocation: its ids and URLs are borrowed from the chunk that it was read into.
//!
//! The event type decides before anything else does. Where a header names another type, the value
//! is not even looked at; where the body names one, all that matters of the rest is that it is
//! JSON.

mod images;
mod json;
mod plain;
#[cfg(test)]
mod tests;
mod text;

use std::borrow::Cow;
use std::fmt::Display;

use serde_json::value::RawValue;

use crate::decode::json::{Kind, Members};
use crate::record::RecordView;
use crate::reject::{Fault, Reason};
use crate::validate::{self, DraftIdType};

/// The one event type that is ours.
pub const EVENT_TYPE: &str = "ContentCreated";

/// The headers that may name the event type, the first that is not empty counts: as CloudEvents has
/// it, and plain.
const TYPE_HEADERS: [&str; 2] = ["ce_type", "eventType"];

/// The keys that matter in an envelope, and first among those at the top level.
const KEYS: [&str; 4] = ["jobId", "eventDraftId", "imageUrls", "eventType"];
const TOP_KEYS: [&str; 7] =
    ["jobId", "eventDraftId", "imageUrls", "eventType", "type", "data", "payload"];
const JOB_ID: usize = 0;
const DRAFT_ID: usize = 1;
const IMAGE_URLS: usize = 2;
const TYPE_IN_BODY: usize = 3;
const CLOUD_EVENTS_TYPE: usize = 4;
const ENVELOPES: [usize; 2] = [5, 6];
/// The keys before this one are the fields of the event.
const FIELDS_END: usize = TYPE_IN_BODY;

/// An event that keeps every rule. It borrows from the record's chunk whatever needed no
/// unescaping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentCreated<'a> {
    /// The job that made the images.
    pub job_id: Cow<'a, str>,
    /// The draft that the images are for, as its column spells it.
    pub draft_id: Cow<'a, str>,
    /// The URLs in the order of [`STYLES`](validate::STYLES). They are printable ASCII without
    /// quotes and backslashes, and so may be put into JSON without escaping.
    pub urls: [Cow<'a, str>; 3],
}

/// What a record turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// An event to apply.
    Event(ContentCreated<'a>),
    /// An event of another type.
    Skipped,
    /// Not a valid event, and why.
    Rejected(Fault),
}

/// Decodes one record; `draft_ids` is the type of the column that the draft id is looked up in.
///
/// Where several things are wrong, the first in this order is reported: the JSON, the type, a
/// repeated key, `jobId`, `eventDraftId`, `imageUrls`, the names of the headers.
pub fn decode(record: RecordView<'_>, draft_ids: DraftIdType) -> Decoded<'_> {
    Decoder::new(draft_ids).decode(record)
}

/// Decodes record after record. What their headers say is found out once for all that share them.
#[derive(Debug)]
pub struct Decoder<'a> {
    draft_ids: DraftIdType,
    last: Option<(RecordView<'a>, ByHeaders)>,
}

/// What the headers of a record say.
#[derive(Debug)]
struct ByHeaders {
    event_type: Result<EventType, Fault>,
    /// Which header has a name that cannot be read.
    unreadable: Option<usize>,
}

impl ByHeaders {
    fn of(record: RecordView<'_>) -> ByHeaders {
        ByHeaders { event_type: type_in_headers(record), unreadable: record.unreadable_header() }
    }
}

impl<'a> Decoder<'a> {
    /// A decoder that has not begun.
    pub fn new(draft_ids: DraftIdType) -> Decoder<'a> {
        Decoder { draft_ids, last: None }
    }

    /// [`decode`], of the next record.
    pub fn decode(&mut self, record: RecordView<'a>) -> Decoded<'a> {
        if !self.last.as_ref().is_some_and(|(last, _)| record.shares_headers(last)) {
            self.last = Some((record, ByHeaders::of(record)));
        }
        let (_, by_headers) = self.last.as_ref().expect("there is one by now");
        match event_of(record, by_headers, self.draft_ids) {
            Ok(Some(event)) => Decoded::Event(event),
            Ok(None) => Decoded::Skipped,
            Err(fault) => Decoded::Rejected(fault),
        }
    }
}

/// The event, or `None` for another type.
fn event_of<'a>(
    record: RecordView<'a>,
    by_headers: &ByHeaders,
    draft_ids: DraftIdType,
) -> Result<Option<ContentCreated<'a>>, Fault> {
    let event_type = by_headers.event_type.clone()?;
    if event_type == EventType::Other {
        return Ok(None);
    }
    let event = match record.value().and_then(|value| plain::event(value, draft_ids)) {
        Some(event) => Some(event),
        None => event_by_grammar(record.value(), event_type, draft_ids)?,
    };
    match by_headers.unreadable.filter(|_| event.is_some()) {
        None => Ok(event),
        Some(index) => Err(unreadable_name(index)),
    }
}

/// [`event_of`] without the short cut, of a value whose headers name that type.
fn event_by_grammar(
    value: Option<&[u8]>,
    by_header: EventType,
    draft_ids: DraftIdType,
) -> Result<Option<ContentCreated<'_>>, Fault> {
    let top = Members::parse(text::parseable(value)?, &TOP_KEYS)?;
    let by_top = by_header
        .or_else(|| type_at(&top, TYPE_IN_BODY))?
        .or_else(|| type_at(&top, CLOUD_EVENTS_TYPE))?;
    if by_top == EventType::Other {
        return Ok(None);
    }
    if top.any_of_first(FIELDS_END) {
        return content_created(&top, &top, draft_ids).map(Some);
    }
    let envelope = envelope(&top)?;
    match by_top.or_else(|| type_at(&envelope, TYPE_IN_BODY))? {
        EventType::Other => Ok(None),
        EventType::Unnamed | EventType::Ours => {
            content_created(&top, &envelope, draft_ids).map(Some)
        }
    }
}

/// The protocol calls a header's name a string, though brokers take any bytes.
fn unreadable_name(index: usize) -> Fault {
    let number = index + 1;
    let message = format!(
        "header {number}: expected a name in UTF-8, got other bytes; such headers are not carried"
    );
    Fault::new(Reason::NotUtf8, message)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventType {
    Unnamed,
    Ours,
    Other,
}

impl EventType {
    fn named(name: &str) -> EventType {
        match name {
            "" => EventType::Unnamed,
            EVENT_TYPE => EventType::Ours,
            _ => EventType::Other,
        }
    }

    /// This type, or what the next place says if none is named yet.
    fn or_else(self, next: impl FnOnce() -> Result<EventType, Fault>) -> Result<EventType, Fault> {
        if self == EventType::Unnamed { next() } else { Ok(self) }
    }
}

fn type_in_headers(record: RecordView<'_>) -> Result<EventType, Fault> {
    for header in TYPE_HEADERS {
        let Ok(name) = std::str::from_utf8(record.header(header).unwrap_or_default()) else {
            return Err(Fault::new(
                Reason::WrongType,
                format!("header {header}: expected text, got other bytes"),
            ));
        };
        let event_type = EventType::named(name);
        if event_type != EventType::Unnamed {
            return Ok(event_type);
        }
    }
    Ok(EventType::Unnamed)
}

fn type_at<const N: usize>(members: &Members<'_, N>, index: usize) -> Result<EventType, Fault> {
    match members.get(index) {
        None => Ok(EventType::Unnamed),
        Some(_) if members.is_repeated(index) => Err(repeated(&TOP_KEYS[index])),
        Some(value) => Ok(EventType::named(&string(value, &TOP_KEYS[index])?)),
    }
}

/// The object that holds the fields when they do not stand at the top level: the first that looks
/// like an event.
fn envelope<'a>(top: &Members<'a, 7>) -> Result<Members<'a, 4>, Fault> {
    let mut any_object = false;
    let mut no_object = None;
    for index in ENVELOPES {
        if top.is_repeated(index) {
            return Err(repeated(&TOP_KEYS[index]));
        }
        let Some(value) = top.get(index) else {
            continue;
        };
        match Kind::of(value) {
            Kind::Null => {}
            Kind::Object => {
                let members = Members::parse(value.get(), &KEYS)?;
                if members.any_of_first(KEYS.len()) {
                    return Ok(members);
                }
                any_object = true;
            }
            kind => no_object = no_object.or(Some((TOP_KEYS[index], kind))),
        }
    }
    match no_object {
        Some((key, kind)) if !any_object => Err(wrong_type(&key, "an object", kind)),
        _ => Err(missing_field(&KEYS[JOB_ID])),
    }
}

/// Checks the fields in `holder`, which is the top level itself or the envelope in it.
fn content_created<'a, const N: usize>(
    top: &Members<'a, 7>,
    holder: &Members<'a, N>,
    draft_ids: DraftIdType,
) -> Result<ContentCreated<'a>, Fault> {
    if let Some(name) = top.repeated_name().or(holder.repeated_name()) {
        return Err(repeated(&name));
    }
    let job_id = id(holder, JOB_ID)?;
    let draft_id = validate::draft_id(KEYS[DRAFT_ID], id(holder, DRAFT_ID)?, draft_ids)?;
    let images = holder.get(IMAGE_URLS).ok_or_else(|| missing_field(&KEYS[IMAGE_URLS]))?;
    let urls = images::urls(images)?;
    Ok(ContentCreated { job_id, draft_id, urls })
}

fn id<'a, const N: usize>(holder: &Members<'a, N>, index: usize) -> Result<Cow<'a, str>, Fault> {
    let field = KEYS[index];
    let value = holder.get(index).ok_or_else(|| missing_field(&field))?;
    let text = match Kind::of(value) {
        Kind::String => json::string(value)?,
        Kind::Integer => Cow::Borrowed(value.get()),
        kind => return Err(wrong_type(&field, "a string or an integer", kind)),
    };
    validate::id(field, text)
}

fn string<'a>(value: &'a RawValue, field: &dyn Display) -> Result<Cow<'a, str>, Fault> {
    match Kind::of(value) {
        Kind::String => json::string(value),
        kind => Err(wrong_type(field, "a string", kind)),
    }
}

fn wrong_type(field: &dyn Display, expected: &str, found: Kind) -> Fault {
    Fault::new(Reason::WrongType, format!("{field}: expected {expected}, got {found}"))
}

fn missing_field(field: &dyn Display) -> Fault {
    Fault::new(Reason::MissingField, format!("{field}: missing"))
}

fn repeated(field: &dyn Display) -> Fault {
    Fault::new(
        Reason::DuplicateKey,
        format!("{field}: expected once, got the key again in the same object"),
    )
}
