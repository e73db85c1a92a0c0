//! From a reference back to its record: read at its place, and recognised by its SHA-256.

use rdkafka::message::{BorrowedMessage, Message};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::outbox::Outgoing;
use super::{DlqError, Letter};
use crate::printable::hex;
use crate::scan::Reader;

/// What a reference says about its record's value.
#[derive(Deserialize)]
struct Fingerprint {
    /// `null` for a null value.
    sha256: Option<String>,
}

impl Fingerprint {
    fn is_of(&self, message: &BorrowedMessage<'_>) -> bool {
        self.sha256 == message.payload().map(|value| hex(&Sha256::digest(value)))
    }
}

/// The record that the reference stands for, ready to be published again; the inner error says why
/// there is none.
pub(super) fn fetch(
    reader: &Reader,
    letter: &Letter,
    reference: &[u8],
    partition: Option<i32>,
) -> Result<Result<Outgoing, String>, DlqError> {
    let Ok(fingerprint) = serde_json::from_slice::<Fingerprint>(reference) else {
        return Ok(Err("the reference cannot be read".to_owned()));
    };
    let origin = &letter.origin;
    let found = reader.at(&origin.topic, origin.partition, origin.offset, |message| {
        fingerprint.is_of(message).then(|| Outgoing::new(letter.clone(), message, partition))
    })?;
    Ok(match found {
        Some(Some(outgoing)) => Ok(outgoing),
        Some(None) => Err("the record at its place is another one: the SHA-256 differs".to_owned()),
        None => Err("the record is no longer in its topic".to_owned()),
    })
}
