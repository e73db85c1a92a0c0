//! The graph against the rules.
//!
//! ```text
//! topic ------> graph, on 1 to 4 workers <--> servers (simulated)
//!   |                     |
//!   +--> model            +--> what became of every record, rows, deleted keys, dead letters
//!          |                        |
//!          +----------- the same? --+
//! ```
//!
//! - `topic`: records as they stand on a topic, and how they are cut into epochs and chunks
//! - `model`: the rules, as plain code over a list
//! - `world`: a table, a cache and a dead-letter topic
//! - `servers`: the way there, on which answers are delayed, parted and lost
//! - `turns`: one worker steps at a time, in an order that follows from the seed, so that a failure
//!   can be repeated
//! - `bells`: or they run as they like, and sleep until another one wakes them
//! - `run`: one run of the graph, to its end or to a crash
//! - `properties`: graph and model agree on random input
//! - `redelivery`: crashes, redelivery and replays change no row
//! - `flow`: how far a replay writes ahead of its other effects
//! - `stories`: the rules told by examples

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, and says so with its line"
)]

mod topic;
mod model;
mod world;
mod servers;
mod turns;
mod bells;
mod run;
mod properties;
mod redelivery;
mod flow;
mod stories;
