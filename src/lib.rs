//! The shell of contentflow: everything that touches the world outside. The rules are in the `dataflows` crate.

pub mod cli;
pub mod config;
pub mod kafka;
pub mod postgres;
pub mod redis;
pub mod migrate;
pub mod check;
pub mod dead_letters;
pub mod drafts;
pub mod generate;
pub mod publish;
pub mod progress_bar;
pub mod printable;
