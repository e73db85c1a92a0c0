//! orphans: cached drafts that have no row. No event will ever delete them, and readers that look
//! into the cache first go on seeing them.
//!
//! They cannot be found from the rows, so the keys of the cache are gone through (`SCAN`), and a
//! part of them at a time is held against the table. What is under such a key counts only if it
//! says itself that it is that draft: others may keep other things there.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use dataflows::validate::{DraftIdType, draft_id};
use dataflows::verify::judge::Kind;
use tokio_postgres::Client;

use super::cache::Cached;
use super::table::present;
use super::{Difference, Verify, VerifyError};
use crate::postgres;
use crate::retry::Backoff;

/// How often a cached draft must be found without a row, with waits in between: whoever deletes a
/// row needs a moment to delete its key.
const LOOKS: u32 = 3;

impl Verify<'_> {
    /// The cached drafts without a row, by draft.
    pub(super) fn orphans(&self) -> Result<Vec<Difference>, VerifyError> {
        self.runtime.block_on(async {
            let mut cache = self.cache().await?;
            let client = postgres::connect(&self.config.database).await?;
            let mut found: BTreeSet<String> = BTreeSet::new();
            let mut keys = cache.all();
            while let Some(ids) = cache.next_ids(&mut keys).await? {
                found.extend(self.without_row(&mut cache, &client, ids).await?);
            }
            self.still_orphans(&mut cache, &client, found).await
        })
    }

    /// Those of these that still are orphans, also after a while.
    async fn still_orphans(
        &self,
        cache: &mut Cached,
        client: &Client,
        mut ids: BTreeSet<String>,
    ) -> Result<Vec<Difference>, VerifyError> {
        let mut backoff = Backoff::new(self.config.run.retry_backoff);
        for _look in 1..LOOKS {
            if ids.is_empty() {
                break;
            }
            backoff.wait().await;
            let suspects = ids.into_iter().collect();
            ids = self.without_row(cache, client, suspects).await?.into_iter().collect();
        }
        Ok(ids.into_iter().map(orphan).collect())
    }

    /// Which of these drafts are cached and have no row. The row is asked for first: one that is
    /// there now may be gone later, but not the other way round without a new one.
    async fn without_row(
        &self,
        cache: &mut Cached,
        client: &Client,
        ids: Vec<String>,
    ) -> Result<Vec<String>, VerifyError> {
        if ids.is_empty() {
            return Ok(ids);
        }
        let column = self.draft_ids;
        // Only an id as its column spells it can be found there; the others would end the
        // statement.
        let (asked, mut missing): (Vec<String>, Vec<String>) =
            ids.into_iter().partition(|id| can_be_a_row(id, column));
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        let present: HashSet<String> =
            present(&self.config.database, self.draft_ids.sql(), client, &asked).await?;
        let absent = asked.into_iter().filter(|id| !present.contains(*id));
        missing.extend(absent.map(str::to_owned));
        let names: Vec<&str> = missing.iter().map(String::as_str).collect();
        let cached = cache.get(&names).await?;
        let is_draft = |(id, cached): &(String, Option<String>)| {
            cached.as_ref().is_some_and(|cached| is_that_draft(cached, id, column))
        };
        Ok(missing.into_iter().zip(cached).filter(is_draft).map(|(id, _)| id).collect())
    }
}

fn orphan(draft: String) -> Difference {
    Difference {
        kind: Kind::CachedWithoutRow,
        draft,
        detail: "is cached, and has no row".to_owned(),
        row: None,
        topic: None,
        mended: None,
        remedy: None,
    }
}

/// The id as its column spells it, if it can be there.
fn canonical(id: &str, column: DraftIdType) -> Option<Cow<'_, str>> {
    draft_id("", Cow::Borrowed(id), column).ok().filter(|id| !id.contains('\0'))
}

fn can_be_a_row(id: &str, column: DraftIdType) -> bool {
    canonical(id, column).is_some_and(|canonical| canonical == id)
}

/// Whether a cached text is a draft that says of itself that it has this id, in whatever spelling.
fn is_that_draft(cached: &str, id: &str, column: DraftIdType) -> bool {
    let Ok(serde_json::Value::Object(draft)) = serde_json::from_str(cached) else {
        return false;
    };
    let said = match draft.get("event_draft_id") {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Number(number)) => number.to_string(),
        _ => return false,
    };
    said == id || canonical(&said, column).is_some_and(|said| canonical(id, column) == Some(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: DraftIdType = DraftIdType::Text { max_chars: None };

    #[test]
    fn only_what_says_of_itself_that_it_is_the_draft_is_one() {
        let draft = r#"{"event_draft_id":"d1","content_images":null}"#;
        assert!(is_that_draft(draft, "d1", TEXT));
        assert!(!is_that_draft(draft, "d1:comments", TEXT));
        for other in ["", "locked", "7", "[]", "{}", r#"{"event_draft_id":null}"#] {
            assert!(!is_that_draft(other, "d1", TEXT), "{other}");
        }
        assert!(is_that_draft(r#"{"event_draft_id":7}"#, "7", DraftIdType::BigInt));
    }

    #[test]
    fn an_id_in_another_spelling_has_no_row_and_is_the_draft_all_the_same() {
        let id = "0188a0f0-1111-4222-8333-abcdefabcdef";
        let cached = format!(r#"{{"event_draft_id":"{id}"}}"#);
        let upper = id.to_uppercase();
        assert!(can_be_a_row(id, DraftIdType::Uuid) && !can_be_a_row(&upper, DraftIdType::Uuid));
        assert!(is_that_draft(&cached, &upper, DraftIdType::Uuid));
        assert!(!can_be_a_row("no uuid", DraftIdType::Uuid));
        assert!(!can_be_a_row("a\0b", TEXT) && can_be_a_row(&"x".repeat(300), TEXT));
    }
}
