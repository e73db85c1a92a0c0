//! How a command ends when it does not end well: exit code, error line, hint line.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::check::{DraftTableError, Problem};
use crate::config::ConfigError;
use crate::dead_letters::DlqError;
use crate::demo::{DemoError, ELSEWHERE};
use crate::drafts::DraftError;
use crate::kafka::KafkaError;
use crate::migrate::MigrateError;
use crate::printable::visible;
use crate::publish::PublishError;
use crate::replay::ReplayError;
use crate::run::RunError;
use crate::sink::redis::CacheError;
use crate::tune::error::TuneError;
use crate::tune::scratch::ScratchError;
use crate::verify::VerifyError;
use crate::{headers, postgres, redis};

/// Exit code 1: it failed.
const FAILED: u8 = 1;
/// Exit code 2: usage or configuration.
const USAGE: u8 = 2;
/// Exit code 75, `EX_TEMPFAIL`: a dependency is out; the same command may succeed later.
const OUTAGE: u8 = 75;

/// Why a command ends without success.
#[derive(Debug)]
pub struct Failure {
    exit_code: u8,
    /// Each an error and its hint, if there is one. None: end quietly.
    lines: Vec<(String, Option<String>)>,
}

impl Failure {
    /// It failed.
    pub fn failed(what: impl fmt::Display) -> Failure {
        Failure::new(FAILED, what)
    }

    /// It was asked for something impossible.
    pub fn usage(what: impl fmt::Display) -> Failure {
        Failure::new(USAGE, what)
    }

    /// A server is away.
    pub fn outage(what: impl fmt::Display) -> Failure {
        Failure::new(OUTAGE, what)
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl fmt::Display) -> Failure {
        if let Some((_, last)) = self.lines.last_mut() {
            *last = Some(hint.to_string());
        }
        self
    }

    /// It cannot begin, for these reasons. Where all of them are servers that are away, it may later.
    pub fn problems(problems: Vec<Problem>) -> Failure {
        let exit_code =
            if problems.iter().all(|problem| problem.is_outage) { OUTAGE } else { FAILED };
        let lines =
            problems.into_iter().map(|Problem { what, remedy, is_outage: _ }| (what, Some(remedy)));
        Failure { exit_code, lines: lines.collect() }
    }

    fn hinted(self, hint: Option<String>) -> Failure {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    fn new(exit_code: u8, what: impl fmt::Display) -> Failure {
        Failure { exit_code, lines: vec![(what.to_string(), None)] }
    }

    /// Writes the error to standard error and gives the exit code.
    pub fn report(&self) -> ExitCode {
        let mut err = io::stderr().lock();
        for (what, hint) in &self.lines {
            complain(&mut err, what, hint.as_deref());
        }
        ExitCode::from(self.exit_code)
    }
}

/// One line each, whatever is in the message. When standard error is closed, there is nobody left to tell.
fn complain(err: &mut impl Write, what: &str, hint: Option<&str>) {
    // Where the program itself breaks a line there is nothing hidden; anything else may be foreign.
    let one_line = |text: &str| visible(&text.replace(['\n', '\r'], " ")).into_owned();
    let hint = hint.map_or(String::new(), |hint| format!("hint: {}\n", one_line(hint)));
    drop(err.write_all(format!("error: {}\n{hint}", one_line(what)).as_bytes()));
}

/// Says what can be done where nothing has failed. When standard error is closed, there is nobody left to tell.
pub(super) fn give_hint(hint: &str) {
    drop(writeln!(io::stderr().lock(), "hint: {hint}"));
}

/// What clap has to say: help and version are no errors and go to standard output.
pub(super) fn report_usage(error: &clap::Error) -> ExitCode {
    // A closed pipe behind --help is no error either.
    drop(error.print());
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// A panic is a bug: it takes the whole process down, with one line and exit code 1, since a process that goes on without
/// one of its threads looks alive and does nothing. But for those that are expected where they are caught.
pub(super) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        if headers::is_guarded() {
            return;
        }
        let payload = panic.payload();
        let message = payload.downcast_ref::<&str>().copied();
        let message = message
            .or(payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let place = panic
            .location()
            .map_or(String::new(), |place| format!(" at {}:{}", place.file(), place.line()));
        let what = format!("internal error{place}: {message}");
        complain(
            &mut io::stderr().lock(),
            &what,
            Some("this is a bug in contentflow: please report it with this line"),
        );
        std::process::exit(i32::from(FAILED));
    }));
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        let lines = error
            .problems
            .into_iter()
            .map(|problem| (problem.what(), Some(problem.remedy)))
            .collect();
        Failure { exit_code: USAGE, lines }
    }
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Failure {
        let exit_code = match &error {
            KafkaError::Unreachable { .. } => OUTAGE,
            KafkaError::Properties(_) => USAGE,
            KafkaError::MissingTopic(_)
            | KafkaError::NotCreated { .. }
            | KafkaError::Refused(_) => FAILED,
        };
        Failure::new(exit_code, error.what()).hint(error.remedy())
    }
}

