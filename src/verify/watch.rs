//! watch: keeps the difference up to date while the pipeline works, and says when one appears or goes.
//!
//! Each round is a time of the same collection: what the group has committed since the last one comes in from the topic, and of the
//! table what says something else than before. A draft in which something moves from one round to the next is under way; one that
//! stands still and differs is looked at.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dataflows::verify::{About, Claim, DraftKey};

use super::topic::Topic;
use super::workers::Workers;
use super::{Difference, Sides, Verify, VerifyError, show};

/// How often a wait looks for the end.
const NAP: Duration = Duration::from_millis(50);

/// What the sides do not agree on, of one draft.
type Apart = BTreeSet<Claim>;

/// What was found when a draft was last looked at, and what the sides said then.
struct Verdict {
    apart: Apart,
    differences: Vec<Difference>,
}

impl Verify<'_> {
    /// Compares again and again, until it is told to stop. True if nothing differs at the end.
    ///
    /// # Errors
    ///
    /// [`VerifyError`].
    pub fn watch(&self, interval: Duration, out: &mut dyn Write) -> Result<bool, VerifyError> {
        let topic = Topic::open(self.config, self.plan.whole_topic)?;
        let mut workers = Workers::start(self.config.run.workers, self.table.draft_ids)?;
        let mut sides = Sides { said: Some(HashMap::new()), ..Sides::default() };
        let mut verdicts: HashMap<DraftKey, Verdict> = HashMap::new();
        let mut before: Option<HashMap<DraftKey, Apart>> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let now = match self.round(
                &topic,
                &mut workers,
                &mut sides,
                before.as_ref(),
                &mut verdicts,
                out,
            ) {
                Err(VerifyError::Interrupted) => break,
                now => now?,
            };
            before = Some(now);
            while began.elapsed() < interval && !self.stop.load(Ordering::Relaxed) {
                self.runtime.block_on(tokio::time::sleep(NAP));
            }
        }
        workers.finish();
        Ok(verdicts.values().all(|verdict| verdict.differences.is_empty()))
    }

    /// One round: says what has appeared or gone, and returns what the sides do not agree on.
    fn round(
        &self,
        topic: &Topic<'_>,
        workers: &mut Workers,
        sides: &mut Sides,
        before: Option<&HashMap<DraftKey, Apart>>,
        verdicts: &mut HashMap<DraftKey, Verdict>,
        out: &mut dyn Write,
    ) -> Result<HashMap<DraftKey, Apart>, VerifyError> {
        let compared = self.compare(topic, workers, sides)?;
        let mut now: HashMap<DraftKey, Apart> = HashMap::new();
        for claim in workers.differing() {
            now.entry(claim.draft).or_default().insert(*claim);
        }
        let stands_still = |draft: &DraftKey, apart: &Apart| {
            before.is_none_or(|before| before.get(draft) == Some(apart))
                && verdicts.get(draft).is_none_or(|verdict| verdict.apart != *apart)
        };
        let due: Vec<DraftKey> = now
            .iter()
            .filter(|(draft, apart)| stands_still(draft, apart))
            .map(|(draft, _)| *draft)
            .collect();
        let suspects: HashSet<(DraftKey, About)> = due
            .iter()
            .flat_map(|draft| now[draft].iter().map(|claim| (claim.draft, claim.about)))
            .collect();
        let mut found: HashMap<DraftKey, Vec<Difference>> = HashMap::new();
        for difference in self.look(topic, &suspects)? {
            found.entry(DraftKey::of(&difference.draft)).or_default().push(difference);
        }
        if before.is_none() {
            show::beginning(&compared, &self.plan, out)?;
        }
        let gone: Vec<DraftKey> =
            verdicts.keys().filter(|draft| !now.contains_key(draft)).copied().collect();
        for draft in gone.into_iter().chain(due) {
            let old = verdicts.remove(&draft).map_or_else(Vec::new, |old| old.differences);
            let differences = found.remove(&draft).unwrap_or_default();
            show::changes(&old, &differences, &self.plan, out)?;
            if let Some(apart) = now.get(&draft) {
                verdicts.insert(draft, Verdict { apart: apart.clone(), differences });
            }
        }
        out.flush()?;
        Ok(now)
    }
}
