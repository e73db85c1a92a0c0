//! How much of an epoch is under way: as it comes to its end, and no faster, the next drafts are
//! passed on.
//!
//! An event has ended with its DEL or its dead letter, not with its write. Else a cache that stands
//! still would draw the whole epoch through the database, into a queue that nobody counts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use timely::dataflow::Stream;
use timely::dataflow::operators::Inspect;
use timely::scheduling::Activator;

use crate::Epoch;
use crate::graph::Invalidated;
use crate::outcome::Settled;
use crate::reject::{Rejected, Stage};

/// How much is between `latest` and the end of its effects, on one worker.
#[derive(Clone, Default)]
pub struct Flow(Rc<FlowState>);

#[derive(Default)]
struct FlowState {
    /// Events that have not come to their end.
    in_flight: Cell<usize>,
    /// How many events were passed on last.
    last: Cell<usize>,
    waker: RefCell<Option<Activator>>,
}

impl Flow {
    pub(super) fn wake_by(&self, waker: Activator) {
        *self.0.waker.borrow_mut() = Some(waker);
    }

    /// Whether the next events may be passed on: when no more are under way than twice the last
    /// ones. So three batches of a lane are: one that is written, one that waits for that, so that
    /// the database never does, and one whose keys are being deleted. The database is idle only
    /// where the cache takes longer for a batch than the database for two.
    pub(super) fn is_open(&self) -> bool {
        self.0.in_flight.get() <= 2 * self.0.last.get()
    }

    /// Notes events on their way to the database.
    pub(super) fn pass(&self, events: usize) {
        self.0.last.set(events);
        self.add(events);
    }

    fn add(&self, events: usize) {
        self.0.in_flight.set(self.0.in_flight.get() + events);
    }

    /// Notes events that go past the database: they come to the same end.
    pub fn pass_by<'scope>(
        &self,
        duplicates: Stream<'scope, Epoch, Vec<Settled>>,
    ) -> Stream<'scope, Epoch, Vec<Settled>> {
        let flow = self.clone();
        duplicates.inspect(move |settled| flow.add(settled.outcomes.len()))
    }

    /// Notes the events that have come to their end.
    pub fn watch<'scope>(
        &self,
        invalidated: Stream<'scope, Epoch, Vec<Invalidated>>,
        dead: Stream<'scope, Epoch, Vec<Rejected>>,
    ) -> (Stream<'scope, Epoch, Vec<Invalidated>>, Stream<'scope, Epoch, Vec<Rejected>>) {
        let (flow, refused) = (self.clone(), self.clone());
        let invalidated = invalidated.inspect(move |answer| {
            flow.end(answer.settled.iter().map(|settled| settled.outcomes.len()).sum());
        });
        // What was rejected before has not been passed on.
        let dead =
            dead.inspect(move |rejected| refused.end(usize::from(rejected.stage == Stage::Write)));
        (invalidated, dead)
    }

    fn end(&self, events: usize) {
        let state = &self.0;
        state.in_flight.set(state.in_flight.get() - events);
        if self.is_open()
            && let Some(waker) = &*state.waker.borrow()
        {
            waker.activate();
        }
    }
}
