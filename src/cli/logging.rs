//! Logs on standard error, as text for people or as JSON for machines.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How logs look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line each, for people
    #[default]
    Text,
    /// One JSON object each, for machines
    Json,
}

/// Starts logging for this process, from info on, or from warn on if it should be `quiet`. `RUST_LOG` decides if it is
/// set; a mistake in it is ignored part by part.
pub(super) fn start(format: LogFormat, verbose: u8, quiet: bool) {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::builder().parse_lossy(directives),
        _ => EnvFilter::builder().parse_lossy(directives(verbose, quiet)),
    };
    // A log that nobody takes any more (a closed pipe, a full disk) is no reason to stop: to complain about it on standard
    // error would be to panic.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .log_internal_errors(false);
    // Whoever set a subscriber before, as a test may, keeps it.
    let started = match format {
        LogFormat::Text => builder.with_ansi(wants_color(&io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    drop(started);
}

/// Ours from info on, others from warn on. What refinery calls divergent is expected, see `migrate`; what the Redis client says of the
/// nodes of a cluster, once for each try, is in our own words once for each outage.
fn directives(verbose: u8, quiet: bool) -> &'static str {
    match verbose {
        0 if quiet => "warn,redis=off,refinery_core::traits::divergent=off",
        0 => "warn,contentflow=info,dataflows=info,redis=off,refinery_core::traits::divergent=off",
        1 => {
            "info,contentflow=debug,dataflows=debug,redis=off,refinery_core=warn,refinery_core::traits::divergent=off"
        }
        _ => "debug,contentflow=trace,dataflows=trace",
    }
}

/// Whether escape sequences for colours and weights are welcome there.
pub(super) fn wants_color(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
