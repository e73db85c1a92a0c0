//! One valid event as the stages behind `accept` see it, and the arena that its texts live in.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decode::ContentCreated;
use crate::record::{Chunk, Position, RecordView, Span};
use crate::reject::Fault;

mod husks;

pub use husks::Husks;

/// A chunk and the texts decoded from it, shared by everything that came out of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Arena {
    chunk: Chunk,
    texts: String,
}

impl Arena {
    /// Joins a chunk with the texts that [`Cuts`] point into.
    pub fn new(chunk: Chunk, texts: String) -> Arc<Arena> {
        Arc::new(Arena { chunk, texts })
    }
}

/// Where an event's texts stand in the arena, before the arena is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cuts {
    job: Span,
    draft: Span,
    images: ImageCuts,
}

/// Where an event's URLs stand, in the order of [`STYLES`](crate::validate::STYLES). Mostly they
/// are left where they came, in the record: what is copied here would be most of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ImageCuts {
    starts: [u32; 3],
    bytes: [u16; 3],
    in_record: bool,
}

/// What stands around the URLs in the JSON of an event's images: before each of them, and behind
/// the last. In the order of [`STYLES`](crate::validate::STYLES).
const AROUND: [&str; 4] = ["{\"simple\":\"", "\",\"fancy\":\"", "\",\"trendy\":\"", "\"}"];

impl ImageCuts {
    fn new(urls: [Span; 3], in_record: bool) -> ImageCuts {
        let start = |url: Span| u32::try_from(url.range().start).expect("an arena is small");
        let bytes = |url: Span| u16::try_from(url.len()).expect("a URL has 2,048 bytes at most");
        ImageCuts { starts: urls.map(start), bytes: urls.map(bytes), in_record }
    }

    /// Those of an event of a record in that chunk.
    fn of(event: &ContentCreated<'_>, chunk: &Chunk, texts: &mut String) -> ImageCuts {
        let there = event.urls.each_ref().map(|url| chunk.span_of(url));
        if let [Some(simple), Some(fancy), Some(trendy)] = there {
            return ImageCuts::new([simple, fancy, trendy], true);
        }
        // Some had to be unescaped.
        ImageCuts::new(event.urls.each_ref().map(|url| append(texts, url)), false)
    }

    /// Those of images that [`Change::images`] has put together, copied to that place among the
    /// texts.
    fn of_json(start: usize, images: &str) -> ImageCuts {
        let mut end = 0;
        let urls = [0, 1, 2].map(|style| {
            let begin = end + AROUND[style].len();
            let rest = images.get(begin..).unwrap_or_default();
            end = begin + rest.find('"').unwrap_or_default();
            Span::since(start + begin, start + end)
        });
        ImageCuts::new(urls, false)
    }

    fn ranges(self) -> [Range<usize>; 3] {
        let ImageCuts { starts, bytes, in_record: _ } = self;
        [0, 1, 2].map(|style| {
            let start = usize::try_from(starts[style]).expect("an index of 32 bits fits a pointer");
            start..start + usize::from(bytes[style])
        })
    }
}

impl Cuts {
    /// Appends the event's ids to the texts, and what else of it does not stand in its record, in
    /// that chunk, as it is.
    pub fn append(event: &ContentCreated<'_>, chunk: &Chunk, texts: &mut String) -> Cuts {
        let job = append(texts, &event.job_id);
        let draft = append(texts, &event.draft_id);
        Cuts { job, draft, images: ImageCuts::of(event, chunk, texts) }
    }
}

fn append(texts: &mut String, text: &str) -> Span {
    let start = texts.len();
    texts.push_str(text);
    Span::since(start, texts.len())
}

/// How much of an event is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Content {
    /// All of it.
    Record,
    /// All but the record's own bytes.
    Images,
    /// Its place and its ids: the rest would have to be read again.
    Place,
}

