//! verify: proves that every row holds what the rules give for the whole topic, and that no cached
//! draft disagrees with its row.
//!
//! ```text
//! how far the group is -> the rows, and what is cached of them -> the topic, up to there -> one collection: what differs
//!                                                                                                   |
//!             differences <- the topic, to its end <- these rows once more <- how far it is now <---+ if anything does
//! ```
//!
//! Last, the keys of the cache are gone through for drafts that have no row.
//!
//! The order is the proof, see `docs/decisions/0008-verify-beside-a-running-pipeline.md`. What the
//! group has committed before the rows are read is in them; what is published later is lag, and no
//! difference.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dataflows::validate::DraftIdType;
use dataflows::verify::cached::claims;
use dataflows::verify::told::Counts;
use dataflows::verify::{Beginning, Claim};
use tokio::runtime::Runtime;

use crate::config::Config;
use crate::redis::CacheError;

mod topic;
mod table;
mod cache;
mod workers;
mod look;
mod orphans;
mod repair;
mod watch;
mod show;
mod error;

pub use error::VerifyError;
pub use look::Difference;

use cache::Cached;
use topic::Topic;
use workers::Workers;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Also what the group has not committed must be in the rows.
    pub whole_topic: bool,
    /// Mend what differs.
    pub repair: bool,
    /// One JSON object a line.
    pub json: bool,
    /// How many differences to show at most in a table.
    pub limit: usize,
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    /// Records of the topic.
    pub records: u64,
    /// Drafts that have events.
    pub told: Counts,
    /// Rows.
    pub rows: u64,
    /// Cached drafts.
    pub cached: u64,
}

/// What has been read so far.
#[derive(Default)]
struct Sides {
    /// Where the topic began at first.
    beginning: Beginning,
    /// Up to where the topic has been read.
    read_to: BTreeMap<i32, i64>,
    /// What the table has said, if it is to be read again.
    said: Option<HashMap<Claim, isize>>,
}

/// A verification.
pub struct Verify<'a> {
    config: &'a Config,
    runtime: &'a Runtime,
    draft_ids: DraftIdType,
    options: Options,
    stop: Arc<AtomicBool>,
}

impl<'a> Verify<'a> {
    /// A verification of a table with ids of that type; nothing is read yet.
    pub fn new(
        config: &'a Config,
        runtime: &'a Runtime,
        draft_ids: DraftIdType,
        options: Options,
        stop: Arc<AtomicBool>,
    ) -> Verify<'a> {
        Verify { config, runtime, draft_ids, options, stop }
    }

    /// Compares, mends if asked to, and writes what differs. True if nothing does any more.
    ///
    /// # Errors
    ///
    /// [`VerifyError`].
    pub fn run(&self, out: &mut dyn Write) -> Result<bool, VerifyError> {
        let mut topic = Topic::open(self.config, self.options.whole_topic)?;
        let mut workers = Workers::start(self.config.run.workers, self.draft_ids)?;
        let compared = self.compare(&topic, &mut workers, &mut Sides::default())?;
        let suspects = workers.suspects();
        workers.finish();
        let mut differences = self.look(&topic, &suspects)?;
        differences.extend(self.orphans()?);
        if self.options.repair && !differences.is_empty() {
            differences = self.repair(&mut topic, differences)?;
        }
        show::write(&differences, &compared, &self.options, out)?;
        Ok(differences.iter().all(|difference| difference.mended == Some(true)))
    }

    /// Feeds both sides with what is new.
    fn compare(
        &self,
        topic: &Topic<'_>,
        workers: &mut Workers,
        sides: &mut Sides,
    ) -> Result<Compared, VerifyError> {
        let settled = topic.settled()?;
        if sides.read_to.is_empty() {
            sides.beginning.clone_from(&settled.beginning);
            sides.read_to.clone_from(&settled.beginning);
        }
        let mut compared = Compared::default();
        match &mut sides.said {
            None => {
                let say = |claim, diff| workers.claim(claim, diff);
                self.runtime.block_on(self.read_rows(&sides.beginning, &mut compared, say))?;
            }
            Some(said) => {
                let mut now: HashMap<Claim, isize> = HashMap::new();
                let say = |claim, diff| *now.entry(claim).or_default() += diff;
                self.runtime.block_on(self.read_rows(&sides.beginning, &mut compared, say))?;
                let before = |claim: &Claim| said.get(claim).copied().unwrap_or(0);
                let changed = now.iter().map(|(claim, count)| (*claim, count - before(claim)));
                changed
                    .filter(|(_, diff)| *diff != 0)
                    .for_each(|(claim, diff)| workers.claim(claim, diff));
                let withdrawn = said.iter().filter(|(claim, _)| !now.contains_key(claim));
                withdrawn.for_each(|(claim, count)| workers.claim(*claim, -count));
                *said = now;
            }
        }
        topic.read(&sides.read_to, &settled.to, &self.stop, |message| {
            compared.records += 1;
            if settled.has(message) {
                workers.record(message);
            }
        })?;
        for (partition, to) in settled.to {
            let read_to = sides.read_to.entry(partition).or_insert(to);
            *read_to = to.max(*read_to);
        }
        compared.told = workers.end_round()?;
        Ok(compared)
    }

    /// Reads the table, and what is cached of it, and says what they claim: the table with a minus,
    /// the cache with a plus.
    async fn read_rows(
        &self,
        beginning: &Beginning,
        compared: &mut Compared,
        mut say: impl FnMut(Claim, isize),
    ) -> Result<(), VerifyError> {
        let mut cache = self.cache().await?;
        table::snapshot(&self.config.database, async |rows| {
            let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
            let cached = cache.get(&ids).await?;
            compared.rows += u64::try_from(rows.len()).unwrap_or(0);
            for (row, cached) in rows.iter().zip(cached) {
                if let Some(claim) = row.row.claim(&row.id, beginning) {
                    say(claim, -1);
                }
                let Some(cached) = cached else { continue };
                compared.cached += 1;
                let [said, held] = claims(&row.id, &cached, &row.draft);
                say(said, 1);
                say(held, -1);
            }
            Ok(())
        })
        .await
    }

    async fn cache(&self) -> Result<Cached, CacheError> {
        Cached::connect(&self.config.cache).await
    }
}
