//! Prometheus' classic text format, version 0.0.4: what is told of each metric, then its series.

use std::fmt::Write as _;

use crate::figures::histogram::{Counts, float};

/// The type that the format has for this page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What kind of numbers a metric has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only rises, until the process ends.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    /// Its name in the format.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A metric: the name is a public interface.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it counts or measures in: seconds, bytes, records, ...
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

/// A page of metrics in the making.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Adds a metric with its series: the values of its labels, and its value.
    pub fn add<const N: usize>(
        &mut self,
        metric: &Metric,
        series: impl IntoIterator<Item = ([String; N], f64)>,
    ) {
        self.head(metric);
        for (labels, value) in series {
            self.line(metric.name, "", &pairs(metric, &labels), value);
        }
    }

    /// Adds a metric without labels.
    pub fn one(&mut self, metric: &Metric, value: f64) {
        self.add(metric, [([], value)]);
    }

    /// Adds a histogram with its series.
    pub fn histogram<const N: usize>(
        &mut self,
        metric: &Metric,
        series: impl IntoIterator<Item = ([String; N], Counts)>,
    ) {
        self.head(metric);
        for (labels, counts) in series {
            let labels = pairs(metric, &labels);
            let mut up_to_here = 0;
            let bounds =
                counts.bounds.iter().map(|bound| number(*bound)).chain(["+Inf".to_owned()]);
            for (bound, count) in bounds.zip(&counts.buckets) {
                up_to_here += count;
                let comma = if labels.is_empty() { "" } else { "," };
                let with_bound = format!("{labels}{comma}le=\"{bound}\"");
                self.line(metric.name, "_bucket", &with_bound, float(up_to_here));
            }
            self.line(metric.name, "_sum", &labels, counts.sum);
            self.line(metric.name, "_count", &labels, float(up_to_here));
        }
    }

    fn head(&mut self, Metric { name, kind, help, .. }: &Metric) {
        self.write(format_args!("# HELP {name} {}\n", escaped(help, false)));
        self.write(format_args!("# TYPE {name} {}\n", kind.name()));
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &str, value: f64) {
        let value = number(value);
        match labels {
            "" => self.write(format_args!("{name}{suffix} {value}\n")),
            labels => self.write(format_args!("{name}{suffix}{{{labels}}} {value}\n")),
        }
    }

    fn write(&mut self, what: std::fmt::Arguments<'_>) {
        self.0.write_fmt(what).expect("a text takes everything");
    }

    /// The page.
    pub fn text(self) -> String {
        self.0
    }
}

fn pairs<const N: usize>(metric: &Metric, values: &[String; N]) -> String {
    assert_eq!(metric.labels.len(), N, "{} has other labels", metric.name);
    let pairs = metric.labels.iter().zip(values);
    let pairs: Vec<String> =
        pairs.map(|(name, value)| format!("{name}=\"{}\"", escaped(value, true))).collect();
    pairs.join(",")
}

/// As the format wants it: the shortest text that is that number.
fn number(value: f64) -> String {
    value.to_string()
}

fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::histogram::Histogram;

    const COUNTER: Metric = Metric {
        name: "a_total",
        kind: Kind::Counter,
        unit: "",
        labels: &["why"],
        help: "Two\nlines and a \\.",
    };

    #[test]
    fn whatever_a_label_holds_it_stays_one_line() {
        let mut page = Exposition::default();
        page.add(&COUNTER, [(["a\"b\\c\nd".to_owned()], 1.5)]);
        assert_eq!(
            page.text(),
            "# HELP a_total Two\\nlines and a \\\\.\n# TYPE a_total counter\na_total{why=\"a\\\"b\\\\c\\nd\"} 1.5\n"
        );
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_all() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        [0.25, 0.25, 0.75, 3.0].into_iter().for_each(|value| histogram.observe(value));
        let metric = Metric { name: "h", kind: Kind::Histogram, labels: &[], help: "H.", unit: "" };
        let mut page = Exposition::default();
        page.histogram(&metric, [([], histogram.counts())]);
        let lines = [
            "# HELP h H.",
            "# TYPE h histogram",
            "h_bucket{le=\"0.5\"} 2",
            "h_bucket{le=\"1\"} 3",
            "h_bucket{le=\"+Inf\"} 4",
            "h_sum 4.25",
            "h_count 4",
        ];
        assert_eq!(page.text().lines().collect::<Vec<_>>(), lines);
    }
}
