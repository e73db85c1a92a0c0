//! What a valid event is.

/// The type of the column `event_draft_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DraftIdType {
    /// `text`, or `varchar(n)` with at most `max_chars` characters.
    Text {
        /// The `n` of a `varchar(n)`.
        max_chars: Option<u32>,
    },
    /// `uuid`.
    Uuid,
    /// `bigint`.
    BigInt,
    /// `integer`.
    Integer,
}
