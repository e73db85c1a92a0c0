//! The checks at the end: everything that is left behind, held against a fold over the topic.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use contentflow::drafts::BOOKKEEPING;
use contentflow::generate::Kind;
use rdkafka::message::{BorrowedMessage, Headers, Message};

use crate::ground::Ground;
use crate::load::{Published, refusal};
use crate::offsets::Offsets;
use crate::oracle::{self, Difference, Fate, Oracle};

/// A partition and an offset.
type Place = (i32, i64);

/// A rejected record: why, and what must not change of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    reason: String,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

/// What follows from the topic.
pub(crate) struct Expected {
    pub(crate) records: u64,
    oracle: Oracle,
    letters: BTreeMap<Place, Letter>,
}

/// What was found. All zero is what must be, but for the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) lost: usize,
    pub(crate) wrong_rows: usize,
    pub(crate) went_back: u64,
    pub(crate) missing_dead_letters: usize,
    /// Of records that are not to be rejected, or not as they were, or with another reason.
    pub(crate) wrong_dead_letters: usize,
    pub(crate) stale_keys: usize,
    pub(crate) lag: i64,
    /// How many keys there were to be stale.
    pub(crate) keys: usize,
}

impl Findings {
    pub(crate) fn is_clean(&self) -> bool {
        Findings { keys: 0, ..*self } == Findings::default()
    }
}

impl Expected {
    /// Reads the topic.
    pub(crate) fn of(ground: &Ground, published: &Published) -> Result<Expected> {
        let kafka = &ground.config.kafka;
        let mut expected =
            Expected { records: 0, oracle: Oracle::default(), letters: BTreeMap::new() };
        let mut skipped = 0;
        oracle::read(kafka, &kafka.topic, |message| {
            expected.records += 1;
            match expected.oracle.judge(message, refusal) {
                Fate::Settled => {}
                Fate::Skipped => skipped += 1,
                Fate::Rejected(reason) => {
                    let letter = letter(message, reason.code().to_owned());
                    expected.letters.insert((message.partition(), message.offset()), letter);
                }
            }
        })?;
        // Who made the events knows nothing of how they are judged.
        let count = |counted: fn(&Kind) -> bool| -> u64 {
            published.iter().filter(|(kind, _)| counted(kind)).map(|(_, count)| count).sum()
        };
        let made = [count(|_| true), count(|kind| *kind == Kind::Foreign)];
        anyhow::ensure!(made == [expected.records, skipped], "the topic is not as published");
        let bad = count(|kind| matches!(kind, Kind::Bad(_)));
        let rejected = u64::try_from(expected.letters.len())?;
        anyhow::ensure!(rejected >= bad, "{bad} bad events are published, {rejected} judged so");
        Ok(expected)
    }

    /// Looks at everything.
    pub(crate) fn check(&self, ground: &Ground, offsets: &Offsets) -> Result<Findings> {
        let difference = ground.runtime.block_on(self.oracle.compare(&ground.config))?;
        let Difference { wrong_rows, lost_jobs } = difference;
        let letters = dead_letters(ground)?;
        let missing = self.letters.keys().filter(|place| !letters.contains_key(place)).count();
        let right = |(place, copies): &(&Place, &Vec<Letter>)| {
            copies.iter().all(|copy| self.letters.get(place) == Some(copy))
        };
        let (stale_keys, keys) = stale_keys(ground)?;
        Ok(Findings {
            lost: lost_jobs,
            wrong_rows,
            went_back: ground.number("SELECT count(*) FROM went_back")?,
            missing_dead_letters: missing,
            wrong_dead_letters: letters.iter().filter(|letter| !right(letter)).count(),
            stale_keys,
            lag: offsets.lag()?,
            keys,
        })
    }
}

/// What changes when a row is written, whatever with: its transaction and its time.
pub(crate) fn versions(ground: &Ground) -> Result<BTreeSet<Vec<String>>> {
    let rows = ground.drafts_sql("SELECT event_draft_id, xmin, updated_at FROM event_drafts")?;
    Ok(rows.into_iter().collect())
}

/// The places that dead letters stand for.
pub(crate) fn dead_letter_places(ground: &Ground) -> Result<BTreeSet<Place>> {
    Ok(dead_letters(ground)?.into_keys().collect())
}

/// The dead letters by the record that they stand for, with all copies.
fn dead_letters(ground: &Ground) -> Result<BTreeMap<Place, Vec<Letter>>> {
    let mut letters: BTreeMap<Place, Vec<Letter>> = BTreeMap::new();
    let mut strange = None;
    oracle::read(&ground.config.kafka, &ground.config.dead_letters.topic, |message| {
        let added = |name: &str| {
            let header = message.headers()?.iter().find(|header| header.key == name)?;
            std::str::from_utf8(header.value?).ok().map(str::to_owned)
        };
        let place =
            || Some((added("dlq.partition")?.parse().ok()?, added("dlq.offset")?.parse().ok()?));
        match (place(), added("dlq.reason")) {
            (Some(place), Some(reason)) => {
                letters.entry(place).or_default().push(letter(message, reason));
            }
            _ => strange = Some(message.offset()),
        }
    })?;
    anyhow::ensure!(strange.is_none(), "a dead letter without its place: {strange:?}");
    Ok(letters)
}

fn letter(message: &BorrowedMessage<'_>, reason: String) -> Letter {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    let own = headers.filter(|header| !header.key.starts_with("dlq."));
    Letter {
        reason,
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: own
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect(),
    }
}

/// How many cached drafts are not as their rows are, and how many there are.
fn stale_keys(ground: &Ground) -> Result<(usize, usize)> {
    let columns = BOOKKEEPING.map(|column| format!("'{column}'")).join(", ");
    let rows = ground.drafts_sql(&format!(
        "SELECT event_draft_id, (to_jsonb(draft) - ARRAY[{columns}])::text FROM event_drafts AS draft"
    ))?;
    let rows: BTreeMap<String, String> = rows
        .into_iter()
        .filter_map(|row| <[String; 2]>::try_from(row).ok())
        .map(|[id, draft]| (format!("event:draft:{id}"), draft))
        .collect();
    let keys: Vec<String> = ground.redis(&["KEYS", "event:draft:*"])?;
    let command: Vec<&str> = ["MGET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    if keys.is_empty() {
        return Ok((0, 0));
    }
    let values: Vec<Option<String>> = ground.redis(&command).context("the cached drafts")?;
    let is_stale = |(key, value): &(&String, &Option<String>)| {
        value.is_some() && value.as_ref() != rows.get(*key)
    };
    Ok((keys.iter().zip(&values).filter(is_stale).count(), keys.len()))
}
