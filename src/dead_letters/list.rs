//! `dlq list`, `dlq show` and `dlq count`: reading the dead letters.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Write;
use std::ops::ControlFlow;

use rdkafka::message::{BorrowedMessage, Message};
use serde::Serialize;

use super::{DlqError, Entry, Letter, Origin, Place, Which};
use crate::config::Config;
use crate::headers;
use crate::printable::{hex_dump, indented_json, one_line, shortened, table};
use crate::scan::Reader;

/// Longer messages are cut in the table; `show` and `--json` have all of them.
const MESSAGE_CHARS_MAX: usize = 80;

/// Writes the newest `limit` dead letters, the newest last, as a table or as one JSON object a
/// line.
///
/// # Errors
///
/// When the topic cannot be read or the output not written.
pub fn list(
    config: &Config,
    which: &Which,
    limit: usize,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), DlqError> {
    let (letters, replayed) = newest(config, which, limit)?;
    if json {
        for letter in &letters {
            let row = Row::of(letter, replayed.contains(&letter.origin));
            let row = serde_json::to_string(&row).map_err(std::io::Error::from)?;
            writeln!(out, "{row}")?;
        }
        return Ok(());
    }
    let header = ["place", "record", "reason", "message", "written", "replays"];
    let rows: Vec<[String; 6]> = letters.iter().map(|letter| cells(letter, &replayed)).collect();
    Ok(table(header, &rows, out)?)
}

/// The newest `limit` dead letters, the newest last, and the records that have been replayed.
///
/// # Errors
///
/// When the topic cannot be read.
pub fn newest(
    config: &Config,
    which: &Which,
    limit: usize,
) -> Result<(Vec<Letter>, HashSet<Origin>), DlqError> {
    let mut in_order: BTreeSet<(i64, Place)> = BTreeSet::new();
    let mut letters: BTreeMap<Place, Letter> = BTreeMap::new();
    let replayed = read_letters(config, |letter| {
        if which.takes(&letter) {
            in_order.insert((letter.written_ms.unwrap_or(-1), letter.place));
            letters.insert(letter.place, letter);
        }
        if in_order.len() > limit {
            in_order.pop_first().and_then(|(_, place)| letters.remove(&place));
        }
    })?;
    let in_order = in_order.iter().filter_map(|(_, place)| letters.remove(place));
    Ok((in_order.collect(), replayed))
}

/// Writes how many dead letters there are, each record once, in all or by reason (the most frequent
/// first).
///
/// # Errors
///
/// When the topic cannot be read or the output not written.
pub fn count(config: &Config, by_reason: bool, out: &mut dyn Write) -> Result<(), DlqError> {
    let mut origins: HashSet<Origin> = HashSet::new();
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    read_letters(config, |letter| {
        if origins.insert(letter.origin) {
            *reasons.entry(letter.reason).or_default() += 1;
        }
    })?;
    if !by_reason {
        writeln!(out, "{}", origins.len())?;
        return Ok(());
    }
    let mut sorted: Vec<_> = reasons.into_iter().collect();
    sorted.sort_by(|(left, left_count), (right, right_count)| {
        right_count.cmp(left_count).then_with(|| left.cmp(right))
    });
    let rows: Vec<_> = sorted
        .into_iter()
        .map(|(reason, count)| [one_line(reason.as_bytes()), count.to_string()])
        .collect();
    Ok(table(["reason", "count"], &rows, out)?)
}

/// Writes one dead letter: its headers, its key, and its value, indented where that is JSON and as
/// a hex dump otherwise.
///
/// # Errors
///
/// When there is none at that place, the topic cannot be read or the output not written.
pub fn show(config: &Config, place: Place, out: &mut dyn Write) -> Result<(), DlqError> {
    let topic = &config.dead_letters.topic;
    let shown = Reader::new(&config.kafka)?.at(topic, place.partition, place.offset, describe)?;
    let shown = shown.ok_or_else(|| DlqError::NotThere { place, topic: topic.clone() })?;
    out.write_all(shown.as_bytes())?;
    Ok(())
}

