//! The command line: what can be asked for, and how it ends.
//!
//! Results go to standard output, logs and errors to standard error. An error is one `error:` line
//! and, where something can be done about it, one `hint:` line.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Config, Overrides};
use crate::{check, migrate};

pub mod demo;
pub mod dlq;
pub mod draft;
pub mod failure;
pub mod logging;
pub mod publish;
pub mod replay;
pub mod run;
pub mod tune;
pub mod verify;

use failure::Failure;

const AFTER_HELP: &str = "\
Settings come from defaults, the configuration file, the environment (CONTENTFLOW_SECTION__KEY, DATABASE_URL, REDIS_URL, \
KAFKA_BROKERS) and flags; the later wins. contentflow.example.toml shows them all.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 verify found differences, 75 a server is away.";

/// Kafka ContentCreated events into PostgreSQL and Redis
#[derive(Debug, Parser)]
#[command(name = "contentflow", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// Configuration file [default: contentflow.toml in the working directory, if there is one]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// How logs look on standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, global = true)]
    log_format: logging::LogFormat,

    /// Log more; -vv still more. RUST_LOG, if set, decides instead
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Consume events until SIGTERM or SIGINT, then finish what is in flight
    Run(run::RunArgs),
    /// Read the whole topic once more, outside the consumer group, and write what is missing
    Replay(replay::ReplayArgs),
    /// Prepare the database: create or extend the table of drafts
    Migrate(MigrateArgs),
    /// Check configuration, brokers, topics, table and cache, and say what to do
    Check,
    /// Prove that every row holds what the topic says, and every cached draft what its row says
    Verify(verify::VerifyArgs),
    /// Measure which workers, connections and batches are fastest here, and which stage limits
    Tune(tune::TuneArgs),
    /// Publish events: one, many from standard input, or synthetic ones
    Publish(publish::PublishArgs),
    /// Read a draft through the cache, create one, list them
    #[command(subcommand)]
    Draft(draft::DraftCommand),
    /// Look at the dead letters and publish them again
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// The whole job with generated events, then a report
    Demo(demo::DemoArgs),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `contentflow migrate`
#[derive(Debug, clap::Args)]
pub struct MigrateArgs {
    /// Show what has been applied and what is pending, and change nothing
    #[arg(long)]
    status: bool,
}

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    failure::install_panic_hook();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::report_usage(&error),
    };
    // The demo tells by itself what is going on.
    let quiet = matches!(cli.command, Command::Demo(_));
    let log = logging::start(cli.log_format, cli.verbose, quiet);
    let mut out = BufWriter::new(io::stdout().lock());
    let result = dispatch(cli, &mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    log.finish();
    result.unwrap_or_else(|failure| failure.report())
}

fn dispatch(cli: Cli, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let Cli { config: file, log_format: _, verbose: _, command } = cli;
    let load = |overrides| Config::load(file.as_deref(), overrides);
    match command {
        Command::Migrate(MigrateArgs { status }) => {
            let config = load(Overrides::default())?;
            let runtime = runtime()?;
            if status {
                runtime.block_on(migrate::status(&config, out))?;
            } else {
                runtime.block_on(migrate::run(&config, out))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Check => match load(Overrides::default()) {
            Ok(config) => Ok(runtime()?.block_on(check::run(&config, out))?),
            Err(error) => Ok(check::configuration_failed(&error, out)?),
        },
        Command::Completions { shell } => {
            // Into memory first: the generator panics when its pipe is closed.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "contentflow", &mut script);
            out.write_all(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(args) => {
            let config = load(args.overrides())?;
            run::execute(config, &args, &runtime()?, out)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Replay(args) => {
            let config = load(args.overrides())?;
            replay::execute(config, file.as_deref(), &args, &runtime()?, out)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify(args) => {
            let config = load(args.overrides())?;
            verify::run(&config, &args, &runtime()?, out)
        }
        Command::Tune(args) => {
            tune::execute(load, &args, &runtime()?, out)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Publish(args) => {
            let config = load(args.overrides())?;
            runtime()?.block_on(publish::run(&config, &args, out))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Draft(command) => {
            let config = load(Overrides::default())?;
            runtime()?.block_on(draft::run(&config, &command, out))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Dlq(command) => dlq::run(&load(Overrides::default())?, &command, out),
        Command::Demo(args) => demo::run(load(args.overrides())?, &args, &runtime()?, out),
    }
}

/// Threads for what talks to PostgreSQL and Redis beside the lanes, which live on the worker threads
/// (decision 19): checks, second deletes, spans. In a run it mostly sleeps.
const RUNTIME_THREADS: usize = 1;

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(RUNTIME_THREADS).enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
