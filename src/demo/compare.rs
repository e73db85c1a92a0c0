//! What was generated beside what was found: only what is known exactly, however the records were
//! cut into batches.

use std::io;

use super::expected::Expected;
use super::page::Page;
use crate::report::{Report, grouped};

/// Everything that there is to compare.
pub(super) struct Comparison<'a> {
    pub(super) expected: &'a Expected,
    pub(super) report: &'a Report,
    /// Records in the dead-letter topic.
    pub(super) dead_letters: u64,
    /// Drafts whose row holds what it must.
    pub(super) right_rows: u64,
    /// Drafts that were cached before.
    pub(super) cached: u64,
    /// Drafts among them that still are.
    pub(super) still_cached: u64,
}

/// One line: what it is about, what it must be, and what it is.
struct Line {
    about: &'static str,
    generated: u64,
    found: u64,
}

impl Comparison<'_> {
    fn lines(&self) -> Vec<Line> {
        let Comparison { expected, report, dead_letters, right_rows, cached, still_cached } = *self;
        let line = |about, generated, found| Line { about, generated, found };
        let bad = expected.count("bad");
        let right_reasons = expected.reasons.iter().map(|(reason, generated)| {
            report.rejected_by_reason.get(reason).copied().unwrap_or(0).min(*generated)
        });
        vec![
            line("records read", expected.kinds.values().sum(), report.read),
            line("duplicates", expected.count("duplicate"), report.duplicate),
            // Which of two events of a draft was written before the newer one came depends on the
            // batches.
            line(
                "applied or superseded",
                expected.good() - expected.count("duplicate"),
                report.applied + report.superseded,
            ),
            line("skipped", expected.count("foreign"), report.skipped),
            line("rejected", bad, report.rejected),
            line("rejected for its reason", bad, right_reasons.sum()),
            line("dead letters", bad, dead_letters),
            line("drafts with new images", count(expected.drafts.len()), right_rows),
            line("cached drafts deleted", cached, cached - still_cached),
        ]
    }

    /// Writes the lines. True if all of them agree.
    pub(super) fn write(&self, page: &mut Page<'_>) -> io::Result<bool> {
        let lines = self.lines();
        page.text(format_args!("  {:<24} {:>12} {:>12}\n", "", "generated", "found"))?;
        for Line { about, generated, found } in &lines {
            let verdict = if generated == found { "ok" } else { "WRONG" };
            let (generated, found) = (grouped(*generated), grouped(*found));
            page.text(format_args!("  {about:<24} {generated:>12} {found:>12}  {verdict}\n"))?;
        }
        Ok(lines.iter().all(|line| line.generated == line.found))
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
