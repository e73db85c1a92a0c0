//! `contentflow run`

use std::fmt::Display;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::failure::Failure;
use crate::check::{self, Needs};
use crate::config::{Config, Overrides};
use crate::figures::Figures;
use crate::http;
use crate::run::consume;
use crate::shutdown::stop_on_signals;
use crate::source::Until;

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
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    pub workers: Option<String>,

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

    /// Serve the page and the metrics there, or "off" [default: http.listen]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
}

impl RunArgs {
    /// What the flags set in the configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides::default()
            .set_typed("--workers", "run.workers", self.workers.as_deref())
            .set("--topic", "kafka.topic", self.topic.clone())
            .set("--group", "kafka.group", self.group.clone())
            .set("--http", "http.listen", self.http.clone())
    }
}

/// Checks that everything is there, runs, and writes the report.
pub(super) fn execute(
    config: Config,
    args: &RunArgs,
    runtime: &Runtime,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let bound = http::bind(&config.http)?;
    let figures = bound.is_some().then(|| Arc::new(Figures::new(config.run.workers)));
    // Answers until the run has ended, however it ends.
    let _serving = match (bound, &figures) {
        (Some(bound), Some(figures)) => Some(bound.serve(Arc::clone(figures), &config)?),
        _ => None,
    };
    let stop = ready(&config, Needs::ALL, runtime)?;
    let until = Until { stop, caught_up: args.until_caught_up };
    let report = consume(&Arc::new(config), &until, runtime, figures.as_ref())?;
    write_report(&report, args.report, out)?;
    Ok(())
}

/// Checks that everything is there. Returns what a signal sets.
pub(super) fn ready(
    config: &Config,
    needs: Needs,
    runtime: &Runtime,
) -> Result<Arc<AtomicBool>, Failure> {
    let problems = runtime.block_on(check::problems(config, needs));
    if !problems.is_empty() {
        return Err(Failure::problems(problems));
    }
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signals(runtime, Arc::clone(&stop));
    Ok(stop)
}

pub(super) fn write_report(
    report: &(impl Display + Serialize),
    format: ReportFormat,
    out: &mut impl Write,
) -> Result<(), Failure> {
    match format {
        ReportFormat::Text => write!(out, "{report}")?,
        ReportFormat::Json => {
            let json = serde_json::to_string(report).map_err(Failure::failed)?;
            writeln!(out, "{json}")?;
        }
    }
    Ok(())
}
