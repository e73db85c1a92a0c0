//! write: one row for each draft, in batches, through one connection a lane.
//!
//! A batch goes down the [fast path](Path::Fast) first, one guarded UPDATE that says which rows it
//! changed. Several events of one draft are judged by the pure rule as if they were the
//! [first](Path::Guessed) that reach their row, and the row is amended if that is so. What is left
//! (a duplicate, an older event, no such row) goes down the [judged path](Path::Judged): the rows
//! are read, judged, and amended if they are still as they were read. Every statement is a
//! transaction of its own: nothing ties the rows of a batch together, and the guard makes repeating
//! any of them harmless. So batches that have come to wait behind a statement are written together.
//!
//! What the database refuses is cut until the offending rows stand alone. Rows that others keep
//! locked are asked for and held, alone; what the database cannot do now is retried.

use std::collections::HashSet;
use std::time::Duration;

use dataflows::effect::Ticket;
use dataflows::latest::Group;
use dataflows::outcome::Settled;
use dataflows::planted::{Bug, is_planted};
use dataflows::reject::{Fault, Reason};
use dataflows::written::Written;
use smallvec::{SmallVec, smallvec};
use tokio::time::Instant;

use self::attempt::NotWritten;
use self::book::Book;
use self::failure::{Failure, Refusal};
use self::guesses::Guesses;
use self::held::Held;
use self::parts::{Part, Parts, Pending, part};
use self::table::{Path, Table, Verdict};
use super::outage::OutagePolicy;
use super::{Job, Lane};
use crate::figures::Server;
use crate::figures::lanes::Again;
use crate::retry::Backoff;

mod attempt;
mod book;
mod guesses;
mod held;
mod parts;
pub mod table;
pub mod session;
pub mod failure;
#[cfg(test)]
mod tests;

/// How often a comparison may be lost to other writers. Waits grow in between, so losing this often
/// means that the database leaves the row alone.
const COMPARISONS_LOST_MAX: u32 = 10;
const UNCHANGED: &str = "the UPDATE leaves the row unchanged, time and again: a trigger or a row security policy is in the way";

/// While batches wait, retries rest so many times as long as they took: a tenth of the time is
/// theirs.
const RETRY_REST: u32 = 9;

/// How often and how patiently a lane tries again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often an event is retried, for contention or an unknown draft.
    pub retries: u32,
    /// The first wait before a retry.
    pub backoff: Duration,
}

/// Serves a write lane until its worker has no more and everything is answered. A statement has so
/// many rows at most.
pub async fn serve(
    mut lane: Lane<Group, Written>,
    table: impl Table,
    rows_max: usize,
    retry: Retry,
    policy: OutagePolicy,
) {
    let book = Book::new(lane.replies);
    let mut writer = Writer {
        table,
        rows_max,
        retry,
        policy,
        book,
        held: Held::default(),
        guesses: Guesses::default(),
        meets_locks: false,
        met_outage: false,
    };
    let (mut jobs_end, mut rest_until) = (false, Instant::now());
    while !(jobs_end && writer.held.is_empty()) {
        let due = writer.held.first_due();
        // Tries at many rows that stay locked may take as long as the waits between them.
        let due = due.filter(|_| lane.jobs.is_empty() || rest_until <= Instant::now());
        tokio::select! {
            biased;
            () = sleep_until(due) => {
                let since = Instant::now();
                writer.met_outage = false;
                writer.retry_due().await;
                // While the server was away nobody else had his turn either.
                let took = if writer.met_outage { Duration::ZERO } else { since.elapsed() };
                rest_until = Instant::now() + RETRY_REST * took;
            }
            jobs = lane.jobs.recv_up_to(rows_max, have_no_draft_in_common), if !jobs_end => {
                jobs_end = jobs.is_empty();
                writer.write(jobs).await;
            }
        }
    }
}

