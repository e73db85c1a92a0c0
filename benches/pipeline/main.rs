//! The throughput of the pipeline beside the raw limits of its servers, measured in the same run.
//!
//! ```text
//! topic of events, table of drafts
//!   -> for each round: consume, delete, parse, dataflow, bare UPDATE, end to end, rival, latency,
//!      replay
//!   -> medians, ratios
//! ```
//!
//! Rates of different runs, let alone of different machines, cannot be compared: the ratio to the
//! bare UPDATE of the same round can. `BENCH_EVENTS` (1,000,000), `BENCH_RUNS` (3) and
//! `REPLAY_EVENTS` (2,000,000, ten a draft) say how much is measured; KAFKA_BROKERS, DATABASE_URL
//! and REDIS_URL where; BENCH_TABLE with which storage parameters of the table, if with any. The
//! numbers also go to `bench.json` in the target directory.
//!
//! `BENCH_ONLY=replay,latency` measures only these of `limits`, `whole`, `latency` and `replay`.
//! Measurements of their own kind are `BENCH_ONLY=poison`, on a database that refuses some of the
//! rows; `flat`, which puts `FLAT_EVENTS` (10,000,000) through one process, `BENCH_EVENTS` at a
//! time; `backlogs`, the most memory that a run takes, whatever it has to catch up with; `tune`, how
//! close `contentflow tune` comes to the best of its grid; `watched`, what it costs to be looked at;
//! and `versus`, this build beside `OTHERS`, paths with commas between.

use std::io::{self, Write};
use std::process::ExitCode;

use contentflow::tune::statistics::median;

mod settings;
mod servers;
mod events;
mod consume;
mod delete;
mod parse;
mod dataflow;
mod bare_update;
mod program;
mod end_to_end;
mod rival;
mod latency;
mod flat;
mod backlogs;
mod replay;
mod tune;
mod watched;
mod versus;
mod process;
mod results;

use events::Events;
use process::Taken;
use results::{Results, ratio};
use servers::Servers;
use settings::Settings;

/// The program's (decision 13), so that the graph is measured as it ships. The limits and the
/// hand-written loop have it, too: a limit that another allocator beats is none.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Cargo says so; whoever runs all targets as tests does not want ten minutes of load.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let measured = Settings::read().and_then(|settings| {
        if settings.asks_for("poison") {
            poisoned(&settings)
        } else if settings.asks_for("flat") {
            on_servers(&settings, measure_flat)
        } else if settings.asks_for("backlogs") {
            on_servers(&settings, |servers, settings| backlogs::measure(servers, settings.events))
        } else if settings.asks_for("tune") {
            tuned(&settings)
        } else if settings.asks_for("versus") {
            on_servers(&settings, versus::measure)?.write(&mut io::stdout().lock())
        } else if settings.asks_for("watched") {
            on_servers(&settings, watched::measure)?.write(&mut io::stdout().lock())
        } else {
            bench(&settings)
        }
    });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn bench(settings: &Settings) -> anyhow::Result<()> {
    let results = on_servers(settings, measure)?;
    results.write(&mut io::stdout().lock())
}

/// Measures on servers that are cleared afterwards, whatever happened.
fn on_servers<T>(
    settings: &Settings,
    measure: impl FnOnce(&mut Servers, &Settings) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut servers = Servers::new(settings)?;
    let measured = measure(&mut servers, settings);
    say("clearing away");
    let cleared = servers.clear();
    let measured = measured?;
    cleared?;
    Ok(measured)
}

/// The whole pipeline where the database refuses some of the rows, beside a clean run: the rates,
/// and their ratio to it.
fn poisoned(settings: &Settings) -> anyhow::Result<()> {
    let measured = on_servers(settings, measure_poisoned)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| refused of 5,000 rows | events/s, median | of a clean run |\n|---:|---:|---:|"
    )?;
    for (of_5000, rates, ratios) in measured {
        let (rate, ratio) = (median(&rates), median(&ratios));
        writeln!(out, "| {of_5000} | {rate:.0} | {ratio:.2} |")?;
    }
    Ok(())
}

