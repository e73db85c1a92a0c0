//! Events of which only a little is left: made again from what [`crate::compact`] keeps.

use std::sync::Arc;

use super::{Arena, Change, Content, Cuts, ImageCuts, append, hash};
use crate::record::{Chunk, Position, RawRecord, Span};

/// Collects husks into one arena: for each draft its id and one event's images, for each of its
/// events the place and the job.
#[derive(Debug)]
pub struct Husks {
    chunk: Chunk,
    texts: String,
    draft: Option<DraftSpans>,
    events: Vec<Husk>,
}

#[derive(Clone, Copy, Debug)]
struct DraftSpans {
    id: Span,
    hash: u64,
    images: ImageCuts,
    images_of: Position,
}

#[derive(Debug)]
struct Husk {
    job: Span,
    job_hash: u64,
    position: Position,
    replayed: bool,
    draft: DraftSpans,
}

impl Husks {
    /// Room for so many events with texts of so many bytes.
    pub fn with_capacity(events: usize, bytes: usize) -> Husks {
        Husks {
            chunk: Chunk::with_capacity(events, 0),
            texts: String::with_capacity(bytes),
            draft: None,
            events: Vec::with_capacity(events),
        }
    }

    /// The events that follow are of this draft; the one at `images_of` has images.
    pub fn begin(&mut self, id: &str, hash: u64, images_of: Position, images: &str) {
        let id = append(&mut self.texts, id);
        let start = self.texts.len();
        append(&mut self.texts, images);
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
        let job_hash = hash(job);
        let job = append(&mut self.texts, job);
        self.events.push(Husk { job, job_hash, position, replayed, draft });
    }

    /// The events, in their order.
    pub fn finish(self) -> impl Iterator<Item = Change> {
        let Husks { chunk, texts, draft: _, events } = self;
        let arena = Arena::new(chunk, texts);
        let change = move |(record, husk): (usize, Husk)| {
            let Husk { job, job_hash, position, replayed, draft } = husk;
            let has_images = position == draft.images_of;
            Change {
                arena: Arc::clone(&arena),
                record,
                cuts: Cuts { job, draft: draft.id, images: draft.images },
                position,
                job_hash,
                draft_hash: draft.hash,
                replayed,
                content: if has_images { Content::Images } else { Content::Place },
            }
        };
        events.into_iter().enumerate().map(change)
    }
}
