//! How a command ends when it does not end well: exit code, error line, hint line.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::check::{Cause, Problem};
use crate::headers;
use crate::notice::Notice;

mod causes;

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

    /// It cannot begin, for these reasons. Where all of them are servers that are away, it may
    /// later; where the configuration is wrong, that comes first.
    pub fn problems(problems: Vec<Problem>) -> Failure {
        let exit_code = if problems.iter().any(|problem| problem.cause == Cause::Configuration) {
            USAGE
        } else if problems.iter().all(|problem| problem.cause == Cause::Outage) {
            OUTAGE
        } else {
            FAILED
        };
        let lines =
            problems.into_iter().map(|Problem { what, remedy, cause: _ }| (what, Some(remedy)));
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
        for (what, hint) in &self.lines {
            Notice::Error(what, hint.as_deref()).tell();
        }
        ExitCode::from(self.exit_code)
    }
}

/// What clap has to say: help and version are no errors and go to standard output.
pub(super) fn report_usage(error: &clap::Error) -> ExitCode {
    // A closed pipe behind --help is no error either.
    drop(error.print());
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// A panic is a bug: it takes the whole process down, with one line and exit code 1, since a
/// process that goes on without one of its threads looks alive and does nothing. But for those that
/// are expected where they are caught.
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
        let hint = "this is a bug in contentflow: please report it with this line";
        Notice::Error(&what, Some(hint)).tell();
        std::process::exit(i32::from(FAILED));
    }));
}

impl From<io::Error> for Failure {
    /// The reader of our output went away, as `| head` does: enough was seen, and that is no
    /// failure.
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
    use crate::dead_letters::DlqError;

    #[test]
    fn a_closed_pipe_ends_quietly() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit_code, failure.lines.len()), (0, 0));
    }

    #[test]
    fn a_transaction_that_the_brokers_do_not_answer_is_an_outage() {
        use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
        let exit_code = |code| {
            let (what, remedy) = ("cannot begin to replay", "check the brokers");
            Failure::from(DlqError::Transaction { what, source: KafkaError::Flush(code), remedy })
                .exit_code
        };
        for away in [Code::OperationTimedOut, Code::AllBrokersDown, Code::CoordinatorNotAvailable] {
            assert_eq!(exit_code(away), OUTAGE, "{away}");
        }
        for stays in [Code::TransactionalIdAuthorizationFailed, Code::Fenced] {
            assert_eq!(exit_code(stays), FAILED, "{stays}");
        }
    }
}
