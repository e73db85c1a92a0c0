//! effect: the one operator for everything that happens outside: write, invalidate, dead letter.
//!
//! It hands batches to an [`Effect`] and keeps the epoch's capability until the last answer is in.
//! So the probe at the end of the graph passes an epoch only when all its effects are durable,
//! whatever order they end in.

use std::collections::HashMap;

use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::Epoch;
use crate::peers::{Peers, Waker};

/// Names a batch, from its submission to its last answer.
pub type Ticket = u64;

/// Something that is done to the world outside.
///
/// The contract that the graph's promises rest on:
///
/// - An answer means *durable*: the commit, the reply, the acknowledgement has been seen. Accepted
///   is not answered.
/// - Doing it again must be harmless. After a crash every effect of the epochs in flight is done
///   again.
/// - An effect whose outcome is unknown is done again, by the implementation, before it is
///   answered.
/// - Every request of a batch is answered before the batch is `done`; answers may come in parts, so
///   that what is ready does not wait for what is retried.
/// - Batches of one lane take effect in the order of submission.
/// - Neither method blocks; the [`Waker`] is called after an answer has become available.
pub trait Effect {
    /// What is asked for.
    type Request: 'static;
    /// What is answered.
    type Answer: 'static;

    /// Accepts a batch for a lane.
    fn submit(&mut self, ticket: Ticket, lane: usize, batch: Vec<Self::Request>);

    /// The next answers, if there are any.
    fn poll(&mut self) -> Option<Answered<Self::Answer>>;
}

/// Some answers to a batch.
#[derive(Debug)]
pub struct Answered<A> {
    /// The batch.
    pub ticket: Ticket,
    /// What became durable.
    pub answers: Vec<A>,
    /// Whether this is the batch's last word.
    pub done: bool,
}

/// How requests are cut into batches.
#[derive(Clone, Copy, Debug)]
pub struct Batching<R> {
    /// How many lanes work side by side.
    pub lanes: usize,
    /// The most requests in a batch.
    pub rows_max: usize,
    /// A hash of what must stay in order: equal hashes share a lane.
    pub order_by: fn(&R) -> u64,
}

impl<R> Batching<R> {
    /// Splits so many requests by lane and into batches, keeping their order in each lane.
    fn cut(&self, requests: impl IntoIterator<Item = R>, count: usize) -> Vec<(usize, Vec<R>)> {
        let lanes = u64::try_from(self.lanes).expect("a number of lanes fits 64 bits");
        // Each request is moved once, to where it stays.
        let empty = || Vec::with_capacity(self.rows_max.min(count));
        let mut open: Vec<Vec<R>> = (0..self.lanes).map(|_| empty()).collect();
        let mut batches = Vec::new();
        for request in requests {
            // The low bits already chose the worker.
            let lane = ((self.order_by)(&request) >> 32) % lanes;
            let lane = usize::try_from(lane).expect("less than the number of lanes");
            if open[lane].len() == self.rows_max {
                batches.push((lane, std::mem::replace(&mut open[lane], empty())));
            }
            open[lane].push(request);
        }
        batches.extend(open.into_iter().enumerate().filter(|(_, batch)| !batch.is_empty()));
        batches
    }
}

/// Applies an effect to a stream of requests and emits the answers, at the time of their requests.
pub fn effect<'scope, E: Effect + 'static>(
    name: &str,
    requests: Stream<'scope, Epoch, Vec<E::Request>>,
    batching: Batching<E::Request>,
    peers: &Peers,
    start: impl FnOnce(Waker) -> E,
) -> Stream<'scope, Epoch, Vec<E::Answer>> {
    let scope = requests.scope();
    let mut builder = OperatorBuilder::new(name.to_owned(), scope);
    let address = builder.operator_info().address.to_vec();
    let mut effect = start(peers.waker(scope.worker().sync_activator_for(address)));
    let mut input = builder.new_input(requests, Pipeline);
    let (output, answers) = builder.new_output::<Vec<E::Answer>>();
    let mut output = OutputBuilder::from(output);
    builder.build(move |initial| {
        drop(initial);
        let mut in_flight: HashMap<Ticket, Capability<Epoch>> = HashMap::new();
        let mut next_ticket: Ticket = 0;
        move |_frontiers| {
            input.for_each_stamp(|capability, batches| {
                let Some(kept) = capability.retain_least(0) else { return };
                let mut batches: Vec<_> = batches.collect();
                let count = batches.iter().map(|batch| batch.len()).sum();
                let requests = batches.iter_mut().flat_map(|batch| batch.drain(..));
                for (lane, batch) in batching.cut(requests, count) {
                    in_flight.insert(next_ticket, kept.clone());
                    effect.submit(next_ticket, lane, batch);
                    next_ticket += 1;
                }
            });
            let mut output = output.activate();
            while let Some(mut answered) = effect.poll() {
                let capability =
                    in_flight.get(&answered.ticket).expect("only batches in flight are answered");
                output.session(capability).give_container(&mut answered.answers);
                if answered.done {
                    in_flight.remove(&answered.ticket);
                }
            }
        }
    });
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests that name their lane in the high half of their hash, as `Batching` reads it, and
    /// noise in the low half.
    fn cut(
        lanes: usize,
        rows_max: usize,
        requests: &[(u64, u32)],
    ) -> Vec<(usize, Vec<(u64, u32)>)> {
        let order_by = |request: &(u64, u32)| (request.0 << 32) | u64::from(request.1);
        Batching { lanes, rows_max, order_by }.cut(requests.iter().copied(), requests.len())
    }

    #[test]
    fn the_same_hash_has_the_same_lane_whatever_the_bits_that_chose_the_worker() {
        let batches = cut(2, 9, &[(0, 7), (1, 7), (2, 8), (3, 9)]);
        assert_eq!(batches, [(0, vec![(0, 7), (2, 8)]), (1, vec![(1, 7), (3, 9)])]);
    }

    #[test]
    fn batches_are_full_but_the_last_and_keep_the_order() {
        let batches = cut(1, 2, &[(0, 5), (0, 4), (0, 3), (0, 2), (0, 1)]);
        let numbers: Vec<Vec<u32>> = batches
            .into_iter()
            .map(|(_, batch)| batch.into_iter().map(|it| it.1).collect())
            .collect();
        assert_eq!(numbers, [vec![5, 4], vec![3, 2], vec![1]]);
        assert_eq!(cut(1, 2, &[(0, 1), (0, 2)]).len(), 1);
    }

    #[test]
    fn a_lane_without_requests_gets_no_batch() {
        assert!(cut(3, 1, &[]).is_empty());
        assert_eq!(cut(3, 1, &[(5, 0)]), [(2, vec![(5, 0)])]);
    }
}
