//! `contentflow replay`

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use dataflows::reject::Reason;
use tokio::runtime::Runtime;

use super::failure::Failure;
use super::run::{ReportFormat, ready, write_report};
use crate::check::{Access, Needs};
use crate::commit::Offsets;
use crate::config::{Config, Overrides};
use crate::notice::Notice;
use crate::replay::plan::{self, From, Scope};
use crate::replay::report::ReplayReport;
use crate::replay::{Options, ReplayError, replay};
use crate::run::RunError;

/// `contentflow replay`
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Begin with the first records of that time or later, not with the first there are: RFC 3339,
    /// or milliseconds since the epoch
    #[arg(long, value_name = "TIMESTAMP", value_parser = plan::parse_time, allow_negative_numbers = true)]
    pub from: Option<i64>,

    /// Only these partitions, like 0,3-5
    #[arg(long, value_name = "LIST", value_parser = Partitions::parse)]
    pub partitions: Option<Partitions>,

    /// Only these partitions, each from an offset on, like 0:1234,1:99: what a replay that was
    /// stopped says
    #[arg(long, value_name = "LIST", value_parser = plan::parse_offsets, conflicts_with_all = ["from", "partitions"])]
    pub from_offsets: Option<Offsets>,

    /// Write the latest images also where the row has that event already: for rows that somebody
    /// else has changed
    #[arg(long)]
    pub rewrite: bool,

    /// Write nothing, and report what a replay would do
    #[arg(long, conflicts_with = "dead_letters")]
    pub dry_run: bool,

    /// Publish rejected records to the dead-letter topic; without it they are only reported
    #[arg(long)]
    pub dead_letters: bool,

    /// Memory for events that are not written yet, like 512MiB; more of it makes fewer writes
    /// [default: replay.memory_bytes, 1 GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,

    /// Threads of the dataflow [default: run.workers, else one a core]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    pub workers: Option<String>,

    /// How the report on standard output looks
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub report: ReportFormat,

    /// Read this topic instead of kafka.topic
    #[arg(long)]
    pub topic: Option<String>,
}

/// Partitions by their numbers.
#[derive(Clone, Debug)]
pub struct Partitions(BTreeSet<i32>);

impl Partitions {
    fn parse(text: &str) -> Result<Partitions, String> {
        plan::parse_partitions(text).map(Partitions)
    }
}

impl ReplayArgs {
    /// What the flags set in the configuration.
    pub fn overrides(&self) -> Overrides {
        let Self { workers, memory, topic, .. } = self;
        Overrides::default()
            .set_typed("--workers", "run.workers", workers.as_deref())
            .set("--memory", "replay.memory_bytes", *memory)
            .set("--topic", "kafka.topic", topic.clone())
    }

    fn scope(&self) -> Scope {
        let from = match (self.from, &self.from_offsets) {
            (Some(ms), _) => From::Time(ms),
            (_, Some(offsets)) => From::Offsets(offsets.clone()),
            (None, None) => From::Beginning,
        };
        Scope { from, partitions: self.partitions.clone().map(|Partitions(numbers)| numbers) }
    }
}

impl ReplayArgs {
    /// The command that goes on from these offsets.
    fn resumed(&self, config: Option<&Path>, next: &Offsets) -> String {
        // Without `..`: a new flag must be thought about here.
        let ReplayArgs {
            from: _,
            partitions: _,
            from_offsets: _,
            rewrite,
            dry_run,
            dead_letters,
            memory,
            workers,
            report,
            topic,
        } = self;
        let mut words = vec!["contentflow".to_owned()];
        if let Some(file) = config {
            words.extend(["--config".to_owned(), quoted(&file.display().to_string())]);
        }
        words.extend(["replay".to_owned(), "--from-offsets".to_owned()]);
        words.push(plan::describe_offsets(next));
        let mut flag = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                words.extend([name.to_owned(), quoted(&value)]);
            }
        };
        flag("--memory", memory.map(|bytes| bytes.to_string()));
        flag("--workers", workers.clone());
        flag("--topic", topic.clone());
        flag("--report", (*report == ReportFormat::Json).then(|| "json".to_owned()));
        for (name, is_set) in
            [("--rewrite", *rewrite), ("--dry-run", *dry_run), ("--dead-letters", *dead_letters)]
        {
            if is_set {
                words.push(name.to_owned());
            }
        }
        words.join(" ")
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:,=+@%".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Reads a size: a number of bytes, or of KiB, MiB, GiB, TiB (K, M, G, T for short), KB, MB, GB,
/// TB.
fn parse_size(text: &str) -> Result<u64, String> {
    let fault = || format!("{text:?} is not a size; write bytes, or like 512MiB or 4GiB");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.trim().parse().map_err(|_| fault())?;
    let unit = text[digits.len()..].to_ascii_lowercase();
    let (letter, base) = match unit.as_str() {
        "" | "b" => return Ok(number),
        "k" | "kib" | "m" | "mib" | "g" | "gib" | "t" | "tib" => (&unit[..1], 1024_u64),
        "kb" | "mb" | "gb" | "tb" => (&unit[..1], 1000),
        _ => return Err(fault()),
    };
    let power = 1 + "kmgt".find(letter).ok_or_else(fault)?;
    let scale = base.checked_pow(u32::try_from(power).map_err(|_| fault())?);
    scale.and_then(|scale| number.checked_mul(scale)).ok_or_else(fault)
}

