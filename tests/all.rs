//! Everything against real servers: Kafka, PostgreSQL and Redis at KAFKA_BROKERS, DATABASE_URL and REDIS_URL, which
//! `dev/stack run -- cargo test` starts and sets. Each test has topics, tables and keys of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

mod dead_letters;
mod drafts;
mod publish;
