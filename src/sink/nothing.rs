//! Effects that do nothing and answer at once: what the graph can do alone, without a server behind
//! it.

use std::collections::VecDeque;

use dataflows::effect::{Answered, Effect, Ticket};
use dataflows::graph::Invalidated;
use dataflows::latest::Group;
use dataflows::outcome::{Outcome, Settled};
use dataflows::peers::Waker;
use dataflows::reject::Rejected;
use dataflows::written::Written;

use crate::worker::MakeEffects;

/// Makes effects that do nothing.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl MakeEffects for Nothing {
    fn write(&self, _waker: Waker) -> impl Effect<Request = Group, Answer = Written> + 'static {
        AtOnce::new(applied)
    }

    fn invalidate(
        &self,
        _waker: Waker,
    ) -> impl Effect<Request = Settled, Answer = Invalidated> + 'static {
        AtOnce::new(|settled| vec![Invalidated { settled, deletes: 0, keys_deleted: 0 }])
    }

    fn dead_letter(
        &self,
        _waker: Waker,
    ) -> impl Effect<Request = Rejected, Answer = Rejected> + 'static {
        AtOnce::new(|rejected| rejected)
    }
}

/// Says of every event that it is applied.
pub fn applied(groups: Vec<Group>) -> Vec<Written> {
    let applied = |group| Settled::all(group, Outcome::Applied);
    let settled = groups.into_iter().map(applied).collect();
    vec![Written { settled, ..Written::default() }]
}

/// An effect that is a function: it answers each batch as soon as it comes.
pub struct AtOnce<R, A> {
    answer: Box<dyn FnMut(Vec<R>) -> Vec<A>>,
    answered: VecDeque<Answered<A>>,
}

impl<R, A> AtOnce<R, A> {
    /// The effect that answers with what the function makes of a batch.
    pub fn new(answer: impl FnMut(Vec<R>) -> Vec<A> + 'static) -> AtOnce<R, A> {
        AtOnce { answer: Box::new(answer), answered: VecDeque::new() }
    }
}

impl<R: 'static, A: 'static> Effect for AtOnce<R, A> {
    type Request = R;
    type Answer = A;

    fn submit(&mut self, ticket: Ticket, _lane: usize, batch: Vec<R>) {
        let answers = (self.answer)(batch);
        self.answered.push_back(Answered { ticket, answers, done: true });
    }

    fn poll(&mut self) -> Option<Answered<A>> {
        self.answered.pop_front()
    }
}
