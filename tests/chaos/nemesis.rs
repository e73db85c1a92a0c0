//! The nemesis: a schedule of faults that follows from the seed, and its execution.
//!
//! Kinds are dealt from a shuffled deck, so that each has its turn before any has its second. A
//! step is one fault, or two or three at once with different victims, which begin and end as their
//! times say; a calm follows.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastrand::Rng;

use crate::faults::{Fault, KINDS, Victim, inject};
use crate::ground::Ground;
use crate::{pause, say};

/// Faults at once, and a calm behind them.
pub(crate) struct Step {
    /// Each with the time at which it begins, from the step's beginning.
    faults: Vec<(Duration, Fault)>,
    calm: Duration,
}

/// How many faults of each kind have fired.
pub(crate) type Fired = BTreeMap<&'static str, u64>;

/// The steps that take about so long, besides the time that it takes to start servers again.
pub(crate) fn schedule(seed: u64, duration: Duration) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let (mut deck, mut steps, mut left) = (Vec::new(), Vec::new(), duration);
    while !left.is_zero() {
        let step = Step {
            faults: faults(&mut rng, &mut deck),
            calm: Duration::from_millis(rng.u64(300..2_500)),
        };
        let ends = step.faults.iter().map(|(begin, fault)| *begin + fault.duration);
        left = left.saturating_sub(ends.max().unwrap_or_default() + step.calm);
        steps.push(step);
    }
    steps
}

fn faults(rng: &mut Rng, deck: &mut Vec<(&'static str, Victim)>) -> Vec<(Duration, Fault)> {
    let (mut victims, mut faults) = (Vec::new(), Vec::new());
    // Half of the steps have one fault.
    for _ in 0..[1, 1, 2, 3][rng.usize(..4)] {
        if deck.is_empty() {
            deck.extend(KINDS);
            rng.shuffle(deck);
        }
        let Some(next) = deck.iter().position(|(_, victim)| !victims.contains(victim)) else {
            break;
        };
        let (kind, victim) = deck.swap_remove(next);
        victims.push(victim);
        // Long enough now and then that the group gives a frozen instance up.
        let longest = if kind == "freeze-instance" { 12_000 } else { 4_000 };
        let duration = Duration::from_millis(rng.u64(500..longest));
        let begin = Duration::from_millis(rng.u64(0..1_000));
        faults.push((begin, Fault { kind, instance: rng.usize(..2), duration }));
    }
    faults
}

/// Carries the schedule out. An error names the faults that did not show.
pub(crate) fn carry_out(steps: &[Step], ground: &Ground) -> Result<Fired> {
    let mut fired = Fired::new();
    for (number, step) in (1..).zip(steps) {
        let began = Instant::now();
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = step
                .faults
                .iter()
                .map(|(begin, fault)| {
                    scope.spawn(move || {
                        pause(*begin)?;
                        let heal = inject(*fault, ground)?;
                        pause(fault.duration)?;
                        heal()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a fault does not panic"))
                .collect()
        });
        for (result, (_, fault)) in results.into_iter().zip(&step.faults) {
            result.with_context(|| format!("{} did not fire or heal", fault.kind))?;
            *fired.entry(fault.kind).or_default() += 1;
        }
        say(&format!("  {number:>2}: {step} in {:.1} s", began.elapsed().as_secs_f64()));
        pause(step.calm)?;
    }
    Ok(fired)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = self.faults.iter().map(|(begin, Fault { kind, instance, duration })| {
            let instance = ["a", "b"][*instance];
            format!("{kind}({instance}, {}+{} ms)", begin.as_millis(), duration.as_millis())
        });
        f.write_str(&faults.collect::<Vec<_>>().join(" and "))
    }
}
