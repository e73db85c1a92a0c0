//! accept: decodes and validates every record of a chunk, on whichever worker the chunk came to.

use std::sync::Arc;

use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::Epoch;
use crate::change::{Arena, Change, Events, Tag};
use crate::decode::{Decoded, Decoder};
use crate::operators;
use crate::outcome::Tally;
use crate::record::Chunk;
use crate::reject::{Fault, Rejected};
use crate::validate::DraftIdType;

/// What `accept` makes of the records.
pub struct Accepted<'scope> {
    /// Valid events.
    pub changes: Stream<'scope, Epoch, Vec<Change>>,
    /// Records that can never succeed.
    pub rejects: Stream<'scope, Epoch, Vec<Rejected>>,
    /// Counts of the records of other types, which end here.
    pub skipped: Stream<'scope, Epoch, Vec<Tally>>,
}

/// Decodes and validates.
pub fn accept<'scope>(
    chunks: Stream<'scope, Epoch, Vec<Chunk>>,
    draft_ids: DraftIdType,
) -> Accepted<'scope> {
    let mut builder = OperatorBuilder::new(operators::ACCEPT.to_owned(), chunks.scope());
    let mut input = builder.new_input(chunks, Pipeline);
    let (changes_port, changes) = builder.new_output::<Vec<Change>>();
    let (rejects_port, rejects) = builder.new_output::<Vec<Rejected>>();
    let (skipped_port, skipped) = builder.new_output::<Vec<Tally>>();
    let mut changes_port = OutputBuilder::from(changes_port);
    let mut rejects_port = OutputBuilder::from(rejects_port);
    let mut skipped_port = OutputBuilder::from(skipped_port);
    builder.build(move |initial| {
        drop(initial);
        move |_frontiers| {
            let (mut changes, mut rejects, mut skipped) =
                (changes_port.activate(), rejects_port.activate(), skipped_port.activate());
            input.for_each_stamp(|capability, batches| {
                for chunk in batches.flat_map(|batch| batch.drain(..)) {
                    let mut sorted = sort(chunk, draft_ids);
                    changes.session(&capability).give_container(&mut sorted.changes);
                    rejects.session(&capability).give_container(&mut sorted.rejects);
                    if sorted.skipped > 0 {
                        let tally = Tally { skipped: sorted.skipped, ..Tally::default() };
                        skipped.session(&capability).give(tally);
                    }
                }
            });
        }
    });
    Accepted { changes, rejects, skipped }
}

/// The records of one chunk, sorted into good, bad and foreign.
pub struct Sorted {
    /// Valid events.
    pub changes: Vec<Change>,
    /// Records that can never succeed.
    pub rejects: Vec<Rejected>,
    /// How many records are of another type.
    pub skipped: u64,
}

/// Decodes and validates the records of one chunk.
pub fn sort(chunk: Chunk, draft_ids: DraftIdType) -> Sorted {
    // Ids; what else there is mostly stays where it is.
    let mut events = Events::with_capacity(chunk.len(), chunk.bytes() / 3);
    let mut good: Vec<Tag> = Vec::with_capacity(chunk.len());
    let mut bad: Vec<(usize, Fault)> = Vec::new();
    let mut skipped = 0;
    let mut decoder = Decoder::new(draft_ids);
    for (index, record) in chunk.records().enumerate() {
        match decoder.decode(record) {
            Decoded::Event(event) => good.push(events.push(&event, &chunk, index)),
            Decoded::Rejected(fault) => bad.push((index, fault)),
            Decoded::Skipped => skipped += 1,
        }
    }
    let arena = Arena::new(chunk, events);
    let changes = good.into_iter().map(|tag| Change::new(Arc::clone(&arena), tag)).collect();
    let rejects = bad
        .into_iter()
        .map(|(index, fault)| Rejected::new(Arc::clone(&arena), index, fault))
        .collect();
    Sorted { changes, rejects, skipped }
}
