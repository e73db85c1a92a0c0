//! Records, as a Content Service publishes them and as they come back.

use serde_json::{Value, json};

/// A record with everything that must survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// `None` lets the key decide.
    pub(crate) partition: Option<i32>,
    /// Where it came to stand; of no meaning before that.
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// The time of events that say no other: a moment in 2017, so that a clock never comes into it.
const SOME_TIME_MS: i64 = 1_500_000_000_000;

/// A record with that value, and nothing else.
pub(crate) fn record(value: impl Into<Vec<u8>>) -> Record {
    Record {
        partition: None,
        offset: 0,
        timestamp_ms: SOME_TIME_MS,
        key: None,
        value: Some(value.into()),
        headers: Vec::new(),
    }
}

/// The event that a job has made images for a draft.
pub(crate) fn event(draft: &str, job: &str) -> Record {
    record(body(draft, job).to_string()).keyed(draft)
}

/// Its fields.
pub(crate) fn body(draft: &str, job: &str) -> Value {
    json!({ "jobId": job, "eventDraftId": draft, "imageUrls": images(job) })
}

/// The images that a job makes, as the row is to hold them.
pub(crate) fn images(job: &str) -> Value {
    let url = |style: &str| format!("https://cdn.example.com/{job}/{style}.png");
    json!({ "simple": url("simple"), "fancy": url("fancy"), "trendy": url("trendy") })
}

impl Record {
    /// At so many milliseconds after [`SOME_TIME_MS`].
    pub(crate) fn at(self, ms: i64) -> Record {
        Record { timestamp_ms: SOME_TIME_MS + ms, ..self }
    }

    /// In that partition, whatever the key says.
    pub(crate) fn on(self, partition: i32) -> Record {
        Record { partition: Some(partition), ..self }
    }

    pub(crate) fn keyed(self, key: impl Into<Vec<u8>>) -> Record {
        Record { key: Some(key.into()), ..self }
    }

    /// With one more header.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Record {
        self.headers.push((name.to_owned(), Some(value.as_ref().to_vec())));
        self
    }

    /// With one more header, whose value is null.
    pub(crate) fn with_null(mut self, name: &str) -> Record {
        self.headers.push((name.to_owned(), None));
        self
    }

    /// The text of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        Some(std::str::from_utf8(value.as_deref()?).unwrap())
    }

    /// The record as its publisher made it: without its place, and without what a dead letter has
    /// more.
    pub(crate) fn own(&self) -> Record {
        let headers = self.headers.iter().filter(|(name, _)| !name.starts_with("dlq."));
        Record { partition: None, offset: 0, headers: headers.cloned().collect(), ..self.clone() }
    }
}
