//! `contentflow demo`

use clap::Args;

/// `contentflow demo`
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Events to generate
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    pub events: u64,

    /// Drafts that they are about [default: a tenth of the events]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub drafts: Option<u64>,

    /// The same seed makes the same events
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,

    /// Threads of the dataflow [default: one a core]
    #[arg(short, long, value_name = "N")]
    pub workers: Option<u64>,

    /// Leave the topics, the table and the cached drafts behind, to look at them
    #[arg(long)]
    pub keep: bool,
}
