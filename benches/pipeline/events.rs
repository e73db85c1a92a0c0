//! The events in memory, in the order of their publication.

use contentflow::generate::Generator;
use dataflows::record::Chunk;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::servers::mix;

/// Rows in one bare UPDATE: `database.batch_rows` as it is by default.
pub(crate) const BATCH_ROWS: usize = 5_000;

/// The events, as they are read from Kafka.
pub(crate) struct Events {
    /// Batches of records, [`BATCH_ROWS`] each.
    pub(crate) chunks: Vec<Chunk>,
}

/// What an UPDATE needs to know of some events.
pub(crate) struct Batch<'a> {
    pub(crate) ids: Vec<&'a str>,
    pub(crate) images: Vec<&'a str>,
}

/// What an UPDATE needs to know of an event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContentCreated<'a> {
    pub(crate) event_draft_id: &'a str,
    #[serde(borrow)]
    pub(crate) image_urls: &'a RawValue,
}

/// Parses the value of a record.
pub(crate) fn parse(value: &[u8]) -> serde_json::Result<ContentCreated<'_>> {
    serde_json::from_slice(value)
}

impl Events {
    pub(crate) fn generate(count: u64) -> anyhow::Result<Events> {
        let mut chunks = Vec::new();
        let mut chunk = Chunk::default();
        for (offset, event) in (0..).zip(Generator::new(mix(count))?) {
            let headers = event.headers.iter();
            chunk.push(
                event.record_at(0, offset),
                headers.map(|(name, value)| (*name, Some(value.as_bytes()))),
            );
            if chunk.len() == BATCH_ROWS {
                chunks.push(std::mem::take(&mut chunk));
            }
        }
        if !chunk.is_empty() {
            chunks.push(chunk);
        }
        Ok(Events { chunks })
    }

    /// The events as the parameters of UPDATEs.
    pub(crate) fn batches(&self) -> anyhow::Result<Vec<Batch<'_>>> {
        let batch = |chunk| -> anyhow::Result<Batch<'_>> {
            let (mut ids, mut images) = (Vec::new(), Vec::new());
            for record in Chunk::records(chunk) {
                let event = parse(record.value().unwrap_or_default())?;
                ids.push(event.event_draft_id);
                images.push(event.image_urls.get());
            }
            Ok(Batch { ids, images })
        };
        self.chunks.iter().map(batch).collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::try_from(chunk.len()).unwrap_or_default()).sum()
    }
}
