//! Why a record is rejected: the stable codes, and the reject as it travels to the dead letters.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::change::{Arena, position};
use crate::record::RecordView;

/// A reason for rejection. The codes are a public interface: they stand in dead letters, reports
/// and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// A tombstone: there is no value.
    NullValue,
    /// The value is not UTF-8.
    NotUtf8,
    /// The value is not one JSON text (RFC 8259): also a byte-order mark, a lone surrogate, or
    /// trailing data.
    NotJson,
    /// The value is JSON, but not an object.
    NotAnObject,
    /// A required field is absent.
    MissingField,
    /// A field has a value of another type.
    WrongType,
    /// An id is empty or consists of white space.
    BlankId,
    /// An id is longer than 255 bytes.
    IdTooLong,
    /// An id contains a control character.
    IdControlCharacter,
    /// One of the three styles is absent.
    MissingStyle,
    /// A style other than simple, fancy, trendy.
    UnknownStyle,
    /// A style is given twice.
    DuplicateStyle,
    /// A JSON object repeats a key that matters.
    DuplicateKey,
    /// A URL that is not an absolute http(s) URL by RFC 3986 with a host, or that carries user
    /// info.
    BadUrl,
    /// A URL over 2,048 bytes.
    UrlTooLong,
    /// A value over 1 MiB.
    ValueTooLarge,
    /// JSON nested over 64 levels.
    TooDeep,
    /// No row has that draft id, also after the retries.
    UnknownDraft,
    /// The draft id does not fit the column's type.
    InvalidDraftId,
    /// The database refused the row: a constraint, a trigger, a value that it cannot hold.
    DatabaseRefused,
}

impl Reason {
    /// Every reason, in the order of the journey.
    pub const ALL: [Reason; 20] = [
        Reason::NullValue,
        Reason::NotUtf8,
        Reason::NotJson,
        Reason::NotAnObject,
        Reason::MissingField,
        Reason::WrongType,
        Reason::BlankId,
        Reason::IdTooLong,
        Reason::IdControlCharacter,
        Reason::MissingStyle,
        Reason::UnknownStyle,
        Reason::DuplicateStyle,
        Reason::DuplicateKey,
        Reason::BadUrl,
        Reason::UrlTooLong,
        Reason::ValueTooLarge,
        Reason::TooDeep,
        Reason::UnknownDraft,
        Reason::InvalidDraftId,
        Reason::DatabaseRefused,
    ];

    /// The public code.
    pub fn code(self) -> &'static str {
        match self {
            Reason::NullValue => "null-value",
            Reason::NotUtf8 => "not-utf8",
            Reason::NotJson => "not-json",
            Reason::NotAnObject => "not-an-object",
            Reason::MissingField => "missing-field",
            Reason::WrongType => "wrong-type",
            Reason::BlankId => "blank-id",
            Reason::IdTooLong => "id-too-long",
            Reason::IdControlCharacter => "id-control-character",
            Reason::MissingStyle => "missing-style",
            Reason::UnknownStyle => "unknown-style",
            Reason::DuplicateStyle => "duplicate-style",
            Reason::DuplicateKey => "duplicate-key",
            Reason::BadUrl => "bad-url",
            Reason::UrlTooLong => "url-too-long",
            Reason::ValueTooLarge => "value-too-large",
            Reason::TooDeep => "too-deep",
            Reason::UnknownDraft => "unknown-draft",
            Reason::InvalidDraftId => "invalid-draft-id",
            Reason::DatabaseRefused => "database-refused",
        }
    }

    /// The reason with that code.
    pub fn from_code(code: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// What is wrong with a record, in words that name the field and never quote the whole payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The stable code.
    pub reason: Reason,
    /// The sentence beside the code.
    pub message: String,
}

impl Fault {
    /// A fault with its message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Fault {
        Fault { reason, message: message.into() }
    }
}

/// The stage that rejected a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Decoding and validation.
    Accept,
    /// The UPDATE.
    Write,
}

impl Stage {
    /// The stage's public name.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Accept => "accept",
            Stage::Write => "write",
        }
    }
}

/// A rejected record on its way to the dead letters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rejected {
    arena: Arc<Arena>,
    record: usize,
    /// Which stage rejected it.
    pub stage: Stage,
    /// What is wrong with it.
    pub fault: Fault,
    /// How many times the effect was tried; 0 where the record never got that far.
    pub attempts: u32,
}

impl Rejected {
    /// The reject of the arena's record at that index, before anything was tried.
    pub fn new(arena: Arc<Arena>, record: usize, fault: Fault) -> Rejected {
        Rejected { arena, record, stage: Stage::Accept, fault, attempts: 0 }
    }

    /// The reject of the arena's record at that index, which the database refused after so many
    /// attempts.
    pub(crate) fn refused(
        arena: Arc<Arena>,
        record: usize,
        fault: Fault,
        attempts: u32,
    ) -> Rejected {
        Rejected { arena, record, stage: Stage::Write, fault, attempts }
    }

    /// The record as it came.
    pub fn record(&self) -> RecordView<'_> {
        self.arena.record(self.record)
    }

    /// The time that goes on deciding what is newer when the record is replayed.
    pub fn timestamp_ms(&self) -> i64 {
        position(self.record()).timestamp_ms
    }
}
