//! The names of the headers that a dead letter has more than its record. All values are UTF-8 text.

/// Why the record was rejected: a stable code.
pub const REASON: &str = "dlq.reason";
/// The sentence beside the code, at most 1,024 bytes.
pub const MESSAGE: &str = "dlq.message";
/// The topic that the record was read from.
pub const TOPIC: &str = "dlq.topic";
/// The partition that the record was read from.
pub const PARTITION: &str = "dlq.partition";
/// The record's offset.
pub const OFFSET: &str = "dlq.offset";
/// The record's timestamp when it was first published, milliseconds since the epoch; -1 where it
/// had none.
pub use dataflows::change::ORIGINAL_TIMESTAMP as TIMESTAMP;
/// How often the record was tried.
pub const ATTEMPTS: &str = "dlq.attempts";
/// The stage that gave the record up.
pub const STAGE: &str = "dlq.stage";
/// How often the record has been replayed from the dead letters: 0 at first.
pub use dataflows::change::REPLAYS;
/// `true` on a dead letter that only refers to its record, which is too large for the topic.
pub const REFERENCE: &str = "dlq.reference";
/// On a mark that `replay` left: when the record named by the other headers was replayed,
/// milliseconds since the epoch.
pub const REPLAYED: &str = "dlq.replayed";

const ADDED: [&str; 11] = [
    REASON, MESSAGE, TOPIC, PARTITION, OFFSET, TIMESTAMP, ATTEMPTS, STAGE, REPLAYS, REFERENCE,
    REPLAYED,
];

/// Whether a header of that name was added here and is not the record's own.
pub fn is_added(name: &str) -> bool {
    ADDED.contains(&name)
}