/// One process for many events, slice by slice.
fn measure_flat(servers: &mut Servers, settings: &Settings) -> anyhow::Result<()> {
    let Settings { events: slice, flat_events, .. } = *settings;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| events until then | events/s | bare UPDATE, rows/s | of it | CPU, us/event | bare UPDATE, us/row | memory, MiB | table and index, MiB | HOT updates |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )?;
    flat::measure(servers, slice, flat_events.div_ceil(slice), |it| {
        let flat::Slice { events, bare, events_per_s, cpu_us_per_event, rss_mb, table_mb, hot } =
            it;
        let Taken { per_s: bare_per_s, own_us: bare_us, .. } = bare;
        let part = events_per_s / bare_per_s;
        let line = format!(
            "| {events} | {events_per_s:.0} | {bare_per_s:.0} | {part:.2} | {cpu_us_per_event:.2} | {bare_us:.2} | {rss_mb:.0} | {table_mb:.0} | {hot:.3} |"
        );
        // Nobody reads it: no reason to stop.
        drop(writeln!(out, "{line}"));
    })
}

/// What a search finds, beside the best of the whole grid.
fn tuned(settings: &Settings) -> anyhow::Result<()> {
    let found = on_servers(settings, |servers, settings| {
        let events = settings.events;
        servers.publish(events)?;
        servers.refill(events)?;
        tune::measure(servers, settings.rounds)
    })?;
    tune::write(&found, &mut io::stdout().lock())
}

type Rates = (u64, Vec<f64>, Vec<f64>);

fn measure_poisoned(servers: &mut Servers, settings: &Settings) -> anyhow::Result<Vec<Rates>> {
    let Settings { events, rounds, .. } = *settings;
    servers.publish(events)?;
    let mut all: Vec<Rates> =
        [0, 1, 10, 500].map(|of_5000| (of_5000, Vec::new(), Vec::new())).into();
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        let mut clean = None;
        for (of_5000, rates, ratios) in &mut all {
            let rate = end_to_end::measure_poisoned(servers, events, *of_5000)?.events_per_s;
            let clean = *clean.get_or_insert(rate);
            rates.push(rate);
            ratios.push(rate / clean);
        }
    }
    Ok(all)
}

fn measure(servers: &mut Servers, settings: &Settings) -> anyhow::Result<Results> {
    let Settings { events: count, rounds, .. } = *settings;
    servers.publish(count)?;
    let events = Events::generate(count)?;
    if settings.measures("replay") {
        replay::publish(servers, settings.replay_events)?;
    }
    say("warming the servers up");
    // The broker reads what it has never been asked for half as fast.
    let (topic, replay_topic) = (servers.config.kafka.topic.clone(), servers.replay_topic());
    consume::measure(servers, &topic, events.len())?;
    if settings.measures("replay") {
        consume::measure(servers, &replay_topic, settings.replay_events)?;
    }
    if settings.measures("latency") {
        latency::warm_up(servers)?;
    }
    let mut results = Results::new(settings, servers);
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        let consume = consume::measure(servers, &topic, events.len())?;
        results.note("consume_per_s", consume.per_s);
        results.note("consume_us", consume.own_us);
        results.note("consume_machine_us", consume.machine_us);
        if settings.measures("limits") {
            measure_limits(servers, &events, consume, &mut results)?;
        }
        if settings.measures("whole") {
            measure_whole(servers, &events, round, &mut results)?;
        }
        if settings.measures("latency") {
            measure_latency(servers, &mut results)?;
        }
        if settings.measures("replay") {
            measure_replay(servers, settings, consume, &mut results)?;
        }
        note_bounds(consume, &mut results);
    }
    Ok(results)
}

