//! latest: closes the epoch and groups its events by draft, so that each row is written once.

use std::collections::BTreeMap;

use smallvec::{SmallVec, smallvec};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use crate::Epoch;
use crate::change::Change;
use crate::operators;
use crate::peers::Peers;

/// All events of one draft in one epoch, at least one; [`crate::row::judge`] says which of them is
/// applied.
#[derive(Clone, Debug)]
pub struct Group {
    /// The events, in no particular order. Mostly there is one.
    pub events: SmallVec<[Change; 1]>,
}

impl Group {
    /// The draft that all the events belong to.
    pub fn draft_id(&self) -> &str {
        self.events[0].draft_id()
    }

    /// The draft's hash, from which its lane follows.
    pub fn draft_hash(&self) -> u64 {
        self.events[0].draft_hash()
    }

    /// The newest of the events.
    pub fn newest(&self) -> usize {
        (0..self.events.len())
            .max_by_key(|&event| self.events[event].position())
            .unwrap_or_default()
    }
}

/// Waits for the end of the epoch, then passes on its events, grouped by draft and in the order of
/// the drafts' ids. That is the same in every process: rows that are locked in one order do not
/// deadlock. And rows whose ids are close are close in the table's index, which saves the database
/// a tenth of its work.
pub fn latest<'scope>(
    changes: Stream<'scope, Epoch, Vec<Change>>,
    peers: &Peers,
) -> Stream<'scope, Epoch, Vec<Group>> {
    let peers = peers.clone();
    changes.unary_frontier(Pipeline, operators::LATEST, |initial, _info| {
        drop(initial);
        let mut open = BTreeMap::new();
        // What an epoch has, the next one will have about as much of.
        let mut room = 0;
        move |(input, frontier), output| {
            input.for_each_stamp(|capability, batches| {
                let Some(kept) = capability.retain_least(0) else { return };
                let (_, changes) =
                    open.entry(*kept.time()).or_insert_with(|| (kept, Vec::with_capacity(room)));
                batches.for_each(|batch| changes.append(batch));
            });
            while let Some(entry) = open.first_entry() {
                if frontier.less_equal(entry.key()) {
                    break;
                }
                let (capability, changes) = entry.remove();
                room = changes.len() + changes.len() / 16;
                output.session(&capability).give_container(&mut group(changes));
            }
            peers.note_frontier(frontier.frontier().first().copied(), !open.is_empty());
        }
    })
}

/// The changes grouped by draft, in the order of the drafts' ids.
pub fn group(changes: Vec<Change>) -> Vec<Group> {
    let order = order(changes.len(), |place| changes[place].draft_id().as_bytes());
    let mut changes: Vec<Option<Change>> = changes.into_iter().map(Some).collect();
    let mut groups: Vec<Group> = Vec::with_capacity(changes.len());
    for place in order {
        let change = changes[place].take().expect("each place comes once");
        match groups.last_mut() {
            // Their hashes are at hand; their texts are far away by now.
            Some(group)
                if group.draft_hash() == change.draft_hash()
                    && group.draft_id() == change.draft_id() =>
            {
                group.events.push(change);
            }
            _ => groups.push(Group { events: smallvec![change] }),
        }
    }
    groups
}

/// The places from 0 on in the order of the draft ids that are found there.
///
/// Texts lie all over the memory: what is sorted is the few bytes in which most ids differ, and
/// only where those are the same the texts are compared.
pub(crate) fn order<'a>(count: usize, id: impl Fn(usize) -> &'a [u8]) -> Vec<usize> {
    let shared = (1..count).fold(usize::MAX, |shared, place| {
        let same = id(0).iter().zip(id(place)).take(shared).take_while(|(a, b)| a == b);
        same.count()
    });
    let mut order: Vec<([u8; 8], usize)> = (0..count)
        .map(|place| {
            let mut lead = [0; 8];
            let rest = id(place).get(shared..).unwrap_or_default();
            lead.iter_mut().zip(rest).for_each(|(lead, byte)| *lead = *byte);
            (lead, place)
        })
        .collect();
    order.sort_unstable_by(|(a, at_a), (b, at_b)| a.cmp(b).then_with(|| id(*at_a).cmp(id(*at_b))));
    order.into_iter().map(|(_lead, place)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::tests::change;

    #[test]
    fn events_are_grouped_by_draft_in_one_order_however_they_come() {
        let drafts = ["b", "a", "c", "b", "B", "a"];
        let changes = (0..).zip(drafts).map(|(offset, draft)| change((0, offset), 0, "j", draft));
        let groups = group(changes.collect());
        let shape = |groups: &[Group]| -> Vec<(String, usize)> {
            groups.iter().map(|group| (group.draft_id().to_owned(), group.events.len())).collect()
        };
        let mut by_id = shape(&groups);
        by_id.sort_unstable();
        assert_eq!(
            by_id,
            [("B", 1), ("a", 2), ("b", 2), ("c", 1)].map(|(id, n)| (id.to_owned(), n))
        );
        let reversed = (0..).zip(drafts.into_iter().rev());
        let again =
            group(reversed.map(|(offset, draft)| change((0, offset), 0, "j", draft)).collect());
        assert_eq!(shape(&again), shape(&groups), "two processes lock the rows in the same order");
        for group in &groups {
            assert!(group.events.iter().all(|event| event.draft_hash() == group.draft_hash()));
        }
    }

    #[test]
    fn nothing_comes_of_nothing() {
        assert!(group(Vec::new()).is_empty());
    }

    #[test]
    fn the_newest_is_the_one_with_the_largest_position() {
        let events =
            [((0, 1), 5), ((1, 2), 5), ((2, 9), 4)].map(|(at, time)| change(at, time, "j", "d"));
        assert_eq!(Group { events: events.into_iter().collect() }.newest(), 1);
    }
}
