//! The page of metrics: what promtool would say of it, and whether it is what the code says.

use std::collections::{BTreeMap, BTreeSet};

use contentflow::http::exposition::{Kind, Metric};
use contentflow::http::metrics::ALL;

use crate::interruptions::mixed;
use crate::world::{World, eventually};

/// A page of metrics, taken apart as strictly as the format has it.
#[derive(Default)]
struct Parsed {
    help: BTreeMap<String, String>,
    kinds: BTreeMap<String, String>,
    series: Vec<Series>,
}

/// Names and values.
type Labels = Vec<(String, String)>;

#[derive(Clone, Debug)]
struct Series {
    name: String,
    labels: Labels,
    value: f64,
}

impl Series {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn is_name(name: &str) -> bool {
    let mut letters = name.bytes();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == b'_')
}

fn parse(page: &str) -> Parsed {
    assert!(page.ends_with('\n'), "the last line ends");
    let mut parsed = Parsed::default();
    // A metric's lines stand together, its HELP and TYPE before its series.
    let mut current = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(
                parsed.help.insert(name.to_owned(), help.to_owned()).is_none(),
                "twice: {line}"
            );
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current, "HELP, then TYPE: {line}");
            assert!(
                parsed.kinds.insert(name.to_owned(), kind.to_owned()).is_none(),
                "twice: {line}"
            );
        } else {
            let series = parse_series(line);
            let suffixes: &[&str] = match parsed.kinds[&current].as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            let fits = |suffix: &&&str| format!("{current}{suffix}") == series.name;
            assert!(suffixes.iter().any(|suffix| fits(&suffix)), "below {current}: {line}");
            parsed.series.push(series);
        }
    }
    parsed
}

fn parse_series(line: &str) -> Series {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    let (name, labels) = match series.split_once('{') {
        None => (series, Vec::new()),
        Some((name, rest)) => {
            let rest = rest.strip_suffix("\"}").unwrap_or_else(|| panic!("no end: {line}"));
            let pairs = rest.split("\",").map(|pair| pair.split_once("=\"").unwrap());
            (name, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
        }
    };
    assert!(is_name(name), "{line}");
    for (label, value) in &labels {
        assert!(is_name(label) && !label.starts_with("__"), "{line}");
        // Nothing of ours needs to be escaped.
        assert!(!value.is_empty() && !value.contains(['"', '\\', '\n']), "{line}");
    }
    Series { name: name.to_owned(), labels, value }
}

/// What `promtool check metrics` looks for, by its own rules.
fn lint(parsed: &Parsed) {
    assert_eq!(parsed.help.keys().collect::<Vec<_>>(), parsed.kinds.keys().collect::<Vec<_>>());
    for (name, kind) in &parsed.kinds {
        let help = &parsed.help[name];
        assert!(help.len() > 10 && help.ends_with('.'), "{name}: a sentence: {help}");
        assert!(is_name(name) && name.to_lowercase() == *name, "{name}: no camel case, no colons");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}: counters end with _total");
        let parts: Vec<&str> = name.split('_').collect();
        for word in ["counter", "gauge", "histogram", "summary", "untyped"] {
            assert!(!parts.contains(&word), "{name}: the type is no part of the name");
        }
        for suffix in ["_count", "_sum", "_bucket"] {
            assert!(!name.ends_with(suffix), "{name}: that suffix is a histogram's");
        }
        for unit in [
            "ms",
            "us",
            "ns",
            "s",
            "sec",
            "b",
            "kb",
            "mb",
            "m",
            "h",
            "d",
            "milliseconds",
            "microseconds",
            "minutes",
            "hours",
            "kilobytes",
            "megabytes",
            "percent",
        ] {
            assert!(!parts.contains(&unit), "{name}: base units, written out");
        }
        assert!(name.starts_with("contentflow_") || name.starts_with("process_"), "{name}");
    }
    let mut seen = BTreeSet::new();
    for series in &parsed.series {
        let mut labels = series.labels.clone();
        labels.sort();
        assert!(seen.insert((series.name.clone(), labels)), "twice: {series:?}");
        assert!(series.value.is_finite() && series.value >= 0.0, "{series:?}");
        assert!(series.label("quantile").is_none(), "{series:?}");
    }
}

