//! What is wrong with a configuration: the key, the value (never a secret), where it came from, and
//! what to do.

use std::fmt;

use figment::error::{Actual, Kind};
use figment::{Figment, Metadata};

use super::{Kafka, limits, secret, sources};

/// A configuration that cannot be used, with everything that is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key and its value: `run.workers = 0`. Of a secret, only the key.
    pub subject: String,
    /// Where it was set, if anywhere: `contentflow.toml`, `environment variable DATABASE_URL`.
    pub origin: Option<String>,
    /// What is wrong with it: `is out of range`.
    pub fault: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    /// The problem without its remedy: for a caller that shows the remedy on a line of its own.
    pub fn what(&self) -> String {
        let Problem { subject, origin, fault, remedy: _ } = self;
        match origin {
            Some(origin) => format!("{subject} (from {origin}) {fault}"),
            None => format!("{subject} {fault}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what(), self.remedy)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems: Vec<_> = self.problems.iter().map(Problem::to_string).collect();
        f.write_str(&problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> ConfigError {
        ConfigError { problems: vec![problem] }
    }
}

/// `key = value` as it may be shown.
pub(super) fn subject(key: &str, value: impl fmt::Debug) -> String {
    if may_show(key) { format!("{key} = {value:?}") } else { key.to_owned() }
}

/// The URLs, what a collector is reached with, and a section of theirs given as one text, and the
/// properties that are secrets are never shown.
fn may_show(key: &str) -> bool {
    let property =
        key.strip_prefix(limits::PROPERTIES).map(|property| property.trim_start_matches('.'));
    match property {
        Some(property) => !property.is_empty() && !Kafka::is_secret(property),
        None => {
            let is_secret = [".url", ".token"].iter().any(|end| key.ends_with(end))
                || matches!(key, "traces.endpoint" | "traces.headers");
            limits::keys().any(|known| known == key) && !is_secret
        }
    }
}

/// Where `key` was set, unless it is a default.
pub(super) fn origin(key: &str, figment: &Figment) -> Option<String> {
    let tag = match key.strip_prefix(limits::PROPERTIES).and_then(|rest| rest.strip_prefix('.')) {
        // A property's name has dots of its own, which a path would take for levels.
        Some(property) => {
            figment.find_value(limits::PROPERTIES).ok()?.as_dict()?.get(property)?.tag()
        }
        None => figment.find_value(key).ok()?.tag(),
    };
    figment.get_metadata(tag).and_then(origin_of)
}

fn origin_of(metadata: &Metadata) -> Option<String> {
    (metadata.name != sources::DEFAULTS).then(|| metadata.name.to_string())
}

/// What figment found while it filled the raw structs: unknown keys and wrong types.
pub(super) fn from_figment(error: figment::Error, figment: &Figment) -> ConfigError {
    let problems = error.into_iter().map(|error| problem_from(&error, figment)).collect();
    ConfigError { problems }
}

fn problem_from(error: &figment::Error, figment: &Figment) -> Problem {
    let path = error.path.join(".");
    match &error.kind {
        Kind::UnknownField(field, expected) => {
            let key = match error.path.last() {
                Some(last) if last == field => path,
                Some(_) => format!("{path}.{field}"),
                None => field.clone(),
            };
            let origin = origin(&key, figment);
            Problem {
                remedy: unknown_remedy(&key, expected),
                subject: key,
                origin,
                fault: "is not a key".to_owned(),
            }
        }
        Kind::InvalidType(actual, _) | Kind::InvalidValue(actual, _) => Problem {
            subject: if may_show(&path) { subject_of(&path, actual) } else { path.clone() },
            origin: origin(&path, figment),
            fault: format!("is {}, which does not fit", named(actual)),
            remedy: limits::remedy(&path),
        },
        // Nothing else can happen with these structs; the kind alone is shown, since a text might
        // hold a secret.
        _ => Problem {
            subject: if path.is_empty() { "the configuration".to_owned() } else { path.clone() },
            origin: origin(&path, figment),
            fault: "cannot be read".to_owned(),
            remedy: limits::remedy(&path),
        },
    }
}

fn subject_of(key: &str, actual: &Actual) -> String {
    match actual {
        Actual::Bool(value) => subject(key, value),
        Actual::Unsigned(value) => subject(key, value),
        Actual::Signed(value) => subject(key, value),
        Actual::Float(value) => subject(key, value),
        Actual::Char(value) => subject(key, value.to_string()),
        Actual::Str(value) => subject(key, value),
        _ => key.to_owned(),
    }
}

fn named(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "a boolean",
        Actual::Signed(..0) => "a negative number",
        Actual::Unsigned(_) | Actual::Signed(_) => "a number",
        Actual::Float(_) => "a number with a fraction",
        Actual::Char(_) | Actual::Str(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "a value",
    }
}

/// The key that was probably meant, or the list of those there are.
pub(super) fn unknown_remedy(key: &str, expected: &[&str]) -> String {
    let nearest = limits::keys().map(|known| (distance(key, known), known)).min();
    match nearest {
        Some((distance, known)) if distance <= 3 => format!("did you mean {known}?"),
        _ if expected.is_empty() => {
            format!("the keys are {}", limits::keys().collect::<Vec<_>>().join(", "))
        }
        _ => match key.rsplit_once('.') {
            Some((section, _)) => format!("[{section}] has the keys {}", expected.join(", ")),
            None => format!("there are the sections {}", expected.join(", ")),
        },
    }
}

/// Levenshtein's, over bytes: the keys are ASCII.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (at, b) in right.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[at + 1];
            row[at + 1] = substituted.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

/// A syntax error of TOML without the line it quotes: that line might hold a password.
pub(super) fn without_quotation(message: &str) -> String {
    let kept: Vec<_> =
        message.lines().filter(|line| !line.contains(" |") && !line.trim().is_empty()).collect();
    kept.join(": ").replace("TOML parse error", "syntax error")
}

/// For a value that stands in a message of another library.
pub(super) fn scrubbed(message: &str, property: &str, value: &str) -> String {
    if Kafka::is_secret(property) && !value.is_empty() {
        message.replace(value, secret::HIDDEN)
    } else {
        message.to_owned()
    }
}
