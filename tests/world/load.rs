//! A load of generated events of every kind, and the model that says what must become of it.

use std::collections::{BTreeMap, BTreeSet};

use contentflow::generate::{Generator, Kind, Mix};
use serde_json::{Value, json};

use super::{Place, Record, World};

/// What was published.
pub(crate) struct Load {
    /// Where each event stands, and of which kind it is.
    pub(crate) kinds: BTreeMap<Place, Kind>,
    drafts: u64,
}

/// A job that reached its draft's row: the timestamp, the offset, the partition and the job's id.
type Reached = (i64, i64, i32, String);

impl World {
    /// Creates the drafts of the mix and publishes its events.
    pub(crate) fn load(&self, mix: Mix) -> Load {
        let drafts = mix.drafts;
        self.drafts((1..=drafts).map(|number| mix.draft_ids.id(number)));
        self.publish_load(mix)
    }

    /// Publishes the events of the mix.
    pub(crate) fn publish_load(&self, mix: Mix) -> Load {
        let drafts = mix.drafts;
        let events: Vec<_> = Generator::new(mix).unwrap().collect();
        let kinds: Vec<Kind> = events.iter().map(|event| event.kind).collect();
        let records = events.into_iter().map(|event| Record {
            partition: None,
            offset: 0,
            timestamp_ms: event.timestamp_ms,
            key: Some(event.key.into_bytes()),
            value: event.value,
            headers: event
                .headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec())))
                .collect(),
        });
        let places = self.publish(records);
        Load { kinds: places.into_iter().zip(kinds).collect(), drafts }
    }

    /// Proves that the load has been dealt with completely: every row as the model says, every
    /// reject among the dead letters and nothing else, no key left in the cache that an event has
    /// made obsolete, everything committed.
    pub(crate) fn assert_done(&self, load: &Load) {
        self.assert_rows(load);
        assert_eq!(self.rejects(), load.rejects());
        assert_eq!(self.committed(), self.ends());
    }

    /// Proves that every row is as the model says, and that no key is left in the cache that an
    /// event has made obsolete.
    pub(crate) fn assert_rows(&self, load: &Load) {
        let rows = self.rows();
        let expected = load.rows(&self.records());
        assert_eq!(rows.len(), usize::try_from(load.drafts).unwrap());
        for (id, row) in &rows {
            match expected.get(id) {
                Some(expected) => assert_eq!(&memory(&row.columns), expected, "draft {id}"),
                None => assert!(row.is_untouched(), "draft {id} has no event: {row:?}"),
            }
        }
        let stale = self.cached_among(expected.keys().map(String::as_str));
        assert!(stale.is_empty(), "left in the cache: {stale:?}");
    }
}

impl Load {
    /// Both loads as one.
    pub(crate) fn joined(mut self, other: Load) -> Load {
        self.kinds.extend(other.kinds);
        self.drafts = self.drafts.max(other.drafts);
        self
    }

    pub(crate) fn events(&self) -> u64 {
        u64::try_from(self.kinds.len()).unwrap()
    }

    /// The events that must be rejected, with the reasons.
    pub(crate) fn rejects(&self) -> BTreeMap<Place, String> {
        let rejects = self.kinds.iter().filter_map(|(place, kind)| match kind {
            Kind::Bad(reason) => Some((*place, reason.code().to_owned())),
            _ => None,
        });
        rejects.collect()
    }

    pub(crate) fn count(&self, counted: impl Fn(Kind) -> bool) -> u64 {
        u64::try_from(self.kinds.values().filter(|kind| counted(**kind)).count()).unwrap()
    }

    /// What the rows must hold: the rules in a few lines. Of the events of one job the first
    /// counts; of those that count, the newest has its images in the row, and the fifteen before it
    /// are remembered.
    fn rows(&self, records: &[Record]) -> BTreeMap<String, Value> {
        let mut reached: BTreeMap<String, BTreeMap<Reached, Value>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for record in records {
            let partition = record.partition.unwrap();
            let kind = self.kinds[&(partition, record.offset)];
            if matches!(kind, Kind::Bad(_) | Kind::Foreign) {
                continue;
            }
            let event: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
            let text = |field: &str| event[field].as_str().unwrap().to_owned();
            let (draft, job) = (text("eventDraftId"), text("jobId"));
            if seen.insert((draft.clone(), job.clone())) {
                let place = (record.timestamp_ms, record.offset, partition, job);
                reached.entry(draft).or_default().insert(place, event["imageUrls"].clone());
            }
        }
        let row = |jobs: BTreeMap<Reached, Value>| {
            let ((ms, offset, partition, job), images) = jobs.last_key_value().unwrap();
            let older: Vec<_> = jobs.keys().rev().skip(1).take(15).collect();
            let numbers = older
                .iter()
                .flat_map(|(ms, offset, partition, _)| [*ms, *offset, i64::from(*partition)]);
            json!({
                "content_images": images,
                "content_job_id": job,
                "content_event_at": ms,
                "content_event_offset": offset,
                "content_event_partition": partition,
                "content_older_jobs": unless_empty(older.iter().map(|(.., job)| job).collect()),
                "content_older_positions": unless_empty(numbers.collect()),
            })
        };
        reached.into_iter().map(|(draft, jobs)| (draft, row(jobs))).collect()
    }
}

/// A list as the row has it.
fn unless_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// The columns that the model knows, the event's time in milliseconds.
fn memory(columns: &Value) -> Value {
    let names = [
        "content_images",
        "content_job_id",
        "content_event_offset",
        "content_event_partition",
        "content_older_jobs",
        "content_older_positions",
    ];
    let at = columns["content_event_at"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let at = ("content_event_at".to_owned(), json!(at.map(|at| at.as_millisecond())));
    names.into_iter().map(|name| (name.to_owned(), columns[name].clone())).chain([at]).collect()
}
