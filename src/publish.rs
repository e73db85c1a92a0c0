//! The reference publisher: how a Content Service should publish, and a source of test events.
//!
//! ```text
//! flags | NDJSON lines | generator -> checked by the consumer's own rules -> Publisher -> delivery reports -> Published
//! ```
//!
//! It is idempotent, waits until all in-sync replicas have every event, and keys each by its draft,
//! so that a draft's events keep their order. What a consumer would reject is not published, unless
//! the generator is asked for just that.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};
use std::time::{Duration, Instant};

use dataflows::decode::{ContentCreated, Decoded, decode};
use dataflows::record::{Chunk, RawRecord};
use dataflows::reject::Fault;
use dataflows::validate::DraftIdType;

use crate::clock::now_ms;
use crate::config::Kafka;
use crate::generate::{CONTENT_CREATED, Generator, Mix};

mod producer;
mod pace;
mod error;

pub use error::PublishError;
pub use pace::Pace;
pub use producer::{Acknowledged, Event, Publisher};

/// A line that is longer is no event: its value alone would be over the limit for one.
const LINE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// How often it is told how far a paced publisher is.
const TELL: Duration = Duration::from_secs(1);

/// What was published and acknowledged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    /// Events.
    pub events: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// From the first event to the last acknowledgement.
    pub elapsed: Duration,
    /// Events by kind, where they were generated.
    pub by_kind: BTreeMap<&'static str, u64>,
}

impl Published {
    fn new(acknowledged: Acknowledged, elapsed: Duration) -> Published {
        let Acknowledged { events, bytes } = acknowledged;
        Published { events, bytes, elapsed, by_kind: BTreeMap::new() }
    }

