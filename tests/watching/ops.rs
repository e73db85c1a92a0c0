//! Documentation, dashboard and alerts are about the metrics that there are.

use std::collections::BTreeSet;

use contentflow::http::exposition::{Kind, Metric};
use contentflow::http::metrics::ALL;

fn file(name: &str) -> String {
    std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn the_documentation_has_every_metric_as_it_is_and_no_other() {
    let page = file("docs/metrics.md");
    let is_metric =
        |line: &&str| ["| `contentflow_", "| `process_"].iter().any(|it| line.starts_with(it));
    let rows: Vec<&str> = page.lines().filter(is_metric).collect();
    let code = |text: &str| format!("`{text}`");
    let expected: Vec<String> = ALL
        .iter()
        .map(|Metric { name, kind, unit, labels, help }| {
            let labels = labels.iter().map(|label| code(label)).collect::<Vec<_>>().join(", ");
            format!("| {} | {} | {labels} | {unit} | {help} |", code(name), kind.name())
        })
        .collect();
    assert_eq!(rows, expected, "docs/metrics.md should have\n{}\n", expected.join("\n"));
}

/// The names in expressions that look like metrics of ours.
fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words
        .filter(|word| word.starts_with("contentflow_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// Every name that a query may have.
fn queryable() -> BTreeSet<String> {
    let names = ALL.iter().flat_map(|metric| match metric.kind {
        Kind::Histogram => {
            ["_bucket", "_sum", "_count"].map(|it| format!("{}{it}", metric.name)).to_vec()
        }
        Kind::Counter | Kind::Gauge => vec![metric.name.to_owned()],
    });
    names.collect()
}

/// The labels that an expression asks for are labels of the metrics that it is about.
fn assert_labels_exist(expression: &str) {
    let names = names_in(expression);
    let of = |name: &String| ALL.iter().find(|metric| name.starts_with(metric.name));
    let known: BTreeSet<&str> = names
        .iter()
        .filter_map(of)
        .flat_map(|metric| metric.labels)
        .copied()
        // Those that Prometheus adds, and the buckets'.
        .chain(["job", "instance", "le"])
        .collect();
    let by = expression
        .split("by (")
        .skip(1)
        .flat_map(|rest| rest.split(')').next().unwrap().split(", "));
    let selected = expression.split('{').skip(1).flat_map(|rest| {
        rest.split('}').next().unwrap().split(", ").filter_map(|pair| pair.split(['=', '!']).next())
    });
    for label in by.chain(selected).filter(|label| !label.is_empty()) {
        assert!(known.contains(label.trim()), "{label} in {expression}");
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&file("ops/grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut asked = BTreeSet::new();
    for panel in panels {
        assert!(panel["title"].is_string() && panel["gridPos"]["w"].is_u64(), "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            assert!(!names_in(expression).is_empty(), "{expression}");
            assert_labels_exist(expression);
            asked.extend(names_in(expression));
        }
    }
    let unknown: Vec<_> = asked.difference(&queryable()).cloned().collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(panels.len() >= 10 && asked.len() >= 20, "it shows something: {asked:?}");
}

#[test]
fn the_alerts_ask_for_metrics_that_there_are() {
    let rules = file("ops/alerts.yaml");
    let names = names_in(&rules);
    let known = queryable();
    let unknown: Vec<_> = names.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let of = |key: &str| {
        rules
            .lines()
            .filter(|line| line.trim_start().trim_start_matches("- ").starts_with(key))
            .count()
    };
    let alerts = of("alert:");
    assert!(alerts >= 6, "{alerts}");
    for key in ["expr:", "for:", "severity:", "summary:", "description:"] {
        assert_eq!(of(key), alerts, "each alert has {key}");
    }
    for expression in rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")) {
        assert!(!names_in(expression).is_empty() || expression.starts_with("up"), "{expression}");
        assert_labels_exist(expression);
    }
}
