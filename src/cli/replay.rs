//! `contentflow replay`

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use tokio::runtime::Runtime;

use super::failure::Failure;
use super::run::{ReportFormat, write_report};
use crate::check;
use crate::commit::Offsets;
use crate::config::{Config, Overrides};
use crate::replay::plan::{self, From, Scope};
use crate::replay::{Options, replay};
use crate::run::stop_on_signals;

/// `contentflow replay`
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Begin with the first records of that time or later, not with the first there are: RFC 3339, or milliseconds since the epoch
    #[arg(long, value_name = "TIMESTAMP", value_parser = plan::parse_time, allow_negative_numbers = true)]
    pub from: Option<i64>,

    /// Only these partitions, like 0,3-5
    #[arg(long, value_name = "LIST", value_parser = Partitions::parse)]
    pub partitions: Option<Partitions>,

    /// Only these partitions, each from an offset on, like 0:1234,1:99: what a replay that was stopped says
    #[arg(long, value_name = "LIST", value_parser = plan::parse_offsets, conflicts_with_all = ["from", "partitions"])]
    pub from_offsets: Option<Offsets>,

    /// Publish rejected records to the dead-letter topic; without it they are only reported
    #[arg(long)]
    pub dead_letters: bool,

    /// Threads of the dataflow [default: run.workers, else one a core]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    pub workers: Option<String>,

    /// How the report on standard output looks
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub report: ReportFormat,

    /// Read this topic instead of kafka.topic
    #[arg(long)]
    pub topic: Option<String>,
}

/// Partitions by their numbers.
#[derive(Clone, Debug)]
pub struct Partitions(BTreeSet<i32>);

impl Partitions {
    fn parse(text: &str) -> Result<Partitions, String> {
        plan::parse_partitions(text).map(Partitions)
    }
}

impl ReplayArgs {
    /// What the flags set in the configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides::default().set_typed("--workers", "run.workers", self.workers.as_deref()).set(
            "--topic",
            "kafka.topic",
            self.topic.clone(),
        )
    }

    fn scope(&self) -> Scope {
        let from = match (self.from, &self.from_offsets) {
            (Some(ms), _) => From::Time(ms),
            (_, Some(offsets)) => From::Offsets(offsets.clone()),
            (None, None) => From::Beginning,
        };
        Scope { from, partitions: self.partitions.clone().map(|Partitions(numbers)| numbers) }
    }
}

/// Checks that everything is there, replays, and writes the report.
pub(super) fn execute(
    config: Config,
    args: &ReplayArgs,
    runtime: &Runtime,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let problems = runtime.block_on(check::problems(&config));
    if !problems.is_empty() {
        return Err(Failure::problems(problems));
    }
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signals(runtime, Arc::clone(&stop));
    let options = Options { dead_letters: args.dead_letters };
    let report = replay(&Arc::new(config), &args.scope(), options, &stop, runtime)?;
    write_report(&report, args.report, out)
}
