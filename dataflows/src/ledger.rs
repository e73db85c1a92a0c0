//! The ledger: which offsets each epoch covers, what became of its records, and what may be
//! committed.

use std::collections::BTreeMap;

use crate::Epoch;
use crate::outcome::Tally;
use crate::planted::{Bug, is_planted};

/// A partition and the next offset to read from it: the form in which Kafka keeps a commit, which
/// is why nobody subtracts 1.
pub type NextOffset = (i32, i64);

/// One epoch, or several of which everything is settled.
#[derive(Debug, Default)]
struct Page {
    records: u64,
    /// How many of them have their outcome.
    outcomes: u64,
    bytes: usize,
    /// By partition. There are few, and one after the other has many records in a row.
    next: Vec<NextOffset>,
    /// How many of them have been set aside.
    set_aside: u64,
    /// And how many bytes those take.
    set_aside_bytes: usize,
}

impl Page {
    fn enter(&mut self, (partition, next): NextOffset) {
        match self.next.iter_mut().rfind(|(known, _)| *known == partition) {
            Some((_, known)) => *known = next,
            None => self.next.push((partition, next)),
        }
    }

    fn next(&self, partition: i32) -> Option<i64> {
        self.next.iter().find(|(known, _)| *known == partition).map(|(_, next)| *next)
    }

    fn settle(&mut self, tally: &Tally) {
        self.outcomes += tally.records();
        self.set_aside += tally.set_aside;
        self.set_aside_bytes += usize::try_from(tally.set_aside_bytes).unwrap_or(usize::MAX);
    }

    fn is_whole(&self) -> bool {
        self.records == self.outcomes
    }

    /// Adds a later page.
    fn append(&mut self, later: Page) {
        self.records += later.records;
        self.outcomes += later.outcomes;
        self.bytes += later.bytes;
        self.set_aside += later.set_aside;
        self.set_aside_bytes += later.set_aside_bytes;
        later.next.into_iter().for_each(|next| self.enter(next));
    }

    fn load(&self) -> UnderWay {
        match self.records.saturating_sub(self.outcomes) {
            0 => UnderWay::default(),
            records => UnderWay {
                busy: usize::from(self.set_aside == 0),
                held: usize::from(self.set_aside > 0),
                records,
                // Those that are left may be others than those that were set aside. Then they are
                // few, and have more than they are counted for.
                bytes: if records > self.set_aside { self.bytes } else { self.set_aside_bytes },
            },
        }
    }
}

/// What is closed and not settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Epochs of which nothing has been set aside.
    pub busy: usize,
    /// Epochs of which something has been set aside, to be tried again, while the others go on.
    pub held: usize,
    /// How many records of all of these have no outcome yet.
    pub records: u64,
    /// How many bytes all of these have: as many as the epoch had at first, since a record that is
    /// left may keep its neighbours in memory, until all that are left have been set aside.
    pub bytes: usize,
}

impl UnderWay {
    fn add(&mut self, UnderWay { busy, held, records, bytes }: UnderWay) {
        self.busy += busy;
        self.held += held;
        self.records += records;
        self.bytes += bytes;
    }

    fn subtract(&mut self, UnderWay { busy, held, records, bytes }: UnderWay) {
        self.busy -= busy;
        self.held -= held;
        self.records -= records;
        self.bytes -= bytes;
    }
}

/// The epochs in flight, oldest first, and what became of all records.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The epoch that records are entered into.
    open: Option<(Epoch, Page)>,
    closed: BTreeMap<Epoch, Page>,
    /// The sum over those that are closed.
    under_way: UnderWay,
    totals: Tally,
}

/// An epoch passed the probe, but its outcomes do not add up to what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imbalance {
    /// The epoch.
    pub epoch: Epoch,
    /// Records that were fed.
    pub read: u64,
    /// Outcomes that came back.
    pub outcomes: u64,
}

impl std::fmt::Display for Imbalance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Imbalance { epoch, read, outcomes } = self;
        write!(f, "epoch {epoch}: {read} records were read, but {outcomes} outcomes came back")
    }
}

impl std::error::Error for Imbalance {}

impl Ledger {
    /// Enters a record of so many bytes into an epoch, which closes the one before. Records of a
    /// partition come in the order of their offsets.
    pub fn enter(&mut self, epoch: Epoch, partition: i32, offset: i64, bytes: usize) {
        if self.open.as_ref().is_none_or(|(open, _)| *open != epoch) {
            self.close();
        }
        let (_, page) = self.open.get_or_insert_with(|| (epoch, Page::default()));
        page.records += 1;
        page.bytes += bytes;
        let next = if is_planted(Bug::CommitOffByOne) { offset } else { offset + 1 };
        let expected = |page: &Page| page.next(partition).is_none_or(|next| next == offset);
        if !is_planted(Bug::GapStalls) || expected(page) {
            page.enter((partition, next));
        }
    }

