//! `contentflow draft …`

use clap::{Args, Subcommand};

/// `contentflow draft …`
#[derive(Clone, Debug, Subcommand)]
pub enum DraftCommand {
    /// Read a draft through the cache, as a service should
    Get(GetArgs),
    /// Create a draft, or change its data
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
    pub limit: usize,
}
