//! The report of a replay: that of a run, and what only a replay has to say.

use std::fmt;

use serde::Serialize;

use crate::commit::Offsets;
use crate::report::{Report, grouped};

/// Totals of a replay. Serialized, it is the machine-readable report; displayed, the one for
/// people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplayReport {
    /// What a run reports as well.
    #[serde(flatten)]
    pub report: Report,
    /// Whether nothing was written: then everything else is what would have become of the records.
    pub dry_run: bool,
    /// How often a row was written.
    pub rows_written: u64,
    /// How many rows would have changed; of a dry run only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_to_write: Option<u64>,
    /// In how many epochs it was done: each writes a draft once.
    pub epochs: u64,
    /// Whether everything up to the ends of the partitions was read; not so when it was stopped.
    pub complete: bool,
    /// By partition, the offset to go on from.
    pub next: Offsets,
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReplayReport {
            report,
            dry_run,
            rows_written,
            rows_to_write,
            epochs,
            complete,
            next: _,
        } = self;
        if *dry_run {
            writeln!(f, "dry run: nothing was written; a replay would come to this")?;
        }
        write!(f, "{report}")?;
        let mut rows = |name: &str, count: u64, note: &str| {
            writeln!(f, "  {name:<12} {:>12}  {note}", grouped(count))
        };
        match rows_to_write {
            Some(count) => rows("rows", *count, "would be written")?,
            None if *epochs == 1 => rows("rows", *rows_written, "written, in one epoch")?,
            None => rows("rows", *rows_written, &format!("written, in {epochs} epochs"))?,
        }
        if !complete {
            writeln!(f, "  stopped before the end")?;
        }
        Ok(())
    }
}
