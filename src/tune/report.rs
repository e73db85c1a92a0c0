//! What was measured, and what to set: a table and a chart for people, one object for machines.

use std::time::Duration;

use dataflows::outcome::Tally;
use serde_json::{Map, Value, json};

use super::search::Choice;
use super::settings::{Axis, Settings};
use super::statistics::{median, spread};
use crate::limit::Shares;
use crate::report::counted;

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
    pub trials: u32,
    /// Points of the grid that were not measured.
    pub unmeasured: usize,
    /// How much faster the machine was at the end than at the beginning, as a part of that, if that
    /// can be told.
    pub drift: Option<f64>,
    /// Whether a signal has ended it early.
    pub was_stopped: bool,
    /// What the order of the trials was drawn with.
    pub seed: u64,
    /// From the start to the end.
    pub elapsed: Duration,
    /// Cores that this process may use.
    pub cores: usize,
}

impl TuneReport {
    /// All that was measured, the fastest first; what was measured once, on the way, behind what
    /// was measured again.
    pub fn ranked(&self) -> Vec<&Measured> {
        let mut ranked: Vec<&Measured> = self.measured.iter().collect();
        let once = |it: &Measured| it.rates.len() == 1;
        ranked.sort_by(|a, b| once(a).cmp(&once(b)).then(b.rate().total_cmp(&a.rate())));
        ranked
    }

    pub(super) fn of(&self, settings: Settings) -> Option<&Measured> {
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
                format!("into a copy of {} of {table}", counted(self.rows, "row"))
            }
            None => "without effects: only Kafka and the dataflow".to_owned(),
        };
        let records = counted(self.tally.records(), "record");
        format!("the newest {records} of {}, {what}", self.topic)
    }

    /// The report as one object.
    pub fn json(&self) -> Value {
        let measured = self.ranked().into_iter().map(|it| {
            let mut object = keys(it.settings);
            object.insert("events_per_s".to_owned(), json!(it.rate()));
            object.insert("spread".to_owned(), json!(spread(&it.rates)));
            object.insert("rates_per_s".to_owned(), json!(it.rates));
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
            "drift": self.drift,
            "complete": !self.was_stopped,
            "seed": self.seed,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "cores": self.cores,
        })
    }
}

/// Settings by their keys.
fn keys(settings: Settings) -> Map<String, Value> {
    let key = |axis: Axis| (axis.key().1.to_owned(), json!(settings.get(axis)));
    Axis::ALL.into_iter().map(key).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn report() -> TuneReport {
        let present = Settings::new([2, 1, 5_000, 20_000, 5]);
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
            drift: Some(0.01),
            was_stopped: false,
            seed: 42,
            elapsed: Duration::from_secs(20),
            cores: 2,
        }
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
        assert_eq!(json["measured"][0]["rates_per_s"], json!([120_000.0, 120_000.0, 120_000.0]));
        assert!((json["gain"].as_f64().unwrap() - 0.2).abs() < 1e-9);
        assert_eq!((&json["records"], &json["valid"]), (&json!(200_000), &json!(190_000)));
    }
}
