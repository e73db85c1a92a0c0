//! Which settings to measure next, and which to recommend. Pure: rates go in, settings come out,
//! chance comes from a seed.
//!
//! First it *explores*: it measures what is configured, then goes along one axis after the other,
//! always from the best point so far, until no axis leads any further; then it draws points around
//! the best and goes on from one that is better, for as long as there is budget for that. Then come
//! the *finals*: the best few, and what is configured, again and again in a drawn order, until
//! their medians are certain. What the exploration measured does not count there: a point got into
//! the finals by its luck, too.

use std::collections::BTreeMap;

use super::settings::{Grid, Settings};
use super::statistics::{median, uncertainty};

/// The part of the budget that goes into exploring.
const EXPLORED_SHARE: f64 = 0.6;

/// How many of the explored points come into the finals, besides what is configured.
const FINALISTS: usize = 4;

/// A finalist is measured at least so often.
pub const ROUNDS_MIN: usize = 3;

/// ... and at most so often: what is not certain by then will not be.
const ROUNDS_MAX: usize = 30;

/// How certain the medians of the best few must be: two that are, tell 5 % apart.
pub const CERTAIN: f64 = 0.025;

/// What is that close to the best counts among the best few.
const CLOSE: f64 = 0.05;

/// What is slower than the best by less than this is as fast, however certain both are: nobody
/// would notice.
const SAME: f64 = 0.01;

/// What is slower than the best by more than this is not recommended, neither because it is
/// configured nor for its simplicity, however uncertain both are: half of what the recommendation
/// may be away from the best, the other half is for what the measurement is wrong by.
const FORGIVEN: f64 = 0.025;

/// The state of a search.
#[derive(Debug)]
pub struct Search {
    grid: Grid,
    present: Settings,
    rng: fastrand::Rng,
    explored: BTreeMap<Settings, f64>,
    finals: BTreeMap<Settings, Vec<f64>>,
    /// To be measured next, the last one first.
    queue: Vec<Settings>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// From the best point of a climb along its axes, of which so many in a row have led no
    /// further.
    Exploring { at: Settings, axis: usize, in_vain: usize },
    /// Rounds of the finals that have begun.
    Finals { rounds: usize },
}

/// What to set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The fastest settings.
    pub best: Settings,
    /// The simplest that are as fast, as far as can be told: to be recommended.
    pub chosen: Settings,
    /// Whether the medians of the best few are certain.
    pub is_certain: bool,
    /// How uncertain they are at most; infinite where something was measured only once.
    pub uncertainty: f64,
}

impl Search {
    /// A search that has measured nothing. An exhaustive one has the whole grid in its finals.
    pub fn new(grid: Grid, present: Settings, exhaustive: bool, seed: u64) -> Search {
        let stage = if exhaustive {
            Stage::Finals { rounds: 0 }
        } else {
            Stage::Exploring { at: grid.nearest(present), axis: 0, in_vain: 0 }
        };
        let mut search = Search {
            grid,
            present,
            rng: fastrand::Rng::with_seed(seed),
            explored: BTreeMap::new(),
            finals: BTreeMap::new(),
            queue: Vec::new(),
            stage,
        };
        if exhaustive {
            search.enter(search.grid.points());
        } else {
            search.queue.push(present);
        }
        search
    }

    /// What to measure next, when that part of the budget is used up; `None` when nothing more is
    /// to be learned.
    pub fn next(&mut self, used: f64) -> Option<Settings> {
        loop {
            if let Some(settings) = self.queue.pop() {
                return Some(settings);
            }
            match self.stage {
                Stage::Exploring { .. } if used >= EXPLORED_SHARE => self.begin_finals(used),
                Stage::Exploring { at, axis, in_vain } => self.explore(at, axis, in_vain, used),
                Stage::Finals { rounds } => {
                    if rounds >= ROUNDS_MAX || (rounds >= ROUNDS_MIN && self.is_certain()) {
                        return None;
                    }
                    self.stage = Stage::Finals { rounds: rounds + 1 };
                    self.queue = self.contenders(rounds);
                    self.rng.shuffle(&mut self.queue);
                }
            }
        }
    }

    /// Takes in what was measured.
    pub fn note(&mut self, settings: Settings, rate: f64) {
        match self.stage {
            Stage::Exploring { .. } => drop(self.explored.insert(settings, rate)),
            Stage::Finals { .. } => self.finals.entry(settings).or_default().push(rate),
        }
    }

    /// One step of a climb: the rest of the line along an axis, or what follows from the lines that
    /// are measured.
    fn explore(&mut self, at: Settings, axis: usize, in_vain: usize, used: f64) {
        let open = self.grid.open();
        if in_vain >= open.len() {
            let best = open.first().and_then(|_| self.best_explored()).unwrap_or(at);
            if best == at {
                return self.look_around(used);
            }
            self.stage = Stage::Exploring { at: best, axis: 0, in_vain: 0 };
            return;
        }
        let along = open[axis % open.len()];
        let line: Vec<Settings> =
            self.grid.along(along).iter().map(|value| at.with(along, *value)).collect();
        let unknown = |point: &&Settings| !self.explored.contains_key(point);
        self.queue = line.iter().filter(unknown).copied().collect();
        if !self.queue.is_empty() {
            self.rng.shuffle(&mut self.queue);
            return;
        }
        let best = line.into_iter().max_by(|a, b| self.explored[a].total_cmp(&self.explored[b]));
        let best = best.unwrap_or(at);
        let in_vain = if best == at { in_vain + 1 } else { 1 };
        self.stage = Stage::Exploring { at: best, axis: axis + 1, in_vain };
    }

