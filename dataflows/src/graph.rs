//! The whole graph.

use std::cell::RefCell;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Concat, Concatenate, Operator, Probe};
use timely::dataflow::{ProbeHandle, Stream};

use crate::Epoch;
use crate::accept::accept;
use crate::compact::{Compaction, Flow, compact};
use crate::dedupe::{Memory, dedupe, remember};
use crate::effect::{Batching, Effect, effect};
use crate::latest::{Group, latest};
use crate::operators;
use crate::outcome::{Settled, Tally};
use crate::peers::{Peers, Waker};
use crate::record::Chunk;
use crate::reject::Rejected;
use crate::validate::DraftIdType;
use crate::written::{Written, part};

/// What the rules need to know about the installation.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The type of the column that draft ids are compared with.
    pub draft_ids: DraftIdType,
    /// How many jobs each worker remembers, at least.
    pub dedupe_jobs: usize,
    /// How many connections each worker writes through.
    pub lanes: usize,
    /// The most drafts in one UPDATE.
    pub rows_max: usize,
    /// The most keys in one pipeline of DELs.
    pub keys_max: usize,
    /// Whether epochs are so large that their events are compacted as they come.
    pub compaction: Option<Compaction>,
}

/// The answer of an invalidation.
#[derive(Debug)]
pub struct Invalidated {
    /// The events whose keys are gone.
    pub settled: Vec<Settled>,
    /// DELs answered.
    pub deletes: u64,
    /// DELs that found a key.
    pub keys_deleted: u64,
}

/// The three things that happen outside.
pub struct Effects<W, I, D> {
    /// Writes groups of events to their rows.
    pub write: W,
    /// Deletes the cache keys of settled events.
    pub invalidate: I,
    /// Publishes rejected records to the dead-letter topic.
    pub dead_letter: D,
}

/// Builds the graph over a stream of chunks.
///
/// The order of effects can be read off: a key is deleted after its row is committed, and the probe
/// passes an epoch after both, and after its dead letters. `settle` is told what became of an
/// epoch's records on this worker, as they come to their ends, before the probe passes the epoch.
pub fn graph<'scope, W, I, D>(
    chunks: Stream<'scope, Epoch, Vec<Chunk>>,
    rules: Rules,
    peers: &Peers,
    effects: Effects<impl FnOnce(Waker) -> W, impl FnOnce(Waker) -> I, impl FnOnce(Waker) -> D>,
    settle: impl FnMut(Epoch, Tally) + 'static,
) -> ProbeHandle<Epoch>
where
    W: Effect<Request = Group, Answer = Written> + 'static,
    I: Effect<Request = Settled, Answer = Invalidated> + 'static,
    D: Effect<Request = Rejected, Answer = Rejected> + 'static,
{
    let scope = chunks.scope();
    let Rules { draft_ids, dedupe_jobs, lanes, rows_max, keys_max, compaction } = rules;
    let memory = Rc::new(RefCell::new(Memory::new(dedupe_jobs)));
    let by_draft = Batching { lanes, rows_max, order_by: Group::draft_hash };
    let by_key = Batching { lanes: 1, rows_max: keys_max, order_by: |_: &Settled| 0 };
    let by_arrival = Batching { lanes: 1, rows_max, order_by: |_: &Rejected| 0 };

    let accepted = accept(chunks, draft_ids);
    let deduped = dedupe(accepted.changes, &memory, peers);
    let flow = compaction.is_some().then(Flow::default);
    let groups = match (compaction, &flow) {
        (Some(compaction), Some(flow)) => compact(deduped.fresh, compaction, flow, peers),
        _ => latest(deduped.fresh, peers),
    };
    let duplicates = match &flow {
        Some(flow) => flow.pass_by(deduped.duplicates),
        None => deduped.duplicates,
    };
    let written = part(effect(operators::WRITE, groups, by_draft, peers, effects.write));
    let settled = remember(written.settled, &memory).concat(duplicates);
    let invalidated = effect(operators::INVALIDATE, settled, by_key, peers, effects.invalidate);
    let rejects = accepted.rejects.concat(written.refused);
    let dead = effect(operators::DEAD_LETTER, rejects, by_arrival, peers, effects.dead_letter);
    let (invalidated, dead) = match flow {
        Some(flow) => flow.watch(invalidated, dead),
        None => (invalidated, dead),
    };

    let tallies = [
        accepted.skipped,
        deduped.tallies,
        written.set_aside,
        count_invalidated(invalidated),
        count_dead(dead),
    ];
    account(scope.concatenate(tallies), settle).probe().0
}

fn count_invalidated<'scope>(
    answers: Stream<'scope, Epoch, Vec<Invalidated>>,
) -> Stream<'scope, Epoch, Vec<Tally>> {
    answers.map(|answer| {
        let mut tally = Tally {
            deletes: answer.deletes,
            keys_deleted: answer.keys_deleted,
            ..Tally::default()
        };
        let outcomes = answer.settled.iter().flat_map(|settled| &settled.outcomes);
        outcomes.for_each(|outcome| tally.settle(*outcome));
        tally
    })
}

fn count_dead<'scope>(
    dead: Stream<'scope, Epoch, Vec<Rejected>>,
) -> Stream<'scope, Epoch, Vec<Tally>> {
    dead.map(|rejected| {
        let mut tally = Tally::default();
        tally.reject(rejected.fault.reason);
        tally
    })
}

/// Adds up the tallies of each epoch as they come, and reports them. The epoch is not through
/// before: a message counts until the operator that takes it in is done.
fn account<'scope>(
    tallies: Stream<'scope, Epoch, Vec<Tally>>,
    mut settle: impl FnMut(Epoch, Tally) + 'static,
) -> Stream<'scope, Epoch, Vec<()>> {
    tallies.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
        Pipeline,
        "account",
        |_capability, _info| {
            move |input, _output| {
                input.for_each_stamp(|capability, batches| {
                    let Some(epoch) = capability.least() else { return };
                    let mut sum = Tally::default();
                    batches.flat_map(|batch| batch.drain(..)).for_each(|tally| sum += &tally);
                    settle(*epoch, sum);
                });
            }
        },
    )
}