impl From<postgres::ConnectError> for Failure {
    fn from(error: postgres::ConnectError) -> Failure {
        let exit_code = match &error {
            postgres::ConnectError::BadUrl { .. } => USAGE,
            outage if outage.is_outage() => OUTAGE,
            _ => FAILED,
        };
        Failure::new(exit_code, error.what()).hint(error.remedy())
    }
}

impl From<redis::ConnectError> for Failure {
    fn from(error: redis::ConnectError) -> Failure {
        let exit_code = match &error {
            redis::ConnectError::BadUrl { .. } => USAGE,
            outage if outage.is_outage() => OUTAGE,
            _ => FAILED,
        };
        Failure::new(exit_code, error.what()).hint(error.remedy())
    }
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Failure {
        match error {
            MigrateError::Connect(error) => error.into(),
            MigrateError::Refused { what, remedy } => Failure::failed(what).hint(remedy),
            MigrateError::Output(error) => error.into(),
        }
    }
}

impl From<DraftTableError> for Failure {
    fn from(error: DraftTableError) -> Failure {
        Failure::failed(error).hint("`contentflow check` looks at the whole table")
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Failure {
        let exit_code = if error.is_outage() { OUTAGE } else { FAILED };
        match error {
            RunError::Connect(error) => error.into(),
            error => Failure::new(exit_code, error),
        }
    }
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Failure {
        let what = error.to_string();
        match error {
            ReplayError::Kafka(error) => error.into(),
            ReplayError::Run(error) => error.into(),
            ReplayError::NoSuchPartition { count, .. } => Failure::failed(what)
                .hint(format!("its partitions are 0 to {}", count - 1)),
            ReplayError::PastTheEnd { .. } => Failure::failed(what).hint(
                "the topic was made again, or these are another topic's offsets: replay it from its beginning",
            ),
            ReplayError::Deleted { .. } => Failure::failed(what).hint(
                "run.on_data_loss = \"continue\" goes on with what there is",
            ),
            ReplayError::Offsets { .. } => Failure::outage(what).hint("check the brokers"),
            ReplayError::Interrupted { source, next: _ } => {
                Failure::from(RunError::Source(source))
            }
        }
    }
}

impl From<TuneError> for Failure {
    fn from(error: TuneError) -> Failure {
        let what = error.to_string();
        match error {
            TuneError::Plan(error) => error.into(),
            TuneError::Run(error) => error.into(),
            TuneError::Scratch(error) => error.into(),
            TuneError::Empty(_) | TuneError::NoEvent { .. } => Failure::failed(what)
                .hint("name another topic with --topic, or publish something: `contentflow publish --generate 200000`"),
            TuneError::NoRow { .. } => Failure::failed(what).hint(
                "set database.table to the table of these drafts, or measure without it: --effects none",
            ),
            TuneError::Budget { took_s, .. } => Failure::failed(what).hint(format!(
                "give it --budget {:.0} or more, or fewer --events",
                20.0 * took_s.max(1.0)
            )),
            TuneError::Stopped => Failure::failed(what),
        }
    }
}

impl From<ScratchError> for Failure {
    fn from(error: ScratchError) -> Failure {
        let what = error.to_string();
        match error {
            ScratchError::Connect(error) => error.into(),
            ScratchError::NotAllowed { grant, .. } => Failure::failed(what)
                .hint(format!("{grant}; or measure without the database: --effects none")),
            ScratchError::InUse(_) => Failure::failed(what).hint("wait until it has ended"),
            ScratchError::NameTaken(table) => {
                Failure::failed(what).hint(format!("rename {table}, or drop it if nobody needs it"))
            }
            error if error.is_outage() => Failure::outage(what)
                .hint("check the database, and tune again: that drops what is left of the copy"),
            ScratchError::NoName(_)
            | ScratchError::Silent { .. }
            | ScratchError::Refused { .. } => {
                Failure::failed(what).hint("measure without the database: --effects none")
            }
        }
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Failure {
        match error {
            VerifyError::Topic(error) => error.into(),
            VerifyError::Connect(error) => error.into(),
            VerifyError::Table(error) => error.into(),
            VerifyError::Cache(CacheError::Connect(error)) => error.into(),
            VerifyError::Cache(CacheError::NoAnswer(_)) => {
                Failure::outage(error).hint("check the cache")
            }
            VerifyError::Silent { .. } | VerifyError::NotMended(_) => {
                Failure::outage(error).hint("check the database, and verify again")
            }
            VerifyError::Database { .. } if error.is_outage() => {
                Failure::outage(error).hint("check the database, and verify again")
            }
            VerifyError::Output(error) => error.into(),
            VerifyError::Database { .. }
            | VerifyError::Cache(_)
            | VerifyError::Workers(_)
            | VerifyError::Interrupted => Failure::failed(error),
        }
    }
}

impl From<DlqError> for Failure {
    fn from(error: DlqError) -> Failure {
        match error {
            DlqError::Kafka(error) => error.into(),
            DlqError::Output(error) => error.into(),
            _ if error.is_outage() => Failure::outage(&error).hinted(error.remedy()),
            _ => Failure::failed(&error).hinted(error.remedy()),
        }
    }
}

impl From<DraftError> for Failure {
    fn from(error: DraftError) -> Failure {
        match error {
            DraftError::Connect(error) => error.into(),
            DraftError::Output(error) => error.into(),
            DraftError::Silent { .. } => Failure::outage(&error).hinted(error.remedy()),
            DraftError::InvalidId { .. } | DraftError::Data(_) => Failure::usage(&error),
            _ => Failure::failed(&error).hinted(error.remedy()),
        }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Failure {
        match error {
            PublishError::Kafka(error) => error.into(),
            PublishError::Mix(error) => Failure::usage(error),
            PublishError::Silent { .. } => Failure::outage(&error).hint("check the brokers"),
            _ => Failure::failed(error),
        }
    }
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Failure {
        match error {
            DemoError::InUse(_) => Failure::failed(error).hint(ELSEWHERE),
            DemoError::Interrupted | DemoError::Cache(_) => Failure::failed(error),
            DemoError::NotReady(problems) => Failure::problems(problems),
            DemoError::Redis(error) => error.into(),
            DemoError::Postgres(error) => error.into(),
            DemoError::Table(error) => error.into(),
            DemoError::Kafka(error) => error.into(),
            DemoError::Migrate(error) => error.into(),
            DemoError::Draft(error) => error.into(),
            DemoError::Publish(error) => error.into(),
            DemoError::Run(error) => error.into(),
            DemoError::DeadLetters(error) => error.into(),
            DemoError::Output(error) => error.into(),
        }
    }
}

impl From<io::Error> for Failure {
    /// The reader of our output went away, as `| head` does: enough was seen, and that is no failure.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure { exit_code: 0, lines: Vec::new() },
            _ => Failure::failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_and_its_hint_another() {
        let mut err = Vec::new();
        complain(&mut err, "it\nbroke \u{1b}[2J\u{202e}", Some("mend\rit"));
        let text = String::from_utf8(err).unwrap();
        assert_eq!(text, "error: it broke \\u{1b}[2J\\u{202e}\nhint: mend it\n");
    }

    #[test]
    fn a_closed_pipe_ends_quietly() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit_code, failure.lines.len()), (0, 0));
    }
}
