//! The numbers: collected by round, shown as a table, written as JSON.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use contentflow::tune::statistics::median;
use serde_json::{Map, Value, json};

use super::events::BATCH_ROWS;
use super::say;
use super::servers::Servers;
use super::settings::{Settings, WORKERS};

/// A number that is measured in every round.
struct Metric {
    name: &'static str,
    /// For people.
    about: &'static str,
    unit: &'static str,
    better: Better,
    digits: usize,
}

#[derive(Clone, Copy)]
enum Better {
    More,
    Less,
}

const fn rate(name: &'static str, about: &'static str, unit: &'static str) -> Metric {
    Metric { name, about, unit, better: Better::More, digits: 0 }
}

const fn share(name: &'static str, about: &'static str) -> Metric {
    Metric { digits: 2, ..rate(name, about, "") }
}

const fn cost(
    name: &'static str,
    about: &'static str,
    unit: &'static str,
    digits: usize,
) -> Metric {
    Metric { name, about, unit, better: Better::Less, digits }
}

/// In the order of the table.
const METRICS: [Metric; 61] = [
    rate("consume_per_s", "Kafka client alone", "records/s"),
    rate("delete_per_s", "DELs alone, lease and key", "drafts/s"),
    rate("parse_per_s", "JSON parser alone, 1 thread", "events/s"),
    rate("dataflow_per_s_w1", "dataflow alone, 1 worker", "events/s"),
    rate("dataflow_per_s_w2", "dataflow alone, 2 workers", "events/s"),
    share("dataflow_scaling", "2 workers / 1 worker"),
    share("dataflow_ratio_w2", "2 workers / Kafka client"),
    rate("workers_per_s_w1", "dataflow fed from memory, 1 worker", "events/s"),
    rate("workers_per_s_w2", "dataflow fed from memory, 2 workers", "events/s"),
    share("workers_scaling", "2 workers / 1 worker, fed from memory"),
    share("scaling_bound", "2 graphs apart / 1 worker"),
    rate("bare_update_per_s", "bare UPDATE alone", "rows/s"),
    rate("rival_per_s", "hand-written loop", "events/s"),
    rate("end_to_end_per_s_w1", "end to end, 1 worker", "events/s"),
    rate("end_to_end_per_s", "end to end", "events/s"),
    share("end_to_end_ratio", "end to end / bare UPDATE"),
    share("loop_ratio", "end to end / hand-written loop"),
    cost("dataflow_cpu_us_w1", "CPU, dataflow alone, 1 worker", "us/event", 2),
    cost("dataflow_cpu_us_w2", "CPU, dataflow alone, 2 workers", "us/event", 2),
    cost("rival_cpu_us", "CPU, hand-written loop", "us/event", 2),
    cost("cpu_us_per_event", "CPU, end to end", "us/event", 2),
    cost("cpu_ratio", "CPU, end to end / loop", "", 2),
    cost("consume_us", "CPU, Kafka client alone", "us/record", 2),
    cost("delete_us", "CPU, client of the DELs alone", "us/draft", 2),
    cost("bare_update_us", "CPU, client of the bare UPDATE", "us/row", 2),
    cost("parts_us", "CPU, these and the dataflow", "us/event", 2),
    cost("parts_ratio", "CPU, these and the dataflow / loop", "", 2),
    cost("consume_machine_us", "machine, Kafka client alone", "us/record", 2),
    cost("parse_us", "machine, JSON parser alone", "us/event", 2),
    cost("delete_machine_us", "machine, DELs alone", "us/draft", 2),
    cost("bare_update_machine_us", "machine, bare UPDATE alone", "us/row", 2),
    cost("limits_machine_us", "machine, these four together", "us/event", 2),
    cost("rival_machine_us", "machine, hand-written loop", "us/event", 2),
    cost("end_to_end_machine_us", "machine, end to end", "us/event", 2),
    share("end_to_end_bound", "bare UPDATE / these four"),
    cost("peak_rss_mb", "memory at its peak, end to end", "MiB", 0),
    cost("bare_p50_ms", "one by one, by hand: p50", "ms", 2),
    cost("bare_p99_ms", "one by one, by hand: p99", "ms", 2),
    cost("bare_1000_p50_ms", "1,000 events/s, by hand: p50", "ms", 2),
    cost("bare_1000_p99_ms", "1,000 events/s, by hand: p99", "ms", 2),
    cost("latency_100_p50_ms", "100 events/s: p50", "ms", 2),
    cost("latency_100_p99_ms", "100 events/s: p99", "ms", 2),
    cost("latency_1000_p50_ms", "1,000 events/s: p50", "ms", 2),
    cost("latency_1000_p99_ms", "1,000 events/s: p99", "ms", 2),
    cost("latency_ratio", "1,000 events/s / one by one, p99", "", 2),
    cost("latency_ratio_at_rate", "1,000 events/s / the same by hand", "", 2),
    cost("latency_10000_p50_ms", "10,000 events/s: p50", "ms", 2),
    cost("latency_10000_p99_ms", "10,000 events/s: p99", "ms", 2),
    rate("replay_update_per_s", "bare UPDATE, ten jobs a row", "rows/s"),
    cost("replay_update_machine_us", "machine, bare UPDATE, ten jobs", "us/row", 2),
    rate("replay_per_s", "replay, ten events a draft", "events/s"),
    share("replay_ratio", "replay / Kafka client"),
    rate("replay_consume_per_s", "Kafka client alone, that topic", "records/s"),
    share("replay_topic_ratio", "replay / Kafka client, that topic"),
    cost("replay_machine_us", "machine, replay", "us/event", 2),
    cost("replay_limits_us", "machine, the four in a replay", "us/event", 2),
    share("replay_bound", "their rate / Kafka client"),
    rate("replay_again_per_s", "the same, nothing to change", "events/s"),
    share("replay_again_ratio", "the same / Kafka client"),
    share("replay_again_topic_ratio", "the same / Kafka client, that topic"),
    cost("replay_peak_rss_mb", "memory at its peak, replay", "MiB", 0),
];

