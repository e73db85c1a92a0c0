//! In a replay an epoch may be gigabytes. What waits behind the writes holds them up, or all of it
//! would move there, where nobody counts it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use dataflows::compact::Compaction;
use dataflows::effect::{Answered, Effect, Ticket};
use dataflows::feed::{Feed, feed};
use dataflows::graph::{Effects, Invalidated, Rules, graph};
use dataflows::held::Held;
use dataflows::latest::Group;
use dataflows::outcome::{Outcome, Settled, Tally};
use dataflows::peers::{Peers, Waker};
use dataflows::record::Chunk;
use dataflows::reject::{Fault, Reason};
use dataflows::validate::DraftIdType;
use dataflows::written::Written;

use crate::topic::{Sent, event};

/// A server that does nothing until it is let go.
struct Gate<R, A> {
    is_open: Rc<Cell<bool>>,
    waiting: VecDeque<(Ticket, Vec<R>)>,
    does: Box<dyn Fn(R) -> A>,
}

impl<R: 'static, A: 'static> Gate<R, A> {
    fn new(is_open: &Rc<Cell<bool>>, does: impl Fn(R) -> A + 'static) -> Gate<R, A> {
        let (is_open, waiting) = (Rc::clone(is_open), VecDeque::new());
        Gate { is_open, waiting, does: Box::new(does) }
    }
}

impl<R: 'static, A: 'static> Effect for Gate<R, A> {
    type Request = R;
    type Answer = A;

    fn submit(&mut self, ticket: Ticket, _lane: usize, batch: Vec<R>) {
        self.waiting.push_back((ticket, batch));
    }

    fn poll(&mut self) -> Option<Answered<A>> {
        let (ticket, batch) = self.is_open.get().then(|| self.waiting.pop_front())??;
        let answers = batch.into_iter().map(&self.does).collect();
        Some(Answered { ticket, answers, done: true })
    }
}

const DRAFTS: usize = 40;
const AT_ONCE: usize = 2;

/// How many drafts are written while whatever comes behind the writes stands still, and what has
/// become of all of them in the end.
fn written_before_a_gate(is_refused: bool) -> (usize, Tally) {
    timely::execute_directly(move |worker| {
        let (open, gate) = (Rc::new(Cell::new(true)), Rc::new(Cell::new(false)));
        let wakers: Rc<RefCell<Vec<Waker>>> = Rc::default();
        let wake_by = |waker| wakers.borrow_mut().push(waker);
        let (written, totals) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Tally::default())));

        let mut chunk = Chunk::default();
        for (offset, draft) in (0..).zip(0..DRAFTS) {
            let value = event((0, offset), &format!("j{draft}"), &format!("d{draft}"), false);
            Sent { offset, value: Some(value), ..Sent::default() }.push_to(&mut chunk);
        }
        let mut fed = VecDeque::from([Feed::Chunk(chunk), Feed::End]);
        let compaction = Compaction { held: Held::default(), drafts_at_once: AT_ONCE };
        let rules = Rules {
            draft_ids: DraftIdType::Text { max_chars: None },
            dedupe_jobs: 0,
            lanes: 1,
            rows_max: AT_ONCE,
            keys_max: AT_ONCE,
            compaction: Some(compaction),
        };
        let (counted, settled) = (Rc::clone(&written), Rc::clone(&totals));
        let write = move |group: Group| {
            counted.set(counted.get() + 1);
            let fault = || Fault::new(Reason::DatabaseRefused, "no");
            let mut answer = Written::default();
            if is_refused {
                let refused = group.events.into_iter().map(|event| event.refuse(fault(), 1));
                answer.refused.extend(refused);
            } else {
                answer.settled.push(Settled::all(group, Outcome::Applied));
            }
            answer
        };
        let gone = |settled| Invalidated { settled: vec![settled], deletes: 1, keys_deleted: 1 };
        let peers = Peers::none();
        let probe = worker.dataflow(|scope| {
            let chunks = feed(scope, &peers, move || fed.pop_front(), |_| {});
            let effects = Effects {
                write: |_| Gate::new(&open, write),
                invalidate: |waker| {
                    wake_by(waker);
                    Gate::new(&gate, gone)
                },
                dead_letter: |waker| {
                    wake_by(waker);
                    Gate::new(&gate, |rejected| rejected)
                },
            };
            graph(chunks, rules, &peers, effects, move |_, tally| *settled.borrow_mut() += &tally)
        });
        // Far more than it takes until nothing moves any more.
        for _ in 0..100 * DRAFTS {
            worker.step();
        }
        let before = written.get();
        gate.set(true);
        wakers.borrow().iter().for_each(Waker::wake);
        worker.step_while(|| !probe.done());
        (before, totals.take())
    })
}

#[test]
fn a_replay_writes_no_further_ahead_of_its_deletes_and_dead_letters_than_three_batches() {
    for is_refused in [false, true] {
        let (before, totals) = written_before_a_gate(is_refused);
        assert_eq!(before, 3 * AT_ONCE, "refused: {is_refused}");
        let drafts = u64::try_from(DRAFTS).unwrap();
        let [applied, rejected] = if is_refused { [0, drafts] } else { [drafts, 0] };
        assert_eq!((totals.applied, totals.rejected_total()), (applied, rejected));
    }
}
