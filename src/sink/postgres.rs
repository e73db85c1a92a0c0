//! write: one row for each draft, in batches, through one connection a lane.
//!
//! A batch goes down the [fast path](Path::Fast) first, one guarded UPDATE that says which rows it changed. Several events of one draft are
//! judged by the pure rule as if they were the [first](Path::Guessed) that reach their row, and the row is amended if that is so. What is left
//! (a duplicate, an older event, no such row) goes down the [judged path](Path::Judged): the rows are
//! read, judged, and amended if they are still as they were read. Every statement is a
//! transaction of its own: nothing ties the rows of a batch together, and the guard makes repeating any of them harmless.
//!
//! What the database refuses is bisected until the offending rows stand alone; what it cannot do now is retried or held.

use std::collections::BTreeMap;
use std::time::Duration;

use dataflows::change::Rejected;
use dataflows::effect::Ticket;
use dataflows::graph::Written;
use dataflows::latest::Group;
use dataflows::outcome::{Outcome, Outcomes, Settled};
use dataflows::planted::{Bug, is_planted};
use dataflows::reject::{Fault, Reason};
use smallvec::{SmallVec, smallvec};
use tokio::time::Instant;

use self::failure::Failure;
use self::table::{Path, Table, Verdict, write};
use super::outage::{Outage, OutagePolicy};
use super::{Job, Lane, Replies};
use crate::figures::Server;
use crate::figures::lanes::Again;
use crate::retry::Backoff;

pub mod table;
pub mod session;
pub mod failure;

/// How often a comparison may be lost to other writers. Waits grow in between, so losing this often means that the database
/// leaves the row alone.
const COMPARISONS_LOST_MAX: u32 = 10;
const UNCHANGED: &str = "the UPDATE leaves the row unchanged, time and again: a trigger or a row security policy is in the way";

/// How often and how patiently a lane tries again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often an event is retried, for contention or an unknown draft.
    pub retries: u32,
    /// The first wait before a retry.
    pub backoff: Duration,
}

/// A group on its way into its row.
#[derive(Debug)]
struct Pending {
    group: Group,
    /// The batch of each event: while a group is held, later events of its draft join it.
    tickets: SmallVec<[Ticket; 1]>,
    /// How often the group's row was looked for, this time included.
    attempts: u32,
    /// How often the row was not as it had been read when it was to be amended.
    comparisons_lost: u32,
    backoff: Backoff,
    /// Whether it has been said that its events are tried again later.
    is_set_aside: bool,
}

/// Groups that share one statement.
struct Part {
    path: Path,
    groups: Vec<Pending>,
}

/// Why a part was not written.
enum NotWritten {
    /// The database refuses something in it: which event, where the part is a single group and it can be told.
    Refused { fault: Fault, culprit: Option<usize> },
    /// Other transactions are in the way, also after the retries.
    Contended,
}

