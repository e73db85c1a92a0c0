//! The budget of a tune, and how far it is.

use std::time::{Duration, Instant};

use super::Plans;
use super::error::TuneError;
use super::search::ROUNDS_MIN;
use super::settings::Settings;
use crate::progress_bar::Bar;

/// The budget, and how much of it is used.
pub(super) struct Watch {
    began: Instant,
    budget: Option<Duration>,
    /// How long a trial takes, with its preparation: the mean, or that of the first one, which
    /// warms everything up.
    trial: Duration,
    trials: u32,
    measuring_since: Instant,
    bar: Option<Bar>,
}

impl Watch {
    pub(super) fn new(plans: &Plans) -> Watch {
        let now = Instant::now();
        let least = plans.grid.points().len() * ROUNDS_MIN;
        let bar = match plans.budget {
            Some(budget) => Bar::unrated("seconds", budget.as_secs()),
            None => Bar::unrated("trials", u64::try_from(least).unwrap_or(u64::MAX)),
        };
        Watch {
            began: now,
            budget: plans.budget,
            trial: Duration::ZERO,
            trials: 0,
            measuring_since: now,
            bar: Some(bar),
        }
    }

    pub(super) fn warmed_up(&mut self) -> Result<(), TuneError> {
        self.trial = self.began.elapsed();
        self.measuring_since = Instant::now();
        if self.has_time() {
            return Ok(());
        }
        self.finish();
        let budget_s = self.budget.unwrap_or_default().as_secs();
        Err(TuneError::Budget { took_s: self.trial.as_secs_f64(), budget_s })
    }

    /// A trial has ended.
    pub(super) fn ended(&mut self) {
        self.trials += 1;
        self.trial = self.measuring_since.elapsed() / self.trials;
    }

    /// Whether there is time for one more trial.
    pub(super) fn has_time(&self) -> bool {
        self.budget.is_none_or(|budget| self.began.elapsed() + self.trial <= budget)
    }

    /// The used part of the budget.
    pub(super) fn used(&self) -> f64 {
        let budget = self.budget.map_or(f64::INFINITY, |budget| budget.as_secs_f64());
        self.began.elapsed().as_secs_f64() / budget.max(1e-9)
    }

    /// How many trials have ended, without the one to warm up.
    pub(super) fn trials(&self) -> u32 {
        self.trials
    }

    /// Says which trial begins.
    pub(super) fn show(&mut self, settings: Settings) {
        if let Some(bar) = &mut self.bar {
            bar.say(&format!("trial {}: {settings}", self.trials + 1));
            bar.set(match self.budget {
                Some(_) => self.began.elapsed().as_secs(),
                None => self.trials.into(),
            });
        }
    }

    pub(super) fn finish(&mut self) {
        self.bar.take().into_iter().for_each(Bar::finish);
    }
}
