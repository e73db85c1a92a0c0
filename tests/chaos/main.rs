//! Two instances of the program under load, while their processes, their servers and the wires
//! between them are killed, frozen, cut, made read-only and full. Then everything is healed, and
//! what is left behind is held against a fold over the topic; the whole topic is replayed, and
//! looked at again.
//!
//! ```text
//! load + readers -> faults -> heal -> drain -> check -> replay everything -> check
//! ```
//!
//! `make chaos` with `DURATION=` seconds of faults (60) and `SEED=` (random, printed). The schedule
//! follows from the seed, the interleaving does not. Part of `make test` in its short form.
//! `make freeze` is the other mode: each server is frozen for a minute, see [`freeze`].

#![allow(clippy::unwrap_used, reason = "a poisoned lock has had its panic already")]
#![allow(clippy::print_stdout, reason = "what was done is shown line by line")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

mod servers;
mod link;
mod instances;
mod ground;
mod load;
mod faults;
mod nemesis;
mod offsets;
#[path = "../oracle.rs"]
mod oracle;
mod checker;
mod freeze;

use checker::{Expected, Findings, dead_letter_places, versions};
use ground::Ground;
use instances::{Instance, Record};
use load::{Load, Readers};
use offsets::{Offsets, Watch};
use servers::PATIENCE;

/// Events a second: what a debug build gets through beside everything else on a small machine.
const RATE: u64 = 400;

/// The most memory that an instance may take: its limits allow some epochs of 16 MiB, and what the
/// Kafka client reads ahead.
pub(crate) const RSS_MAX_KB: u64 = 400_000;

/// Set by a signal.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From the last fault on.
const CONVERGED: Duration = Duration::from_secs(60);

