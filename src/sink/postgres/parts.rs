//! What one statement is made of, and how that is cut when the statement fails.
//!
//! Where the database quotes the row that it refuses, the cut goes around that row. What stands
//! before it has been written and rolled back, so it is taken to be good, and waits until all that
//! is good can be written at once. Else a part is cut in the middle.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use dataflows::change::Change;
use dataflows::effect::Ticket;
use dataflows::latest::Group;
use dataflows::record::Position;
use smallvec::{SmallVec, smallvec};

use super::table::Path;
use crate::retry::Backoff;

/// Behind a refused row, the next statement has so many times the rows that were good before it,
/// the one behind that twice as many, and so on: where many are refused, a statement that fails is
/// a small one.
const ROWS_BEHIND: usize = 8;

/// Events that are judged together, at least, where a group is divided.
const EVENTS_TOGETHER: usize = 64;

/// A group on its way into its row.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) group: Group,
    /// The batch of each event: while a group is held, later events of its draft join it.
    pub(super) tickets: SmallVec<[Ticket; 1]>,
    /// How often the row was looked for with each event, this time included. What joins later has
    /// its own tries: a draft that is not there may get events without end.
    pub(super) attempts: SmallVec<[u32; 1]>,
    /// How often the row was not as it had been read when it was to be amended.
    pub(super) comparisons_lost: u32,
    pub(super) backoff: Backoff,
    /// Whether it has been said that its events are tried again later.
    pub(super) is_set_aside: bool,
}

impl Pending {
    /// A group of that batch, for the first time.
    pub(super) fn new(group: Group, ticket: Ticket, backoff: Duration) -> Pending {
        let tickets = smallvec![ticket; group.events.len()];
        let attempts = smallvec![1; group.events.len()];
        let backoff = Backoff::new(backoff);
        Pending { group, tickets, attempts, comparisons_lost: 0, backoff, is_set_aside: false }
    }

    /// Adds events of the same draft that came later, in that batch.
    pub(super) fn join(&mut self, events: impl IntoIterator<Item = Change>, ticket: Ticket) {
        self.group.events.extend(events);
        self.tickets.resize(self.group.events.len(), ticket);
        self.attempts.resize(self.group.events.len(), 1);
    }

    /// Adds another piece of the same group.
    pub(super) fn append(&mut self, mut piece: Pending) {
        self.group.events.append(&mut piece.group.events);
        self.tickets.append(&mut piece.tickets);
        self.attempts.append(&mut piece.attempts);
        self.comparisons_lost = self.comparisons_lost.max(piece.comparisons_lost);
    }

    /// Divides what is left of a group of which the database has refused an event, if that is much:
    /// the next refusal has only one piece judged again. The newest come first, and once one of
    /// them is written all behind it are superseded. The events of one job stay together, or the
    /// later deliveries of it would pass for new.
    pub(super) fn divide(mut self) -> Vec<Pending> {
        if self.group.events.len() <= 2 * EVENTS_TOGETHER {
            return Some(self).filter(|it| !it.group.events.is_empty()).into_iter().collect();
        }
        let mut newest: HashMap<u64, Position> = HashMap::new();
        for event in &self.group.events {
            let newest = newest.entry(event.job_hash()).or_insert(event.position());
            *newest = event.position().max(*newest);
        }
        let mut events: Vec<(Change, Ticket, u32)> = Vec::new();
        while !self.group.events.is_empty() {
            events.push(self.take(0));
        }
        events.sort_by_cached_key(|(event, ..)| {
            Reverse((newest[&event.job_hash()], event.job_hash(), event.position()))
        });
        let mut pieces: Vec<Pending> = Vec::new();
        for (event, ticket, attempts) in events {
            let is_full = |piece: &Pending| {
                let events = &piece.group.events;
                let is_its_job = |last: &Change| last.job_hash() == event.job_hash();
                events.len() >= EVENTS_TOGETHER && !events.last().is_some_and(is_its_job)
            };
            if pieces.last().is_none_or(is_full) {
                pieces.push(self.none());
            }
            let piece = pieces.last_mut().expect("there is one");
            piece.push((event, ticket, attempts));
        }
        pieces
    }

