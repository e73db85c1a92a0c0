//! One valid event as the stages behind `accept` see it, and the arena that its texts live in.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decode::ContentCreated;
use crate::record::{Chunk, Position, RecordView, Span};
use crate::reject::{Fault, Rejected};

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

    /// The record at that index.
    pub(crate) fn record(&self, index: usize) -> RecordView<'_> {
        self.chunk.record(index)
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
        let view = arena.record(record);
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
        self.has_record().then(|| self.arena.record(self.record))
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
        Rejected::refused(self.arena, self.record, fault, attempts)
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
