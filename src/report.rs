//! The report of a run: what was read, and what became of it.

use std::collections::BTreeMap;
use std::fmt;

use dataflows::outcome::Tally;
use dataflows::reject::Reason;
use indicatif::HumanCount;
use serde::Serialize;

use crate::ingest::Range;

/// Totals of a run. Serialized, it is the machine-readable report; displayed, the one for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Records read. It is the sum of the outcomes.
    pub read: u64,
    /// Events whose images are in their rows.
    pub applied: u64,
    /// Events whose job had been seen.
    pub duplicate: u64,
    /// Events older than what their rows hold.
    pub superseded: u64,
    /// Records of another event type.
    pub skipped: u64,
    /// Rejected records.
    pub rejected: u64,
    /// Rejected records by reason; reasons that did not occur are left out.
    pub rejected_by_reason: BTreeMap<&'static str, u64>,
    /// Drafts whose key and lease were deleted, answered by the cache: each once in a batch,
    /// however many events it had there.
    pub deletes: u64,
    /// Keys of these that there were.
    pub keys_deleted: u64,
    /// Jobs that were noticed for a second draft.
    pub job_reused: u64,
    /// Seconds from the start to the end.
    pub elapsed_s: f64,
    /// Records read a second.
    pub records_per_s: f64,
    /// Worker threads.
    pub workers: usize,
    /// What was read of each partition.
    pub partitions: Vec<PartitionReport>,
    /// What has become of the rejected records, for people.
    #[serde(skip)]
    pub rejects: &'static str,
}

/// What was read of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// The partition.
    pub partition: i32,
    /// The first offset that was read.
    pub first_offset: i64,
    /// The last offset that was read.
    pub last_offset: i64,
}

impl Report {
    /// The report of a run that read so many records, with these outcomes.
    pub fn new(
        read: u64,
        totals: &Tally,
        elapsed_s: f64,
        workers: usize,
        ranges: &BTreeMap<i32, Range>,
    ) -> Report {
        let reasons =
            Reason::ALL.into_iter().map(|reason| (reason.code(), totals.rejected_for(reason)));
        let partitions = ranges.iter().map(|(partition, (first, last))| PartitionReport {
            partition: *partition,
            first_offset: *first,
            last_offset: *last,
        });
        Report {
            read,
            applied: totals.applied,
            duplicate: totals.duplicate,
            superseded: totals.superseded,
            skipped: totals.skipped,
            rejected: totals.rejected_total(),
            rejected_by_reason: reasons.filter(|(_, count)| *count > 0).collect(),
            deletes: totals.deletes,
            keys_deleted: totals.keys_deleted,
            job_reused: totals.job_reused,
            elapsed_s,
            records_per_s: rate(read, elapsed_s),
            workers,
            partitions: partitions.collect(),
            rejects: "dead-lettered",
        }
    }

    /// Whether every record that was read has exactly one outcome.
    pub fn adds_up(&self) -> bool {
        self.read == self.applied + self.duplicate + self.superseded + self.skipped + self.rejected
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a rate for people; no count comes near 2^53"
)]
fn rate(count: u64, elapsed_s: f64) -> f64 {
    count as f64 / elapsed_s.max(1e-9)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, count: u64, note: &str| {
            writeln!(f, "  {name:<12} {:>12}  {note}", grouped(count))
        };
        line("read", self.read, "records")?;
        line("applied", self.applied, "rows updated")?;
        line("duplicate", self.duplicate, "job seen before")?;
        line("superseded", self.superseded, "a newer event is in the row")?;
        line("skipped", self.skipped, "other event types")?;
        line("rejected", self.rejected, self.rejects)?;
        for (reason, count) in &self.rejected_by_reason {
            writeln!(f, "    {reason:<22} {:>10}", grouped(*count))?;
        }
        writeln!(
            f,
            "  {:<12} {:>12}  of them {} found a key",
            "deletes",
            grouped(self.deletes),
            grouped(self.keys_deleted)
        )?;
        if self.job_reused > 0 {
            writeln!(
                f,
                "  {:<12} {:>12}  jobs that were used for a second draft",
                "job_reused",
                grouped(self.job_reused)
            )?;
        }
        for PartitionReport { partition, first_offset, last_offset } in &self.partitions {
            writeln!(f, "  partition {partition:<4} offsets {first_offset} to {last_offset}")?;
        }
        let Report { elapsed_s, records_per_s, workers, .. } = self;
        let workers = counted(u64::try_from(*workers).unwrap_or(u64::MAX), "worker");
        writeln!(f, "  {elapsed_s:.1} s, {records_per_s:.0} records/s, {workers}")
    }
}

/// So many of what is called by that word: `1 trial`, `2,000 trials`.
pub fn counted(count: u64, word: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {word}{plural}", grouped(count))
}

/// A count with thin groups of three digits.
pub fn grouped(count: u64) -> String {
    HumanCount(count).to_string()
}
