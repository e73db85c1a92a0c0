//! The limit of the parser: serde_json alone, on one thread, into borrowed fields.

use std::time::Instant;

use super::events::Events;
use super::results::per_second;

/// Parses every event. The result is events a second.
pub(crate) fn measure(events: &Events) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut bytes = 0;
    for record in events.chunks.iter().flat_map(|chunk| chunk.records()) {
        let event = super::events::parse(record.value().unwrap_or_default())?;
        bytes += event.event_draft_id.len() + event.image_urls.get().len();
    }
    let elapsed = began.elapsed();
    anyhow::ensure!(bytes > 0, "the events are empty");
    Ok(per_second(events.len(), elapsed))
}