/// What each part can do alone.
fn measure_limits(
    servers: &Servers,
    events: &Events,
    consume: Taken,
    results: &mut Results,
) -> anyhow::Result<()> {
    let (delete, parse) = (delete::measure(servers, events.len())?, parse::measure(events)?);
    results.note("delete_per_s", delete.per_s);
    results.note("delete_us", delete.own_us);
    results.note("delete_machine_us", delete.machine_us);
    results.note("parse_per_s", parse.per_s);
    results.note("parse_us", parse.own_us);
    let [one, two] = scaled(|workers| dataflow::measure(&servers.config, events, workers))?;
    results.note("dataflow_per_s_w1", one.per_s);
    results.note("dataflow_per_s_w2", two.per_s);
    results.note("dataflow_scaling", two.per_s / one.per_s);
    results.note("dataflow_ratio_w2", two.per_s / consume.per_s);
    results.note("dataflow_cpu_us_w1", one.own_us);
    results.note("dataflow_cpu_us_w2", two.own_us);
    let [one, two] = scaled(|workers| dataflow::measure_workers(&servers.config, events, workers))?;
    results.note("workers_per_s_w1", one.per_s);
    results.note("workers_per_s_w2", two.per_s);
    results.note("workers_scaling", two.per_s / one.per_s);
    let apart = |()| dataflow::measure_apart(&servers.config, events);
    let apart: Vec<f64> = [(); 3].into_iter().map(apart).collect::<anyhow::Result<_>>()?;
    results.note("scaling_bound", median(&apart) / one.per_s);
    Ok(())
}

/// With one worker and with two, in turns. The one of three whose rate is in the middle counts: a
/// second is short, and the machine has others to serve.
fn scaled(measure: impl Fn(usize) -> anyhow::Result<Taken>) -> anyhow::Result<[Taken; 2]> {
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        taken[0].push(measure(1)?);
        taken[1].push(measure(2)?);
    }
    Ok(taken.map(|mut of_three| {
        of_three.sort_by(|a, b| a.per_s.total_cmp(&b.per_s));
        of_three[1]
    }))
}

/// The whole, beside the bare UPDATE and the rival. Each round begins with another of them: what a
/// round does to the machine hits all.
fn measure_whole(
    servers: &mut Servers,
    events: &Events,
    round: u64,
    results: &mut Results,
) -> anyhow::Result<()> {
    let (mut bare, mut whole, mut loops) = (None, None, None);
    for turn in 0..3 {
        match (round + turn) % 3 {
            0 => bare = Some(bare_update::measure(servers, events)?),
            1 => whole = Some(end_to_end::measure(servers, events.len(), settings::WORKERS)?),
            _ => loops = Some(rival::measure(servers, events.len())?),
        }
    }
    let (Some(bare), Some(whole), Some(rival)) = (bare, whole, loops) else {
        unreachable!("each had its turn")
    };
    results.note("bare_update_per_s", bare.per_s);
    results.note("bare_update_us", bare.own_us);
    results.note("bare_update_machine_us", bare.machine_us);
    results.note("rival_per_s", rival.per_s);
    results.note("rival_machine_us", rival.machine_us);
    results.note("end_to_end_per_s", whole.events_per_s);
    results.note("end_to_end_machine_us", whole.machine_us_per_event);
    results.note("end_to_end_ratio", whole.events_per_s / bare.per_s);
    results.note("loop_ratio", whole.events_per_s / rival.per_s);
    results.note("rival_cpu_us", rival.own_us);
    results.note("cpu_us_per_event", whole.cpu_us_per_event);
    results.note("cpu_ratio", whole.cpu_us_per_event / rival.own_us);
    results.note("peak_rss_mb", whole.peak_rss_mb);
    let one = end_to_end::measure(servers, events.len(), 1)?;
    results.note("end_to_end_per_s_w1", one.events_per_s);
    Ok(())
}

