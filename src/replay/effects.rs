//! The effects of a replay: those of a run, but for what its options leave out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dataflows::change::{Change, hash};
use dataflows::effect::Effect;
use dataflows::graph::Invalidated;
use dataflows::latest::Group;
use dataflows::outcome::Settled;
use dataflows::peers::Waker;
use dataflows::record::Position;
use dataflows::reject::Rejected;
use dataflows::row::{Judgement, RowMemory, judge, judge_anew};
use dataflows::written::Written;

use super::Options;
use super::recall::Recall;
use crate::sink::postgres::failure::Failure;
use crate::sink::postgres::table::{Amendment, Table};
use crate::sink::servers::Servers;
use crate::worker::MakeEffects;

/// Makes the effects of a replay.
pub(super) struct Effects {
    pub(super) servers: Servers,
    pub(super) options: Options,
    /// Counts the rows that are written, or would be.
    pub(super) rows: Arc<AtomicU64>,
    /// For what an epoch has dropped and is needed after all.
    pub(super) recall: Recall,
}

impl MakeEffects for Effects {
    fn write(&self, waker: Waker) -> impl Effect<Request = Group, Answer = Written> + 'static {
        let Effects { options, rows, recall, .. } = self;
        self.servers.write_through(&waker, |table| Rows {
            table,
            options: *options,
            counted: Arc::clone(rows),
            recall: recall.clone(),
            would_have: HashMap::new(),
        })
    }

    fn invalidate(
        &self,
        waker: Waker,
    ) -> impl Effect<Request = Settled, Answer = Invalidated> + 'static {
        if self.options.dry_run {
            let nothing = |settled| Invalidated { settled, deletes: 0, keys_deleted: 0 };
            return self.servers.pass_by(&waker, move |settled| vec![nothing(settled)]);
        }
        self.servers.delete(&waker)
    }

    fn dead_letter(
        &self,
        waker: Waker,
    ) -> impl Effect<Request = Rejected, Answer = Rejected> + 'static {
        self.servers.dead_letter(waker)
    }
}

/// The table of a replay: it counts what it writes, and writes more than a run, or nothing.
struct Rows<T> {
    table: T,
    options: Options,
    counted: Arc<AtomicU64>,
    recall: Recall,
    /// In a dry run: the rows that would have been written, by the hash of their drafts, and the
    /// event whose images each would have. Neither in the budget nor the whole of the rows' memory:
    /// see docs/decisions/0007.
    would_have: HashMap<u64, Option<Position>>,
}

impl<T> Rows<T> {
    fn count(&self, rows: usize) {
        let rows = u64::try_from(rows).expect("a statement has few rows");
        self.counted.fetch_add(rows, Ordering::Relaxed);
    }
}

impl<T: Table> Table for Rows<T> {
    async fn update(&mut self, events: &[&Change]) -> Result<Vec<usize>, Failure> {
        if self.options.dry_run || self.options.rewrite {
            // All of them have to be judged.
            return Ok(Vec::new());
        }
        let written = self.table.update(events).await?;
        self.count(written.len());
        Ok(written)
    }

    async fn read(&mut self, drafts: &[&str]) -> Result<Vec<(usize, RowMemory)>, Failure> {
        let mut rows = self.table.read(drafts).await?;
        if self.options.dry_run {
            for (index, memory) in &mut rows {
                let would_have = self.would_have.get(&hash(drafts[*index])).copied().flatten();
                memory.applied = memory.applied.max(would_have);
            }
        }
        Ok(rows)
    }

    async fn amend(&mut self, amendments: &[Amendment<'_>]) -> Result<Vec<usize>, Failure> {
        if self.options.dry_run {
            let before = self.would_have.len();
            for amendment in amendments {
                let row = self.would_have.entry(hash(amendment.group.draft_id())).or_default();
                *row = (*row).max(amendment.memory.applied);
            }
            self.count(self.would_have.len() - before);
            return Ok((0..amendments.len()).collect());
        }
        let amended = self.table.amend(amendments).await?;
        self.count(amended.len());
        Ok(amended)
    }

    async fn locked(&mut self, drafts: &[&str]) -> Result<Vec<usize>, Failure> {
        self.table.locked(drafts).await
    }

    fn disconnect(&mut self) {
        self.table.disconnect();
    }

    async fn recall(&mut self, events: &mut [Change]) {
        self.recall.whole(events).await;
    }

    fn wants_records(&self) -> bool {
        self.options.dead_letters
    }

    fn may_guess(&self) -> bool {
        !self.options.dry_run && !self.options.rewrite
    }

    fn judge(&self, row: &RowMemory, events: &[Change]) -> Judgement {
        if self.options.rewrite { judge_anew(row, events) } else { judge(row, events) }
    }
}
