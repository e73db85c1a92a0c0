//! `contentflow verify`

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Runtime;

use super::failure::Failure;
use super::run::ready;
use crate::check::{Needs, draft_ids};
use crate::config::{Config, Overrides};
use crate::verify::{Options, Verify};

/// Exit code 3: there are differences.
const DIFFERENCES: u8 = 3;

/// `contentflow verify`
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Threads of the dataflow [default: run.workers, else one a core]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    pub workers: Option<String>,

    /// Write into the rows what they should hold, and delete what is cached wrongly
    #[arg(long)]
    pub repair: bool,

    /// Go on comparing while the pipeline works, and say when a difference appears or goes, until
    /// SIGINT or SIGTERM
    #[arg(long, conflicts_with = "repair")]
    pub watch: bool,

    /// How often to read the table again
    #[arg(long, value_name = "SECONDS", default_value_t = 5, requires = "watch")]
    pub interval: u64,

    /// Also what the group has not committed must be in the rows; for when nothing is under way
    #[arg(long)]
    pub whole_topic: bool,

    /// One JSON object a line for each difference, and nothing else on standard output
    #[arg(long)]
    pub json: bool,

    /// How many differences to show in the table
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,

    /// Read this topic instead of kafka.topic
    #[arg(long)]
    pub topic: Option<String>,

    /// Hold the rows against the offsets of this consumer group instead of kafka.group
    #[arg(long)]
    pub group: Option<String>,
}

impl VerifyArgs {
    /// What the flags set in the configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides::default()
            .set_typed("--workers", "run.workers", self.workers.as_deref())
            .set("--topic", "kafka.topic", self.topic.clone())
            .set("--group", "kafka.group", self.group.clone())
    }
}

/// Runs the command; exit code 3 when there are differences.
pub(super) fn run(
    config: &Config,
    args: &VerifyArgs,
    runtime: &Runtime,
    out: &mut impl Write,
) -> Result<ExitCode, Failure> {
    let &VerifyArgs { repair, whole_topic, json, limit, .. } = args;
    let stop = ready(config, if repair { Needs::ALL } else { Needs::READ }, runtime)?;
    let options = Options { repair, whole_topic, json, limit };
    let draft_ids = runtime.block_on(draft_ids(&config.database))?;
    let verify = Verify::new(config, runtime, draft_ids, options, stop);
    let agrees = if args.watch {
        verify.watch(Duration::from_secs(args.interval), out)?
    } else {
        verify.run(out)?
    };
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENCES) })
}
