//! One valid event as the stages behind `accept` see it, and the arena that most of it lives in.
//!
//! An event is moved from one list to the next in every stage. So what moves is small, a [`Tag`]
//! and a pointer, and fits a line of the processor's cache.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decode::ContentCreated;
use crate::record::{Chunk, Position, RecordView, Span};
use crate::reject::{Fault, Rejected};

mod husks;

pub use husks::Husks;

/// A chunk and what was found in it, shared by everything that came out of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Arena {
    chunk: Chunk,
    events: Events,
}

impl Arena {
    /// Joins a chunk with the events that were found in it.
    pub fn new(chunk: Chunk, events: Events) -> Arc<Arena> {
        Arc::new(Arena { chunk, events })
    }

    /// The record at that index.
    pub(crate) fn record(&self, index: usize) -> RecordView<'_> {
        self.chunk.record(index)
    }
}

/// The events of one chunk, and the texts of theirs that do not stand in their records as they are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Events {
    texts: String,
    found: Vec<Found>,
}

/// What of an event is wanted where it is judged and written, and not on the way there. A
/// [`Change`] is moved from list to list half a dozen times; this is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    record: u32,
    job: Span,
    images: ImageCuts,
    position: Position,
}

/// What of an event the stages look at on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    job_hash: u64,
    draft_hash: u64,
    draft: Span,
    event: u32,
    replayed: bool,
    content: Content,
}

impl Events {
    /// Room for so many events with texts of so many bytes.
    pub fn with_capacity(events: usize, bytes: usize) -> Events {
        Events { texts: String::with_capacity(bytes), found: Vec::with_capacity(events) }
    }

    /// Keeps the event of the chunk's record at that index: its ids, and what else of it does not
    /// stand in the record as it is.
    pub fn push(&mut self, event: &ContentCreated<'_>, chunk: &Chunk, index: usize) -> Tag {
        let record = chunk.record(index);
        let found = Found {
            record: narrow(index),
            job: append(&mut self.texts, &event.job_id),
            images: ImageCuts::of(event, chunk, &mut self.texts),
            position: position(record),
        };
        let tag = Tag {
            job_hash: hash(&event.job_id),
            draft_hash: hash(&event.draft_id),
            draft: append(&mut self.texts, &event.draft_id),
            event: narrow(self.found.len()),
            replayed: record.header(REPLAYS).is_some(),
            content: Content::Record,
        };
        self.found.push(found);
        tag
    }
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

    /// Those of the same record in another chunk, in which its value begins at `to` and not at
    /// `from`.
    fn moved(self, from: usize, to: usize) -> ImageCuts {
        ImageCuts { starts: self.starts.map(|start| narrow(widen(start) - from + to)), ..self }
    }

    fn ranges(self) -> [Range<usize>; 3] {
        let ImageCuts { starts, bytes, in_record: _ } = self;
        [0, 1, 2].map(|style| {
            let start = usize::try_from(starts[style]).expect("an index of 32 bits fits a pointer");
            start..start + usize::from(bytes[style])
        })
    }
}

fn append(texts: &mut String, text: &str) -> Span {
    let start = texts.len();
    texts.push_str(text);
    Span::since(start, texts.len())
}

fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("a chunk stays far below 4 GiB")
}

fn widen(index: u32) -> usize {
    usize::try_from(index).expect("an index of 32 bits fits a pointer")
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
    tag: Tag,
}

impl Change {
    /// The arena's event with that tag.
    pub fn new(arena: Arc<Arena>, tag: Tag) -> Change {
        Change { arena, tag }
    }

    fn found(&self) -> &Found {
        &self.arena.events.found[widen(self.tag.event)]
    }

    fn text(&self, span: Span) -> &str {
        &self.arena.events.texts[span.range()]
    }

    /// Where the event stands in the order that decides what is newer.
    pub fn position(&self) -> Position {
        self.found().position
    }

    /// The job that made the images.
    pub fn job_id(&self) -> &str {
        self.text(self.found().job)
    }

    /// The draft that the images belong to, in the column's canonical text.
    pub fn draft_id(&self) -> &str {
        self.text(self.tag.draft)
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
        let Arena { chunk, events } = &*self.arena;
        let images = self.found().images;
        if !self.has_images() {
            [&[]; 3]
        } else if images.in_record {
            images.ranges().map(|url| chunk.bytes_at(url))
        } else {
            images.ranges().map(|url| &events.texts.as_bytes()[url])
        }
    }

    /// Whether the images are there. A replay drops those that will hardly be needed; they can be
    /// read again at [`Change::position`].
    pub fn has_images(&self) -> bool {
        self.tag.content != Content::Place
    }

    /// Whether the record is there, byte for byte, should it have to be dead-lettered.
    pub fn has_record(&self) -> bool {
        self.tag.content == Content::Record
    }

    /// The record as it came, if it is there.
    pub fn record(&self) -> Option<RecordView<'_>> {
        self.has_record().then(|| self.arena.record(widen(self.found().record)))
    }

    /// Moves the event out of its arena, into one of its own: one that waits would keep hundreds of
    /// others in memory, or thousands in a replay. Returns how many bytes of memory that takes.
    pub fn move_out(&mut self) -> usize {
        // Where the record's own bytes are not there, the arena has an empty one in its place.
        let record = self.arena.record(widen(self.found().record));
        let chunk = Chunk::of(record);
        let images = self.found().images;
        let urls = self.urls().map(|url| std::str::from_utf8(url).expect("a valid URL is ASCII"));
        let copied = if images.in_record { 0 } else { urls.map(str::len).iter().sum() };
        let ids = self.job_id().len() + self.draft_id().len();
        let mut texts = String::with_capacity(ids + copied);
        let job = append(&mut texts, self.job_id());
        let draft = append(&mut texts, self.draft_id());
        let images = if images.in_record {
            images.moved(record.value_start(), chunk.record(0).value_start())
        } else {
            ImageCuts::new(urls.map(|url| append(&mut texts, url)), false)
        };
        let bytes = chunk.memory() + texts.capacity() + size_of::<Events>() + size_of::<Found>();
        let found = vec![Found { record: 0, job, images, position: self.position() }];
        self.arena = Arena::new(chunk, Events { texts, found });
        self.tag = Tag { draft, event: 0, ..self.tag };
        bytes
    }

    /// Hash of the job id. It decides nothing alone: see [`crate::dedupe::Memory`].
    pub fn job_hash(&self) -> u64 {
        self.tag.job_hash
    }

    /// Hash of the draft id: the same draft always meets on the same worker, and there in the same
    /// lane.
    pub fn draft_hash(&self) -> u64 {
        self.tag.draft_hash
    }

    /// Whether the record came back from the dead letters.
    pub fn replayed(&self) -> bool {
        self.tag.replayed
    }

    /// The event as a reject: the database refused it.
    pub fn refuse(self, fault: Fault, attempts: u32) -> Rejected {
        let record = widen(self.found().record);
        Rejected::refused(self.arena, record, fault, attempts)
    }
}

/// How often a record was replayed from the dead letters; present on replayed records only.
pub const REPLAYS: &str = "dlq.replays";
/// The original timestamp of a replayed record, milliseconds since the epoch.
pub const ORIGINAL_TIMESTAMP: &str = "dlq.timestamp";

/// The record's timestamp decides what is newer, unless the topic overwrote it and the record,
/// replayed from the dead letters, remembers its own.
pub(crate) fn position(record: RecordView<'_>) -> Position {
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
pub(crate) mod tests;