/// Buckets rise, end with all, and agree with the count.
fn lint_histograms(parsed: &Parsed) {
    for name in parsed.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
        let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for series in parsed.series.iter().filter(|it| it.name == format!("{name}_bucket")) {
            let le = series.label("le").unwrap();
            let le = if le == "+Inf" { f64::INFINITY } else { le.parse().unwrap() };
            let others = series.labels.iter().filter(|(label, _)| label != "le").cloned().collect();
            buckets.entry(others).or_default().push((le, series.value));
        }
        assert!(!buckets.is_empty(), "{name}");
        for (labels, buckets) in buckets {
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}: {buckets:?}");
            let (le, all) = *buckets.last().unwrap();
            let of = |suffix: &str| {
                let name = format!("{name}_{suffix}");
                let found = parsed.series.iter().find(|it| it.name == name && it.labels == labels);
                found.unwrap_or_else(|| panic!("no {name} of {labels:?}")).value
            };
            assert_eq!((le, all), (f64::INFINITY, of("count")), "{name}");
            assert!((of("sum") > 0.0) == (all > 0.0), "{name} {labels:?}");
        }
    }
}

/// Every metric is told, with the labels that it is said to have, and nothing else is.
fn hold_against_the_code(parsed: &Parsed) {
    let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), ALL.len(), "each once");
    assert_eq!(names, parsed.kinds.keys().map(String::as_str).collect());
    for Metric { name, kind, labels, help, unit } in ALL {
        assert_eq!(
            (parsed.kinds[*name].as_str(), parsed.help[*name].as_str()),
            (kind.name(), *help)
        );
        if ["seconds", "bytes"].contains(unit) {
            let bare = name.trim_end_matches("_total");
            assert!(bare.ends_with(unit), "{name} in {unit}");
        }
        let suffix = if *kind == Kind::Histogram { "_count" } else { "" };
        let mut series =
            parsed.series.iter().filter(|it| it.name == format!("{name}{suffix}")).peekable();
        assert!(series.peek().is_some(), "{name} has no series");
        for it in series {
            assert_eq!(
                it.labels.iter().map(|(label, _)| label.as_str()).collect::<Vec<_>>(),
                *labels,
                "{name}"
            );
        }
    }
}

/// A label has values that the program knows beforehand, or numbers of threads and partitions.
fn lint_labels(parsed: &Parsed) {
    for series in &parsed.series {
        for (label, value) in &series.labels {
            let is_bounded = match label.as_str() {
                "worker" | "partition" => value.parse::<u16>().is_ok(),
                "le" => true,
                "version" => value == env!("CARGO_PKG_VERSION"),
                "outcome" => ["applied", "duplicate", "superseded", "skipped", "rejected"]
                    .contains(&value.as_str()),
                "reason" => dataflows::reject::Reason::from_code(value).is_some(),
                "effect" => ["write", "invalidate", "dead-letter"].contains(&value.as_str()),
                "cause" => ["outage", "contention", "row"].contains(&value.as_str()),
                "dependency" => {
                    ["kafka", "postgresql", "redis", "dead-letters"].contains(&value.as_str())
                }
                "stage" => ["decode", "dedupe", "latest", "write", "invalidate", "dead-letter"]
                    .contains(&value.as_str()),
                "result" => ["ok", "failed"].contains(&value.as_str()),
                _ => false,
            };
            assert!(is_bounded, "{series:?}");
        }
    }
}

#[test]
fn the_metrics_are_as_promtool_wants_them_and_no_more_after_a_load_than_before() {
    let mut world = World::new("promtool");
    world.set("run.retry_backoff_ms", 5);
    let (running, page) = world.start_watched();
    eventually("it has its partitions", || page.get("/readyz").code == 200);
    let take = || page.get("/metrics").body;
    eventually("it tells of the partitions", || take().contains("contentflow_partition_end{"));
    let before = parse(&take());
    lint(&before);
    let load = world.load(mixed(71, 4_000));
    eventually("all is through", || world.committed() == world.ends());
    let committed = f64::from(u32::try_from(load.events()).unwrap());
    eventually("it is told", || {
        let of = |name: &str| {
            parse(&take())
                .series
                .iter()
                .filter(|it| it.name == name)
                .map(|it| it.value)
                .sum::<f64>()
        };
        of("contentflow_partition_committed") == committed
    });
    let after = parse(&take());
    lint(&after);
    lint_histograms(&after);
    lint_labels(&after);
    hold_against_the_code(&after);
    let series = |parsed: &Parsed| -> BTreeSet<String> {
        parsed.series.iter().map(|it| format!("{} {:?}", it.name, it.labels)).collect()
    };
    assert_eq!(series(&before), series(&after), "what is told depends on no record");
    running.stop().success();
}
