//! The program under every fault that can be simulated: its real graph, lanes, poll loop and
//! rebalance protocol on simulated servers, one thread, virtual time, every choice from a seed.
//!
//! 1. The seeds that have ever failed, in `regressions.txt`.
//! 2. Small histories, all of them.
//! 3. `SIM_HISTORIES` drawn histories (20,000): half of them always the same, half from `SIM_SEED`
//!    (a new one each time) on.
//! 4. The planted bugs: each must be found, or the checks are worth nothing.
//!
//! `SIM_ONLY=seed` plays one history and prints it; `SIM_BUG=name` with it plants a bug.

#![allow(clippy::unwrap_used, reason = "a panic with its line is the right answer to a surprise")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output is what it is for")]

mod history;
mod world;
mod log;
mod servers;
mod readers;
mod life;
mod run;
mod check;
mod exhaustive;
mod shrink;
mod summary;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dataflows::planted::{Bug, plant};
use tokio::runtime::Runtime;

use history::History;
use run::{Ran, Schedule, run, runtime};
use summary::Summary;
use world::Fate;

/// Within how many seeds each planted bug must be found.
const SEEDS_TO_FIND: u64 = 2_000;

/// How many histories are played twice, to see that they go the same way.
const PLAYED_TWICE: u64 = 100;

fn main() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().map(|it| it.parse::<u64>().unwrap());
    if let Some(seed) = number("SIM_ONLY") {
        return only(seed);
    }
    let histories = number("SIM_HISTORIES").unwrap_or(20_000);
    let base = number("SIM_SEED").unwrap_or_else(|| u64::from(fastrand::u32(..)) << 20);
    let since = Instant::now();

    let mut failures = 0;
    for seed in include_str!("regressions.txt").lines().filter(|line| !line.starts_with('#')) {
        let seed = seed.split_whitespace().next().unwrap().parse().unwrap();
        failures += report(seed, &draw(&runtime(), &History::of(seed)));
    }
    for seed in base..base + PLAYED_TWICE {
        let [first, second] = [(); 2].map(|()| trace(&draw(&runtime(), &History::of(seed))));
        assert_eq!(first, second, "seed {seed} went two ways");
    }

    let exhausted = everything_small(&mut failures);
    println!("simulation, all small histories: {exhausted}");

    let (fixed, fresh) = (1..1 + histories / 2, base..base + histories - histories / 2);
    let seeds: Vec<u64> = fixed.chain(fresh).collect();
    let drawn = all_drawn(&seeds, &mut failures);
    let (uncovered, seconds) = (drawn.uncovered(), since.elapsed().as_secs());
    println!(
        "simulation, drawn: {drawn} uncovered_pairs={} seed_base={base} seconds={seconds}",
        uncovered.len()
    );
    if !uncovered.is_empty() && histories >= 2_000 {
        println!("simulation: never met: {uncovered:?}");
        failures += 1;
    }

    failures += planted();
    println!("simulation: {:.0} s in all", since.elapsed().as_secs_f64());
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn draw(runtime: &Runtime, history: &History) -> Ran {
    run(runtime, history, Fate::Drawn(history.chances), Schedule::Drawn)
}

/// What tells two runs of one history apart.
fn trace(ran: &Ran) -> String {
    let world = &ran.world;
    format!("{} {} {:?} {:?} {:?}", ran.turns, ran.lives, world.met, world.rows, world.letters)
}

