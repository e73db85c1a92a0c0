//! The ledger: which offsets each epoch covers, what became of its records, and what may be committed.

use std::collections::BTreeMap;

use crate::Epoch;
use crate::outcome::Tally;
use crate::planted::{Bug, is_planted};

/// A partition and the next offset to read from it: the form in which Kafka keeps a commit, which is why nobody subtracts 1.
pub type NextOffset = (i32, i64);

#[derive(Debug, Default)]
struct Page {
    records: u64,
    bytes: usize,
    next: BTreeMap<i32, i64>,
    tally: Tally,
}

/// The epochs in flight, oldest first, and the totals of those that are through.
#[derive(Debug, Default)]
pub struct Ledger {
    pages: BTreeMap<Epoch, Page>,
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
    /// Enters a record of so many bytes into an open epoch. Records of a partition come in the order of their offsets.
    pub fn enter(&mut self, epoch: Epoch, partition: i32, offset: i64, bytes: usize) {
        let page = self.pages.entry(epoch).or_default();
        page.records += 1;
        page.bytes += bytes;
        let next = if is_planted(Bug::CommitOffByOne) { offset } else { offset + 1 };
        let expected = |page: &Page| page.next.get(&partition).is_none_or(|next| *next == offset);
        if !is_planted(Bug::GapStalls) || expected(page) {
            page.next.insert(partition, next);
        }
    }

    /// Enters what became of an epoch's records on one worker.
    pub fn settle(&mut self, epoch: Epoch, tally: &Tally) {
        self.pages.entry(epoch).or_default().tally += tally;
    }

    /// Closes the epochs below the frontier and returns the offsets that may be committed now.
    ///
    /// # Errors
    ///
    /// [`Imbalance`] when a record has no outcome, or more than one. Then nothing of this call may be committed.
    pub fn pass(&mut self, frontier: Epoch) -> Result<Vec<NextOffset>, Imbalance> {
        let still_open = self.pages.split_off(&frontier);
        let through = std::mem::replace(&mut self.pages, still_open);
        let mut next = BTreeMap::new();
        for (epoch, page) in through {
            let (read, outcomes) = (page.records, page.tally.records());
            if read != outcomes {
                return Err(Imbalance { epoch, read, outcomes });
            }
            self.totals += &page.tally;
            next.extend(page.next);
        }
        for page in self.pages.values() {
            let is_whole = page.records == page.tally.records();
            if is_planted(Bug::CommitBeforeApply) || (is_planted(Bug::CommitOverAHole) && is_whole)
            {
                next.extend(page.next.clone());
            }
        }
        Ok(next.into_iter().collect())
    }

    /// Lets go of a partition: what is still in flight of it is done and counted, but never committed by this owner.
    pub fn forget(&mut self, partition: i32) {
        for page in self.pages.values_mut() {
            page.next.remove(&partition);
        }
    }

    /// How many epochs are in flight.
    pub fn epochs(&self) -> usize {
        self.pages.len()
    }

    /// How many bytes of records are in flight.
    pub fn bytes(&self) -> usize {
        self.pages.values().map(|page| page.bytes).sum()
    }

    /// What became of the records of all epochs that are through.
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
}
