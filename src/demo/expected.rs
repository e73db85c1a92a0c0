//! What must come of generated events, worked out from the events themselves, without the
//! pipeline's own code.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use crate::drafts::{DraftError, Rows};
use crate::generate::{GeneratedEvent, Generator, Kind, Mix, MixError};

/// What must come of the events of a mix.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Events by the name of their kind.
    pub(super) kinds: BTreeMap<&'static str, u64>,
    /// Bad events by the reason to reject them for.
    pub(super) reasons: BTreeMap<&'static str, u64>,
    /// The drafts that got images.
    pub(super) drafts: HashMap<String, Newest>,
}

/// A draft after all its events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    timestamp_ms: i64,
    /// A hash of the images, to keep this small: there may be a million drafts.
    images: u64,
    /// How many events it had.
    pub(super) events: u32,
}

impl Expected {
    /// Generates the events of the mix and forgets them again; the same ones come once more when
    /// they are published.
    pub(super) fn of(mix: &Mix) -> Result<Expected, MixError> {
        let mut expected = Expected::default();
        Generator::new(mix.clone())?.for_each(|event| expected.add(event));
        Ok(expected)
    }

    fn add(&mut self, event: GeneratedEvent) {
        let GeneratedEvent { key, value, headers: _, timestamp_ms, kind } = event;
        *self.kinds.entry(kind.name()).or_default() += 1;
        match kind {
            Kind::Bad(reason) => *self.reasons.entry(reason.code()).or_default() += 1,
            Kind::Foreign => {}
            Kind::Fresh | Kind::Duplicate | Kind::Stale => {
                let value = value.expect("a good event has a value");
                let first = Newest { timestamp_ms: i64::MIN, images: 0, events: 0 };
                let newest = self.drafts.entry(key).or_insert(first);
                newest.events += 1;
                // A draft's events share a partition: of two with the same timestamp the later one
                // is newer. But a job that comes once more changes nothing.
                if kind != Kind::Duplicate && timestamp_ms >= newest.timestamp_ms {
                    newest.timestamp_ms = timestamp_ms;
                    newest.images = hash(&event_images(&value));
                }
            }
        }
    }

    /// How many events are of that kind.
    pub(super) fn count(&self, kind: &str) -> u64 {
        self.kinds.get(kind).copied().unwrap_or(0)
    }

    /// How many events are of a kind that may reach a row.
    pub(super) fn good(&self) -> u64 {
        ["fresh", "duplicate", "stale"].into_iter().map(|kind| self.count(kind)).sum()
    }

    /// A hundred of the drafts at most, the one with the most events first.
    pub(super) fn sample(&self) -> Vec<&str> {
        let mut ids: Vec<(&str, u32)> =
            self.drafts.iter().map(|(id, newest)| (id.as_str(), newest.events)).collect();
        ids.sort_unstable_by_key(|(id, events)| (std::cmp::Reverse(*events), *id));
        let step = (ids.len() / 100).max(1);
        ids.into_iter().step_by(step).take(100).map(|(id, _)| id).collect()
    }

    /// How many of the drafts hold the images that they must hold.
    pub(super) async fn right_rows(&self, rows: &Rows) -> Result<u64, DraftError> {
        let ids: Vec<&str> = self.drafts.keys().map(String::as_str).collect();
        let mut right = 0;
        rows.images(&ids, |id, images| {
            let images = images.and_then(|images| serde_json::from_str(images).ok());
            let found = images.as_ref().map(hash);
            right += u64::from(found.is_some() && found == self.drafts.get(id).map(|d| d.images));
        })
        .await?;
        Ok(right)
    }
}

fn event_images(value: &[u8]) -> Value {
    let mut event: Value = serde_json::from_slice(value).expect("a good event is JSON");
    event["imageUrls"].take()
}

/// Objects are kept sorted by their keys, so that equal ones are written equally.
fn hash(json: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    json.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_counted_once_and_the_newest_decides() {
        let mix = Mix {
            events: 5_000,
            drafts: 500,
            start_ms: 1_700_000_000_000,
            duplicates: 0.1,
            stale: 0.1,
            bad: 0.01,
            foreign: 0.02,
            ..Mix::default()
        };
        let expected = Expected::of(&mix).unwrap();
        assert_eq!(expected.kinds.values().sum::<u64>(), 5_000);
        assert_eq!(expected.reasons.values().sum::<u64>(), expected.count("bad"));
        let events: u64 = expected.drafts.values().map(|newest| u64::from(newest.events)).sum();
        assert_eq!(events, expected.good());
        assert!(expected.drafts.values().all(|newest| newest.timestamp_ms >= mix.start_ms));
        assert_eq!(expected.sample().len(), 100);
    }
}
