//! The report for people: a table, bars, and what follows in words.

use std::fmt;

use super::report::TuneReport;
use super::search::{CERTAIN, Choice};
use super::settings::{Axis, EPOCHS_MIN, Settings};
use super::statistics::spread;
use crate::limit::{Capacity, percent};
use crate::report::grouped;

/// Bars of the chart on a terminal, and their length.
const BARS_MAX: usize = 12;
const BAR_CELLS: f64 = 40.0;

/// A drift that is worth a warning, as a part.
const DRIFT_MAX: f64 = 0.1;

impl TuneReport {
    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes = self.axes();
        write!(f, " ")?;
        for axis in &axes {
            write!(f, " {:>width$}", axis.title(), width = width(*axis))?;
        }
        writeln!(f, " {:>11} {:>8} {:>7}  limit", "events/s", "spread", "trials")?;
        let ranked = self.ranked();
        let again = ranked.iter().filter(|it| it.rates.len() > 1).count();
        for (place, it) in ranked.into_iter().enumerate() {
            if place == again && place > 0 {
                writeln!(f, "  measured once, on the way there:")?;
            }
            let mark = if it.settings == self.choice.chosen { '*' } else { ' ' };
            write!(f, "{mark}")?;
            for axis in &axes {
                let value = u64::try_from(it.settings.get(*axis)).unwrap_or(u64::MAX);
                write!(f, " {:>width$}", grouped(value), width = width(*axis))?;
            }
            let spread = match it.rates.len() {
                1 => "-".to_owned(),
                _ => format!("{:.1} %", 100.0 * spread(&it.rates)),
            };
            let (stage, share) = it.shares.limit();
            let note = if it.settings == self.present { "  (configured)" } else { "" };
            writeln!(
                f,
                "  {:>11} {spread:>8} {:>7}  {} {}{note}",
                whole(it.rate()),
                it.rates.len(),
                stage.name(),
                percent(share),
            )?;
        }
        Ok(())
    }

    fn chart(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (axes, ranked) = (self.axes(), self.ranked());
        let fastest = ranked.iter().map(|it| it.rate()).fold(1.0, f64::max);
        for it in ranked.into_iter().take(BARS_MAX) {
            let label = short(it.settings, &axes);
            let bar = bar(it.rate() / fastest.max(1e-9) * BAR_CELLS);
            writeln!(f, "  {label:<26} {bar} {}", whole(it.rate()))?;
        }
        Ok(())
    }

    /// How far the numbers can be relied on.
    fn confidence(&self) -> String {
        let Choice { is_certain, uncertainty, .. } = self.choice;
        let left = match self.unmeasured {
            0 => "Every point of the grid was measured.".to_owned(),
            left => format!("{left} points of the grid were not measured."),
        };
        let certain = if is_certain {
            format!("The medians of the best few are certain to {:.1} %.", 100.0 * uncertainty)
        } else if uncertainty.is_finite() {
            format!(
                "The spread is not small: the medians of the best few are certain to {:.1} % only, {:.1} % is wanted. A larger --budget, \
                 more --events, or a quieter machine help.",
                100.0 * uncertainty,
                100.0 * CERTAIN
            )
        } else {
            "The spread is not known: the best few were not measured more than once. A larger --budget, or fewer --events help."
                .to_owned()
        };
        let largest = self.measured.iter().map(|it| it.settings.get(Axis::EpochRecords)).max();
        let wanted = u64::try_from(EPOCHS_MIN * largest.unwrap_or(0)).unwrap_or(u64::MAX);
        let short = match self.tally.records() < wanted {
            true => format!(
                " A trial is short for epochs of this size: {} --events or more say more.",
                grouped(wanted)
            ),
            false => String::new(),
        };
        let drift = match self.drift {
            Some(drift) if drift.abs() > DRIFT_MAX => format!(
                " The machine was not as fast all the time: the best few came to {:+.0} % when they were measured again, so that what was \
                 measured once cannot be compared with them.",
                100.0 * drift
            ),
            _ => String::new(),
        };
        format!("{certain} {left}{short}{drift}")
    }

    fn recommendation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gain = self.gain().map_or(String::new(), |gain| {
            format!(": {:+.0} % events a second against what is configured", 100.0 * gain)
        });
        match self.paste().as_str() {
            "" => writeln!(
                f,
                "Nothing to change: no settings are faster than those that are configured by more than they spread."
            ),
            paste => writeln!(f, "To paste into contentflow.toml{gain}\n\n{paste}"),
        }
    }
}

