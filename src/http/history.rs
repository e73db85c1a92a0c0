//! The last fifteen minutes, a point each five seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::snapshot::rounded;
use crate::clock::now_ms;
use crate::figures::Figures;
use crate::figures::histogram::{Counts, float};

/// The time between two points, seconds.
const STEP: Duration = Duration::from_secs(5);

/// How many points are kept: fifteen minutes of them.
const POINTS: usize = 180;

/// Throughput and latency as they were.
#[derive(Debug)]
pub struct History {
    since: Instant,
    done: u64,
    latency: Counts,
    until_ms: i64,
    points: VecDeque<Point>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Point {
    records_per_s: f64,
    /// Where records came through: milliseconds below which half of them, and 99 of 100, stayed.
    latency_ms: Option<[f64; 2]>,
}

/// The history as it is told.
#[derive(Debug, Serialize)]
pub struct Told {
    step_s: u64,
    until_ms: i64,
    records_per_s: Vec<f64>,
    latency_p50_ms: Vec<Option<f64>>,
    latency_p99_ms: Vec<Option<f64>>,
}

impl History {
    /// A history that begins now.
    pub fn new(figures: &Figures) -> History {
        History {
            since: Instant::now(),
            done: 0,
            latency: figures.latency.counts(),
            until_ms: now_ms(),
            points: VecDeque::new(),
        }
    }

    /// Adds a point, if it is time, when so many records are through.
    pub fn note(&mut self, figures: &Figures, done: u64) {
        let elapsed = self.since.elapsed();
        if elapsed < STEP {
            return;
        }
        let latency = figures.latency.counts();
        let recent = latency.since(&self.latency);
        let ms = |part| recent.quantile(part).map(|seconds| seconds * 1e3);
        self.points.push_back(Point {
            records_per_s: float(done.saturating_sub(self.done)) / elapsed.as_secs_f64(),
            latency_ms: ms(0.5).zip(ms(0.99)).map(|(half, most)| [half, most]),
        });
        if self.points.len() > POINTS {
            self.points.pop_front();
        }
        (self.since, self.done, self.latency) = (Instant::now(), done, latency);
        self.until_ms = now_ms();
    }

    /// The points so far, the oldest first.
    pub fn told(&self) -> Told {
        let latency = |which: usize| {
            let of = |point: &Point| point.latency_ms.map(|both| rounded(both[which]));
            self.points.iter().map(of).collect()
        };
        Told {
            step_s: STEP.as_secs(),
            until_ms: self.until_ms,
            records_per_s: self.points.iter().map(|it| rounded(it.records_per_s)).collect(),
            latency_p50_ms: latency(0),
            latency_p99_ms: latency(1),
        }
    }
}
