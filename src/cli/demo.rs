//! `contentflow demo`

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio::runtime::Runtime;

use super::failure::Failure;
use super::logging::wants_color;
use crate::config::{Config, Overrides};
use crate::demo::{self, Options};

/// `contentflow demo`
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Events to generate
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub events: u64,

    /// Drafts that they are about [default: a tenth of the events]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub drafts: Option<u64>,

    /// The same seed makes the same events
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,

    /// Threads of the dataflow [default: one a core]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    pub workers: Option<String>,

    /// Leave the topics, the drafts and what is cached of them behind, to look at them
    #[arg(long)]
    pub keep: bool,
}

impl DemoArgs {
    /// What the flags set in the configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides::default().set_typed("--workers", "run.workers", self.workers.as_deref())
    }
}

/// Runs the demo; exit code 1 when something came out otherwise than it should.
pub(super) fn run(
    config: Config,
    args: &DemoArgs,
    runtime: &Runtime,
    out: &mut impl Write,
) -> Result<ExitCode, Failure> {
    let &DemoArgs { events, drafts, seed, workers: _, keep } = args;
    let drafts = drafts.unwrap_or((events / 10).max(1));
    let options = Options { events, drafts, seed, keep, bold: wants_color(&io::stdout()) };
    let agrees = demo::run(&Arc::new(config), &options, runtime, out)?;
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
