//! Names that are checked once: a table for SQL, a template for cache keys, a topic.

use std::fmt;

/// A table, with its schema if one was given. Taken letter for letter: unlike in SQL, capitals stay
/// capitals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    schema: Option<String>,
    name: String,
    sql: String,
}

impl TableName {
    /// `table` or `schema.table`. A part with other characters than letters, digits, `_` and `$`
    /// stands in double quotes.
    pub fn parse(text: &str) -> Result<TableName, String> {
        let (first, rest) = part(text)?;
        let (schema, name) = match rest.strip_prefix('.') {
            None => (None, first),
            Some(after) => {
                let (second, end) = part(after)?;
                if !end.is_empty() {
                    return Err("has more than a schema and a table".to_owned());
                }
                (Some(first), second)
            }
        };
        TableName::new(schema, name)
    }

    /// A table by its parts, as they are in PostgreSQL's catalog.
    pub fn new(schema: Option<String>, name: String) -> Result<TableName, String> {
        for part in schema.iter().chain([&name]) {
            check_identifier(part)?;
        }
        let sql = match &schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(&name)),
            None => quoted(&name),
        };
        Ok(TableName { schema, name, sql })
    }

    /// The name quoted for SQL: `"event_drafts"` or `"content"."event_drafts"`.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The schema, if one was given; else the search path decides.
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The table without its schema.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The longest identifier of PostgreSQL; it cuts longer ones silently, and then they name another
/// table.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// The first identifier of `text`, and what follows it: nothing, or a dot and more.
fn part(text: &str) -> Result<(String, &str), String> {
    let (name, rest) = match text.strip_prefix('"') {
        Some(inside) => quoted_part(inside)?,
        None => {
            let (name, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
            if !name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                return Err("has a character that needs double quotes around the name".to_owned());
            }
            (name.to_owned(), rest)
        }
    };
    if rest.is_empty() || rest.starts_with('.') {
        Ok((name, rest))
    } else {
        Err("goes on after its closing quote".to_owned())
    }
}

fn check_identifier(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("has an empty part".to_owned());
    }
    if name.len() > IDENTIFIER_BYTES_MAX {
        return Err(format!("has a part over PostgreSQL's {IDENTIFIER_BYTES_MAX} bytes"));
    }
    if name.chars().any(char::is_control) {
        return Err("has a control character".to_owned());
    }
    Ok(())
}

/// Up to the closing quote; a doubled quote is one quote of the name.
fn quoted_part(inside: &str) -> Result<(String, &str), String> {
    let mut name = String::new();
    let mut rest = inside;
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            return Err("has no closing quote".to_owned());
        };
        name.push_str(before);
        let Some(after_pair) = after.strip_prefix('"') else {
            return Ok((name, after));
        };
        name.push('"');
        rest = after_pair;
    }
}

/// An identifier as SQL.
pub(crate) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// The place of the draft's id in a key template.
const PLACE: &str = "{id}";

/// How a draft's cache key is made from its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTemplate {
    before: String,
    after: String,
}

impl KeyTemplate {
    /// A text with `{id}` in it exactly once.
    pub fn parse(text: &str) -> Result<KeyTemplate, String> {
        let Some((before, after)) = text.split_once(PLACE) else {
            return Err(format!("does not contain {PLACE}"));
        };
        if after.contains(PLACE) {
            return Err(format!("contains {PLACE} more than once"));
        }
        if text == PLACE {
            return Err(format!(
                "is only {PLACE}, which every other use of the same server would collide with"
            ));
        }
        Ok(KeyTemplate { before: before.to_owned(), after: after.to_owned() })
    }

    /// The cache key of the draft `id`.
    pub fn key(&self, id: &str) -> String {
        let KeyTemplate { before, after } = self;
        [before, id, after].concat()
    }

    /// The cache keys of the drafts `ids`.
    pub fn keys(&self, ids: &[&str]) -> CacheKeys {
        let KeyTemplate { before, after } = self;
        let bytes = |id: &&str| before.len() + id.len() + after.len();
        let mut text = String::with_capacity(ids.iter().map(bytes).sum());
        let mut ends = Vec::with_capacity(ids.len());
        for id in ids {
            text.extend([before, *id, after]);
            ends.push(text.len());
        }
        CacheKeys { text, ends }
    }

    /// The draft whose key that is, if it is one's.
    pub fn id<'a>(&self, key: &'a str) -> Option<&'a str> {
        let id = key.strip_prefix(&self.before)?.strip_suffix(&self.after)?;
        (!id.is_empty()).then_some(id)
    }

    /// What fits the keys of all drafts, as Redis understands it.
    pub fn pattern(&self) -> String {
        let literal = |text: &str| -> String {
            let is_special = |c| matches!(c, '*' | '?' | '[' | ']' | '^' | '-' | '\\');
            text.chars()
                .flat_map(|c| is_special(c).then_some('\\').into_iter().chain([c]))
                .collect()
        };
        [literal(&self.before), "*".to_owned(), literal(&self.after)].concat()
    }
}

/// Cache keys, one behind the other in one text: an allocation for each of them took a quarter of
/// the time that a lane of the cache needs.
#[derive(Clone, Debug)]
pub struct CacheKeys {
    text: String,
    ends: Vec<usize>,
}

impl CacheKeys {
    /// One key after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |&end| &self.text[std::mem::replace(&mut start, end)..end])
    }
}

impl fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key(PLACE))
    }
}

/// The longest topic name of Kafka.
const TOPIC_BYTES_MAX: usize = 249;

/// Kafka's own rule for topic names.
pub(super) fn check_topic(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".to_owned());
    }
    if name.len() > TOPIC_BYTES_MAX {
        return Err(format!("is longer than Kafka's {TOPIC_BYTES_MAX} bytes"));
    }
    if name == "." || name == ".." {
        return Err("is a name that Kafka refuses".to_owned());
    }
    if let Some(bad) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
        return Err(format!("has {bad:?}, which Kafka refuses in a topic name"));
    }
    Ok(())
}
