//! cached: whether what readers see in the cache agrees with the row.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{About, Claim, DraftKey, digest};

/// How a cached draft disagrees with its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// It is not a JSON object.
    NotADraft,
    /// A column has another value.
    Column {
        /// Its name.
        name: String,
        /// The cached draft was changed last before the row was.
        is_older: bool,
    },
}

/// Compares a cached draft with its row; both are JSON, the row without what belongs to contentflow
/// alone.
///
/// Services need not cache every column, and may add fields of their own, but what they cache of a
/// column must be what the row has. The images must be there if the row has some: they are what
/// contentflow changes.
pub fn disagreement(cached: &str, row: &str) -> Option<Disagreement> {
    let (Ok(Value::Object(cached)), Ok(Value::Object(row))) =
        (serde_json::from_str(cached), serde_json::from_str(row))
    else {
        return Some(Disagreement::NotADraft);
    };
    let differs = |name: &str, value: &Value| match cached.get(name) {
        None => name == IMAGES && !value.is_null(),
        Some(cached) => !is_same(cached, value),
    };
    // The images first: they are what a reader misses.
    let mut names: Vec<&String> = row.keys().collect();
    names.sort_by_key(|name| (*name != IMAGES, *name));
    let name = names.into_iter().find(|name| differs(name, &row[*name]))?;
    let changed = |draft: &Map<String, Value>| moment(draft.get("updated_at")?.as_str()?);
    let is_older = changed(&cached).is_some_and(|at| changed(&row).is_some_and(|row| at < row));
    Some(Disagreement::Column { name: name.clone(), is_older })
}

const IMAGES: &str = "content_images";

/// Numbers and texts of them are the same: services write ids as they like. Times are the same if
/// they are the same moment, whatever the time zone of the session that wrote them.
fn is_same(cached: &Value, row: &Value) -> bool {
    if cached == row {
        return true;
    }
    match (cached, row) {
        (Value::String(text), Value::Number(number))
        | (Value::Number(number), Value::String(text)) => *text == number.to_string(),
        (Value::String(cached), Value::String(row)) => {
            moment(cached).is_some_and(|cached| Some(cached) == moment(row))
        }
        _ => false,
    }
}

/// A time as PostgreSQL writes it in JSON: `2026-11-22T15:50:36.88282+00:00`.
fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// What the cache (first) and the table (second) claim of a cached draft: the same if they agree.
pub fn claims(draft_id: &str, cached: &str, row: &str) -> [Claim; 2] {
    let says = |text: &str| Claim {
        draft: DraftKey::of(draft_id),
        about: About::Cached,
        says: digest(text),
    };
    match disagreement(cached, row) {
        None => [says(row), says(row)],
        Some(_) => [says(cached), says(row)],
    }
}
