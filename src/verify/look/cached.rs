//! The second look at cached drafts. What they are to agree with may be changing, so both are read
//! again and again.

use std::collections::{BTreeMap, HashMap, HashSet};

use dataflows::verify::cached::{Disagreement, disagreement};
use dataflows::verify::judge::Kind;

use super::Difference;
use crate::retry::Backoff;
use crate::verify::table::{Stored, again};
use crate::verify::topic::Settled;
use crate::verify::{Verify, VerifyError};

/// How often a cached draft must be found to disagree, with waits in between.
const LOOKS: u32 = 3;

impl Verify<'_> {
    /// The cached drafts that disagree with their rows, also after a while: whoever changes a row
    /// needs a moment to delete its key. `ends`: where the partitions ended after the rows were
    /// read.
    pub(super) async fn cached_differences(
        &self,
        rows: &[Stored],
        settled: &Settled,
        ends: &BTreeMap<i32, i64>,
    ) -> Result<Vec<Difference>, VerifyError> {
        // The key of an event is deleted before its offset is committed. And what is past the end
        // is not under way: it is of a topic that is gone.
        let is_settled = |stored: &&Stored| {
            stored.row.applied.is_none_or(|at| {
                settled.is_below(at.partition, at.offset)
                    || ends.get(&at.partition).is_none_or(|end| at.offset >= *end)
            })
        };
        let mut suspects: Vec<Stored> = rows.iter().filter(is_settled).cloned().collect();
        let mut found = Vec::new();
        if suspects.is_empty() {
            return Ok(found);
        }
        let mut cache = self.cache().await?;
        let client = crate::postgres::connect(&self.config.database).await?;
        let mut backoff = Backoff::new(self.config.run.retry_backoff);
        for _look in 0..LOOKS {
            let ids: Vec<&str> = suspects.iter().map(|stored| stored.id.as_str()).collect();
            let cached = cache.get(&ids).await?;
            // Read after the cached draft: if the row has not changed, it was the same all the
            // time.
            let rows = again(&self.config.database, self.draft_ids.sql(), &client, &ids).await?;
            let versions: HashMap<&str, &Stored> =
                rows.iter().map(|stored| (stored.id.as_str(), stored)).collect();
            found = suspects
                .iter()
                .zip(cached)
                .filter(|(stored, _)| {
                    versions
                        .get(stored.id.as_str())
                        .is_some_and(|now| now.version == stored.version)
                })
                .filter_map(|(stored, cached)| {
                    let how = disagreement(&cached?, &stored.draft)?;
                    Some(cached_difference(stored, &how))
                })
                .collect();
            let left: HashSet<&String> = found.iter().map(|difference| &difference.draft).collect();
            suspects.retain(|stored| left.contains(&stored.id));
            if suspects.is_empty() {
                break;
            }
            backoff.wait().await;
        }
        Ok(found)
    }
}

fn cached_difference(stored: &Stored, how: &Disagreement) -> Difference {
    let (kind, detail) = match how {
        Disagreement::NotADraft => {
            (Kind::CachedUnreadable, "what is cached is no JSON object".to_owned())
        }
        Disagreement::Column { name, is_older } => {
            let older = if *is_older { ", and it is older" } else { "" };
            (Kind::CachedDiffers, format!("the cached {name} is not that of the row{older}"))
        }
    };
    let row = stored.row.applied;
    Difference {
        kind,
        draft: stored.id.clone(),
        detail,
        row,
        topic: None,
        mended: None,
        remedy: None,
    }
}
