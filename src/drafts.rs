//! The drafts, as a service should read and create them: the example for others of how to use the
//! [`lease`].
//!
//! ```text
//! get:  GET key -> hit
//!            \-> miss -> take the lease -> read the row from the primary -> fill, if the lease is still ours
//! put:  INSERT, commit -> DEL lease and key
//! ```

use std::io::Write;

use dataflows::validate;

use crate::config::Config;
use crate::lease::{self, Read};
use crate::printable::{indented_json, one_line, table};
use crate::redis::CacheConnection;

mod rows;
mod error;

pub use crate::lease::Source;
pub use error::DraftError;
pub use rows::{BOOKKEEPING, Rows};

/// Reads the draft through the cache: its JSON, and where that came from.
///
/// A cache that is out costs time and no answer: the row has the truth.
///
/// # Errors
///
/// When there is no such draft, or the database fails.
pub async fn read(config: &Config, id: &str) -> Result<(String, Source), DraftError> {
    let mut cache = connect_or_warn(&config.cache).await;
    // Before there is a session with the database: what is cached needs none.
    if let Some(draft) = cached(cache.as_mut(), &config.cache.key.key(id)).await {
        return Ok((draft, Source::Cache));
    }
    let rows = Rows::connect(&config.database).await?;
    // Keys are made from the id as the column spells it: for a uuid, in lower case.
    let canonical = rows.canonical(id).await?;
    let load = async || rows.read(&canonical).await;
    let Read { value, source, cache_failure } = match &mut cache {
        Some(cache) => {
            let key = config.cache.key.key(&canonical);
            lease::read_through(cache, &key, config.cache.ttl, load).await?
        }
        None => Read { value: load().await?, source: Source::Database, cache_failure: None },
    };
    if let Some(error) = cache_failure {
        tracing::warn!(%error, "the cache fails");
    }
    let draft = value.ok_or_else(|| DraftError::Unknown { id: id.to_owned() })?;
    Ok((draft, source))
}

async fn connect_or_warn(config: &crate::config::Cache) -> Option<CacheConnection> {
    let connection = crate::redis::connect(config).await;
    connection.inspect_err(|error| tracing::warn!("going on without the cache: {error}")).ok()
}

async fn cached(cache: Option<&mut CacheConnection>, key: &str) -> Option<String> {
    let value = redis::cmd("GET").arg(key).query_async(cache?).await;
    value.inspect_err(|error| tracing::warn!(%error, "the cache fails")).ok()?
}

/// Creates a draft, with other columns from the JSON object `data`, and deletes what the cache may
/// have under its key. The result is the id as the column spells it.
///
/// # Errors
///
/// When the draft exists, `data` does not fit the table, or a server fails. After
/// [`DraftError::NotInvalidated`] the draft exists.
pub async fn create(config: &Config, id: &str, data: Option<&str>) -> Result<String, DraftError> {
    validate::id("the id", id.into()).map_err(|fault| DraftError::BadId(fault.message))?;
    let rows = Rows::connect(&config.database).await?;
    // Before the row is there: without the cache there would be one, and no way to try again.
    let mut cache = crate::redis::connect(&config.cache).await?;
    let id = rows.insert(id, data).await?;
    let key = config.cache.key.key(&id);
    match lease::invalidate(&mut cache, &key).await {
        Ok(_) => Ok(id),
        Err(error) => Err(DraftError::NotInvalidated { id, key, reason: error.to_string() }),
    }
}

/// `draft get`: writes the draft to `out`, and returns where it came from.
///
/// # Errors
///
/// Those of [`read`], and when the output cannot be written.
pub async fn get(config: &Config, id: &str, out: &mut dyn Write) -> Result<Source, DraftError> {
    let (draft, source) = read(config, id).await?;
    writeln!(out, "{}", indented_json(&draft))?;
    Ok(source)
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
