//! What stands in the dead-letter topic, as it is read back.

use std::fmt;
use std::str::FromStr;

use rdkafka::message::{BorrowedMessage, Message};

use super::header;
use crate::headers;

/// A place in the dead-letter topic, written `partition:offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The partition of the dead-letter topic.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

/// A text that is no place in a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not PARTITION:OFFSET, such as 0:42")]
pub struct NotAPlace(String);

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Place, NotAPlace> {
        let place = text.split_once(':').and_then(|(partition, offset)| {
            let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
            (partition >= 0 && offset >= 0).then_some(Place { partition, offset })
        });
        place.ok_or_else(|| NotAPlace(text.to_owned()))
    }
}

/// Which record a dead letter stands for. A crash can leave two copies of one dead letter: they
/// have the same origin.
///
/// The timestamp belongs to it because a topic that is deleted and made again counts its offsets
/// from zero again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The topic that the record was read from.
    pub topic: String,
    /// The partition that the record was read from.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The record's timestamp when it was first published, milliseconds since the epoch.
    pub timestamp_ms: i64,
}

/// A dead letter without its key, value and own headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where it stands.
    pub place: Place,
    /// The record that it stands for.
    pub origin: Origin,
    /// The code as it was written: a later version may know more of them.
    pub reason: String,
    /// The sentence beside the code.
    pub message: String,
    /// How often the record was tried.
    pub attempts: u32,
    /// The stage that gave the record up.
    pub stage: String,
    /// How often the record has been replayed before.
    pub replays: u32,
    /// Whether the record itself is elsewhere.
    pub is_reference: bool,
    /// When the dead letter was written, milliseconds since the epoch, where Kafka knows.
    pub written_ms: Option<i64>,
    /// The value's size in bytes; `None` for a null value.
    pub size: Option<usize>,
}

/// One record of the dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A dead letter.
    Letter(Letter),
    /// The mark of a replay: that record has been published again.
    Mark(Origin),
    /// Something that does not say where it comes from.
    Stranger(Place),
}

impl Entry {
    /// Reads what kind of record this is.
    pub fn read(message: &BorrowedMessage<'_>) -> Entry {
        let place = Place { partition: message.partition(), offset: message.offset() };
        let added = Added::of(message);
        let Some(origin) = added.origin() else {
            return Entry::Stranger(place);
        };
        match (added.text(header::REPLAYED), added.text(header::REASON)) {
            (Some(_), None) => Entry::Mark(origin),
            (None, Some(reason)) => Entry::Letter(Letter {
                place,
                origin,
                reason: reason.to_owned(),
                message: added.text(header::MESSAGE).unwrap_or_default().to_owned(),
                attempts: added.number(header::ATTEMPTS).unwrap_or(0),
                stage: added.text(header::STAGE).unwrap_or_default().to_owned(),
                replays: added.number(header::REPLAYS).unwrap_or(0),
                is_reference: added.text(header::REFERENCE).is_some(),
                written_ms: message.timestamp().to_millis(),
                size: message.payload().map(<[u8]>::len),
            }),
            _ => Entry::Stranger(place),
        }
    }
}

/// The added headers of a record.
struct Added<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Added<'a> {
    fn of(message: &'a BorrowedMessage<'_>) -> Added<'a> {
        let added = headers::of(message).flatten().filter(|header| header::is_added(header.key));
        Added(
            added
                .filter_map(|header| Some((header.key, std::str::from_utf8(header.value?).ok()?)))
                .collect(),
        )
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    fn origin(&self) -> Option<Origin> {
        Some(Origin {
            topic: self.text(header::TOPIC)?.to_owned(),
            partition: self.number(header::PARTITION)?,
            offset: self.number(header::OFFSET)?,
            timestamp_ms: self.number(header::TIMESTAMP)?,
        })
    }
}
