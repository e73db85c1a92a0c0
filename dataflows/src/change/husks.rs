//! Events of which only a little is left: made again from what [`crate::compact`] keeps.

use std::sync::Arc;

use super::{Arena, Change, Content, Events, Found, ImageCuts, Tag, append, hash, narrow};
use crate::record::{Chunk, Position, RawRecord, Span};

/// Collects husks into one arena: for each draft its id and one event's images, for each of its
/// events the place and the job.
#[derive(Debug)]
pub struct Husks {
    chunk: Chunk,
    events: Events,
    draft: Option<DraftSpans>,
    tags: Vec<Tag>,
}

#[derive(Clone, Copy, Debug)]
struct DraftSpans {
    id: Span,
    hash: u64,
    images: ImageCuts,
    images_of: Position,
}

impl Husks {
    /// Room for so many events with texts of so many bytes.
    pub fn with_capacity(events: usize, bytes: usize) -> Husks {
        Husks {
            chunk: Chunk::with_capacity(events, 0),
            events: Events::with_capacity(events, bytes),
            draft: None,
            tags: Vec::with_capacity(events),
        }
    }

    /// The events that follow are of this draft; the one at `images_of` has images.
    pub fn begin(&mut self, id: &str, hash: u64, images_of: Position, images: &str) {
        let texts = &mut self.events.texts;
        let id = append(texts, id);
        let start = texts.len();
        append(texts, images);
        let images = ImageCuts::of_json(start, images);
        self.draft = Some(DraftSpans { id, hash, images, images_of });
    }

    /// The next event of the draft.
    ///
    /// # Panics
    ///
    /// When no draft was begun.
    pub fn push(&mut self, position: Position, job: &str, replayed: bool) {
        let draft = self.draft.expect("a draft is begun before its events");
        let Position { timestamp_ms, offset, partition } = position;
        let record = RawRecord { partition, offset, timestamp_ms, ..RawRecord::default() };
        self.chunk.push(record, []);
        let found = Found {
            record: narrow(self.events.found.len()),
            job: append(&mut self.events.texts, job),
            images: draft.images,
            position,
        };
        let has_images = position == draft.images_of;
        self.tags.push(Tag {
            job_hash: hash(job),
            draft_hash: draft.hash,
            draft: draft.id,
            event: narrow(self.events.found.len()),
            replayed,
            content: if has_images { Content::Images } else { Content::Place },
        });
        self.events.found.push(found);
    }

    /// The events, in their order.
    pub fn finish(self) -> impl Iterator<Item = Change> {
        let Husks { chunk, events, draft: _, tags } = self;
        let arena = Arena::new(chunk, events);
        tags.into_iter().map(move |tag| Change::new(Arc::clone(&arena), tag))
    }
}
