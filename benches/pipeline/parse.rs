//! The limit of the parser: serde_json alone, on one thread, into borrowed fields.

use super::events::Events;
use super::process::{Stopwatch, Taken};

/// Parses every event.
pub(crate) fn measure(events: &Events) -> anyhow::Result<Taken> {
    let watch = Stopwatch::start();
    let mut bytes = 0;
    for record in events.chunks.iter().flat_map(|chunk| chunk.records()) {
        let event = super::events::parse(record.value().unwrap_or_default())?;
        bytes += event.event_draft_id.len() + event.image_urls.get().len();
    }
    let taken = watch.stop(events.len());
    anyhow::ensure!(bytes > 0, "the events are empty");
    Ok(taken)
}