/// Shows every dead letter to `visit`, and returns the records that have been replayed.
fn read_letters(
    config: &Config,
    mut visit: impl FnMut(Letter),
) -> Result<HashSet<Origin>, DlqError> {
    let reader = Reader::new(&config.kafka)?;
    let topic = &config.dead_letters.topic;
    let mut replayed = HashSet::new();
    reader.walk::<DlqError>(topic, &reader.everything(topic)?, |message| {
        match Entry::read(message) {
            Entry::Letter(letter) => visit(letter),
            Entry::Mark(origin) => {
                replayed.insert(origin);
            }
            Entry::Stranger(place) => tracing::warn!(%place, topic, "not a dead letter"),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(replayed)
}

/// One dead letter for machines.
#[derive(Serialize)]
struct Row<'a> {
    place: String,
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: i64,
    reason: &'a str,
    message: &'a str,
    attempts: u32,
    stage: &'a str,
    replays: u32,
    replayed: bool,
    reference: bool,
    written: Option<i64>,
    size: Option<usize>,
}

impl Row<'_> {
    fn of(letter: &Letter, replayed: bool) -> Row<'_> {
        let Letter {
            place,
            origin,
            reason,
            message,
            attempts,
            stage,
            replays,
            is_reference,
            written_ms,
            size,
        } = letter;
        Row {
            place: place.to_string(),
            topic: &origin.topic,
            partition: origin.partition,
            offset: origin.offset,
            timestamp: origin.timestamp_ms,
            reason,
            message,
            attempts: *attempts,
            stage,
            replays: *replays,
            replayed,
            reference: *is_reference,
            written: *written_ms,
            size: *size,
        }
    }
}

fn cells(letter: &Letter, replayed: &HashSet<Origin>) -> [String; 6] {
    let Origin { topic, partition, offset, timestamp_ms: _ } = &letter.origin;
    let mark = if replayed.contains(&letter.origin) { " (replayed)" } else { "" };
    [
        letter.place.to_string(),
        one_line(format!("{topic} {partition}:{offset}").as_bytes()),
        shortened(letter.reason.as_bytes(), MESSAGE_CHARS_MAX),
        shortened(letter.message.as_bytes(), MESSAGE_CHARS_MAX),
        time(letter.written_ms),
        format!("{}{mark}", letter.replays),
    ]
}

/// A time in milliseconds since the epoch as RFC 3339 in UTC; `-` where there is none.
fn time(ms: Option<i64>) -> String {
    let timestamp = ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(|| "-".to_owned(), |timestamp| timestamp.to_string())
}

fn describe(message: &BorrowedMessage<'_>) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.extend([name, ": ", value, "\n"]);
    };
    let place = Place { partition: message.partition(), offset: message.offset() };
    line("place", &place.to_string());
    line("written", &time(message.timestamp().to_millis()));
    for (index, header) in headers::of(message).enumerate() {
        match header {
            Ok(header) => {
                let name = format!("header {}", one_line(header.key.as_bytes()));
                line(&name, &header.value.map_or_else(|| "(null)".to_owned(), one_line));
            }
            Err(headers::Unreadable) => {
                line(&format!("header {}", index + 1), "(its name is not UTF-8)");
            }
        }
    }
    line("key", &message.key().map_or_else(|| "(null)".to_owned(), one_line));
    match message.payload() {
        None => line("value", "(null)"),
        Some(value) => {
            line("value", &format!("{} bytes", value.len()));
            text.push_str(&shown_value(value));
        }
    }
    text
}

fn shown_value(value: &[u8]) -> String {
    // Parsed for its depth limit; printed from the text, which keeps what a parsed value would not,
    // such as a key that stands twice.
    let json = serde_json::from_slice::<serde_json::Value>(value)
        .ok()
        .and(std::str::from_utf8(value).ok());
    match json {
        Some(json) => format!("{}\n", indented_json(json)),
        None => hex_dump(value),
    }
}
