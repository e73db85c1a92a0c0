//! The shell of contentflow: everything that touches the world outside. The rules are in the `dataflows` crate.
//!
//! ```text
//! run -> source (poll, assignment) -> ingest -> worker [ the graph ] -> sink (postgres, redis, dead_letter)
//!           ^                                       |
//!           +-- commit <- progress <----- probe ----+
//! ```

pub mod cli;
pub mod config;
pub mod kafka;
pub mod headers;
pub mod postgres;
pub mod redis;
pub mod migrate;
pub mod check;
pub mod run;
pub mod source;
pub mod ingest;
pub mod worker;
pub mod figures;
pub mod limit;
pub mod sink;
pub mod http;
pub mod progress;
pub mod commit;
pub mod retry;
pub mod shutdown;
pub mod report;
pub mod replay;
pub mod progress_bar;
pub mod dead_letters;
pub mod lease;
pub mod drafts;
pub mod generate;
pub mod publish;
pub mod verify;
pub mod tune;
pub mod demo;
pub mod printable;
