//! The pure half of contentflow: the dataflow graph and every business rule.
//!
//! No sockets, no clock, no environment, no randomness: the same input gives the same output, so
//! that it can be simulated and proved. The modules stand in the order of the data's journey:
//!
//! ```text
//! feed -> accept (decode, validate) --by draft--> dedupe -> latest -> write -> invalidate -> account -> probe
//!            |                                       |                  |          ^            ^
//!            |                                       +-- duplicates ----|----------+            |
//!            +------------------ rejects ------------------------------+--> dead-letter -------+
//! ```
//!
//! An epoch, timely's timestamp here, is one bounded slice of what was polled. When the probe has
//! passed an epoch, all its effects are durable and its offsets may be committed. Epochs mean
//! nothing after a restart: idempotence rests on what each draft's [`row`] remembers.

/// One bounded slice of the input, counted from 0 in each process.
pub type Epoch = u64;

pub mod record;
pub mod reject;
pub mod feed;
pub mod accept;
pub mod decode;
pub mod validate;
pub mod change;
pub mod dedupe;
pub mod latest;
pub mod compact;
pub mod held;
pub mod row;
pub mod effect;
pub mod written;
pub mod outcome;
pub mod operators;
pub mod peers;
pub mod graph;
pub mod ledger;
pub mod verify;
pub mod planted;
