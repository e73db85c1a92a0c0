//! The time of day, as Kafka counts it.

/// Milliseconds since 1970, now.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
