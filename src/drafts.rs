//! The drafts, as a service should read and create them: the example for others.
//!
//! ```text
//! get:  GET key -> hit
//!            \-> miss -> take the lease -> read the row from the primary -> fill, if the lease is still ours
//! put:  INSERT, commit -> DEL key and lease
//! ```
//!
//! Without the lease a slow reader could bring an old value back: it reads the row, a writer changes the row and deletes
//! the key, and only then the reader stores what it had read. Here the writer deletes the lease together with the key,
//! and a reader whose lease is gone stores nothing. So a fill that began before a commit never lands after the deletion
//! that follows the commit.

use std::io::Write;

use crate::config::Config;
use crate::printable::{indented_json, one_line, table};

mod lease;
mod rows;
mod error;

pub use error::DraftError;
pub use lease::{Lease, lease_key};
pub use rows::{BOOKKEEPING, Rows};

/// Where a draft came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its cache key.
    Cache,
    /// Its row, and the cache has it now.
    DatabaseAndFilled,
    /// Its row; another reader holds the lease, a writer took ours away, or the cache is out.
    Database,
}

impl Source {
    /// The source in words.
    pub fn describe(self) -> &'static str {
        match self {
            Source::Cache => "from the cache",
            Source::DatabaseAndFilled => "from the database, and now in the cache",
            Source::Database => "from the database, not put into the cache",
        }
    }
}

/// Reads the draft through the cache: its JSON, and where that came from.
///
/// A cache that is out costs time and no answer: the row has the truth.
///
/// # Errors
///
/// When there is no such draft, or the database fails.
pub async fn read(config: &Config, id: &str) -> Result<(String, Source), DraftError> {
    let mut cache = lease::Cache::connect(&config.cache).await;
    if let Some(draft) = cache.get(&config.cache.key.key(id)).await {
        return Ok((draft, Source::Cache));
    }
    let rows = Rows::connect(&config.database).await?;
    // Keys are made from the id as the column spells it: for a uuid, in lower case.
    let canonical = rows.canonical(id).await?;
    let key = config.cache.key.key(&canonical);
    if canonical != id
        && let Some(draft) = cache.get(&key).await
    {
        return Ok((draft, Source::Cache));
    }
    // The lease first, the row second: the other way round, a writer could come between the two unnoticed.
    let lease = cache.take_lease(&key).await;
    let draft =
        rows.read(&canonical).await?.ok_or_else(|| DraftError::Unknown { id: id.to_owned() })?;
    let filled = match lease {
        Some(lease) => cache.fill(&key, &lease, &draft, config.cache.ttl).await,
        None => false,
    };
    Ok((draft, if filled { Source::DatabaseAndFilled } else { Source::Database }))
}

/// Creates a draft, with other columns from the JSON object `data`, and deletes what the cache may have under its key.
/// The result is the id as the column spells it.
///
/// # Errors
///
/// When the draft exists, `data` does not fit the table, or a server fails. After [`DraftError::NotInvalidated`] the draft
/// exists.
pub async fn create(config: &Config, id: &str, data: Option<&str>) -> Result<String, DraftError> {
    let rows = Rows::connect(&config.database).await?;
    let id = rows.insert(id, data).await?;
    let key = config.cache.key.key(&id);
    match lease::Cache::connect(&config.cache).await.delete(&key).await {
        Ok(()) => Ok(id),
        Err(reason) => Err(DraftError::NotInvalidated { id, key, reason }),
    }
}

/// `draft get`: writes the draft to `out`, and where it came from to `notes`.
///
/// # Errors
///
/// Those of [`read`], and when the output cannot be written.
pub async fn get(
    config: &Config,
    id: &str,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), DraftError> {
    let (draft, source) = read(config, id).await?;
    writeln!(notes, "{}", source.describe())?;
    writeln!(out, "{}", indented_json(&draft))?;
    Ok(())
}

/// `draft put`: creates a draft and says so on `out`.
///
/// # Errors
///
/// Those of [`create`], and when the output cannot be written.
pub async fn put(
    config: &Config,
    id: &str,
    data: Option<&str>,
    out: &mut dyn Write,
) -> Result<(), DraftError> {
    let id = create(config, id, data).await?;
    writeln!(out, "created {}", one_line(id.as_bytes()))?;
    Ok(())
}

/// `draft list`: writes the `limit` drafts that changed last, the newest first.
///
/// # Errors
///
/// When the database fails, or the output cannot be written.
pub async fn list(config: &Config, limit: u32, out: &mut dyn Write) -> Result<(), DraftError> {
    let newest = Rows::connect(&config.database).await?.newest(limit).await?;
    let cells: Vec<[String; 3]> = newest
        .iter()
        .map(|row| {
            let images = if row.has_images { "yes" } else { "no" };
            [
                one_line(row.id.as_bytes()),
                images.to_owned(),
                row.updated_at.clone().unwrap_or_default(),
            ]
        })
        .collect();
    Ok(table(["id", "images", "updated_at"], &cells, out)?)
}

#[cfg(test)]
mod tests;