impl fmt::Display for TuneReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.was_stopped {
            writeln!(
                f,
                "Stopped after {} trials: this is what was measured until then.\n",
                self.trials
            )?;
        }
        writeln!(f, "{}", sentence(&self.about()))?;
        if self.tally.rejected_total() > 0 {
            let rejected = grouped(self.tally.rejected_total());
            writeln!(
                f,
                "{rejected} of them are invalid: counted here, while a run would publish them as dead letters."
            )?;
        }
        if self.rowless > 0 {
            let rowless = grouped(self.rowless);
            writeln!(
                f,
                "{rowless} of their drafts have no row: rejected here without the retries of a run."
            )?;
        }
        writeln!(
            f,
            "{} trials in {:.0} s, their order drawn with --seed {}.\n",
            self.trials,
            self.elapsed.as_secs_f64(),
            self.seed
        )?;
        self.table(f)?;
        writeln!(f)?;
        self.chart(f)?;
        writeln!(f, "\n{}\n", self.confidence())?;
        if let Some(chosen) = self.of(self.choice.chosen) {
            let shares = chosen
                .shares
                .stages()
                .map(|(stage, share)| format!("{} {}", stage.name(), percent(share)));
            writeln!(f, "With {}, at work:\n  {}", chosen.settings, shares.join(", "))?;
            let (shares, workers) = (chosen.shares, chosen.settings.get(Axis::Workers));
            let connections = workers * chosen.settings.get(Axis::Connections);
            let capacity = Capacity { workers, connections };
            let remedy = shares.remedy(capacity, self.cores, "as far as this table shows");
            writeln!(f, "The limit: {} {remedy}\n", shares.words(capacity))?;
        }
        self.recommendation(f)
    }
}

/// Some of the settings, as short as can be read.
pub(super) fn short(settings: Settings, axes: &[Axis]) -> String {
    let part = |axis: &Axis| {
        let value = settings.get(*axis);
        let count = match value {
            1_000.. if value.is_multiple_of(1_000) => format!("{}k", value / 1_000),
            _ => value.to_string(),
        };
        match axis {
            Axis::Workers => format!("{value}w"),
            Axis::Connections => format!("{value}c"),
            Axis::BatchRows => format!("batch {count}"),
            Axis::EpochRecords => format!("epoch {count}"),
            Axis::LingerMs => format!("{value} ms"),
        }
    };
    axes.iter().map(part).collect::<Vec<_>>().join(" ")
}

fn width(axis: Axis) -> usize {
    axis.title().len()
}

/// Blocks of eighths.
fn bar(cells: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = to_whole(8.0 * cells);
    let (full, rest) = (eighths / 8, eighths % 8);
    "█".repeat(usize::try_from(full).unwrap_or(0)) + EIGHTHS[usize::try_from(rest).unwrap_or(0)]
}

/// A rate without its fraction.
pub(super) fn whole(rate: f64) -> String {
    grouped(to_whole(rate))
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "for people; never negative, and far below 2^53"
)]
fn to_whole(value: f64) -> u64 {
    value.round() as u64
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or(String::new(), |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::report::tests::report;

    #[test]
    fn the_text_has_the_table_the_chart_the_limit_and_what_to_paste() {
        let text = report().to_string();
        let rows = [
            "*       2           2      120,000    0.0 %       3  database 97 %",
            "        2           1      100,000    1.0 %       3  database 97 %  (configured)",
            "  2w 2c                      ████████████████████████████████████████ 120,000",
            "  2w 1c                      █████████████████████████████████▍ 100,000",
        ];
        for row in rows {
            assert!(text.lines().any(|line| line == row), "{row}\nis not in\n{text}");
        }
        for part in [
            "200,000 records of event-topic",
            "certain to 1.0 %. 3 points",
            "The limit: database. The 4 connections",
            "+20 % events a second",
            "\n[database]\nconnections = 2\n",
            "--seed 42",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
        assert!(!text.contains("[run]") && !text.contains("Stopped"), "{text}");
    }

    #[test]
    fn where_nothing_is_faster_nothing_is_to_be_pasted() {
        let mut report = report();
        report.choice.chosen = report.present;
        report.choice.is_certain = false;
        report.choice.uncertainty = 0.08;
        let text = report.to_string();
        assert!(text.contains("Nothing to change") && !text.contains("[database]"), "{text}");
        assert!(text.contains("The spread is not small") && text.contains("8.0 % only"), "{text}");
        assert_eq!(report.json()["configuration"], "");
        assert!(!text.contains("as fast all the time"), "{text}");
        report.drift = Some(-0.3);
        assert!(report.to_string().contains("came to -30 % when"), "{report}");
        report.was_stopped = true;
        assert!(report.to_string().starts_with("Stopped after 6 trials"));
    }

    #[test]
    fn bars_are_as_long_as_they_should_be() {
        assert_eq!((bar(0.0).as_str(), bar(1.5).as_str(), bar(2.99).as_str()), ("", "█▌", "███"));
    }
}