/// Of an instance that dies; the shortest that brokers allow.
const SESSION: [(&str, &str); 2] = [
    ("KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", "6000"),
    ("KAFKA__PROPERTIES__HEARTBEAT_INTERVAL_MS", "500"),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    if filters.peek().is_some() && !filters.any(|filter| "chaos".contains(filter)) {
        say("chaos: left out, the filter means other tests");
        return ExitCode::SUCCESS;
    }
    let mode =
        if std::env::var("CHAOS_MODE").as_deref() == Ok("freeze") { freeze::run } else { chaos };
    match mode(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// A number from the environment.
pub(crate) fn number(name: &str, default: u64) -> Result<u64> {
    let text = std::env::var(name).unwrap_or_default();
    if text.is_empty() {
        Ok(default)
    } else {
        text.parse().with_context(|| format!("{name} is no number"))
    }
}

fn chaos(directory: &Path) -> Result<()> {
    let seed = number("SEED", fastrand::u64(..1_000_000))?;
    let duration = number("DURATION", 60)?;
    say(&format!("chaos: SEED={seed} DURATION={duration}, the schedule:"));
    let steps = nemesis::schedule(seed, Duration::from_secs(duration));
    for (number, step) in (1..).zip(&steps) {
        say(&format!("  {number:>2}: {step}"));
    }
    let ground = Ground::make(directory, &SESSION)?;
    let summary = ground.tended(|| {
        ground.start_instances()?;
        say("carried out:");
        let watch = Watch::start(&ground.config.kafka)?;
        let load = Load::start(&ground.config, seed, RATE)?;
        let readers = Readers::start(&ground.runtime, &ground.config, seed, &load.hot())?;
        let fired = nemesis::carry_out(&steps, &ground);
        // Healed: every fault has ended by itself.
        let published = load.stop()?;
        let fired = fired?;
        let offsets = Offsets::new(&ground.config.kafka)?;
        let converged = converge(&offsets)?;
        let reads = readers.stop(&ground.runtime);
        let back = watch.stop();
        ensure!(back.is_empty(), "committed offsets went back: {back:?}");

        let expected = Expected::of(&ground, &published)?;
        let found = expected.check(&ground, &offsets)?;
        say(&format!("after the faults: {found:?}, {reads:?}"));
        let replayed = replay(&ground, &offsets)?;
        let again = expected.check(&ground, &offsets)?;
        say(&format!("after the replay: {again:?}"));
        let record = record(&ground)?;
        let summary = format!(
            "chaos: seed={seed} duration={duration} records={} faults{{{}}} {} converged_s={:.1} \
             replayed{{rows_changed: {replayed}, {}}} lives={} rss_max_mb={}",
            expected.records,
            fired
                .iter()
                .map(|(kind, count)| format!("{kind}: {count}"))
                .collect::<Vec<_>>()
                .join(", "),
            line(&found),
            converged.as_secs_f64(),
            line(&again),
            record.lives,
            record.peak_rss_kb / 1024,
        );
        say(&summary);
        ensure!(found.keys > 0, "no draft is cached: nothing is known about the cache");
        ensure!(
            found.is_clean() && again.is_clean() && replayed == 0,
            "it does not end as it must"
        );
        ensure!(converged <= CONVERGED, "converged only after {converged:?}");
        ensure!(record.peak_rss_kb <= RSS_MAX_KB, "{} kB of memory", record.peak_rss_kb);
        Ok(())
    });
    summary.with_context(|| format!("SEED={seed}; logs in {}", directory.display()))
}

fn line(findings: &Findings) -> String {
    let Findings { lost, wrong_rows, missing_dead_letters, stale_keys, lag, went_back, .. } =
        findings;
    let wrong_dead_letters = findings.wrong_dead_letters;
    format!(
        "lost={lost} wrong_rows={wrong_rows} missing_dead_letters={missing_dead_letters} \
         wrong_dead_letters={wrong_dead_letters} stale_keys={stale_keys} went_back={went_back} lag={lag}"
    )
}

/// Waits until all is committed, and tells how long that took.
pub(crate) fn converge(offsets: &Offsets) -> Result<Duration> {
    let since = Instant::now();
    while since.elapsed() < 5 * CONVERGED {
        if offsets.lag().is_ok_and(|lag| lag == 0) {
            return Ok(since.elapsed());
        }
        pause(Duration::from_millis(50))?;
    }
    anyhow::bail!("lag {:?} after {:?}", offsets.lag(), since.elapsed())
}

/// Reads the whole topic once more. The result is how many rows that has changed: none, if all is
/// well.
fn replay(ground: &Ground, offsets: &Offsets) -> Result<usize> {
    ground.instances.iter().try_for_each(Instance::stop)?;
    let (rows, letters) = (versions(ground)?, dead_letter_places(ground)?);
    offsets.reset()?;
    ensure!(offsets.lag()? > 0, "there is nothing to replay");
    ground.start_instances()?;
    converge(offsets)?;
    ground.instances.iter().try_for_each(Instance::stop)?;
    ensure!(dead_letter_places(ground)? == letters, "the replay has made other dead letters");
    Ok(versions(ground)?.difference(&rows).count())
}

/// What was seen of all instances.
pub(crate) fn record(ground: &Ground) -> Result<Record> {
    let mut all = Record::default();
    for record in ground.all_instances().map(Instance::record) {
        let Record { lives, failed_starts, undrained, peak_rss_kb, faults } = record;
        all.lives += lives;
        all.failed_starts += failed_starts;
        all.undrained += undrained;
        all.peak_rss_kb = all.peak_rss_kb.max(peak_rss_kb);
        all.faults.extend(faults);
    }
    say(&format!("instances: {all:?}"));
    ensure!(all.faults.is_empty(), "instances ended as they must not: {:?}", all.faults);
    Ok(all)
}

/// Waits for what must come, and fails when it does not.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let since = Instant::now();
    while !condition() {
        ensure!(since.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        pause(Duration::from_millis(20))?;
    }
    Ok(())
}

/// Waits, but not when the run is interrupted.
pub(crate) fn pause(duration: Duration) -> Result<()> {
    let since = Instant::now();
    while let Some(left) = duration.checked_sub(since.elapsed()) {
        ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
    Ok(())
}

/// Has SIGINT and SIGTERM end the run as an error does: what is frozen goes on, and nothing is left
/// behind.
pub(crate) fn end_on_signals(runtime: &Runtime) {
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        runtime.spawn(async move {
            let mut signals = signal(kind).expect("signals can be handled");
            signals.recv().await;
            INTERRUPTED.store(true, Ordering::Relaxed);
        });
    }
}

pub(crate) fn say(line: &str) {
    println!("{line}");
}
