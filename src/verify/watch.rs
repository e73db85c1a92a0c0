//! watch: keeps the difference up to date while the pipeline works, and says when one appears or
//! goes.
//!
//! Each round is a time of the same collection: what the group has committed since the last one
//! comes in from the topic, and of the table what says something else than before. A draft in which
//! something moves from one round to the next is under way; one that stands still and differs is
//! looked at. Cached drafts without a row are looked for in each round.
//!
//! A server that goes away is waited for, unless `run.on_outage` says otherwise.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dataflows::verify::{About, Claim, DraftKey};

use super::topic::Topic;
use super::workers::Workers;
use super::{Difference, Sides, Verify, VerifyError, show};
use crate::config::OnOutage;
use crate::retry::Backoff;

/// The first wait for a server that is away.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// How often a wait looks for the end.
const NAP: Duration = Duration::from_millis(50);

/// What the sides do not agree on, of one draft.
type Apart = BTreeSet<Claim>;

/// What was found when a draft was last looked at, and what the sides said then.
struct Verdict {
    apart: Apart,
    differences: Vec<Difference>,
}

/// What has been said, and stays said while servers go and come.
#[derive(Default)]
struct Watched {
    verdicts: HashMap<DraftKey, Verdict>,
    /// The cached drafts that have no row.
    orphans: Vec<Difference>,
    has_begun: bool,
    /// While a server is away.
    held: Option<Backoff>,
}

impl Verify<'_> {
    /// Compares again and again, until it is told to stop. True if nothing differs at the end.
    ///
    /// # Errors
    ///
    /// [`VerifyError`]; that it was interrupted if it had not compared everything once.
    pub fn watch(&self, interval: Duration, out: &mut dyn Write) -> Result<bool, VerifyError> {
        let mut watched = Watched::default();
        while !self.is_over() {
            match self.watch_on(interval, &mut watched, out) {
                Ok(()) | Err(VerifyError::Interrupted) => break,
                // What was read by then is half of a round: both sides are read anew.
                Err(error) if error.is_outage() && self.config.run.on_outage == OnOutage::Wait => {
                    self.hold(&mut watched, &error);
                }
                Err(error) => return Err(error),
            }
        }
        let Watched { verdicts, orphans, has_begun, held: _ } = watched;
        if !has_begun {
            return Err(VerifyError::Interrupted);
        }
        let agrees = verdicts.values().all(|verdict| verdict.differences.is_empty());
        Ok(agrees && orphans.is_empty())
    }

    /// Watches until it is told to stop, or a server fails.
    fn watch_on(
        &self,
        interval: Duration,
        watched: &mut Watched,
        out: &mut dyn Write,
    ) -> Result<(), VerifyError> {
        let topic = Topic::open(self.config, self.options.whole_topic)?;
        let mut workers = Workers::start(self.config.run.workers, self.draft_ids)?;
        let mut sides = Sides { said: Some(HashMap::new()), ..Sides::default() };
        let mut before: Option<HashMap<DraftKey, Apart>> = None;
        let ended = loop {
            let began = Instant::now();
            match self.round(&topic, &mut workers, &mut sides, before.as_ref(), watched, out) {
                Ok(now) => before = Some(now),
                Err(error) => break Err(error),
            }
            if watched.held.take().is_some() {
                tracing::info!("resumed");
            }
            self.pause(interval.saturating_sub(began.elapsed()));
            if self.is_over() {
                break Ok(());
            }
        };
        workers.finish();
        ended
    }

    /// Waits before a server is asked again, and says so once.
    fn hold(&self, watched: &mut Watched, error: &VerifyError) {
        let backoff = watched.held.get_or_insert_with(|| {
            tracing::warn!(%error, "held: watching goes on when the server is back");
            Backoff::new(FIRST_WAIT)
        });
        let wait = backoff.next_wait();
        self.pause(wait);
    }

    fn pause(&self, time: Duration) {
        let since = Instant::now();
        while since.elapsed() < time && !self.is_over() {
            std::thread::sleep(NAP);
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One round: says what has appeared or gone, and returns what the sides do not agree on.
    fn round(
        &self,
        topic: &Topic<'_>,
        workers: &mut Workers,
        sides: &mut Sides,
        before: Option<&HashMap<DraftKey, Apart>>,
        watched: &mut Watched,
        out: &mut dyn Write,
    ) -> Result<HashMap<DraftKey, Apart>, VerifyError> {
        let compared = self.compare(topic, workers, sides)?;
        let Watched { verdicts, orphans, has_begun, held: _ } = watched;
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
        let now_orphans = self.orphans()?;
        if !std::mem::replace(has_begun, true) {
            show::beginning(&compared, &self.options, out)?;
        }
        show::changes(orphans, &now_orphans, &self.options, out)?;
        *orphans = now_orphans;
        let gone: Vec<DraftKey> =
            verdicts.keys().filter(|draft| !now.contains_key(draft)).copied().collect();
        for draft in gone.into_iter().chain(due) {
            let old = verdicts.remove(&draft).map_or_else(Vec::new, |old| old.differences);
            let differences = found.remove(&draft).unwrap_or_default();
            show::changes(&old, &differences, &self.options, out)?;
            if let Some(apart) = now.get(&draft) {
                verdicts.insert(draft, Verdict { apart: apart.clone(), differences });
            }
        }
        out.flush()?;
        Ok(now)
    }
}