/// What was measured, and under which conditions.
pub(crate) struct Results {
    conditions: Map<String, Value>,
    rounds: BTreeMap<&'static str, Vec<f64>>,
}

impl Results {
    pub(crate) fn new(settings: &Settings, servers: &Servers) -> Results {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let conditions = json!({
            "events": settings.events,
            "drafts": settings.events,
            "rounds": settings.rounds,
            "workers": WORKERS,
            "connections": WORKERS,
            "batch_rows": BATCH_ROWS,
            "cores": cores,
            "cpu": cpu_model(),
            "postgres": servers.postgres_version,
            "librdkafka": rdkafka::util::get_rdkafka_version().1,
            "profile": if cfg!(debug_assertions) { "dev" } else { "release" },
        });
        let Value::Object(conditions) = conditions else { unreachable!("an object was written") };
        Results { conditions, rounds: BTreeMap::new() }
    }

    /// Notes what a round has measured, and shows it.
    pub(crate) fn note(&mut self, name: &'static str, value: f64) {
        let metric = METRICS.iter().find(|metric| metric.name == name);
        let metric = metric.expect("every number is in the table");
        let Metric { about, unit, digits, .. } = metric;
        let line = format!("  {about:<34} {:>12} {unit}", shown(value, *digits));
        say(line.trim_end());
        self.rounds.entry(name).or_default().push(value);
    }

    /// What was noted last under that name.
    pub(crate) fn last(&self, name: &str) -> Option<f64> {
        self.rounds.get(name)?.last().copied()
    }

    /// How many cores there are.
    pub(crate) fn cores(&self) -> f64 {
        self.conditions["cores"].as_f64().unwrap_or_default()
    }

    /// Writes the table, and the file for machines.
    pub(crate) fn write(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let text = |name: &str| match &self.conditions[name] {
            Value::String(text) => text.clone(),
            number => number.to_string(),
        };
        writeln!(
            out,
            "\n{} events over as many drafts, {} rounds, {} workers and connections, batches of {} rows",
            shown(self.conditions["events"].as_f64().unwrap_or_default(), 0),
            text("rounds"),
            text("workers"),
            text("batch_rows"),
        )?;
        writeln!(
            out,
            "{} cores of {}, PostgreSQL {}, librdkafka {}, {} profile\n",
            text("cores"),
            text("cpu"),
            text("postgres"),
            text("librdkafka"),
            text("profile"),
        )?;
        writeln!(out, "  {:<34} {:>12} {:>12}", "", "median", "best")?;
        for (Metric { about, unit, better, digits, .. }, values) in self.measured() {
            let (median, best) = (median(values), best(values, *better));
            let (median, best) = (shown(median, *digits), shown(best, *digits));
            writeln!(
                out,
                "{}",
                format!("  {about:<34} {median:>12} {best:>12}  {unit}").trim_end()
            )?;
        }
        let path = path();
        std::fs::write(&path, format!("{:#}\n", self.json()))?;
        writeln!(out, "\n  {}", path.display())?;
        Ok(())
    }

    /// What was measured, in the order of the table.
    fn measured(&self) -> impl Iterator<Item = (&Metric, &[f64])> {
        METRICS.iter().filter_map(|metric| Some((metric, self.rounds.get(metric.name)?.as_slice())))
    }

    /// The medians by their names, and beside them the best ones, every round, and the conditions.
    fn json(&self) -> Value {
        let mut all = Map::new();
        let mut bests = Map::new();
        for (Metric { name, better, .. }, values) in self.measured() {
            all.insert((*name).to_owned(), json!(median(values)));
            bests.insert((*name).to_owned(), json!(best(values, *better)));
        }
        all.insert("best".to_owned(), Value::Object(bests));
        all.insert("by_round".to_owned(), json!(self.rounds));
        all.insert("conditions".to_owned(), Value::Object(self.conditions.clone()));
        Value::Object(all)
    }
}

/// `bench.json` in the target directory, wherever Cargo has put that: the program lies two levels
/// below.
fn path() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_contentflow"));
    let target = program.parent().and_then(Path::parent);
    target.unwrap_or(Path::new("target")).join("bench.json")
}

fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("an unknown CPU", |(_, model)| model).trim().to_owned()
}

fn best(values: &[f64], better: Better) -> f64 {
    match better {
        Better::More => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Better::Less => values.iter().copied().fold(f64::INFINITY, f64::min),
    }
}

/// With groups of three digits.
fn shown(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let grouped = whole.parse().map_or(whole.to_owned(), contentflow::report::grouped);
    format!("{grouped}{fraction}")
}

/// How often a second.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
    ratio(count, 1) / elapsed.as_secs_f64().max(f64::EPSILON)
}

/// Microseconds of CPU for each event.
pub(crate) fn us_per_event(cpu: Duration, events: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / ratio(events, 1)
}

/// One count by another.
#[expect(clippy::as_conversions, reason = "no count comes near 2^53")]
pub(crate) fn ratio(count: u64, by: u64) -> f64 {
    count as f64 / by as f64
}
