//! What many histories come to.

use std::collections::BTreeMap;
use std::fmt;

use super::run::Ran;
use super::world::{Stage, Violation};

/// Sums over histories.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    histories: u64,
    records: u64,
    lives: u64,
    faults: BTreeMap<&'static str, u64>,
    met: BTreeMap<(&'static str, Stage), u64>,
    violations: BTreeMap<Violation, u64>,
}

impl Summary {
    pub(crate) fn add(&mut self, ran: &Ran) {
        self.histories += 1;
        self.records += u64::try_from(ran.world.records.len()).unwrap();
        self.lives += ran.lives;
        sum(&mut self.faults, &ran.faults);
        sum(&mut self.met, &ran.world.met);
        for (violation, _) in &ran.world.violations {
            *self.violations.entry(*violation).or_default() += 1;
        }
    }

    pub(crate) fn merge(&mut self, other: &Summary) {
        self.histories += other.histories;
        self.records += other.records;
        self.lives += other.lives;
        sum(&mut self.faults, &other.faults);
        sum(&mut self.met, &other.met);
        sum(&mut self.violations, &other.violations);
    }

    /// The pairs of a fault and a stage that never met.
    pub(crate) fn uncovered(&self) -> Vec<(&'static str, Stage)> {
        let everywhere = ["error", "lost-answer", "late", "outage"];
        let at_tasks = ["kill", "terminate", "freeze", "panic"];
        let at_writes = ["deadlock", "locked"];
        let writes = [Stage::Update, Stage::Amend];
        let tasks = Stage::TASKS.into_iter();
        let all =
            tasks.clone().chain([Stage::Commit]).flat_map(|stage| everywhere.map(|it| (it, stage)));
        let all = all.chain(tasks.flat_map(|stage| at_tasks.map(|it| (it, stage))));
        let all = all.chain(writes.into_iter().flat_map(|stage| at_writes.map(|it| (it, stage))));
        all.filter(|pair| self.met.get(pair).is_none_or(|count| *count == 0)).collect()
    }

    fn count(&self, violations: &[Violation]) -> u64 {
        violations.iter().filter_map(|it| self.violations.get(it)).sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { histories, records, lives, .. } = self;
        write!(f, "histories={histories} records={records} lives={lives} faults{{")?;
        for (fault, count) in &self.faults {
            write!(f, "{fault}: {count}, ")?;
        }
        let mut replies: BTreeMap<&str, u64> = BTreeMap::new();
        for ((what, _), count) in &self.met {
            if !self.faults.contains_key(what) && *what != "ok" {
                *replies.entry(what).or_default() += count;
            }
        }
        let replies: Vec<String> =
            replies.iter().map(|(what, count)| format!("{what}: {count}")).collect();
        write!(f, "{}}}", replies.join(", "))?;
        write!(
            f,
            " lost={} stale_rows={} double_effects={} missing_dead_letters={} undeleted_keys={} trespasses={} failures={} stuck={} unrepeatable={}",
            self.count(&[Violation::Lost]),
            self.count(&[Violation::StaleRow]),
            self.count(&[Violation::DoubleEffect]),
            self.count(&[Violation::DeadLetter]),
            self.count(&[Violation::StaleCache]),
            self.count(&[Violation::Trespass]),
            self.count(&[Violation::Failure]),
            self.count(&[Violation::Stuck]),
            self.count(&[Violation::Unrepeatable]),
        )
    }
}

fn sum<K: Copy + Ord>(counts: &mut BTreeMap<K, u64>, others: &BTreeMap<K, u64>) {
    for (key, count) in others {
        *counts.entry(*key).or_default() += count;
    }
}
