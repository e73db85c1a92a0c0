//! The program under every fault that can be simulated: its real graph, lanes, poll loop and rebalance protocol on simulated
//! servers, one thread, virtual time, every choice from a seed.
//!
//! `SIM_HISTORIES` sets how many histories are drawn, `SIM_SEED` the first seed; `SIM_ONLY=seed` plays one and prints it.

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

use history::History;
use run::{Schedule, run, runtime};
use world::Fate;

fn main() {
    let runtime = runtime();
    let first: u64 = std::env::var("SIM_SEED").map_or(1, |it| it.parse().unwrap());
    let count: u64 = std::env::var("SIM_HISTORIES").map_or(1000, |it| it.parse().unwrap());
    let (mut bad, mut turns, mut lives) = (0, 0, 0);
    let since = std::time::Instant::now();
    for seed in first..first + count {
        let history = History::of(seed);
        let ran = run(&runtime, &history, Fate::Drawn(history.chances), Schedule::Drawn);
        turns += u64::from(ran.turns);
        lives += ran.lives;
        if !ran.world.violations.is_empty() {
            bad += 1;
            if bad < 6 {
                println!("seed {seed}: turn {} {:?}", ran.turns, ran.world.violations.first());
            }
            if count == 1 {
                println!("{history}");
            }
        }
    }
    println!("{count} histories, {bad} bad, {turns} turns, {lives} lives, {:?}", since.elapsed());
}
