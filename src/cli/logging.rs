//! Logs on standard error, as text for people or as JSON for machines: one line an event, and of
//! one kind not more than a few a minute.

use std::fmt::{self, Debug};
use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing::Subscriber;
use tracing::field::Field;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt as lines};

use self::rates::Limits;
use crate::notice;
use crate::printable::visible;

mod rates;

/// How logs look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line each, for people
    #[default]
    Text,
    /// One JSON object each, for machines
    Json,
}

/// The log of this process.
pub(super) struct Log(Limits);

impl Log {
    /// Tells how many lines were left out last.
    pub(super) fn finish(self) {
        self.0.finish();
    }
}

/// Starts logging for this process, from info on, or from warn on if it should be `quiet`.
/// `RUST_LOG` decides if it is set; a mistake in it is ignored part by part.
pub(super) fn start(format: LogFormat, verbose: u8, quiet: bool) -> Log {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::builder().parse_lossy(directives),
        _ => EnvFilter::builder().parse_lossy(directives(verbose, quiet)),
    };
    let limits = Limits::new();
    // Whoever set a subscriber before, as a test may, keeps it.
    let started = match format {
        LogFormat::Text => {
            text(filter, limits.clone(), wants_color(&io::stderr()), io::stderr).try_init()
        }
        LogFormat::Json => {
            notice::speak_json();
            json(filter, limits.clone(), io::stderr).try_init()
        }
    };
    drop(started);
    Log(limits)
}

/// Lines of text. A log that nobody takes any more (a closed pipe, a full disk) is no reason to
/// stop: to complain about it on standard error would be to panic.
fn text(
    filter: EnvFilter,
    limits: Limits,
    color: bool,
    to: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let lines = lines::layer().with_ansi(color).with_writer(to).log_internal_errors(false);
    Registry::default().with(filter).with(lines.fmt_fields(fields())).with(limits)
}

/// One JSON object each, which escapes by itself.
fn json(
    filter: EnvFilter,
    limits: Limits,
    to: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let lines =
        lines::layer().json().flatten_event(true).with_writer(to).log_internal_errors(false);
    Registry::default().with(filter).with(lines).with(limits)
}

/// The message and the fields on one line, whatever is in them: an error may quote what a stranger
/// has published.
fn fields() -> impl for<'a> FormatFields<'a> + Send + Sync + 'static {
    debug_fn(field_to)
}

/// The message comes first.
fn field_to(to: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let value = format!("{value:?}");
    let value = visible(&value);
    match field.name() {
        "message" => write!(to, "{value}"),
        // Where another crate has logged; its name stands before the line.
        name if name.starts_with("log.") => Ok(()),
        name if to.has_ansi_escapes() => {
            write!(to, " \u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}")
        }
        name => write!(to, " {name}={value}"),
    }
}

/// Ours from info on, others from warn on. What refinery calls divergent is expected, see
/// `migrate`; what the Redis client says of the nodes of a cluster, once for each try, is in our
/// own words once for each outage.
fn directives(verbose: u8, quiet: bool) -> &'static str {
    match verbose {
        0 if quiet => "warn,redis=off,refinery_core::traits::divergent=off",
        0 => "warn,contentflow=info,dataflows=info,redis=off,refinery_core::traits::divergent=off",
        1 => {
            "info,contentflow=debug,dataflows=debug,redis=off,refinery_core=warn,refinery_core::traits::divergent=off"
        }
        _ => "debug,contentflow=trace,dataflows=trace",
    }
}

/// Whether escape sequences for colours and weights are welcome there.
pub(super) fn wants_color(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// What stands in the log behind that.
    fn logged(format: LogFormat, color: bool, log: impl FnOnce()) -> String {
        let (written, limits) = (Written::default(), Limits::new());
        let to = written.clone();
        let writer = move || to.clone();
        let filter = EnvFilter::new("info");
        match format {
            LogFormat::Text => {
                tracing::subscriber::with_default(text(filter, limits, color, writer), log)
            }
            LogFormat::Json => tracing::subscriber::with_default(json(filter, limits, writer), log),
        }
        written.text()
    }

    const HOSTILE: &str =
        "a\n2026-01-01T00:00:00Z  INFO all is well\r\u{1b}[2J\u{9b}2J\u{202e}\u{2028}\0\\";

    fn be_hostile() {
        tracing::warn!(error = %HOSTILE, id = HOSTILE, "said: {HOSTILE}");
    }

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        let text = logged(LogFormat::Text, false, be_hostile);
        assert_eq!(text.lines().count(), 1, "{text}");
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(crate::printable::is_unsafe), "{line:?}");
        assert_eq!(line.matches("\\n2026").count(), 3, "{line}");
        assert!(line.contains("said: a\\n2026") && line.contains("error=a\\n2026"), "{line}");

        let json = logged(LogFormat::Json, false, be_hostile);
        assert_eq!(json.lines().count(), 1, "{json}");
        let object: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(object["error"], HOSTILE);
    }

    #[test]
    fn in_colour_the_escape_sequences_are_ours_alone() {
        let line = logged(LogFormat::Text, true, be_hostile);
        assert_eq!(line.lines().count(), 1, "{line:?}");
        for (at, _) in line.match_indices('\u{1b}') {
            let sequence: String = line[at..].chars().skip(1).take_while(|c| *c != 'm').collect();
            let is_ours =
                ["[0", "[1", "[2", "[3", "[32", "[33", "[34"].contains(&sequence.as_str());
            assert!(is_ours, "{sequence:?} in {line:?}");
        }
        assert!(line.contains("\u{1b}[3merror\u{1b}[0m"), "{line:?}");
    }

    #[test]
    fn of_a_thousand_lines_of_a_kind_a_few_are_told_and_then_their_number() {
        let (written, limits) = (Written::default(), Limits::new());
        let to = written.clone();
        let subscriber = text(EnvFilter::new("debug"), limits.clone(), false, move || to.clone());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..1_000 {
                tracing::warn!(number, "storm");
                tracing::debug!("asked for");
                for dependency in ["first", "second"].into_iter().take(1 + number / 999) {
                    tracing::info!(dependency, "held");
                }
            }
            tracing::warn!("something else");
            limits.finish();
            limits.finish();
        });
        let text = written.text();
        assert_eq!(text.matches("WARN contentflow::cli::logging::tests: storm").count(), 20);
        assert_eq!(text.matches("asked for").count(), 1_000);
        assert_eq!(text.matches("something else").count(), 1);
        assert_eq!(text.matches("held dependency=\"first\"").count(), 20);
        assert_eq!(
            text.matches("held dependency=\"second\"").count(),
            1,
            "the first hides no other"
        );
        let sum: Vec<_> = text.lines().filter(|line| line.contains("more=980")).collect();
        assert_eq!(sum.len(), 2, "{text}");
        let sum: Vec<_> = sum.into_iter().filter(|line| line.contains("WARN")).collect();
        assert!(sum[0].contains("like=\"storm\"") && sum[0].contains("within_s=60"), "{}", sum[0]);
    }
}