    /// One without events that has come as far.
    fn none(&self) -> Pending {
        let group = Group { events: SmallVec::new() };
        Pending { group, tickets: SmallVec::new(), attempts: SmallVec::new(), ..*self }
    }

    fn push(&mut self, (event, ticket, attempts): (Change, Ticket, u32)) {
        self.group.events.push(event);
        self.tickets.push(ticket);
        self.attempts.push(attempts);
    }

    /// Takes one event out.
    pub(super) fn take(&mut self, event: usize) -> (Change, Ticket, u32) {
        let change = self.group.events.swap_remove(event);
        (change, self.tickets.swap_remove(event), self.attempts.swap_remove(event))
    }

    /// Parts the events with which the row was looked for more often than that from the others.
    pub(super) fn part(mut self, attempts: u32) -> (Option<Pending>, Option<Pending>) {
        let mut tried = self.none();
        for event in (0..self.attempts.len()).rev() {
            if self.attempts[event] > attempts {
                tried.push(self.take(event));
            }
        }
        [tried, self].map(|it| Some(it).filter(|it| !it.group.events.is_empty())).into()
    }

    /// How often the row was looked for with the event that has been here the longest.
    pub(super) fn attempts_max(&self) -> u32 {
        self.attempts.iter().copied().max().unwrap_or_default()
    }
}

/// Groups that share one statement.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: Path,
    pub(super) groups: Vec<Pending>,
}

/// The parts that are still to be written.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// The next one last.
    next: Vec<Part>,
    /// What is taken to be good, in the order of its ids.
    good: Option<Part>,
}

impl Parts {
    /// One part.
    pub(super) fn of(part: Part) -> Parts {
        let mut parts = Parts::default();
        parts.push(part);
        parts
    }

    /// Puts a part before all others.
    pub(super) fn push(&mut self, part: Part) {
        if !part.groups.is_empty() {
            self.next.push(part);
        }
    }

    /// The next part.
    pub(super) fn pop(&mut self) -> Option<Part> {
        self.next.pop().or_else(|| self.good.take())
    }

    /// Cuts a part that was refused: around the row whose draft the refusal quotes, else in the
    /// middle.
    pub(super) fn cut(&mut self, part: Part, is_quoted: impl Fn(&str) -> bool) {
        let quoted = part.groups.iter().position(|pending| is_quoted(pending.group.draft_id()));
        match quoted {
            Some(place) => self.cut_around(part, place),
            None => self.halve(part),
        }
    }

    /// Cuts a part in the middle.
    pub(super) fn halve(&mut self, Part { path, mut groups }: Part) {
        let behind = groups.split_off(groups.len() / 2);
        self.push(Part { path, groups: behind });
        self.push(Part { path, groups });
    }

    fn cut_around(&mut self, Part { path, groups: mut before }: Part, place: usize) {
        let mut suspect = before.split_off(place);
        let mut behind = suspect.split_off(1);
        self.spare(Part { path, groups: before });
        let mut pieces = Vec::new();
        let mut rows = ROWS_BEHIND * (place + 1);
        while behind.len() > rows {
            let rest = behind.split_off(rows);
            pieces.push(std::mem::replace(&mut behind, rest));
            rows *= 2;
        }
        pieces.push(behind);
        pieces.into_iter().rev().for_each(|groups| self.push(Part { path, groups }));
        self.push(Part { path, groups: suspect });
    }

    /// Keeps what is taken to be good for the end. If it is not, it is cut again then.
    fn spare(&mut self, part: Part) {
        match &mut self.good {
            Some(good) if good.path == part.path => good.groups.extend(part.groups),
            Some(_) => self.push(part),
            None => self.good = Some(part).filter(|part| !part.groups.is_empty()),
        }
    }
}

/// Splits `all` into what stands at `places`, which ascend, and the rest.
pub(super) fn part<T>(all: Vec<T>, places: &[usize]) -> (Vec<T>, Vec<T>) {
    let mut places = places.iter().copied().peekable();
    let mut rest = Vec::with_capacity(all.len());
    let mut parted = Vec::new();
    for (place, it) in all.into_iter().enumerate() {
        if places.next_if_eq(&place).is_some() { parted.push(it) } else { rest.push(it) }
    }
    (parted, rest)
}
