//! `contentflow draft …`

use std::io::Write;

use clap::{Args, Subcommand};

use super::failure::Failure;
use crate::config::Config;
use crate::drafts;
use crate::notice::Notice;

/// `contentflow draft …`
#[derive(Clone, Debug, Subcommand)]
pub enum DraftCommand {
    /// Read a draft through the cache, as a service should
    Get(GetArgs),
    /// Create a draft
    Put(PutArgs),
    /// List drafts, the last changed first
    List(ListArgs),
}

/// `contentflow draft get`
#[derive(Clone, Debug, Args)]
pub struct GetArgs {
    /// Its event_draft_id
    pub id: String,
}

/// `contentflow draft put`
#[derive(Clone, Debug, Args)]
pub struct PutArgs {
    /// Its event_draft_id
    pub id: String,

    /// Its other columns as a JSON object: {"title": "Summer party"}
    #[arg(long, value_name = "JSON")]
    pub data: Option<String>,
}

/// `contentflow draft list`
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: u32,
}

/// Runs the command.
///
/// # Errors
///
/// When there is no such draft, or a server or the output fails.
pub async fn run(
    config: &Config,
    command: &DraftCommand,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match command {
        DraftCommand::Get(GetArgs { id }) => {
            let source = drafts::get(config, id, out).await?;
            Notice::Note(source.describe()).tell();
        }
        DraftCommand::Put(PutArgs { id, data }) => {
            drafts::put(config, id, data.as_deref(), out).await?
        }
        DraftCommand::List(ListArgs { limit }) => drafts::list(config, *limit, out).await?,
    }
    Ok(())
}
