//! The whole graph.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Concat, OkErr, Operator, Probe};
use timely::dataflow::{ProbeHandle, Stream};

use crate::Epoch;
use crate::accept::accept;
use crate::change::{Change, Rejected};
use crate::compact::{Compaction, Flow, compact};
use crate::dedupe::{Memory, dedupe, remember};
use crate::effect::{Batching, Effect, Waker, effect};
use crate::latest::{Group, latest};
use crate::outcome::{Settled, Tally};
use crate::planted::{Bug, is_planted};
use crate::record::Chunk;
use crate::reject::Fault;
use crate::validate::DraftIdType;

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

/// The answer of a write: what became of some events of a draft.
#[derive(Debug)]
pub enum Written {
    /// The events are durable in their draft's row.
    Settled(Settled),
    /// The event can't be written; its neighbours are unharmed.
    Refused {
        /// The event.
        change: Change,
        /// Why.
        fault: Fault,
        /// How many times it was tried.
        attempts: u32,
    },
}

impl Written {
    /// How many events it is about.
    pub fn events(&self) -> usize {
        match self {
            Written::Settled(settled) => settled.outcomes.len(),
            Written::Refused { .. } => 1,
        }
    }
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
/// The order of effects can be read off: a key is deleted after its row is committed, and the probe passes an epoch after
/// both, and after its dead letters. `settle` is told each epoch's totals on this worker before the probe passes it.
pub fn graph<'scope, W, I, D>(
    chunks: Stream<'scope, Epoch, Vec<Chunk>>,
    rules: Rules,
    effects: Effects<impl FnOnce(Waker) -> W, impl FnOnce(Waker) -> I, impl FnOnce(Waker) -> D>,
    settle: impl FnMut(Epoch, Tally) + 'static,
) -> ProbeHandle<Epoch>
where
    W: Effect<Request = Group, Answer = Written> + 'static,
    I: Effect<Request = Settled, Answer = Invalidated> + 'static,
    D: Effect<Request = Rejected, Answer = Rejected> + 'static,
{
    let Rules { draft_ids, dedupe_jobs, lanes, rows_max, keys_max, compaction } = rules;
    let memory = Rc::new(RefCell::new(Memory::new(dedupe_jobs)));
    let by_draft = Batching { lanes, rows_max, order_by: Group::draft_hash };
    let by_key = Batching { lanes: 1, rows_max: keys_max, order_by: |_: &Settled| 0 };
    let by_arrival = Batching { lanes: 1, rows_max, order_by: |_: &Rejected| 0 };

    let accepted = accept(chunks, draft_ids);
    let deduped = dedupe(accepted.changes, &memory);
    let flow = compaction.is_some().then(Flow::default);
    let groups = match (compaction, &flow) {
        (Some(compaction), Some(flow)) => compact(deduped.fresh, compaction, flow),
        _ => latest(deduped.fresh),
    };
    let written = effect("write", groups, by_draft, effects.write);
    let written = match flow {
        Some(flow) => flow.watch(written),
        None => written,
    };
    let (settled, refused) = written.ok_err(|written| match written {
        Written::Settled(settled) => Ok(settled),
        Written::Refused { change, fault, attempts } => Err(change.refuse(fault, attempts)),
    });
    let settled = remember(settled, &memory).concat(deduped.duplicates);
    let invalidated = effect("invalidate", settled, by_key, effects.invalidate);
    let rejects = accepted.rejects.concat(refused);
    let dead = effect("dead-letter", rejects, by_arrival, effects.dead_letter);

    let tallies = accepted
        .skipped
        .concat(deduped.tallies)
        .concat(count_invalidated(invalidated))
        .concat(count_dead(dead));
    account(tallies, settle).probe().0
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

/// Adds up each epoch's tallies and reports them when the epoch is complete, holding it back until then.
fn account<'scope>(
    tallies: Stream<'scope, Epoch, Vec<Tally>>,
    mut settle: impl FnMut(Epoch, Tally) + 'static,
) -> Stream<'scope, Epoch, Vec<()>> {
    tallies.unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
        Pipeline,
        "account",
        |initial, _info| {
            drop(initial);
            let mut open = BTreeMap::new();
            move |(input, frontier), _output| {
                input.for_each_stamp(|capability, batches| {
                    let Some(kept) = capability.retain_least(0) else { return };
                    let (_, sum) =
                        open.entry(*kept.time()).or_insert_with(|| (kept, Tally::default()));
                    batches.flat_map(|batch| batch.drain(..)).for_each(|tally| *sum += &tally);
                });
                while let Some(entry) = open.first_entry() {
                    if frontier.less_equal(entry.key()) && !is_planted(Bug::CommitOverAHole) {
                        break;
                    }
                    let (epoch, (_capability, sum)) = entry.remove_entry();
                    settle(epoch, sum);
                }
            }
        },
    )
}
