//! `contentflow run`

use clap::{Args, ValueEnum};

use crate::config::Overrides;

/// How the report at the end looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object, for machines
    Json,
}

/// `contentflow run`
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Threads of the dataflow [default: run.workers, else one a core]
    #[arg(short, long, value_name = "N")]
    pub workers: Option<u64>,

    /// Stop at the ends of the partitions as they are at the start, and print the report
    #[arg(long)]
    pub until_caught_up: bool,

    /// How the report on standard output looks
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub report: ReportFormat,

    /// Read this topic instead of kafka.topic
    #[arg(long)]
    pub topic: Option<String>,

    /// Join this consumer group instead of kafka.group
    #[arg(long)]
    pub group: Option<String>,
}

impl RunArgs {
    /// What the flags set in the configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides::default()
            .set("--workers", "run.workers", self.workers)
            .set("--topic", "kafka.topic", self.topic.clone())
            .set("--group", "kafka.group", self.group.clone())
    }
}