/// One valid event: a draft's new images, and the job that made them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    arena: Arc<Arena>,
    record: usize,
    cuts: Cuts,
    position: Position,
    job_hash: u64,
    draft_hash: u64,
    replayed: bool,
    content: Content,
}

impl Change {
    /// The event of the arena's record at that index.
    pub fn new(arena: Arc<Arena>, record: usize, cuts: Cuts) -> Change {
        let view = arena.chunk.record(record);
        let position = position(view);
        let replayed = view.header(REPLAYS).is_some();
        let job_hash = hash(&arena.texts[cuts.job.range()]);
        let draft_hash = hash(&arena.texts[cuts.draft.range()]);
        let content = Content::Record;
        Change { arena, record, cuts, position, job_hash, draft_hash, replayed, content }
    }

    /// Where the event stands in the order that decides what is newer.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The job that made the images.
    pub fn job_id(&self) -> &str {
        &self.arena.texts[self.cuts.job.range()]
    }

    /// The draft that the images belong to, in the column's canonical text.
    pub fn draft_id(&self) -> &str {
        &self.arena.texts[self.cuts.draft.range()]
    }

    /// The value for `content_images`, JSON; empty where it is not there.
    pub fn images(&self) -> String {
        let json = self.image_parts().concat();
        String::from_utf8(json).expect("a valid URL is ASCII")
    }

    /// [`images`](Change::images) in the parts of which it is put together.
    pub(crate) fn image_parts(&self) -> [&[u8]; 7] {
        if !self.has_images() {
            return [&[]; 7];
        }
        // RFC 3986 leaves no character in a URL that JSON would have to escape.
        let [simple, fancy, trendy] = self.urls();
        let [before, then, and, behind] = AROUND.map(str::as_bytes);
        [before, simple, then, fancy, and, trendy, behind]
    }

    /// The URLs of the images, all of them ASCII, in the order of
    /// [`STYLES`](crate::validate::STYLES); empty where they are not there.
    pub fn urls(&self) -> [&[u8]; 3] {
        let Arena { chunk, texts } = &*self.arena;
        if !self.has_images() {
            [&[]; 3]
        } else if self.cuts.images.in_record {
            self.cuts.images.ranges().map(|url| chunk.bytes_at(url))
        } else {
            self.cuts.images.ranges().map(|url| &texts.as_bytes()[url])
        }
    }

    /// Whether the images are there. A replay drops those that will hardly be needed; they can be
    /// read again at [`Change::position`].
    pub fn has_images(&self) -> bool {
        self.content != Content::Place
    }

    /// Whether the record is there, byte for byte, should it have to be dead-lettered.
    pub fn has_record(&self) -> bool {
        self.content == Content::Record
    }

    /// The record as it came, if it is there.
    pub fn record(&self) -> Option<RecordView<'_>> {
        self.has_record().then(|| self.arena.chunk.record(self.record))
    }

    /// Moves the event out of its chunk, into an arena of its own: one that waits would keep
    /// hundreds of others in memory. Returns how many bytes that has.
    pub fn move_out(&mut self) -> usize {
        let Some(record) = self.record() else {
            // What a replay has kept of it is no part of a chunk.
            return 0;
        };
        let (chunk, mut texts) = (Chunk::of(record), String::new());
        let (job, draft) = (append(&mut texts, self.job_id()), append(&mut texts, self.draft_id()));
        let urls = self.urls().map(|url| std::str::from_utf8(url).expect("a valid URL is ASCII"));
        let urls = urls.map(|url| append(&mut texts, url));
        let bytes = chunk.bytes() + texts.len();
        self.cuts = Cuts { job, draft, images: ImageCuts::new(urls, false) };
        (self.arena, self.record) = (Arena::new(chunk, texts), 0);
        bytes
    }

    /// Hash of the job id. It decides nothing alone: see [`crate::dedupe::Memory`].
    pub fn job_hash(&self) -> u64 {
        self.job_hash
    }

    /// Hash of the draft id: the same draft always meets on the same worker, and there in the same
    /// lane.
    pub fn draft_hash(&self) -> u64 {
        self.draft_hash
    }

    /// Whether the record came back from the dead letters.
    pub fn replayed(&self) -> bool {
        self.replayed
    }

    /// The event as a reject: the database refused it.
    pub fn refuse(self, fault: Fault, attempts: u32) -> Rejected {
        Rejected { arena: self.arena, record: self.record, stage: Stage::Write, fault, attempts }
    }
}