    /// Where no axis leads any further, a point off the axes is looked at: one beside the best as
    /// long as there are any, since axes depend on each other mostly by twos, then any. The next
    /// climb begins at what is the best then.
    fn look_around(&mut self, used: f64) {
        let unknown = |point: &Settings| !self.explored.contains_key(point);
        let mut candidates = self.grid.points();
        candidates.retain(unknown);
        let best = self.best_explored().unwrap_or(self.present);
        let beside: Vec<Settings> =
            candidates.iter().filter(|it| self.grid.is_beside(**it, best)).copied().collect();
        let candidates = if beside.is_empty() { candidates } else { beside };
        match self.rng.choice(candidates) {
            Some(point) => self.queue.push(point),
            None => self.begin_finals(used),
        }
    }

    /// The best point of the grid so far.
    fn best_explored(&self) -> Option<Settings> {
        let of_grid =
            self.explored.iter().filter(|(point, _)| self.grid.nearest(**point) == **point);
        of_grid.max_by(|a, b| a.1.total_cmp(b.1)).map(|(point, _)| *point)
    }

    /// Lets the best into the finals: as many as can be measured several times with what is left of
    /// the budget, besides what is configured.
    fn begin_finals(&mut self, used: f64) {
        let mut ranked: Vec<Settings> = self.explored.keys().copied().collect();
        ranked.sort_by(|a, b| self.explored[b].total_cmp(&self.explored[a]));
        ranked.truncate(finalists(self.explored.len(), used));
        self.enter(ranked);
        self.stage = Stage::Finals { rounds: 0 };
    }

    /// Who is in the next round: all at first, then those that may still turn out to be the best,
    /// and what is configured.
    fn contenders(&self, rounds: usize) -> Vec<Settings> {
        let rates = || self.finals.iter().map(|(settings, rates)| (settings, median(rates)));
        let best = rates().map(|(_, rate)| rate).fold(0.0, f64::max);
        let stays = |(settings, rate): &(&Settings, f64)| {
            rounds < ROUNDS_MIN || *rate >= (1.0 - CLOSE) * best || **settings == self.present
        };
        rates().filter(stays).map(|(settings, _)| *settings).collect()
    }

    fn enter(&mut self, finalists: Vec<Settings>) {
        let all = finalists.into_iter().chain([self.present]);
        self.finals = all.map(|settings| (settings, Vec::new())).collect();
    }

    /// What was measured of each settings that count: in the finals if there were any, else while
    /// exploring.
    pub fn rates(&self) -> BTreeMap<Settings, Vec<f64>> {
        let explored = self.explored.iter().map(|(settings, rate)| (*settings, vec![*rate]));
        let mut rates: BTreeMap<Settings, Vec<f64>> = explored.collect();
        for (settings, measured) in self.finals.iter().filter(|(_, rates)| !rates.is_empty()) {
            rates.insert(*settings, measured.clone());
        }
        rates
    }

    /// How much faster the best few were in the finals than when they were explored, as a part of
    /// that: not at all, if the machine is as fast as ever. What was only explored cannot be
    /// compared with them otherwise.
    pub fn drift(&self) -> Option<f64> {
        let again = |(settings, rates): (&Settings, &Vec<f64>)| {
            let first = self.explored.get(settings)?;
            (!rates.is_empty()).then(|| median(rates) / first - 1.0)
        };
        let drifts: Vec<f64> = self.finals.iter().filter_map(again).collect();
        (!drifts.is_empty()).then(|| median(&drifts))
    }

    /// Points of the grid that were not measured.
    pub fn unmeasured(&self) -> usize {
        let rates = self.rates();
        self.grid.points().iter().filter(|point| !rates.contains_key(point)).count()
    }

    fn is_certain(&self) -> bool {
        self.choice().is_some_and(|choice| choice.is_certain)
    }

    /// What to recommend after what was measured so far.
    pub fn choice(&self) -> Option<Choice> {
        // Finals that have just begun say too little.
        let has_finals = !self.finals.is_empty() && self.finals.values().all(|it| !it.is_empty());
        let field = if has_finals { self.finals.clone() } else { self.rates() };
        let rate = |settings: &Settings| median(&field[settings]);
        let best = *field.keys().max_by(|a, b| rate(a).total_cmp(&rate(b)))?;
        let unsure = |settings: &Settings| uncertainty(&field[settings]);
        let close = field.keys().filter(|it| rate(it) >= (1.0 - CLOSE) * rate(&best));
        let uncertain = close.map(unsure).fold(0.0, f64::max);
        let is_as_fast = |settings: &&Settings| {
            let forgiven = (unsure(settings) + unsure(&best)).clamp(SAME, FORGIVEN);
            **settings == best || rate(settings) >= (1.0 - forgiven) * rate(&best)
        };
        let as_fast = field.keys().filter(is_as_fast);
        // What is configured is the simplest of all: nothing has to be changed.
        let chosen = as_fast.min_by_key(|it| (**it != self.present, it.effort()));
        Some(Choice {
            best,
            chosen: chosen.copied().unwrap_or(best),
            is_certain: uncertain <= CERTAIN,
            uncertainty: uncertain,
        })
    }
}

/// How many may come into the finals when so many trials have used that part of the budget.
fn finalists(trials: usize, used: f64) -> usize {
    let fits = |finalists: &usize| {
        let [measured, wanted] = [trials, ROUNDS_MIN * (finalists + 1)]
            .map(|trials| u32::try_from(trials).map_or(f64::INFINITY, f64::from));
        wanted * used <= measured * (1.0 - used)
    };
    (2..=FINALISTS).rev().find(fits).unwrap_or(1)
}

#[cfg(test)]
mod tests;
