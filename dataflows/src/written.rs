//! written: what came of the writes, parted by where it goes next.

use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::Epoch;
use crate::outcome::{Settled, Tally};
use crate::reject::Rejected;

/// The answer of a write: what became of some events.
#[derive(Debug, Default)]
pub struct Written {
    /// Events that are durable in their drafts' rows.
    pub settled: Vec<Settled>,
    /// Events that can't be written; their neighbours are unharmed.
    pub refused: Vec<Rejected>,
    /// How many events were set aside, to be tried again. They get their answer later.
    pub set_aside: u64,
    /// What these take in memory while they wait, bytes.
    pub set_aside_bytes: u64,
}

/// What came of the writes, each to where it goes next.
pub struct Parts<'scope> {
    /// On to the cache.
    pub settled: Stream<'scope, Epoch, Vec<Settled>>,
    /// On to the dead letters.
    pub refused: Stream<'scope, Epoch, Vec<Rejected>>,
    /// Counts of the events that have no answer yet, while others go on.
    pub set_aside: Stream<'scope, Epoch, Vec<Tally>>,
}

/// Parts what the database has answered.
pub fn part<'scope>(written: Stream<'scope, Epoch, Vec<Written>>) -> Parts<'scope> {
    let mut builder = OperatorBuilder::new("part".to_owned(), written.scope());
    let mut input = builder.new_input(written, Pipeline);
    let (settled_port, settled) = builder.new_output::<Vec<Settled>>();
    let (refused_port, refused) = builder.new_output::<Vec<Rejected>>();
    let (set_aside_port, set_aside) = builder.new_output::<Vec<Tally>>();
    let mut settled_port = OutputBuilder::from(settled_port);
    let mut refused_port = OutputBuilder::from(refused_port);
    let mut set_aside_port = OutputBuilder::from(set_aside_port);
    builder.build(move |initial| {
        drop(initial);
        move |_frontiers| {
            let (mut settled, mut refused, mut waiting) =
                (settled_port.activate(), refused_port.activate(), set_aside_port.activate());
            input.for_each_stamp(|capability, batches| {
                for mut written in batches.flat_map(|batch| batch.drain(..)) {
                    settled.session(&capability).give_container(&mut written.settled);
                    refused.session(&capability).give_container(&mut written.refused);
                    if written.set_aside > 0 {
                        let Written { set_aside, set_aside_bytes, .. } = written;
                        let tally = Tally { set_aside, set_aside_bytes, ..Tally::default() };
                        waiting.session(&capability).give(tally);
                    }
                }
            });
        }
    });
    Parts { settled, refused, set_aside }
}
