//! Everything against real servers: Kafka, PostgreSQL and Redis at KAFKA_BROKERS, DATABASE_URL and REDIS_URL, which
//! `dev/stack run -- cargo test` starts and sets. Each test has topics, tables and keys of its own.

mod support;

mod dead_letters;
mod drafts;
mod publish;
