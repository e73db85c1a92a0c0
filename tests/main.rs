//! The whole program against real servers: Kafka, PostgreSQL and Redis at KAFKA_BROKERS,
//! DATABASE_URL and REDIS_URL, which `dev/stack run -- cargo test` starts and sets.
//!
//! Each test has a [`world`] of its own (topics, a database, a Redis database, a consumer group)
//! and starts the real binary in it. So all of them run side by side, and none of them leaves
//! anything behind.

#![allow(clippy::unwrap_used, reason = "a panic with its line is the right answer to a surprise")]
#![allow(clippy::print_stderr, reason = "what a test says is shown when it fails")]

mod support;
mod world;
mod simulated;

mod journey;
mod bulk;
mod contract;
mod catalogue;
mod effects;
mod duplicates;
mod poison;
mod unknown;
mod rejects;
mod ids;
mod interruptions;
mod scale;
mod outages;
mod contention;
mod offsets;
mod mistakes;
mod secrets;
mod traces;
mod logs;
mod commands;
mod dead_letters;
mod drafts;
mod cache_race;
mod stale_fills;
mod failover;
mod publish;
mod replay;
mod demo;
mod verify;
mod tune;
mod watching;
mod page;
mod faults;