/// Whether a batch can be written with those before it, by one statement, in which each draft comes
/// once: events of one draft are judged in the order in which they came.
fn have_no_draft_in_common(jobs: &[Job<Group>], next: &Job<Group>) -> bool {
    let drafts = jobs.iter().flat_map(|job| &job.batch).map(Group::draft_hash);
    let drafts: HashSet<u64> = drafts.collect();
    !next.batch.iter().any(|group| drafts.contains(&group.draft_hash()))
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

struct Writer<T> {
    table: T,
    /// The rows of a statement, at most.
    rows_max: usize,
    retry: Retry,
    policy: OutagePolicy,
    book: Book,
    /// By draft, what is tried again when its time comes, while other drafts go on.
    held: Held,
    guesses: Guesses,
    /// Whether some rows were locked when that was last asked. Then it is asked before the next
    /// batch is written, not after a wait in vain.
    meets_locks: bool,
    /// Whether the server has been away since that was last unset.
    met_outage: bool,
}

impl<T: Table> Writer<T> {
    /// Writes batches that have no draft in common.
    async fn write(&mut self, jobs: Vec<Job<Group>>) {
        let is_one = jobs.len() == 1;
        let mut groups = Vec::with_capacity(jobs.iter().map(|job| job.batch.len()).sum());
        for Job { ticket, batch } in jobs {
            self.book.open(ticket, &batch);
            if is_planted(Bug::DeleteBeforeCommit) {
                self.book.boast(ticket, &batch);
            }
            groups.extend(batch.into_iter().map(|group| (ticket, group)));
        }
        if !is_one {
            // The order of every batch: rows that are locked in another one can deadlock with it.
            groups.sort_by(|(_, a), (_, b)| a.draft_id().cmp(b.draft_id()));
        }
        self.join_held(&mut groups);
        if self.meets_locks {
            groups = self.hold_locked(groups).await;
        }
        let several: Vec<_> = groups.extract_if(.., |(_, group)| group.events.len() > 1).collect();
        self.write_first(Path::Fast, groups).await;
        let guesses = !several.is_empty() && self.table.may_guess() && self.guesses.is_due();
        let path = if guesses { Path::Guessed } else { Path::Judged };
        self.write_first(path, several).await;
        // All of it may have joined what is held.
        self.book.flush();
    }

    /// Takes out what may not go past a group that is held: its draft's events are judged in the
    /// order in which they came.
    fn join_held(&mut self, groups: &mut Vec<(Ticket, Group)>) {
        if self.held.is_empty() {
            return;
        }
        let is_held = |(_, group): &mut (Ticket, Group)| self.held.contains(group.draft_id());
        let joining: Vec<(Ticket, Group)> = groups.extract_if(.., is_held).collect();
        for (ticket, Group { mut events }) in joining {
            let held = self.held.get_mut(events[0].draft_id()).expect("it is held");
            let tickets: SmallVec<[Ticket; 1]> = smallvec![ticket; events.len()];
            self.book.set_aside(&mut events, &tickets);
            held.join(events, ticket);
        }
    }

    /// Holds what is locked of groups that have not been written yet. Returns the rest.
    async fn hold_locked(&mut self, groups: Vec<(Ticket, Group)>) -> Vec<(Ticket, Group)> {
        // Where that cannot be found out, the statement itself will.
        let locked = self.locked(groups.iter().map(|(_, group)| group)).await.unwrap_or_default();
        let (held, free) = part(groups, &locked);
        for (ticket, group) in held {
            self.try_later(Pending::new(group, ticket, self.retry.backoff));
        }
        self.book.flush();
        free
    }

    /// Writes groups for the first time. Mostly that settles all of them: what has to be known of a
    /// group that is tried again is noted only where one is.
    async fn write_first(&mut self, path: Path, groups: Vec<(Ticket, Group)>) {
        if groups.is_empty() {
            return;
        }
        let all: Vec<&Group> = groups.iter().map(|(_, group)| group).collect();
        match self.attempt(path, &all).await {
            Ok(verdicts)
                if verdicts.iter().all(|verdict| matches!(verdict, Verdict::Settled(_))) =>
            {
                self.note_guesses(path, groups.len(), groups.len());
                for ((ticket, group), verdict) in groups.into_iter().zip(verdicts) {
                    let outcomes = verdict.settled().expect("all of them are");
                    self.book.enter(ticket, Settled { group, outcomes });
                }
                self.book.flush();
            }
            tried => {
                let pending = |(ticket, group)| Pending::new(group, ticket, self.retry.backoff);
                let groups = groups.into_iter().map(pending).collect();
                let mut parts = Parts::default();
                self.follow(tried, Part { path, groups }, &mut parts).await;
                self.settle(parts).await;
            }
        }
    }

    async fn retry_due(&mut self) {
        let mut due = self.held.take_due();
        // In the order of every batch: rows that are locked in another one can deadlock with them.
        due.sort_by(|a, b| a.group.draft_id().cmp(b.group.draft_id()));
        // As many may be due at once as are held at all.
        let mut due = due.into_iter().peekable();
        while due.peek().is_some() {
            let groups = due.by_ref().take(self.rows_max).collect();
            self.settle(Parts::of(Part { path: Path::Judged, groups })).await;
        }
    }

    /// Writes parts, cutting around what the database refuses.
    async fn settle(&mut self, mut parts: Parts) {
        while let Some(part) = parts.pop() {
            let groups: Vec<&Group> = part.groups.iter().map(|pending| &pending.group).collect();
            let tried = self.attempt(part.path, &groups).await;
            self.follow(tried, part, &mut parts).await;
        }
    }

    /// Draws the conclusions from a try: what is to be done next goes to the `parts`.
    async fn follow(
        &mut self,
        tried: Result<Vec<Verdict>, NotWritten>,
        Part { path, groups }: Part,
        parts: &mut Parts,
    ) {
        match tried {
            Ok(verdicts) => self.conclude(path, groups, verdicts, parts).await,
            Err(NotWritten::Refused(Refusal { fault, .. })) if is_planted(Bug::BatchIsRejected) => {
                groups.into_iter().for_each(|pending| self.reject(pending, &fault));
            }
            // Who waits for one locked row keeps all others waiting.
            Err(NotWritten::Locked) if groups.len() > 1 => {
                self.part_locked(path, groups, parts).await
            }
            // A statement that failed condemns no row of it: at most it says where to cut.
            Err(NotWritten::Refused(refusal)) if groups.len() > 1 => {
                parts.cut(Part { path, groups }, |draft| refusal.quotes(draft));
            }
            Err(_) if groups.len() > 1 => parts.halve(Part { path, groups }),
            Err(NotWritten::Refused(Refusal { fault, culprit, .. })) => {
                for pending in groups {
                    let culprit = culprit.unwrap_or_else(|| pending.group.newest());
                    self.refuse(pending, culprit, fault.clone(), parts).await;
                }
            }
            // A row that another transaction keeps locked is held, that row alone: no valid event
            // is given up for it.
            Err(NotWritten::Contended | NotWritten::Locked) => {
                groups.into_iter().for_each(|pending| self.try_later(pending))
            }
        }
        self.book.flush();
    }

    /// Holds the groups whose rows are locked; the others go on.
    async fn part_locked(&mut self, path: Path, groups: Vec<Pending>, parts: &mut Parts) {
        match self.locked(groups.iter().map(|pending| &pending.group)).await {
            Ok(locked) if !locked.is_empty() => {
                let (held, groups) = part(groups, &locked);
                held.into_iter().for_each(|pending| self.try_later(pending));
                parts.push(Part { path, groups });
            }
            // It is the whole table that is locked, and nothing of it can be written.
            Err(Failure::Locked(_)) => parts.push(Part { path, groups }),
            // No row is locked any more, or something else is; or the question failed for a reason
            // that the halves will meet, too.
            _ => parts.halve(Part { path, groups }),
        }
    }

    /// Enters the verdicts into the book; what is to be judged next goes to the `parts`.
    async fn conclude(
        &mut self,
        path: Path,
        groups: Vec<Pending>,
        verdicts: Vec<Verdict>,
        parts: &mut Parts,
    ) {
        let mut again = Vec::new();
        let count = groups.len();
        for (mut pending, verdict) in groups.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Settled(outcomes) => {
                    self.book.settle(pending.group, &pending.tickets, outcomes)
                }
                Verdict::Undecided(_) if path != Path::Judged => again.push(pending),
                Verdict::Incomplete(event) => {
                    self.table.recall(&mut pending.group.events[event..=event]).await;
                    again.push(pending);
                }
                // The next one is judged with the same count: nothing says that the row, which has
                // had its time, is written with that one.
                Verdict::Undecided(suspect) if pending.comparisons_lost >= COMPARISONS_LOST_MAX => {
                    let fault = Fault::new(Reason::DatabaseRefused, UNCHANGED);
                    self.refuse(pending, suspect, fault, parts).await;
                }
                Verdict::Undecided(_) => {
                    self.try_later(Pending {
                        comparisons_lost: pending.comparisons_lost + 1,
                        ..pending
                    });
                }
                Verdict::NoSuchRow => self.look_again(pending).await,
            }
        }
        self.note_guesses(path, count - again.len(), count);
        parts.push(Part { path: Path::Judged, groups: again });
    }

    /// Holds the events of a draft that has no row yet, but for those that have had their tries.
    async fn look_again(&mut self, pending: Pending) {
        // The first try and then the retries.
        let (tried, rest) = pending.part(self.retry.retries);
        if let Some(tried) = tried {
            let tries = tried.attempts_max();
            let message = format!("no row has this eventDraftId, after {tries} tries");
            self.give_up(tried, &Fault::new(Reason::UnknownDraft, message)).await;
        }
        if let Some(mut rest) = rest {
            // As long as the eldest has to wait: what joins it may come too often for waits of its
            // own.
            rest.backoff = Backoff::new(self.retry.backoff).after(rest.attempts_max() - 1);
            let others = if is_planted(Bug::RetriesAreShared) { self.held.len() } else { 0 };
            let others = u32::try_from(others).expect("few are held");
            rest.attempts.iter_mut().for_each(|attempts| *attempts += 1 + others);
            self.try_later(rest);
        }
    }

    /// Notes how many of some groups were guessed right, if they were guessed.
    fn note_guesses(&mut self, path: Path, right: usize, of: usize) {
        if path == Path::Guessed {
            self.guesses.note(right, of);
        }
    }

    /// Takes the culprit out of a group that stands alone, once it has the record that its dead
    /// letter needs; what is left of the group gets its turn.
    async fn refuse(
        &mut self,
        mut pending: Pending,
        culprit: usize,
        fault: Fault,
        parts: &mut Parts,
    ) {
        let event = &mut pending.group.events[culprit..=culprit];
        if self.table.wants_records() && !event[0].has_record() {
            self.table.recall(event).await;
        }
        let (change, ticket, attempts) = pending.take(culprit);
        self.book.refuse(ticket, change.refuse(fault, attempts));
        // A part for each piece: no statement may name a draft twice.
        for piece in pending.divide().into_iter().rev() {
            parts.push(Part { path: Path::Judged, groups: vec![piece] });
        }
    }

    /// Rejects all events of a group, once it has the records that its dead letters need.
    async fn give_up(&mut self, mut pending: Pending, fault: &Fault) {
        let events = &mut pending.group.events;
        if self.table.wants_records() && events.iter().any(|event| !event.has_record()) {
            self.table.recall(events).await;
        }
        self.reject(pending, fault);
    }

    /// Rejects all events of a group.
    fn reject(&mut self, Pending { group, tickets, attempts, .. }: Pending, fault: &Fault) {
        for ((change, ticket), attempts) in group.events.into_iter().zip(tickets).zip(attempts) {
            self.book.refuse(ticket, change.refuse(fault.clone(), attempts));
        }
    }

    /// Holds a group, that draft alone.
    fn try_later(&mut self, mut pending: Pending) {
        let lanes = self.policy.lanes(Server::Database);
        lanes.into_iter().for_each(|lanes| lanes.note_again(Again::Row));
        if !pending.is_set_aside {
            self.book.set_aside(&mut pending.group.events, &pending.tickets);
            pending.is_set_aside = true;
        }
        self.held.hold(pending);
    }
}
