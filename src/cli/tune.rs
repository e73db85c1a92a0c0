//! `contentflow tune`

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::runtime::Runtime;

use super::failure::Failure;
use super::run::{ReportFormat, ready};
use crate::check::{Access, Needs};
use crate::config::{Config, ConfigError, Overrides};
use crate::tune::chart::{self, Format};
use crate::tune::settings::{Axis, Grid, Settings};
use crate::tune::{Plans, tune};

/// What a trial does to the servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Effects {
    /// Rows of a scratch copy are updated, and keys deleted that nobody reads
    #[default]
    Real,
    /// None: only Kafka and the dataflow are measured, and neither database nor cache is needed
    None,
}

const AFTER_HELP: &str = "\
Reads the newest records of the topic again and again, outside the consumer group, and commits nothing. Unless --effects is none, \
it writes to a scratch copy of the rows that they are about, in the same database: two tables contentflow_tune_..., dropped at the \
end. The table itself is only read, the keys that are deleted are nobody's, dead letters are counted and not published. But the servers \
have the load of a run.";

/// `contentflow tune`
#[derive(Clone, Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct TuneArgs {
    /// Records in each trial: the newest of the topic
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub events: u64,

    /// What a trial does
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub effects: Effects,

    /// Seconds to measure [default: 120, with --exhaustive until it is certain]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub budget: Option<u64>,

    /// Measure every point of the grid several times, and not only where a search leads
    #[arg(long)]
    pub exhaustive: bool,

    /// Numbers of worker threads to try, like 1,2,4 [default: 1, 2, 4 and so on up to the cores,
    /// and what is configured]
    #[arg(short, long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true)]
    pub workers: Vec<String>,

    /// Connections of each worker to try [default: 1,2,4 and what is configured]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true)]
    pub connections: Vec<String>,

    /// Rows in a transaction to try [default: 1000,5000,20000 and what is configured]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true)]
    pub batch_rows: Vec<String>,

    /// Records in an epoch to try [default: 10000,20000,40000, of which a trial has at least four,
    /// and what is configured]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true)]
    pub epoch_records: Vec<String>,

    /// Milliseconds of linger to try, which matter only where epochs do not fill [default: what is
    /// configured]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true)]
    pub linger_ms: Vec<String>,

    /// Draws the order of the trials [default: another one each time]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,

    /// Also write a chart to this file, .svg or .html
    #[arg(long, value_name = "FILE", value_parser = chart_file)]
    pub chart: Option<(PathBuf, Format)>,

    /// How the report on standard output looks
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub report: ReportFormat,

    /// Read this topic instead of kafka.topic
    #[arg(long)]
    pub topic: Option<String>,
}

/// How long to measure when nobody says, seconds: some thirty trials of two seconds, with as long
/// to prepare each.
const BUDGET_S: u64 = 120;

impl TuneArgs {
    /// What the flags set in the configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides::default().set("--topic", "kafka.topic", self.topic.clone())
    }

    fn writes(&self) -> bool {
        self.effects == Effects::Real
    }

    fn list(&self, axis: Axis) -> (&'static str, &[String]) {
        match axis {
            Axis::Workers => ("--workers", &self.workers),
            Axis::Connections => ("--connections", &self.connections),
            Axis::BatchRows => ("--batch-rows", &self.batch_rows),
            Axis::EpochRecords => ("--epoch-records", &self.epoch_records),
            Axis::LingerMs => ("--linger-ms", &self.linger_ms),
        }
    }

    /// The lists, each value checked as if it were configured.
    fn grid(
        &self,
        present: Settings,
        load: impl Fn(Overrides) -> Result<Config, ConfigError>,
    ) -> Result<Grid, ConfigError> {
        let mut lists: [Vec<usize>; Axis::ALL.len()] = Default::default();
        for (list, axis) in lists.iter_mut().zip(Axis::ALL) {
            let (flag, texts) = self.list(axis);
            let (section, key) = axis.key();
            // Without effects nothing is written, in batches of whatever size.
            if !self.writes() && matches!(axis, Axis::Connections | Axis::BatchRows) {
                list.push(present.get(axis));
                continue;
            }
            for text in texts {
                let key = format!("{section}.{key}");
                let config = load(self.overrides().set_typed(flag, &key, Some(text.trim())))?;
                list.push(Settings::of(&config).get(axis));
            }
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Grid::new(lists, present, cores, self.events))
    }
}

fn chart_file(text: &str) -> Result<(PathBuf, Format), String> {
    let path = PathBuf::from(text);
    let extension = path.extension().map(|it| it.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("svg") => Ok((path, Format::Svg)),
        Some("html" | "htm") => Ok((path, Format::Html)),
        _ => Err(format!("{text:?} is neither an .svg nor an .html file")),
    }
}

/// Measures, and writes report and chart.
pub(super) fn execute(
    load: impl Fn(Overrides) -> Result<Config, ConfigError>,
    args: &TuneArgs,
    runtime: &Runtime,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let config = load(args.overrides())?;
    let grid = args.grid(Settings::of(&config), load)?;
    // Before the measuring, not after it.
    let new_chart = match &args.chart {
        Some((path, _)) => make_writable(path)?.then_some(path),
        None => None,
    };
    let measured = measure(&config, grid, args, runtime, out);
    if let (Err(_), Some(path)) = (&measured, new_chart) {
        // Empty, or half of one: there is nothing else to be said of it.
        drop(std::fs::remove_file(path));
    }
    measured
}

fn measure(
    config: &Config,
    grid: Grid,
    args: &TuneArgs,
    runtime: &Runtime,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let writes = args.writes();
    let access = writes.then_some(Access::Write);
    let needs = Needs { table: access, dead_letters: false, cache: access };
    let stop = ready(config, needs, runtime)?;
    let budget_s = args.budget.or((!args.exhaustive).then_some(BUDGET_S));
    let plans = Plans {
        grid,
        records: args.events,
        writes,
        budget: budget_s.map(Duration::from_secs),
        exhaustive: args.exhaustive,
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000)),
    };
    let report = tune(config, &plans, &stop, runtime)?;
    match args.report {
        ReportFormat::Text => write!(out, "{report}")?,
        ReportFormat::Json => writeln!(out, "{}", report.json())?,
    }
    if let Some((path, format)) = &args.chart {
        let written = std::fs::write(path, chart::draw(&report, *format));
        written.map_err(|error| not_written(path, &error))?;
    }
    Ok(())
}

/// Makes sure that a file can be written, and makes it if it is not there. Returns whether it was
/// made.
fn make_writable(path: &Path) -> Result<bool, Failure> {
    let mut open = OpenOptions::new();
    let opened = match open.append(true).create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            open.create_new(false).open(path).map(|_file| false)
        }
        opened => opened.map(|_file| true),
    };
    opened.map_err(|error| not_written(path, &error))
}

fn not_written(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("the chart {} cannot be written: {error}", path.display()))
        .hint("give --chart a file in a directory that is there")
}
