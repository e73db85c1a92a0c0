//! `contentflow dlq …`

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use dataflows::reject::Reason;

use super::failure::Failure;
use crate::config::Config;
use crate::dead_letters::{self, Place};

/// `contentflow dlq …`
#[derive(Clone, Debug, Subcommand)]
pub enum DlqCommand {
    /// List the dead letters, the newest last
    List(ListArgs),
    /// Show one dead letter with everything that is known about it
    Show(ShowArgs),
    /// Count the dead letters
    Count(CountArgs),
    /// Publish dead letters to their topic again
    Replay(ReplayArgs),
}

/// `contentflow dlq list`
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// How many at most, counted from the newest
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,

    /// Only those with this reason
    #[arg(long, value_parser = reason)]
    pub reason: Option<Reason>,

    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `contentflow dlq show`
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Where it is in the dead-letter topic
    #[arg(value_name = "PARTITION:OFFSET")]
    pub place: Place,
}

/// `contentflow dlq count`
#[derive(Clone, Debug, Args)]
pub struct CountArgs {
    /// One line for each reason
    #[arg(long)]
    pub by_reason: bool,
}

/// `contentflow dlq replay`
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Which dead letters.
    #[command(flatten)]
    pub which: Which,

    /// Also those that have been replayed before
    #[arg(long)]
    pub again: bool,
}

/// Exactly one of them is given.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// All of them
    #[arg(long)]
    pub all: bool,

    /// Those with this reason
    #[arg(long, value_parser = reason)]
    pub reason: Option<Reason>,

    /// The one at this place in the dead-letter topic
    #[arg(long, value_name = "PARTITION:OFFSET")]
    pub offset: Option<Place>,
}

impl Which {
    /// The one that is given.
    fn chosen(&self) -> dead_letters::Which {
        let Which { all: _, reason, offset } = *self;
        match (reason, offset) {
            (Some(reason), _) => dead_letters::Which::Reason(reason),
            (_, Some(place)) => dead_letters::Which::At(place),
            (None, None) => dead_letters::Which::All,
        }
    }
}

/// Runs the command.
///
/// # Errors
///
/// When a server or the output fails, or a letter is not there.
pub fn run(
    config: &Config,
    command: &DlqCommand,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    match command {
        DlqCommand::List(ListArgs { limit, reason, json }) => {
            let which = reason.map_or(dead_letters::Which::All, dead_letters::Which::Reason);
            dead_letters::list(config, &which, limit.unwrap_or(usize::MAX), *json, out)?;
        }
        DlqCommand::Show(ShowArgs { place }) => dead_letters::show(config, *place, out)?,
        DlqCommand::Count(CountArgs { by_reason }) => dead_letters::count(config, *by_reason, out)?,
        DlqCommand::Replay(ReplayArgs { which, again }) => {
            let which = which.chosen();
            let replayed = dead_letters::replay(config, &which, *again, out)?;
            if !replayed.is_success(&which) {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn reason(code: &str) -> Result<Reason, String> {
    Reason::from_code(code)
        .ok_or_else(|| format!("the reasons are {}", Reason::ALL.map(Reason::code).join(", ")))
}