    /// Events a second.
    pub fn rate(&self) -> f64 {
        let events = f64::from(u32::try_from(self.events).unwrap_or(u32::MAX));
        events / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// Writes the report.
    ///
    /// # Errors
    ///
    /// When the output cannot be written.
    pub fn report(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let Published { events, bytes, elapsed, by_kind } = self;
        let (seconds, rate) = (elapsed.as_secs_f64(), self.rate());
        let noun = if *events == 1 { "event" } else { "events" };
        writeln!(
            out,
            "published {events} {noun}, {bytes} bytes, in {seconds:.2} s: {rate:.0} events/s"
        )?;
        by_kind.iter().try_for_each(|(kind, count)| writeln!(out, "  {kind} {count}"))
    }
}

/// Publishes one event and waits for its acknowledgement.
///
/// # Errors
///
/// When the event breaks a rule, or is not acknowledged.
pub fn publish_one(
    config: &Kafka,
    job_id: &str,
    draft_id: &str,
    urls: &[String; 3],
) -> Result<Published, PublishError> {
    let [simple, fancy, trendy] = urls;
    let value = serde_json::json!({
        "jobId": job_id,
        "eventDraftId": draft_id,
        "imageUrls": { "simple": simple, "fancy": fancy, "trendy": trendy },
    });
    let value = value.to_string();
    let key = checked(value.as_bytes()).map_err(PublishError::Invalid)?;
    let started = Instant::now();
    let publisher = Publisher::new(config)?;
    publisher.send(&Event {
        key: &key,
        value: Some(value.as_bytes()),
        headers: CONTENT_CREATED,
        timestamp_ms: now_ms(),
    })?;
    Ok(Published::new(publisher.finish()?, started.elapsed()))
}

/// Publishes NDJSON: each line one event, its bytes as they are. Blank lines are passed over. Ends
/// at the first line that is not a valid event: those before it are published, nothing after it is.
///
/// # Errors
///
/// When a line is bad or cannot be read, or an event is not acknowledged; each says how many were
/// published.
pub fn publish_lines(config: &Kafka, lines: &mut dyn BufRead) -> Result<Published, PublishError> {
    let publisher = Publisher::new(config)?;
    let started = Instant::now();
    let result = send_lines(&publisher, lines);
    let acknowledged = publisher.finish()?;
    match result {
        Ok(()) => Ok(Published::new(acknowledged, started.elapsed())),
        Err(stop) => Err(stop.after(acknowledged)),
    }
}

/// Why the reading of lines ended early.
enum Stop {
    Line { line: u64, fault: Fault },
    Input(std::io::Error),
    Publish(PublishError),
}

impl Stop {
    fn after(self, acknowledged: Acknowledged) -> PublishError {
        let published = acknowledged.events;
        match self {
            Stop::Line { line, fault } => PublishError::Line { line, fault, published },
            Stop::Input(source) => PublishError::Input { source, published },
            Stop::Publish(error) => error,
        }
    }
}

fn send_lines(publisher: &Publisher, lines: &mut dyn BufRead) -> Result<(), Stop> {
    let mut buffer = Vec::new();
    for line in 1.. {
        buffer.clear();
        let read =
            lines.take(LINE_BYTES_MAX).read_until(b'\n', &mut buffer).map_err(Stop::Input)?;
        if read == 0 {
            break;
        }
        let value = buffer.strip_suffix(b"\n").unwrap_or(&buffer);
        let value = value.strip_suffix(b"\r").unwrap_or(value);
        if value.trim_ascii().is_empty() {
            continue;
        }
        let key = checked(value).map_err(|fault| Stop::Line { line, fault })?;
        let event = Event {
            key: &key,
            value: Some(value),
            headers: CONTENT_CREATED,
            timestamp_ms: now_ms(),
        };
        publisher.send(&event).map_err(Stop::Publish)?;
    }
    Ok(())
}

/// Publishes a generated mix, at most `rate` events a second if one is given, and reports to `sent`
/// how many events are on their way, every few hundred, and every second where it waits.
///
/// # Errors
///
/// When the mix is impossible, or an event is not acknowledged.
pub fn publish_generated(
    config: &Kafka,
    mix: Mix,
    rate: Option<u64>,
    sent: &mut dyn FnMut(u64),
) -> Result<Published, PublishError> {
    let generator = Generator::new(mix)?;
    let publisher = Publisher::new(config)?;
    let mut by_kind = BTreeMap::new();
    let mut pace = rate.map(|rate| Pace::new(rate, Instant::now()));
    let started = Instant::now();
    let mut told = started;
    for (index, event) in (1..).zip(generator) {
        if let Some(pace) = &mut pace {
            while let Some(pause) = pace.pause(Instant::now()) {
                publisher.idle(pause);
                // Of a slow one a few hundred take long.
                if told.elapsed() >= TELL {
                    told = Instant::now();
                    sent(index - 1);
                }
            }
        }
        *by_kind.entry(event.kind.name()).or_default() += 1;
        publisher.send(&Event::from(&event))?;
        if index % 256 == 0 {
            sent(index);
        }
    }
    let acknowledged = publisher.finish()?;
    sent(acknowledged.events);
    Ok(Published { by_kind, ..Published::new(acknowledged, started.elapsed()) })
}

/// The distance between generated events, in microseconds, at which their timestamps keep step with
/// a clock: that of the rate, and without one a distance that no publisher outruns, so that no
/// event comes from the future.
pub fn spacing_us(rate: Option<u64>) -> u64 {
    rate.map_or(1, |rate| 1_000_000 / rate.max(1))
}

/// The draft's id, if a consumer would take the value for a ContentCreated and accept it.
fn checked(value: &[u8]) -> Result<String, Fault> {
    let mut chunk = Chunk::default();
    let record = RawRecord { value: Some(value), ..RawRecord::default() };
    // Without the header that it is published with: that one would make a ContentCreated of any
    // other type.
    chunk.push(record, []);
    match decode(chunk.record(0), DraftIdType::Text { max_chars: None }) {
        Decoded::Event(ContentCreated { job_id: _, draft_id, urls: _ }) => {
            Ok(draft_id.into_owned())
        }
        Decoded::Skipped => Err(error::another_type()),
        Decoded::Rejected(fault) => Err(fault),
    }
}

#[cfg(test)]
mod tests;
