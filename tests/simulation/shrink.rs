//! Makes a history that fails smaller, as long as it goes on failing.

use super::history::{Chances, History};

/// The smallest history that `fails`, found by leaving things out one after the other.
pub(crate) fn shrink(history: &History, mut fails: impl FnMut(&History) -> bool) -> History {
    let mut smallest = history.clone();
    loop {
        let next = smaller(&smallest).into_iter().find(|history| fails(history));
        match next {
            Some(history) => smallest = history,
            None => return smallest,
        }
    }
}

/// Histories that are a little smaller.
fn smaller(history: &History) -> Vec<History> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut History)| {
        let mut smaller = history.clone();
        change(&mut smaller);
        all.push(smaller);
    };
    for instances in 1..history.instances {
        with(&|it| {
            it.instances = instances;
            it.faults.retain(|(_, fault)| fault.instance().is_none_or(|hit| hit < instances));
        });
    }
    let Chances { before, after, late, contention } = history.chances;
    if before > 0 {
        with(&|it| it.chances.before = 0);
    }
    if after > 0 {
        with(&|it| it.chances.after = 0);
    }
    if late > 0 {
        with(&|it| it.chances.late = 0);
    }
    if contention > 0 {
        with(&|it| it.chances.contention = 0);
    }
    // Large pieces first.
    for size in [16, 4, 1] {
        for from in (0..history.faults.len()).step_by(size) {
            with(&|it| _ = it.faults.drain(from..it.faults.len().min(from + size)));
        }
        for from in (0..history.records.len()).step_by(size) {
            with(&|it| _ = it.records.drain(from..it.records.len().min(from + size)));
        }
    }
    if history.sealed.is_some() {
        with(&|it| it.sealed = None);
    }
    if history.is_replayed {
        with(&|it| it.is_replayed = false);
    }
    all
}