const REFUSED_HINT: &str = "`contentflow verify` knows what the database refuses from dead letters alone, and calls the rows of these drafts \
     row-behind until there are some: `contentflow replay --dead-letters`";

fn refused_some(report: &ReplayReport) -> bool {
    report.report.rejected_by_reason.contains_key(Reason::DatabaseRefused.code())
}

/// Checks that everything is there, replays, and writes the report.
pub(super) fn execute(
    config: Config,
    file: Option<&Path>,
    args: &ReplayArgs,
    runtime: &Runtime,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let &ReplayArgs { dead_letters, rewrite, dry_run, .. } = args;
    let needs = Needs {
        table: Some(if dry_run { Access::Read } else { Access::Write }),
        dead_letters,
        cache: (!dry_run).then_some(Access::Write),
    };
    let stop = ready(&config, needs, runtime)?;
    let options = Options { dead_letters, rewrite, dry_run };
    let go_on = |next: &Offsets| format!("to go on: {}", args.resumed(file, next));
    match replay(&Arc::new(config), &args.scope(), options, &stop, runtime) {
        Ok(report) => {
            write_report(&report, args.report, out)?;
            if !dead_letters && refused_some(&report) {
                out.flush()?;
                Notice::Hint(REFUSED_HINT).tell();
            }
            if report.complete {
                return Ok(());
            }
            // Nothing has failed, but whoever waits for the end must not take this for it.
            out.flush()?;
            Err(Failure::failed("stopped before the end").hint(go_on(&report.next)))
        }
        // The offsets are those of a topic that is gone.
        Err(ReplayError::Interrupted { source, next: _ }) if source.is_another_topic() => {
            Err(RunError::Source(source).into())
        }
        Err(ReplayError::Interrupted { source, next }) => {
            Err(Failure::from(RunError::Source(source)).hint(go_on(&next)))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ReplayArgs,
    }

    #[test]
    fn a_size_is_bytes_or_has_a_unit() {
        let mib = 1024 * 1024;
        let sizes = [
            ("1048576", mib),
            ("1MiB", mib),
            ("1m", mib),
            ("2 GiB", 2048 * mib),
            ("3MB", 3_000_000),
        ];
        for (text, bytes) in sizes {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for nonsense in ["", "MiB", "1.5GiB", "-1", "1X", "99999999999TiB", "1GiBs"] {
            assert!(parse_size(nonsense).is_err(), "{nonsense:?}");
        }
    }

    #[test]
    fn the_way_on_keeps_every_flag_but_the_beginning() {
        let line = "x --from 5 --partitions 0-1 --dead-letters --rewrite --memory 2MiB -w 3 --topic t --report json";
        let Line { args } = Line::parse_from(line.split(' '));
        let next = [(0, 12), (1, 0)].into();
        assert_eq!(
            args.resumed(Some(Path::new("/etc/my flow.toml")), &next),
            "contentflow --config '/etc/my flow.toml' replay --from-offsets 0:12,1:0 --memory 2097152 --workers 3 \
             --topic t --report json --rewrite --dead-letters"
        );
        let Line { args } = Line::parse_from(["x"]);
        assert_eq!(args.resumed(None, &next), "contentflow replay --from-offsets 0:12,1:0");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
