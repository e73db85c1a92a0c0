//! Does `contentflow tune` find what is best? The whole grid, measured exhaustively, and several searches with their usual budget, in one run: how far
//! what a search recommends is from the best of the grid, both by the rates of the exhaustive measurement.
//!
//! `TUNE` holds more flags for both, such as `--epoch-records 10000,20000`.

use std::io::Write;

use anyhow::Context;
use contentflow::tune::settings::Axis;
use contentflow::tune::statistics::median;
use serde_json::Value;

use super::program;
use super::servers::Servers;

/// What was found.
pub(crate) struct Found {
    /// Every point of the grid, the fastest first.
    grid: Vec<Point>,
    /// What each search recommends, with the seconds that it took.
    searches: Vec<(Settings, f64)>,
}

/// Settings by their keys.
type Settings = Vec<(&'static str, u64)>;

struct Point {
    settings: Settings,
    events_per_s: f64,
    spread: f64,
}

/// Runs so many searches, half of them before the grid is measured and half of them after it.
pub(crate) fn measure(servers: &Servers, searches: u64) -> anyhow::Result<Found> {
    let more = std::env::var("TUNE").unwrap_or_default();
    let more: Vec<&str> = more.split_whitespace().collect();
    let topic = &servers.config.kafka.topic;
    let tune = |flags: &[&str]| -> anyhow::Result<Value> {
        let arguments = [&["tune", "--report", "json"], flags, &more].concat();
        let (report, _usage, _log) = program::run(servers, topic, &arguments)?;
        Ok(report)
    };
    let (mut grid, mut found) = (None, Vec::new());
    for turn in 0..=searches {
        if turn == searches / 2 {
            super::say("the whole grid");
            let report = tune(&["--exhaustive"])?;
            let measured = report["measured"].as_array().context("no table")?;
            grid = Some(measured.iter().map(point).collect::<anyhow::Result<Vec<_>>>()?);
        }
        if turn < searches {
            super::say(&format!("search {} of {searches}", turn + 1));
            let report = tune(&[])?;
            let seconds = report["elapsed_s"].as_f64().context("no time")?;
            found.push((settings(&report["chosen"])?, seconds));
        }
    }
    Ok(Found { grid: grid.context("the grid was not measured")?, searches: found })
}

fn settings(object: &Value) -> anyhow::Result<Settings> {
    let value = |axis: Axis| {
        let (_section, key) = axis.key();
        Ok((key, object[key].as_u64().context("a setting is missing")?))
    };
    Axis::ALL.into_iter().map(value).collect()
}

fn point(object: &Value) -> anyhow::Result<Point> {
    let number = |key: &str| object[key].as_f64().context("a number is missing");
    let (events_per_s, spread) = (number("events_per_s")?, number("spread")?);
    Ok(Point { settings: settings(object)?, events_per_s, spread })
}

impl Found {
    /// The best of the grid, and what each search recommends as a part of that.
    pub(crate) fn write(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let best = self.grid.first().context("the grid is empty")?;
        let shown = |settings: &Settings| {
            let parts = settings.iter().map(|(key, value)| format!("{key} {value}"));
            parts.collect::<Vec<_>>().join(", ")
        };
        let spreads: Vec<f64> = self.grid.iter().map(|point| point.spread).collect();
        writeln!(
            out,
            "{} points, {:.0} events/s at best with {}; spread of a point: {:.1} %\n\n| of the best | seconds | recommended |\n|---:|---:|---|",
            self.grid.len(),
            best.events_per_s,
            shown(&best.settings),
            100.0 * median(&spreads),
        )?;
        let mut reached = Vec::new();
        for (settings, seconds) in &self.searches {
            let point = self.grid.iter().find(|point| point.settings == *settings);
            let point = point.context("a search recommends what the grid does not have")?;
            reached.push(point.events_per_s / best.events_per_s);
            let part = point.events_per_s / best.events_per_s;
            writeln!(out, "| {part:.3} | {seconds:.0} | {} |", shown(settings))?;
        }
        writeln!(out, "\nmedian: {:.3} of the best", median(&reached))?;
        Ok(())
    }
}