/// Serves a write lane until its worker has no more and everything is answered.
pub async fn serve(
    mut lane: Lane<Group, Written>,
    table: impl Table,
    retry: Retry,
    policy: OutagePolicy,
) {
    let book = Book::new(lane.replies);
    let mut writer = Writer {
        table,
        retry,
        policy,
        book,
        held: BTreeMap::new(),
        incomplete: Vec::new(),
        guesses: Guesses::default(),
    };
    let (mut jobs_end, mut has_retried) = (false, false);
    while !(jobs_end && writer.held.is_empty()) {
        let due = writer.held.values().map(|(due, _)| *due).min();
        // In turns: tries at many rows that stay locked may take as long as the waits between them.
        let due = due.filter(|_| !has_retried || lane.jobs.is_empty());
        has_retried = false;
        tokio::select! {
            biased;
            () = sleep_until(due) => {
                writer.retry_due().await;
                has_retried = true;
            }
            job = lane.jobs.recv(), if !jobs_end => match job {
                Some(job) => writer.write(job).await,
                None => jobs_end = true,
            },
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

struct Writer<T> {
    table: T,
    retry: Retry,
    policy: OutagePolicy,
    book: Book,
    /// By draft, what is tried again when its time comes, while other drafts go on.
    held: BTreeMap<String, (Instant, Pending)>,
    /// Groups of a replay that have to be read again, and the fault of those that are to be rejected then.
    incomplete: Vec<(Pending, Option<Fault>)>,
    guesses: Guesses,
}

/// Whether it is worth it to guess that rows are new. A guess that is wrong costs a statement for nothing: after one, so many batches
/// are judged, twice as many each time, before there is another.
#[derive(Debug, Default)]
struct Guesses {
    pause: u32,
    left: u32,
}

impl Guesses {
    const PAUSE_MAX: u32 = 256;

    fn is_due(&mut self) -> bool {
        let is_due = self.left == 0;
        self.left = self.left.saturating_sub(1);
        is_due
    }

    /// Notes how many of some groups were guessed right.
    fn note(&mut self, right: usize, of: usize) {
        self.pause =
            if 2 * right >= of { 0 } else { (2 * self.pause).clamp(1, Guesses::PAUSE_MAX) };
        self.left = self.pause;
    }
}

impl<T: Table> Writer<T> {
    async fn write(&mut self, Job { ticket, batch }: Job<Group>) {
        self.book.open(ticket, &batch);
        if is_planted(Bug::DeleteBeforeCommit) {
            self.book.boast(ticket, &batch);
        }
        // Mostly all of them.
        let (mut alone, mut several) = (Vec::with_capacity(batch.len()), Vec::new());
        for group in batch {
            let tickets = smallvec![ticket; group.events.len()];
            // Not past a group that is held: its draft's events are judged in the order in which they came.
            if let Some((_, held)) = self.held.get_mut(group.draft_id()) {
                self.book.set_aside(&tickets);
                held.group.events.extend(group.events);
                held.tickets.extend(tickets);
                held.attempts = 1;
                continue;
            }
            let backoff = Backoff::new(self.retry.backoff);
            let part = if group.events.len() == 1 { &mut alone } else { &mut several };
            part.push(Pending {
                group,
                tickets,
                attempts: 1,
                comparisons_lost: 0,
                backoff,
                is_set_aside: false,
            });
        }
        let guesses = !several.is_empty() && self.table.may_guess() && self.guesses.is_due();
        let path = if guesses { Path::Guessed } else { Path::Judged };
        let parts = [Part { path, groups: several }, Part { path: Path::Fast, groups: alone }];
        self.settle(parts.into()).await;
        // All of it may have joined what is held.
        self.book.flush();
    }

    async fn retry_due(&mut self) {
        let now = Instant::now();
        let due = self.held.extract_if(.., |_draft, (at, _)| *at <= now);
        let mut groups: Vec<Pending> = due.map(|(_draft, (_, pending))| pending).collect();
        // In the order of every batch: rows that are locked in another one can deadlock with them.
        groups.sort_by(|a, b| a.group.draft_id().cmp(b.group.draft_id()));
        self.settle(vec![Part { path: Path::Judged, groups }]).await;
    }

    /// Writes parts, cutting around what the database refuses.
    async fn settle(&mut self, mut parts: Vec<Part>) {
        while let Some(Part { path, mut groups }) = parts.pop() {
            if groups.is_empty() {
                continue;
            }
            match self.attempt(path, &groups).await {
                Ok(verdicts) => parts.push(self.conclude(path, groups, verdicts)),
                Err(NotWritten::Refused { fault, .. }) if is_planted(Bug::BatchIsRejected) => {
                    groups.into_iter().for_each(|pending| self.reject(pending, &fault));
                }
                // A statement that failed says nothing about any single row of it.
                Err(_) if groups.len() > 1 => {
                    let right = groups.split_off(groups.len() / 2);
                    parts.extend([right, groups].map(|groups| Part { path, groups }));
                }
                Err(NotWritten::Refused { .. }) if groups.iter().any(|it| self.lacks(it)) => {
                    self.incomplete.extend(groups.into_iter().map(|pending| (pending, None)));
                }
                Err(NotWritten::Refused { fault, culprit }) => {
                    let rest = groups
                        .into_iter()
                        .filter_map(|pending| self.refuse(pending, &fault, culprit))
                        .collect();
                    parts.push(Part { path: Path::Judged, groups: rest });
                }
                // A row that another transaction keeps locked is held, that row alone: no valid event is given up for it.
                Err(NotWritten::Contended) => {
                    groups.into_iter().for_each(|pending| self.try_later(pending))
                }
            }
            let groups = self.complete().await;
            if !groups.is_empty() {
                parts.push(Part { path: Path::Judged, groups });
            }
            self.book.flush();
        }
    }

    /// Whether a group that the database refuses has to be read again: because the next event gets its turn, or for its dead letter.
    fn lacks(&self, Pending { group, .. }: &Pending) -> bool {
        let is_compacted = group.events.iter().any(|event| !event.has_record());
        is_compacted && (group.events.len() > 1 || self.table.wants_records())
    }

    /// Reads again what is incomplete. Returns what is to be judged then.
    async fn complete(&mut self) -> Vec<Pending> {
        let mut complete = Vec::new();
        for (mut pending, fault) in std::mem::take(&mut self.incomplete) {
            self.table.recall(&mut pending.group.events).await;
            match fault {
                Some(fault) => self.reject(pending, &fault),
                None => complete.push(pending),
            }
        }
        complete
    }

    /// Writes a part, holding through outages and retrying a few times when other transactions are in the way.
    async fn attempt(&mut self, path: Path, part: &[Pending]) -> Result<Vec<Verdict>, NotWritten> {
        let groups: Vec<&Group> = part.iter().map(|pending| &pending.group).collect();
        let mut outage = Outage::none(Server::Database, &self.policy);
        let mut contention = Backoff::new(self.retry.backoff);
        loop {
            let written = write(&mut self.table, path, &groups).await;
            // Whatever the server says, it is back: also where an earlier statement of ours still holds the rows.
            if !matches!(written, Err(Failure::Out(_))) {
                outage.over();
            }
            match written {
                Ok(verdicts) => return Ok(verdicts),
                Err(Failure::Refused { fault, culprit }) => {
                    return Err(NotWritten::Refused { fault, culprit });
                }
                // If the statement took effect after all, the guard finds it there; if not, it is done now.
                Err(Failure::Contended(error)) if contention.tries() < self.retry.retries => {
                    tracing::debug!(%error, rows = groups.len(), "contention, trying again");
                    outage.pause(contention.next_wait(), Again::Contention).await;
                }
                // Waiting for one locked row keeps all others waiting: they are parted at once.
                Err(Failure::Contended(_) | Failure::Locked(_)) => {
                    return Err(NotWritten::Contended);
                }
                // The same: an outcome that is unknown is found out by doing it again.
                Err(Failure::Out(error))
                    if is_planted(Bug::LostAnswerIsRefusal)
                        || (is_planted(Bug::OutageIsRefusal) && outage.tries() >= 3) =>
                {
                    let fault = Fault::new(Reason::DatabaseRefused, error.to_string());
                    return Err(NotWritten::Refused { fault, culprit: None });
                }
                Err(Failure::Out(error)) => {
                    self.table.disconnect();
                    outage.hold(&error).await;
                }
            }
        }
    }

    /// Enters the verdicts into the book; what is left undecided is returned, to be judged.
    fn conclude(&mut self, path: Path, groups: Vec<Pending>, verdicts: Vec<Verdict>) -> Part {
        let mut undecided = Vec::new();
        let count = groups.len();
        for (pending, verdict) in groups.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Applied => self.book.settle(pending, smallvec![Outcome::Applied]),
                Verdict::Settled(outcomes) => self.book.settle(pending, outcomes),
                Verdict::Undecided if path != Path::Judged => undecided.push(pending),
                Verdict::Incomplete => self.incomplete.push((pending, None)),
                Verdict::Undecided if pending.comparisons_lost >= COMPARISONS_LOST_MAX => {
                    let fault = Fault::new(Reason::DatabaseRefused, UNCHANGED);
                    self.give_up(pending, fault);
                }
                Verdict::Undecided => {
                    self.try_later(Pending {
                        comparisons_lost: pending.comparisons_lost + 1,
                        ..pending
                    });
                }
                // The first try and then the retries.
                Verdict::NoSuchRow if pending.attempts > self.retry.retries => {
                    let message =
                        format!("no row has this eventDraftId, after {} tries", pending.attempts);
                    let fault = Fault::new(Reason::UnknownDraft, message);
                    self.give_up(pending, fault);
                }
                Verdict::NoSuchRow => {
                    let others =
                        if is_planted(Bug::RetriesAreShared) { self.held.len() } else { 0 };
                    let others = u32::try_from(others).expect("few are held");
                    self.try_later(Pending { attempts: pending.attempts + 1 + others, ..pending })
                }
            }
        }
        if path == Path::Guessed {
            self.guesses.note(count - undecided.len(), count);
        }
        Part { path: Path::Judged, groups: undecided }
    }

    /// Takes the culprit out of a group that stands alone; what is left of the group gets its turn.
    fn refuse(
        &mut self,
        mut pending: Pending,
        fault: &Fault,
        culprit: Option<usize>,
    ) -> Option<Pending> {
        let culprit = culprit.unwrap_or_else(|| pending.group.newest());
        let change = pending.group.events.swap_remove(culprit);
        let ticket = pending.tickets.swap_remove(culprit);
        self.book.refuse(ticket, change.refuse(fault.clone(), pending.attempts));
        (!pending.group.events.is_empty()).then_some(pending)
    }

    /// Rejects all events of a group, once it has the records that its dead letters need.
    fn give_up(&mut self, pending: Pending, fault: Fault) {
        if self.table.wants_records() && self.lacks(&pending) {
            self.incomplete.push((pending, Some(fault)));
        } else {
            self.reject(pending, &fault);
        }
    }

    /// Rejects all events of a group.
    fn reject(&mut self, Pending { group, tickets, attempts, .. }: Pending, fault: &Fault) {
        for (change, ticket) in group.events.into_iter().zip(tickets) {
            self.book.refuse(ticket, change.refuse(fault.clone(), attempts));
        }
    }

    /// Holds a group, that draft alone.
    fn try_later(&mut self, mut pending: Pending) {
        let lanes = self.policy.lanes(Server::Database);
        lanes.into_iter().for_each(|lanes| lanes.note_again(Again::Row));
        if !pending.is_set_aside {
            self.book.set_aside(&pending.tickets);
            pending.is_set_aside = true;
        }
        let due = Instant::now() + pending.backoff.next_wait();
        self.held.insert(pending.group.draft_id().to_owned(), (due, pending));
    }
}

/// The answers of a lane's open batches, collected so that one wake-up carries what one statement settled.
struct Book {
    replies: Replies<Written>,
    /// In the order of their tickets: one, and those of which something is held, which may be thousands.
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
    fn new(replies: Replies<Written>) -> Book {
        Book { replies, open: Vec::new(), answered: Vec::new() }
    }

    fn open(&mut self, ticket: Ticket, batch: &[Group]) {
        let events = batch.iter().map(|group| group.events.len()).sum();
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

    /// Enters the outcomes of a group.
    fn settle(&mut self, Pending { group, tickets, .. }: Pending, outcomes: Outcomes) {
        if tickets.iter().all(|ticket| *ticket == tickets[0]) {
            return self.enter(tickets[0], Settled { group, outcomes });
        }
        for ((change, outcome), ticket) in group.events.into_iter().zip(outcomes).zip(tickets) {
            self.enter(ticket, Settled::one(change, outcome));
        }
    }

    fn enter(&mut self, ticket: Ticket, settled: Settled) {
        let batch = self.batch(ticket);
        batch.events -= settled.outcomes.len();
        batch.answer.settled.push(settled);
    }

    /// Enters an event that can't be written.
    fn refuse(&mut self, ticket: Ticket, rejected: Rejected) {
        let batch = self.batch(ticket);
        batch.events -= 1;
        batch.answer.refused.push(rejected);
    }

    /// Enters that an event of each of these batches is tried again later.
    fn set_aside(&mut self, tickets: &[Ticket]) {
        tickets.iter().for_each(|ticket| self.batch(*ticket).answer.set_aside += 1);
    }

    /// Says that all is written before it is.
    fn boast(&self, ticket: Ticket, batch: &[Group]) {
        let applied = |group| Settled::all(group, Outcome::Applied);
        let settled = batch.iter().cloned().map(applied).collect();
        self.replies.answer(ticket, vec![Written { settled, ..Written::default() }], false);
    }

    fn flush(&mut self) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_wrong_guess_there_is_a_pause_that_doubles_until_one_is_right() {
        let mut guesses = Guesses::default();
        let mut pause = |right| {
            guesses.note(right, 10);
            (0..1_000).take_while(|_| !guesses.is_due()).count()
        };
        assert_eq!([10, 5, 4, 0, 0, 9, 0].map(&mut pause), [0, 0, 1, 2, 4, 0, 1]);
        assert_eq!((0..20).map(|_| pause(0)).max(), Some(256), "and is bounded");
    }
}
