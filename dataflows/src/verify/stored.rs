//! stored: what a row holds, as it was read, and what that claims.

use serde::{Deserialize, Serialize};

use super::told::row_says;
use super::{About, Beginning, Claim, DraftKey, digest};
use crate::change::hash;
use crate::record::Position;
use crate::row::{Remembered, RowMemory};

/// A draft's row. Nothing in it is trusted: anybody may have written it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredRow {
    /// The position of the event whose images the row holds.
    pub applied: Option<Position>,
    /// The job of that event.
    pub job_id: Option<String>,
    /// The images, JSON.
    pub images: Option<String>,
    /// The older jobs that are remembered.
    pub older_jobs: Vec<String>,
    /// Three numbers for each of them: timestamp, offset, partition.
    pub older_positions: Vec<i64>,
}

/// Images as an event writes them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Images {
    simple: String,
    fancy: String,
    trendy: String,
}

/// The images with their styles in the order in which an event writes them; `None` if no event
/// writes such images.
pub fn canonical_images(images: &str) -> Option<String> {
    let images: Images = serde_json::from_str(images).ok()?;
    serde_json::to_string(&images).ok()
}

impl StoredRow {
    /// The jobs remembered, `None` if they and their positions do not fit each other.
    pub fn memory(&self) -> Option<RowMemory> {
        if self.older_positions.len() != 3 * self.older_jobs.len() {
            return None;
        }
        let remembered = |(job_id, &[timestamp_ms, offset, partition]): (&String, &[i64; 3])| {
            let partition = i32::try_from(partition).ok()?;
            let position = Position { timestamp_ms, offset, partition };
            Some(Remembered { position, job_id: job_id.clone() })
        };
        let jobs = self.older_jobs.iter().zip(self.older_positions.as_chunks().0);
        let older = jobs.map(remembered).collect::<Option<Vec<_>>>()?;
        Some(RowMemory::new(self.applied.map(|at| (at, self.job_id.clone())), older))
    }

    /// What the row of that draft claims. What it knows of events older than the topic's beginning
    /// is left out: the topic says nothing of them. `None` if nothing is left.
    pub fn claim(&self, draft_id: &str, beginning: &Beginning) -> Option<Claim> {
        let claim = |says| Some(Claim { draft: DraftKey::of(draft_id), about: About::Row, says });
        let Some(mut memory) = self.memory() else {
            return claim(digest((&self.older_jobs, &self.older_positions)));
        };
        memory.recent.retain(|known| is_in(beginning, known.position));
        if memory.recent.is_empty() && self.applied.is_none_or(|at| !is_in(beginning, at)) {
            return None;
        }
        let images = self.images.as_deref();
        let images = images.map(|text| hash(&canonical_images(text).unwrap_or(text.to_owned())));
        let jobs = memory.recent.iter().map(|known| (known.position, hash(&known.job_id)));
        let job = self.job_id.as_deref().map_or(0, hash);
        claim(row_says(self.applied, job, images.unwrap_or(0), jobs))
    }
}

/// Whether the event at that place can be in the topic, as far as its offset tells.
pub(super) fn is_in(beginning: &Beginning, position: Position) -> bool {
    beginning.get(&position.partition).is_none_or(|first| position.offset >= *first)
}
