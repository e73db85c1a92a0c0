//! What was measured, and what to set: a table and a chart for people, one object for machines.

use std::fmt;
use std::time::Duration;

use dataflows::outcome::Tally;
use serde_json::{Map, Value, json};

use super::limit::{Shares, percent};
use super::search::{CERTAIN, Choice};
use super::settings::{Axis, Settings};
use super::statistics::{median, spread};
use crate::report::grouped;

/// What was measured with some settings.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The settings.
    pub settings: Settings,
    /// Events a second, one for each trial that counts.
    pub rates: Vec<f64>,
    /// What the stages were at work, in the mean of all trials.
    pub shares: Shares,
}

impl Measured {
    /// Events a second: the median.
    pub fn rate(&self) -> f64 {
        median(&self.rates)
    }
}

/// What a tune has found out.
#[derive(Clone, Debug)]
pub struct TuneReport {
    /// The topic.
    pub topic: String,
    /// The table whose copy was written to; `None` when nothing was written.
    pub table: Option<String>,
    /// What the records of the sample are.
    pub tally: Tally,
    /// Rows of the copy.
    pub rows: u64,
    /// Drafts of the sample that have no row.
    pub rowless: u64,
    /// What is configured.
    pub present: Settings,
    /// What to set.
    pub choice: Choice,
    /// All that was measured.
    pub measured: Vec<Measured>,
    /// Trials, without the one to warm up.
    pub trials: usize,
    /// Points of the grid that were not measured.
    pub unmeasured: usize,
    /// Whether a signal has ended it early.
    pub was_stopped: bool,
    /// What the order of the trials was drawn with.
    pub seed: u64,
    /// From the start to the end.
    pub elapsed: Duration,
    /// Cores that this process may use.
    pub cores: usize,
}

/// Bars of the chart on a terminal, and their length.
const BARS_MAX: usize = 12;
const BAR_CELLS: f64 = 40.0;

impl TuneReport {
    /// All that was measured, the fastest first.
    pub fn ranked(&self) -> Vec<&Measured> {
        let mut ranked: Vec<&Measured> = self.measured.iter().collect();
        ranked.sort_by(|a, b| b.rate().total_cmp(&a.rate()));
        ranked
    }

    fn of(&self, settings: Settings) -> Option<&Measured> {
        self.measured.iter().find(|measured| measured.settings == settings)
    }

    /// How much faster the recommended settings are than what is configured, as a part of that.
    pub fn gain(&self) -> Option<f64> {
        let [chosen, present] = [self.choice.chosen, self.present].map(|it| self.of(it));
        Some(chosen?.rate() / present?.rate() - 1.0)
    }

    /// The axes on which anything differs: those that get a column.
    pub(super) fn axes(&self) -> Vec<Axis> {
        let differs = |axis: &Axis| {
            let mut values = self.measured.iter().map(|it| it.settings.get(*axis));
            let first = values.next();
            values.any(|value| Some(value) != first)
        };
        Axis::ALL.into_iter().filter(|axis| *axis == Axis::Workers || differs(axis)).collect()
    }

