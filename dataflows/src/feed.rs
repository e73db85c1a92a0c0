//! feed: where chunks enter the graph, and where epochs are opened and closed.

use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::CapabilitySet;
use timely::dataflow::operators::generic::source;
use timely::dataflow::{Scope, Stream};

use crate::Epoch;
use crate::operators::FEED;
use crate::peers::{Peers, Waker};
use crate::record::Chunk;

/// What a worker is fed. Every worker is told of the end of every epoch, so that all agree on it.
#[derive(Debug)]
pub enum Feed {
    /// Records of the open epoch.
    Chunk(Chunk),
    /// The open epoch ends, the next one begins.
    CloseEpoch,
    /// Nothing comes any more.
    End,
}

/// How many chunks a worker takes in before it lets the other stages work.
const CHUNKS_PER_TURN: usize = 4;

/// Turns what `next` yields into a stream of chunks, each at its epoch. Whoever feeds the worker
/// wakes the source, by the waker given to `started`.
pub fn feed<'scope>(
    scope: Scope<'scope, Epoch>,
    peers: &Peers,
    mut next: impl FnMut() -> Option<Feed> + 'static,
    started: impl FnOnce(Waker),
) -> Stream<'scope, Epoch, Vec<Chunk>> {
    source::<_, CapacityContainerBuilder<Vec<Chunk>>, _, _>(scope, FEED, |capability, info| {
        started(peers.waker(scope.worker().sync_activator_for(info.address.to_vec())));
        let peers = peers.clone();
        let activator = scope.activator_for(info.address);
        let mut open = CapabilitySet::from_elem(capability);
        let mut epoch: Epoch = 0;
        move |output| {
            for _ in 0..CHUNKS_PER_TURN {
                match next() {
                    Some(Feed::Chunk(chunk)) => output.session(&open[0]).give(chunk),
                    Some(Feed::CloseEpoch) => {
                        epoch += 1;
                        open.downgrade([epoch]);
                        peers.close_below(epoch);
                    }
                    Some(Feed::End) => {
                        open = CapabilitySet::new();
                        peers.end();
                        return;
                    }
                    None => return,
                }
            }
            activator.activate();
        }
    })
}
