//! Does `contentflow tune` find what is best? After each search, the whole grid is measured
//! exhaustively with what was recommended as what is configured, which is measured in each round,
//! as the best few are.
//!
//! The best of several medians is in part the luckiest. So the rounds are halved: what is the best
//! in one half is compared with what was recommended in the other, round by round, and the other
//! way round; what a slow quarter of an hour does to a round hits both.
//!
//! `TUNE` holds more flags for both, such as `--epoch-records 10000,20000`.

use std::io::Write;

use anyhow::Context;
use contentflow::tune::settings::Axis;
use contentflow::tune::statistics::median;
use serde_json::Value;

use super::program;
use super::servers::Servers;

/// What a search has found, beside the grid.
pub(crate) struct Found {
    recommended: Settings,
    seconds: f64,
    /// Every point of the grid, the fastest first.
    grid: Vec<Point>,
}

/// Settings by their keys.
type Settings = Vec<(&'static str, u64)>;

struct Point {
    settings: Settings,
    /// Events a second, round by round.
    rates: Vec<f64>,
}

/// Runs so many searches.
pub(crate) fn measure(servers: &Servers, searches: u64) -> anyhow::Result<Vec<Found>> {
    let more = std::env::var("TUNE").unwrap_or_default();
    let more: Vec<&str> = more.split_whitespace().collect();
    let topic = &servers.config.kafka.topic;
    let tune = |flags: &[&str]| -> anyhow::Result<Value> {
        let arguments = [&["tune", "--report", "json"], flags, &more].concat();
        let (report, _usage, _log) = program::run(servers, topic, &arguments)?;
        Ok(report)
    };
    let search = |number: u64| {
        super::say(&format!("search {number} of {searches}"));
        let report = tune(&[])?;
        super::say("the whole grid");
        // As a user would: what is to be pasted is pasted.
        let mut pasted = tempfile::NamedTempFile::new()?;
        pasted
            .write_all(report["configuration"].as_str().context("no configuration")?.as_bytes())?;
        let pasted = pasted.path().to_str().context("a strange directory for temporary files")?;
        let grid = tune(&["--exhaustive", "--config", pasted])?;
        let measured = grid["measured"].as_array().context("no table")?;
        Ok(Found {
            recommended: settings(&report["chosen"])?,
            seconds: report["elapsed_s"].as_f64().context("no time")?,
            grid: measured.iter().map(point).collect::<anyhow::Result<_>>()?,
        })
    };
    (1..=searches).map(search).collect()
}

fn settings(object: &Value) -> anyhow::Result<Settings> {
    let value = |axis: Axis| {
        let (_section, key) = axis.key();
        Ok((key, object[key].as_u64().context("a setting is missing")?))
    };
    Axis::ALL.into_iter().map(value).collect()
}

fn point(object: &Value) -> anyhow::Result<Point> {
    let rates = object["rates_per_s"].as_array().context("no rates")?;
    let rates = rates.iter().map(|rate| rate.as_f64().context("no rate"));
    Ok(Point { settings: settings(object)?, rates: rates.collect::<anyhow::Result<_>>()? })
}

impl Found {
    /// What the recommended settings reach of the best of the grid, and in how many rounds both
    /// were measured.
    fn reached(&self) -> anyhow::Result<(f64, usize)> {
        let recommended = self.grid.iter().find(|point| point.settings == self.recommended);
        let recommended = &recommended.context("what is configured was not measured")?.rates;
        let rounds = recommended.len();
        // The others were left behind by more than what counts as close.
        let in_all: Vec<&Vec<f64>> =
            self.grid.iter().map(|point| &point.rates).filter(|it| it.len() == rounds).collect();
        let halves = [0, 1].map(|half| {
            let skilled = |rates: &[f64]| median(&every_second(rates, half));
            let best = in_all.iter().max_by(|a, b| skilled(a).total_cmp(&skilled(b)));
            let pairs = recommended.iter().zip(*best.expect("what is recommended is in it"));
            let parts: Vec<f64> = pairs.map(|(one, other)| one / other).collect();
            median(&every_second(&parts, 1 - half))
        });
        Ok((halves.iter().sum::<f64>() / 2.0, rounds))
    }
}

fn every_second(values: &[f64], from: usize) -> Vec<f64> {
    values.iter().skip(from).step_by(2).copied().collect()
}

/// What each search recommends, and what that reaches of the best of the grid.
pub(crate) fn write(found: &[Found], out: &mut impl Write) -> anyhow::Result<()> {
    let shown = |settings: &Settings| {
        let parts = settings.iter().map(|(key, value)| format!("{key} {value}"));
        parts.collect::<Vec<_>>().join(", ")
    };
    writeln!(
        out,
        "| of the best | seconds | recommended | points | rounds | fastest median |\n|---:|---:|---|---:|---:|---|"
    )?;
    let mut all = Vec::new();
    for search in found {
        let (reached, rounds) = search.reached()?;
        all.push(reached);
        writeln!(
            out,
            "| {reached:.3} | {:.0} | {} | {} | {rounds} | {} |",
            search.seconds,
            shown(&search.recommended),
            search.grid.len(),
            shown(&search.grid.first().context("the grid is empty")?.settings),
        )?;
    }
    writeln!(out, "\nmedian: {:.3} of the best", median(&all))?;
    Ok(())
}