/// What a program could reach that does what the limits do, for the CPU that each of them takes
/// alone, and nothing else.
fn note_bounds(consume: Taken, results: &mut Results) {
    let of_round = ["parse_us", "delete_machine_us", "bare_update_machine_us"];
    let [Some(parse), Some(delete), Some(update)] = of_round.map(|name| results.last(name)) else {
        return;
    };
    let all = consume.machine_us + parse + delete + update;
    results.note("limits_machine_us", all);
    results.note("end_to_end_bound", update / all);
    let of_client = ["dataflow_cpu_us_w2", "delete_us", "bare_update_us", "rival_cpu_us"];
    if let [Some(graph), Some(delete), Some(update), Some(rival)] =
        of_client.map(|name| results.last(name))
    {
        let parts = consume.own_us + graph + delete + update;
        results.note("parts_us", parts);
        results.note("parts_ratio", parts / rival);
    }
    if let Some(update) = results.last("replay_update_machine_us") {
        let by_draft = (delete + update) / ratio(replay::EVENTS_A_DRAFT, 1);
        let all = consume.machine_us + parse + by_draft;
        results.note("replay_limits_us", all);
        results.note("replay_bound", 1e6 * results.cores() / all / consume.per_s);
    }
}

fn measure_replay(
    servers: &mut Servers,
    settings: &Settings,
    consume: Taken,
    results: &mut Results,
) -> anyhow::Result<()> {
    let topic = servers.replay_topic();
    let alone = consume::measure(servers, &topic, settings.replay_events)?;
    results.note("replay_consume_per_s", alone.per_s);
    let update =
        bare_update::measure_of_replay(servers, settings.replay_events / replay::EVENTS_A_DRAFT)?;
    results.note("replay_update_per_s", update.per_s);
    results.note("replay_update_machine_us", update.machine_us);
    let [first, again] = replay::measure(servers, settings.replay_events)?;
    results.note("replay_per_s", first.events_per_s);
    results.note("replay_machine_us", first.machine_us_per_event);
    results.note("replay_ratio", first.events_per_s / consume.per_s);
    results.note("replay_topic_ratio", first.events_per_s / alone.per_s);
    results.note("replay_again_per_s", again.events_per_s);
    results.note("replay_again_ratio", again.events_per_s / consume.per_s);
    results.note("replay_again_topic_ratio", again.events_per_s / alone.per_s);
    results.note("replay_peak_rss_mb", first.peak_rss_mb.max(again.peak_rss_mb));
    Ok(())
}

fn measure_latency(servers: &mut Servers, results: &mut Results) -> anyhow::Result<()> {
    servers.refill(servers.drafts())?;
    let bare = latency::measure_bare(servers, None)?;
    results.note("bare_p50_ms", bare.p50_ms);
    results.note("bare_p99_ms", bare.p99_ms);
    let bare_at_rate = latency::measure_bare(servers, Some(1_000))?;
    results.note("bare_1000_p50_ms", bare_at_rate.p50_ms);
    results.note("bare_1000_p99_ms", bare_at_rate.p99_ms);
    let slow = latency::measure(servers, 100)?.latency;
    results.note("latency_100_p50_ms", slow.p50_ms);
    results.note("latency_100_p99_ms", slow.p99_ms);
    let usual = latency::measure(servers, 1_000)?.latency;
    results.note("latency_1000_p50_ms", usual.p50_ms);
    results.note("latency_1000_p99_ms", usual.p99_ms);
    results.note("latency_ratio", usual.p99_ms / bare.p99_ms);
    results.note("latency_ratio_at_rate", usual.p99_ms / bare_at_rate.p99_ms);
    let fast = latency::measure(servers, 10_000)?.latency;
    results.note("latency_10000_p50_ms", fast.p50_ms);
    results.note("latency_10000_p99_ms", fast.p99_ms);
    Ok(())
}

/// Progress goes to standard error, results to standard output.
fn say(line: &str) {
    // Nobody reads it: no reason to stop.
    drop(writeln!(io::stderr(), "{line}"));
}
