//! The answers of a lane's batches, from the first to the last.

use dataflows::change::Change;
use dataflows::effect::Ticket;
use dataflows::latest::Group;
use dataflows::outcome::{Outcome, Outcomes, Settled};
use dataflows::planted::{Bug, is_planted};
use dataflows::reject::Rejected;
use dataflows::written::Written;

use super::super::Replies;
use super::held::Held;

/// The answers of a lane's open batches, collected so that one wake-up carries what one statement
/// settled.
pub(super) struct Book {
    replies: Replies<Written>,
    /// In the order of their tickets: one, and those of which something is held, which may be
    /// thousands.
    open: Vec<OpenBatch>,
    /// Those with an answer that has not been given.
    answered: Vec<Ticket>,
}

struct OpenBatch {
    ticket: Ticket,
    /// How many of its events have no outcome yet.
    events: usize,
    answer: Written,
    has_answer: bool,
}

impl Book {
    pub(super) fn new(replies: Replies<Written>) -> Book {
        Book { replies, open: Vec::new(), answered: Vec::new() }
    }

    pub(super) fn open(&mut self, ticket: Ticket, batch: &[Group]) {
        let events = batch.iter().map(|group| group.events.len()).sum();
        // Mostly one statement settles all of it.
        let answer = Written { settled: Vec::with_capacity(batch.len()), ..Written::default() };
        self.open.push(OpenBatch { ticket, events, answer, has_answer: false });
    }

    fn place(&self, ticket: Ticket) -> usize {
        // The last one nearly always.
        let last = self.open.len().saturating_sub(1);
        match self.open.get(last) {
            Some(batch) if batch.ticket == ticket => last,
            _ => self.open.partition_point(|batch| batch.ticket < ticket),
        }
    }

    /// The batch, to enter an answer to it.
    fn batch(&mut self, ticket: Ticket) -> &mut OpenBatch {
        let place = self.place(ticket);
        let batch = self.open.get_mut(place).filter(|batch| batch.ticket == ticket);
        let batch = batch.expect("an event belongs to an open batch");
        if !batch.has_answer {
            batch.has_answer = true;
            self.answered.push(ticket);
        }
        batch
    }

    /// Enters the outcomes of a group, whose events are of these batches.
    pub(super) fn settle(&mut self, group: Group, tickets: &[Ticket], outcomes: Outcomes) {
        if tickets.iter().all(|ticket| *ticket == tickets[0]) {
            return self.enter(tickets[0], Settled { group, outcomes });
        }
        for ((change, outcome), ticket) in group.events.into_iter().zip(outcomes).zip(tickets) {
            self.enter(*ticket, Settled::one(change, outcome));
        }
    }

    /// Enters the outcomes of a group of that batch.
    pub(super) fn enter(&mut self, ticket: Ticket, settled: Settled) {
        let batch = self.batch(ticket);
        batch.events -= settled.outcomes.len();
        batch.answer.settled.push(settled);
    }

    /// Enters an event that can't be written.
    pub(super) fn refuse(&mut self, ticket: Ticket, rejected: Rejected) {
        let batch = self.batch(ticket);
        batch.events -= 1;
        batch.answer.refused.push(rejected);
    }

    /// Enters that these events of these batches are tried again later, and moves them to where
    /// they keep no others in memory.
    pub(super) fn set_aside(&mut self, events: &mut [Change], tickets: &[Ticket]) {
        for (event, ticket) in events.iter_mut().zip(tickets) {
            let bytes = event.move_out() + event.draft_id().len() + Held::BYTES_EACH;
            let bytes = u64::try_from(bytes).expect("a record is small");
            let answer = &mut self.batch(*ticket).answer;
            answer.set_aside += 1;
            answer.set_aside_bytes += bytes;
        }
    }

    /// Says that all is written before it is.
    pub(super) fn boast(&self, ticket: Ticket, batch: &[Group]) {
        let applied = |group| Settled::all(group, Outcome::Applied);
        let settled = batch.iter().cloned().map(applied).collect();
        self.replies.answer(ticket, vec![Written { settled, ..Written::default() }], false);
    }

    pub(super) fn flush(&mut self) {
        let mut ended = 0;
        for ticket in std::mem::take(&mut self.answered) {
            let place = self.place(ticket);
            let OpenBatch { events, answer, has_answer, .. } = &mut self.open[place];
            *has_answer = false;
            let answer = std::mem::take(answer);
            let is_boasted = is_planted(Bug::DeleteBeforeCommit);
            let answers = if is_boasted { Vec::new() } else { vec![answer] };
            self.replies.answer(ticket, answers, *events == 0);
            ended += usize::from(*events == 0);
        }
        // Mostly the last one alone: those that are held are looked at when they end.
        while self.open.last().is_some_and(|batch| batch.events == 0) {
            self.open.pop();
            ended -= 1;
        }
        if ended > 0 {
            self.open.retain(|batch| batch.events > 0);
        }
    }
}