    /// Closes the open epoch.
    pub fn close(&mut self) {
        if let Some((epoch, page)) = self.open.take() {
            self.change(epoch, |closed| closed.append(page));
            self.join(epoch);
        }
    }

    /// Enters what became of records of an epoch on one worker.
    pub fn settle(&mut self, epoch: Epoch, tally: &Tally) {
        self.totals += tally;
        match &mut self.open {
            Some((open, page)) if *open == epoch => page.settle(tally),
            _ => {
                self.change(epoch, |page| page.settle(tally));
                self.join(epoch);
            }
        }
    }

    fn change(&mut self, epoch: Epoch, change: impl FnOnce(&mut Page)) {
        let page = self.closed.entry(epoch).or_default();
        self.under_way.subtract(page.load());
        change(page);
        self.under_way.add(page.load());
    }

    /// Makes one page of this one and its neighbours, as far as they are whole: behind an epoch
    /// that is held there may be thousands.
    fn join(&mut self, epoch: Epoch) {
        if !self.closed[&epoch].is_whole() {
            return;
        }
        let whole = |(epoch, page): (&Epoch, &Page)| page.is_whole().then_some(*epoch);
        let before = self.closed.range(..epoch).next_back().and_then(whole);
        let behind = self.closed.range(epoch + 1..).next().and_then(whole);
        for (earlier, later) in [(before, Some(epoch)), (Some(epoch), behind)] {
            let (Some(earlier), Some(later)) = (earlier, later) else { continue };
            // Committed when the later one is through.
            if let (Some(mut page), Some(end)) =
                (self.closed.remove(&earlier), self.closed.get_mut(&later))
            {
                page.append(std::mem::take(end));
                *end = page;
            }
        }
    }

    /// Lets go of the epochs below the frontier and returns the offsets that may be committed now.
    ///
    /// # Errors
    ///
    /// [`Imbalance`] when a record has no outcome, or more than one. Then nothing of this call may
    /// be committed.
    pub fn pass(&mut self, frontier: Epoch) -> Result<Vec<NextOffset>, Imbalance> {
        if self.open.as_ref().is_some_and(|(epoch, _)| *epoch < frontier) {
            self.close();
        }
        let mut next = BTreeMap::new();
        while let Some(page) = self.closed.first_entry().filter(|page| *page.key() < frontier) {
            let (epoch, page) = page.remove_entry();
            let Page { records: read, outcomes, .. } = page;
            if read != outcomes {
                return Err(Imbalance { epoch, read, outcomes });
            }
            next.extend(page.next);
        }
        for page in self.closed.values().chain(self.open.as_ref().map(|(_, page)| page)) {
            if is_planted(Bug::CommitBeforeApply)
                || (is_planted(Bug::CommitOverAHole) && page.is_whole())
            {
                next.extend(page.next.clone());
            }
        }
        Ok(next.into_iter().collect())
    }

    /// Lets go of a partition: what is still in flight of it is done and counted, but never
    /// committed by this owner.
    pub fn forget(&mut self, partition: i32) {
        for page in self.closed.values_mut().chain(self.open.as_mut().map(|(_, page)| page)) {
            page.next.retain(|(known, _)| *known != partition);
        }
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.open.is_none() && self.closed.is_empty()
    }

    /// Whether all records of an epoch that is closed have their outcomes.
    pub fn is_settled(&self, epoch: Epoch) -> bool {
        self.closed.get(&epoch).is_none_or(Page::is_whole)
    }

    /// What is closed and not settled.
    pub fn under_way(&self) -> UnderWay {
        self.under_way
    }