/// Plays one history, prints what it was and, if it fails, the smallest that fails alike.
fn only(seed: u64) -> ExitCode {
    let bug = std::env::var("SIM_BUG").ok();
    let bug = bug.map(|name| Bug::ALL.into_iter().find(|it| format!("{it:?}") == name).unwrap());
    plant(bug);
    let history = History::of(seed);
    println!("{history}");
    match report(seed, &draw(&runtime(), &history)) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Says what went wrong, and how to see it again. Returns how many histories failed: none or one.
fn report(seed: u64, ran: &Ran) -> u64 {
    let Some((violation, what)) = ran.world.violations.first() else { return 0 };
    let fails = |history: &History| {
        let violations = draw(&runtime(), history).world.violations;
        violations.first().is_some_and(|(other, _)| other == violation)
    };
    let smallest = shrink::shrink(&History::of(seed), fails);
    let again = draw(&runtime(), &smallest).world.violations;
    println!("simulation: seed {seed}: {violation:?}: {what}");
    println!("smallest history that fails alike: {:?}\n{smallest}", again.first());
    println!(
        "REPRO: SIM_ONLY={seed} cargo test --test simulation; add the seed to tests/simulation/regressions.txt"
    );
    1
}

/// Runs `work` on numbers below `count`, on all cores.
fn on_all_cores(
    count: usize,
    work: impl Fn(&Runtime, usize, &mut Summary) -> u64 + Sync,
) -> (Summary, u64) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let worker = || {
        let (runtime, mut summary, mut failures) = (runtime(), Summary::default(), 0);
        loop {
            let index = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
            // Some failures are enough to look at.
            if index >= count || failures >= 3 {
                return (summary, failures);
            }
            failures += work(&runtime, index, &mut summary);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        let mut all = (Summary::default(), 0);
        for worker in workers {
            let (summary, failures) = worker.join().unwrap();
            all.0.merge(&summary);
            all.1 += failures;
        }
        all
    })
}

fn all_drawn(seeds: &[u64], failures: &mut u64) -> Summary {
    let (summary, failed) = on_all_cores(seeds.len(), |runtime, index, summary| {
        let ran = draw(runtime, &History::of(seeds[index]));
        summary.add(&ran);
        report(seeds[index], &ran)
    });
    *failures += failed;
    summary
}

fn everything_small(failures: &mut u64) -> Summary {
    let mixes = exhaustive::mixes(3);
    let (summary, failed) = on_all_cores(mixes.len(), |runtime, index, summary| {
        let (history, mut failed) = (&mixes[index], 0);
        exhaustive::play(runtime, history, |fate, schedule, ran| {
            summary.add(&ran);
            if let Some(violation) = ran.world.violations.first() {
                failed = 1;
                println!("simulation: {violation:?} with {fate:?}, {schedule:?} of\n{history}");
            }
        });
        failed
    });
    *failures += failed;
    summary
}

/// Looks for each planted bug, and says in which history it was found. Returns how many were not.
/// Always in the same histories: whether the checks are good must not depend on luck.
fn planted() -> u64 {
    let hook = std::panic::take_hook();
    // A bug may well end in a panic.
    std::panic::set_hook(Box::new(|_| ()));
    let found: Vec<(Bug, Option<u64>)> = Bug::ALL.into_iter().map(|bug| (bug, find(bug))).collect();
    std::panic::set_hook(hook);
    let say = |(bug, found): &(Bug, Option<u64>)| match found {
        Some(histories) => format!("{bug:?} {histories}"),
        None => format!("{bug:?} NOT FOUND in {SEEDS_TO_FIND}"),
    };
    let said: Vec<String> = found.iter().map(say).collect();
    println!("simulation, planted bugs, each found after so many histories: {}", said.join(", "));
    u64::try_from(found.iter().filter(|(_, found)| found.is_none()).count()).unwrap()
}

fn find(bug: Bug) -> Option<u64> {
    plant(Some(bug));
    let runtime = runtime();
    let is_found = |histories: &u64| {
        let history = History::of(1 + histories);
        let ran = catch_unwind(AssertUnwindSafe(|| draw(&runtime, &history)));
        ran.map_or(true, |ran| !ran.world.violations.is_empty())
    };
    let found = (0..SEEDS_TO_FIND).find(is_found).map(|index| index + 1);
    plant(None);
    found
}
