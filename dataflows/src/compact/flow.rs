//! How much of an epoch is on its way to the database: as it is written, and no faster, the next
//! drafts are passed on.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use timely::dataflow::Stream;
use timely::dataflow::operators::Inspect;
use timely::scheduling::Activator;

use crate::Epoch;
use crate::written::Written;

/// How much is between `latest` and the answers of its writes, on one worker.
#[derive(Clone, Default)]
pub struct Flow(Rc<FlowState>);

#[derive(Default)]
struct FlowState {
    /// Events passed on and not answered yet.
    in_flight: Cell<usize>,
    /// How many events were passed on last.
    last: Cell<usize>,
    waker: RefCell<Option<Activator>>,
}

impl Flow {
    pub(super) fn wake_by(&self, waker: Activator) {
        *self.0.waker.borrow_mut() = Some(waker);
    }

    /// Whether the next events may be passed on: of those before the last ones, all are answered.
    pub(super) fn is_open(&self) -> bool {
        self.0.in_flight.get() <= self.0.last.get()
    }

    /// Notes events on their way to the database.
    pub(super) fn pass(&self, events: usize) {
        self.0.in_flight.set(self.0.in_flight.get() + events);
        self.0.last.set(events);
    }

    /// Notes the answers on their way back.
    pub fn watch<'scope>(
        &self,
        answers: Stream<'scope, Epoch, Vec<Written>>,
    ) -> Stream<'scope, Epoch, Vec<Written>> {
        let flow = self.clone();
        answers.inspect(move |answer| {
            let state = &flow.0;
            state.in_flight.set(state.in_flight.get() - answer.events());
            if flow.is_open()
                && let Some(waker) = &*state.waker.borrow()
            {
                waker.activate();
            }
        })
    }
}