    /// What became of the records so far, also of those whose epochs are not through.
    pub fn totals(&self) -> &Tally {
        &self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(records: u64) -> Tally {
        Tally { applied: records, ..Tally::default() }
    }

    #[test]
    fn commits_the_next_offset_of_epochs_below_the_frontier_only() {
        let mut ledger = Ledger::default();
        ledger.enter(0, 7, 41, 10);
        ledger.enter(1, 7, 42, 10);
        ledger.settle(0, &applied(1));
        ledger.settle(1, &applied(1));
        assert_eq!(ledger.pass(1), Ok(vec![(7, 42)]));
        assert_eq!(ledger.pass(1), Ok(vec![]));
        assert_eq!(ledger.pass(2), Ok(vec![(7, 43)]));
        assert_eq!(ledger.totals().records(), 2);
    }

    #[test]
    fn an_epoch_whose_outcomes_do_not_add_up_is_never_committed() {
        let mut ledger = Ledger::default();
        ledger.enter(0, 0, 0, 1);
        ledger.enter(0, 0, 1, 1);
        ledger.settle(0, &applied(1));
        assert_eq!(ledger.pass(1), Err(Imbalance { epoch: 0, read: 2, outcomes: 1 }));
    }

    #[test]
    fn a_partition_that_was_let_go_is_counted_but_not_committed() {
        let mut ledger = Ledger::default();
        ledger.enter(0, 0, 5, 1);
        ledger.enter(0, 1, 5, 1);
        ledger.forget(0);
        ledger.enter(1, 0, 9, 1);
        ledger.settle(0, &applied(2));
        ledger.settle(1, &applied(1));
        assert_eq!(ledger.pass(1), Ok(vec![(1, 6)]));
        assert_eq!(ledger.pass(2), Ok(vec![(0, 10)]));
    }

    fn set_aside(records: u64) -> Tally {
        Tally { set_aside: records, set_aside_bytes: 7 * records, ..Tally::default() }
    }

    #[test]
    fn an_epoch_is_under_way_from_its_end_until_its_last_record_is_settled() {
        let mut ledger = Ledger::default();
        ledger.enter(0, 0, 0, 10);
        ledger.enter(0, 0, 1, 20);
        assert_eq!(ledger.under_way(), UnderWay::default(), "it is open");
        ledger.settle(0, &applied(1));
        ledger.close();
        let half = UnderWay { busy: 1, held: 0, records: 1, bytes: 30 };
        assert_eq!(ledger.under_way(), half);
        ledger.settle(0, &set_aside(1));
        assert_eq!(ledger.under_way(), UnderWay { busy: 0, held: 1, bytes: 7, ..half });
        ledger.settle(0, &applied(1));
        assert_eq!(ledger.under_way(), UnderWay::default());
        assert!(!ledger.is_empty(), "the frontier has not passed it");
        assert_eq!(ledger.pass(1), Ok(vec![(0, 2)]));
        assert!(ledger.is_empty());
    }

    #[test]
    fn an_epoch_keeps_its_bytes_while_something_of_it_is_neither_settled_nor_set_aside() {
        let mut ledger = Ledger::default();
        (0..3).for_each(|offset| ledger.enter(0, 0, offset, 10));
        ledger.close();
        ledger.settle(0, &set_aside(1));
        ledger.settle(0, &applied(1));
        assert_eq!(ledger.under_way(), UnderWay { busy: 0, held: 1, records: 2, bytes: 30 });
        ledger.settle(0, &set_aside(1));
        assert_eq!(ledger.under_way(), UnderWay { busy: 0, held: 1, records: 2, bytes: 14 });
        ledger.settle(0, &applied(2));
        assert_eq!(ledger.under_way(), UnderWay::default());
    }

    #[test]
    fn behind_an_epoch_that_is_held_a_thousand_that_are_settled_are_one_page() {
        let mut ledger = Ledger::default();
        for epoch in 0..1_000 {
            ledger.enter(epoch, 0, i64::try_from(epoch).unwrap(), 1);
        }
        ledger.close();
        ledger.settle(0, &set_aside(1));
        // In an order of their own: every third, then those in front of them, then the rest.
        for part in [2, 1, 0] {
            for epoch in (1..1_000).filter(|epoch| epoch % 3 == part) {
                ledger.settle(epoch, &applied(1));
            }
        }
        assert_eq!(ledger.closed.len(), 2);
        assert_eq!(ledger.under_way(), UnderWay { busy: 0, held: 1, records: 1, bytes: 7 });
        assert_eq!(ledger.pass(0), Ok(vec![]), "nothing is committed past the first");
        ledger.settle(0, &applied(1));
        assert_eq!(ledger.pass(1_000), Ok(vec![(0, 1_000)]));
        assert_eq!(ledger.totals().records(), 1_000);
    }

    #[test]
    fn an_outcome_too_many_is_found_also_after_its_epoch_was_joined_to_the_next() {
        let mut ledger = Ledger::default();
        for epoch in 0..2 {
            ledger.enter(epoch, 0, i64::try_from(epoch).unwrap(), 1);
            ledger.settle(epoch, &applied(1));
        }
        ledger.close();
        ledger.settle(0, &applied(1));
        assert_eq!(ledger.pass(2), Err(Imbalance { epoch: 0, read: 0, outcomes: 1 }));
    }
}