/// The stage that rejected a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Decoding and validation.
    Accept,
    /// The UPDATE.
    Write,
}

impl Stage {
    /// The stage's public name.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Accept => "accept",
            Stage::Write => "write",
        }
    }
}

/// A rejected record on its way to the dead letters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rejected {
    arena: Arc<Arena>,
    record: usize,
    /// Which stage rejected it.
    pub stage: Stage,
    /// What is wrong with it.
    pub fault: Fault,
    /// How many times the effect was tried; 0 where the record never got that far.
    pub attempts: u32,
}

impl Rejected {
    /// The reject of the arena's record at that index, before anything was tried.
    pub fn new(arena: Arc<Arena>, record: usize, fault: Fault) -> Rejected {
        Rejected { arena, record, stage: Stage::Accept, fault, attempts: 0 }
    }

    /// The record as it came.
    pub fn record(&self) -> RecordView<'_> {
        self.arena.chunk.record(self.record)
    }

    /// The time that goes on deciding what is newer when the record is replayed.
    pub fn timestamp_ms(&self) -> i64 {
        position(self.record()).timestamp_ms
    }
}

/// How often a record was replayed from the dead letters; present on replayed records only.
pub const REPLAYS: &str = "dlq.replays";
/// The original timestamp of a replayed record, milliseconds since the epoch.
pub const ORIGINAL_TIMESTAMP: &str = "dlq.timestamp";

/// The record's timestamp decides what is newer, unless the topic overwrote it and the record,
/// replayed from the dead letters, remembers its own.
fn position(record: RecordView<'_>) -> Position {
    let remembered = || std::str::from_utf8(record.header(ORIGINAL_TIMESTAMP)?).ok()?.parse().ok();
    let timestamp_ms =
        record.stamped_by_topic().then(remembered).flatten().unwrap_or(record.timestamp_ms());
    Position { timestamp_ms, offset: record.offset(), partition: record.partition() }
}

/// SipHash with fixed keys: the same text has the same hash on every worker. Never stored.
pub fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::accept::sort;
    use crate::record::RawRecord;
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
        let record =
            RawRecord { partition, offset, timestamp_ms, stamped_by_topic, key: None, value };
        let mut chunk = Chunk::default();
        // Never the first of its chunk: an index mixed up would show.
        chunk.push(RawRecord { value: None, ..record }, []);
        chunk.push(record, headers.iter().map(|(name, value)| (*name, Some(*value))));
        let mut sorted = sort(chunk, DraftIdType::Text { max_chars: None });
        sorted.changes.pop().expect("the event is well-formed")
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
        let told = |change: &Change| {
            let ids = [change.job_id(), change.draft_id()].map(str::to_owned);
            let hashes = [change.job_hash(), change.draft_hash()];
            (ids, hashes, change.images(), change.position(), change.replayed())
        };
        assert_eq!(told(&after), told(&before));
        assert_eq!(record(&after), record(&before));
        assert!(bytes > record(&after).5.unwrap().len());
        drop(before);
        assert!(chunk.upgrade().is_none(), "nothing keeps the chunk");
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
            assert_eq!(change.cuts.images.in_record, escaped.is_empty());
            assert_eq!(change.urls(), urls.map(str::as_bytes));
            assert_eq!(change.images(), images);
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
        let rejected = change((3, 7), 11, "j", "d")
            .refuse(Fault::new(crate::reject::Reason::UnknownDraft, "no"), 4);
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
}