    /// What is to be pasted into the configuration; empty where nothing is to be changed.
    pub fn paste(&self) -> String {
        let changed = |axis: &&Axis| self.present.get(**axis) != self.choice.chosen.get(**axis);
        let mut text = String::new();
        for section in ["database", "run"] {
            let mut keys = Axis::ALL.iter().filter(changed).filter(|it| it.key().0 == section);
            let Some(first) = keys.next() else { continue };
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("[{section}]\n"));
            for axis in [first].into_iter().chain(keys) {
                text.push_str(&format!("{} = {}\n", axis.key().1, self.choice.chosen.get(*axis)));
            }
        }
        text
    }

    /// What was measured, on one line.
    pub(super) fn about(&self) -> String {
        let what = match &self.table {
            Some(table) => {
                format!("into a copy of {} rows of {table}", grouped(self.rows))
            }
            None => "without effects: only Kafka and the dataflow".to_owned(),
        };
        format!("the newest {} records of {}, {what}", grouped(self.tally.records()), self.topic)
    }

    /// The report as one object.
    pub fn json(&self) -> Value {
        let measured = self.ranked().into_iter().map(|it| {
            let mut object = keys(it.settings);
            object.insert("events_per_s".to_owned(), json!(it.rate()));
            object.insert("spread".to_owned(), json!(spread(&it.rates)));
            object.insert("trials".to_owned(), json!(it.rates));
            object.insert("limit".to_owned(), json!(it.shares.limit().0));
            object.insert("busy".to_owned(), json!(it.shares));
            Value::Object(object)
        });
        let Choice { best, chosen, is_certain, uncertainty } = self.choice;
        let limit = self.of(chosen).map(|it| it.shares.limit().0);
        json!({
            "topic": self.topic,
            "table": self.table,
            "records": self.tally.records(),
            "valid": self.tally.applied + self.tally.duplicate + self.tally.superseded,
            "rejected": self.tally.rejected_total(),
            "skipped": self.tally.skipped,
            "rows": self.rows,
            "drafts_without_row": self.rowless,
            "present": keys(self.present),
            "best": keys(best),
            "chosen": keys(chosen),
            "gain": self.gain(),
            "limit": limit,
            "certain": is_certain,
            // Infinity is no number of JSON.
            "uncertainty": uncertainty.is_finite().then_some(uncertainty),
            "configuration": self.paste(),
            "measured": measured.collect::<Vec<_>>(),
            "trials": self.trials,
            "unmeasured": self.unmeasured,
            "complete": !self.was_stopped,
            "seed": self.seed,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "cores": self.cores,
        })
    }

    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes = self.axes();
        write!(f, " ")?;
        for axis in &axes {
            write!(f, " {:>width$}", axis.title(), width = width(*axis))?;
        }
        writeln!(f, " {:>11} {:>8} {:>7}  limit", "events/s", "spread", "trials")?;
        for it in self.ranked() {
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
        let fastest = ranked.first().map_or(1.0, |it| it.rate());
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
        format!("{certain} {left}")
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
            let advice = chosen.shares.advice(chosen.settings, self.cores);
            writeln!(f, "The limit: {advice}\n")?;
        }
        self.recommendation(f)
    }
}

/// Settings by their keys.
fn keys(settings: Settings) -> Map<String, Value> {
    let key = |axis: Axis| (axis.key().1.to_owned(), json!(settings.get(axis)));
    Axis::ALL.into_iter().map(key).collect()
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
pub(super) mod tests {
    use super::*;
    use crate::config::Config;

    pub(crate) fn report() -> TuneReport {
        let present = Settings::of(&Config::default()).with(Axis::Workers, 2);
        let faster = present.with(Axis::Connections, 2);
        let shares = Shares { source: 0.2, decode: 0.3, database: 0.97, ..Shares::default() };
        let measured = [(present, [100_000.0, 101_000.0, 99_000.0]), (faster, [120_000.0; 3])];
        let measured =
            measured.map(|(settings, rates)| Measured { settings, rates: rates.to_vec(), shares });
        TuneReport {
            topic: "event-topic".to_owned(),
            table: Some("content.\"<drafts>\"".to_owned()),
            tally: Tally { applied: 190_000, skipped: 10_000, ..Tally::default() },
            rows: 20_000,
            rowless: 0,
            present,
            choice: Choice { best: faster, chosen: faster, is_certain: true, uncertainty: 0.01 },
            measured: measured.to_vec(),
            trials: 6,
            unmeasured: 3,
            was_stopped: false,
            seed: 42,
            elapsed: Duration::from_secs(20),
            cores: 2,
        }
    }

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
        report.was_stopped = true;
        assert!(report.to_string().starts_with("Stopped after 6 trials"));
    }

    #[test]
    fn what_is_to_be_pasted_is_toml_with_only_what_changes() {
        let mut report = report();
        report.choice.chosen = Settings::new([4, 1, 1_000, 20_000, 5]);
        let paste: toml::Table = report.paste().parse().unwrap();
        assert_eq!(
            paste["run"],
            toml::Value::from(toml::Table::from_iter([("workers".to_owned(), 4.into())]))
        );
        assert_eq!(paste["database"]["batch_rows"].as_integer(), Some(1_000));
        assert_eq!(paste["database"].as_table().unwrap().len(), 1);
    }

    #[test]
    fn the_object_names_the_same() {
        let mut report = report();
        report.choice.uncertainty = f64::INFINITY;
        let json = report.json();
        assert_eq!(json["chosen"]["connections"], 2);
        assert_eq!((&json["limit"], &json["uncertainty"]), (&json!("database"), &Value::Null));
        assert_eq!(json["measured"][1]["workers"], 2);
        assert!((json["gain"].as_f64().unwrap() - 0.2).abs() < 1e-9);
        assert_eq!((&json["records"], &json["valid"]), (&json!(200_000), &json!(190_000)));
    }

    #[test]
    fn bars_are_as_long_as_they_should_be() {
        assert_eq!((bar(0.0).as_str(), bar(1.5).as_str(), bar(2.99).as_str()), ("", "█▌", "███"));
    }
}
