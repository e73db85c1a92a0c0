//! The operators' names, by which timely's log tells whose work it is.

/// Takes in chunks.
pub const FEED: &str = "feed";
/// Decodes and validates.
pub const ACCEPT: &str = "accept";
/// Sets aside what is known to be durable.
pub const DEDUPE: &str = "dedupe";
/// Notes for that what has become durable.
pub const REMEMBER: &str = "remember";
/// Brings together the events of each draft, in a run and in a replay.
pub const LATEST: &str = "latest";
/// Hands rows to the database's lanes.
pub const WRITE: &str = "write";
/// Hands keys to the cache's lanes.
pub const INVALIDATE: &str = "invalidate";
/// Hands dead letters to their lane.
pub const DEAD_LETTER: &str = "dead-letter";
