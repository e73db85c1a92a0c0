//! Dead letters: what a rejected record looks like in its topic, and the commands that read and
//! replay them.
//!
//! ```text
//! rejected record -> DeadLetter -> (key, value, headers) in the dead-letter topic
//!                                     |
//!                                     +-> scan -> list, show, count
//!                                     +-> scan -> replay -> the record's own topic
//! ```
//!
//! A dead letter is the record itself: its key, value and headers byte for byte, followed by the
//! headers named in [`header`]. A record that the dead-letter topic cannot take for its size is
//! represented by a [`Reference`], from which `replay` finds it again. A third kind of record in
//! the topic is the mark that `replay` leaves beside what it has published.

use dataflows::reject::Reason;
use rdkafka::message::{Header, OwnedHeaders};
use sha2::{Digest, Sha256};

use crate::printable::hex;

pub mod header;
mod entry;
mod list;
mod replay;
mod original;
mod outbox;
mod error;

pub use entry::{Entry, Letter, NotAPlace, Origin, Place};
pub use error::DlqError;
pub use list::{count, list, newest, show};
pub use replay::{Replayed, replay};

/// The message beside the code is cut to this many bytes: headers are for reading, and count
/// against the record's size.
const MESSAGE_BYTES_MAX: usize = 1024;

/// A reference carries this many bytes from the beginning of the value.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A reference carries the record's key up to this many bytes; a larger one may be what made the
/// record too large.
const REFERENCE_KEY_BYTES_MAX: usize = 1024;

/// How often a record may be replayed. What failed this often fails for a reason that replaying
/// does not mend.
pub const REPLAYS_MAX: u32 = 3;

/// Which dead letters are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those with that reason.
    Reason(Reason),
    /// The one at that place.
    At(Place),
}

impl Which {
    fn takes(&self, letter: &Letter) -> bool {
        match self {
            Which::All => true,
            Which::Reason(reason) => letter.reason == reason.code(),
            Which::At(place) => letter.place == *place,
        }
    }
}

/// A rejected record with everything that its dead letter tells.
///
/// `H` yields the record's own headers in their order, each time it is cloned.
#[derive(Clone, Debug)]
pub struct DeadLetter<'a, H> {
    /// The stable code.
    pub reason: Reason,
    /// The sentence beside it.
    pub message: &'a str,
    /// The topic that the record was read from.
    pub topic: &'a str,
    /// The partition that the record was read from.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The record's timestamp, milliseconds since the epoch; -1 where it has none.
    pub timestamp_ms: i64,
    /// How often it was tried.
    pub attempts: u32,
    /// The stage that gave it up: `accept`, `write`.
    pub stage: &'a str,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// The record's value.
    pub value: Option<&'a [u8]>,
    /// The record's headers.
    pub headers: H,
}

/// What goes to the dead-letter topic in place of a record that is too large for it.
///
/// Its value is a JSON object: `topic`, `partition` and `offset` say where the record is, `size`
/// and `sha256` are those of the record's value (`null` for a null value), `head` is the value's
/// beginning and `head_encoding` says whether that is the text itself (`utf-8`) or its bytes in
/// hexadecimal (`hex`). The record's own headers are left out.
#[derive(Debug)]
pub struct Reference<'a> {
    /// The record's key, unless it is large itself.
    pub key: Option<&'a [u8]>,
    /// The JSON object.
    pub value: Vec<u8>,
    /// The added headers, [`header::REFERENCE`] among them.
    pub headers: OwnedHeaders,
}

impl<'a, H> DeadLetter<'a, H>
where
    H: Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone,
{
    /// The dead letter's headers: the record's own, byte for byte and in their order, then the
    /// added ones.
    ///
    /// Added headers from an earlier life are replaced, so that each stands once. Two of their
    /// values live on: how often the record was replayed, and the timestamp it first had, which a
    /// topic that stamps its records itself has lost.
    pub fn headers(&self) -> OwnedHeaders {
        let own = self.headers.clone().filter(|(name, _)| !header::is_added(name));
        let own = own.fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value })
        });
        self.add_to(own)
    }

    /// What to send instead when the record is too large.
    pub fn reference(&self) -> Reference<'a> {
        let size = self.value.map(<[u8]>::len);
        let sha256 = self.value.map(|value| hex(&Sha256::digest(value)));
        let (head, head_encoding) = head(self.value.unwrap_or_default());
        let value = serde_json::json!({
            "topic": self.topic, "partition": self.partition, "offset": self.offset,
            "size": size, "sha256": sha256, "head_encoding": head_encoding, "head": head,
        });
        Reference {
            key: self.key.filter(|key| key.len() <= REFERENCE_KEY_BYTES_MAX),
            value: value.to_string().into_bytes(),
            headers: insert_text(self.add_to(OwnedHeaders::new()), header::REFERENCE, "true"),
        }
    }

    fn add_to(&self, headers: OwnedHeaders) -> OwnedHeaders {
        let timestamp_ms = self.carried(header::TIMESTAMP).unwrap_or(self.timestamp_ms);
        let replays = self.carried(header::REPLAYS).unwrap_or(0_u32);
        let message = cut(self.message);
        let added = [
            (header::REASON, self.reason.code()),
            (header::MESSAGE, message),
            (header::TOPIC, self.topic),
            (header::PARTITION, &self.partition.to_string()),
            (header::OFFSET, &self.offset.to_string()),
            (header::TIMESTAMP, &timestamp_ms.to_string()),
            (header::ATTEMPTS, &self.attempts.to_string()),
            (header::STAGE, self.stage),
            (header::REPLAYS, &replays.to_string()),
        ];
        added.into_iter().fold(headers, |headers, (name, value)| insert_text(headers, name, value))
    }

    /// The number in the last header of that name, if there is one that is a number.
    fn carried<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        let (_, value) = self.headers.clone().filter(|(key, _)| *key == name).last()?;
        std::str::from_utf8(value?).ok()?.parse().ok()
    }
}

fn insert_text(headers: OwnedHeaders, name: &str, value: &str) -> OwnedHeaders {
    headers.insert(Header { key: name, value: Some(value) })
}

/// The message up to its limit, cut between characters.
fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)]
}

/// The beginning of a value, as text where it is text, and how it is encoded.
fn head(value: &[u8]) -> (String, &'static str) {
    let head = &value[..value.len().min(HEAD_BYTES_MAX)];
    match std::str::from_utf8(head) {
        Ok(text) => (text.to_owned(), "utf-8"),
        // The cut may have gone through a character of up to four bytes.
        Err(error) if head.len() < value.len() && head.len() - error.valid_up_to() < 4 => {
            (String::from_utf8_lossy(&head[..error.valid_up_to()]).into_owned(), "utf-8")
        }
        Err(_) => (hex(head), "hex"),
    }
}

#[cfg(test)]
mod tests;
