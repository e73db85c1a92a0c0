//! The report of a replay: that of a run, and what only a replay has to say.

use std::fmt;

use serde::Serialize;

use crate::commit::Offsets;
use crate::report::{Report, grouped};

/// Totals of a replay. Serialized, it is the machine-readable report; displayed, the one for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplayReport {
    /// What a run reports as well.
    #[serde(flatten)]
    pub report: Report,
    /// How often a row was written.
    pub rows_written: u64,
    /// In how many epochs it was done: each writes a draft once.
    pub epochs: u64,
    /// Whether everything up to the ends of the partitions was read; not so when it was stopped.
    pub complete: bool,
    /// By partition, the offset to go on from.
    pub next: Offsets,
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReplayReport { report, rows_written, epochs, complete, next: _ } = self;
        write!(f, "{report}")?;
        let plural = if *epochs == 1 { "epoch" } else { "epochs" };
        writeln!(f, "  rows written {:>12}  in {epochs} {plural}", grouped(*rows_written))?;
        if !complete {
            writeln!(f, "  stopped before the end")?;
        }
        Ok(())
    }
}
