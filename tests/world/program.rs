//! The program: the real binary, started as a process of its own.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::private::{Frozen, signal};
use super::{DEADLINE, Offsets, World, eventually};

/// The report that `run` prints.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Report {
    pub(crate) read: u64,
    pub(crate) applied: u64,
    pub(crate) duplicate: u64,
    pub(crate) superseded: u64,
    pub(crate) skipped: u64,
    pub(crate) rejected: u64,
    pub(crate) rejected_by_reason: BTreeMap<String, u64>,
    pub(crate) deletes: u64,
    pub(crate) keys_deleted: u64,
    pub(crate) job_reused: u64,
    pub(crate) elapsed_s: f64,
    pub(crate) records_per_s: f64,
    pub(crate) workers: u64,
    pub(crate) partitions: Vec<PartitionReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct PartitionReport {
    pub(crate) partition: i32,
    pub(crate) first_offset: i64,
    pub(crate) last_offset: i64,
}

impl Report {
    /// Read, applied, duplicate, superseded, skipped, rejected.
    pub(crate) fn outcomes(&self) -> [u64; 6] {
        let Report { read, applied, duplicate, superseded, skipped, rejected, .. } = *self;
        [read, applied, duplicate, superseded, skipped, rejected]
    }

    /// The offset behind the last record that was read, by partition.
    pub(crate) fn read_to(&self) -> Offsets {
        self.partitions.iter().map(|part| (part.partition, part.last_offset + 1)).collect()
    }

    fn check(self) -> Report {
        let [read, outcomes @ ..] = self.outcomes();
        assert_eq!(read, outcomes.iter().sum::<u64>(), "it does not add up: {self:?}");
        assert_eq!(self.rejected, self.rejected_by_reason.values().sum::<u64>(), "{self:?}");
        assert!(self.keys_deleted <= self.deletes, "{self:?}");
        self
    }
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// The exit code. A process that a signal ended has none.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// What it printed, if all went well.
    pub(crate) fn success(&self) -> &str {
        assert_eq!(self.code(), Some(0), "{}\n{}", self.err, self.out);
        &self.out
    }

    /// The report at the end of a run that went well.
    pub(crate) fn report(&self) -> Report {
        let report: Report = serde_json::from_str(self.success()).unwrap();
        report.check()
    }

    /// The error of a command that ended with that code. Whatever happened, the words are for
    /// people.
    pub(crate) fn failure(&self, code: i32) -> &str {
        let Ended { status, out, err } = self;
        assert_eq!(self.code(), Some(code), "{status}\n{err}\n{out}");
        for never in ["panicked", "backtrace", "internal error", "RUST_BACKTRACE"] {
            assert!(!err.contains(never), "{err}");
        }
        err
    }

    /// Whether it was killed.
    pub(crate) fn was_killed(&self) -> bool {
        self.signal() == Some(9)
    }

    /// The signal that ended it, if one did.
    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// A process that runs. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    out: Output,
    err: Output,
}

impl Running {
    fn spawn(mut command: Command) -> Running {
        let mut child = command.spawn().unwrap();
        let out = Output::collect(child.stdout.take().unwrap());
        let err = Output::collect(child.stderr.take().unwrap());
        Running { child, out, err }
    }

    /// What it has written to standard error so far.
    pub(crate) fn err(&self) -> String {
        self.err.text()
    }

    /// What it has written to standard output so far.
    pub(crate) fn out(&self) -> String {
        self.out.text()
    }

    /// Whether it has said so of some partitions, and not only of none.
    pub(crate) fn says_partitions(&self, what: &str) -> bool {
        let said = format!("{what} partitions=");
        let err = self.err();
        err.split(&said).skip(1).any(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    }

    /// Its number, which belongs to it until it is waited for.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it has had, while it is there.
    pub(crate) fn peak_memory_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Asks it to stop. One that has just been started is ended by the signal as any process is,
    /// with nothing in flight: only after its checks does it stop as this asks.
    pub(crate) fn terminate(&self) {
        eventually("it handles signals", || self.handles_terminate());
        signal(&[self.pid()], "TERM");
    }

    fn handles_terminate(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let of = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        let caught = u64::from_str_radix(of("SigCgt:"), 16).unwrap();
        let terminate = 1 << (15 - 1);
        // One that has ended handles nothing any more, and how it ended is for the test to judge.
        caught & terminate != 0 || of("State:").starts_with('Z')
    }

    /// Stops it in the middle of whatever it does, until the result is dropped.
    pub(crate) fn freeze(&self) -> Frozen {
        Frozen::freeze(&[self.pid()])
    }

    /// Kills it, as a machine that fails does.
    pub(crate) fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        self.wait()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(self) -> Ended {
        self.terminate();
        self.wait()
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(mut self) -> Ended {
        let since = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if since.elapsed() > DEADLINE => {
                    panic!("it does not end:\n{}\n{}", self.err.text(), self.out.text())
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        Ended { status, out: self.out.end(), err: self.err.end() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("process {} said:\n{}", self.child.id(), self.err.text());
        }
        // Of one that has ended already there is nothing to kill, and nothing to say about it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a process writes, collected while it runs.
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn collect(mut from: impl Read + Send + 'static) -> Output {
        let text = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                collected.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Output { text, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    /// All of it, once the process has ended.
    fn end(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.text()
    }
}

impl World {
    /// The program with these arguments, in the environment of this world and no other.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_contentflow"));
        command.args(arguments).env_clear().envs(&self.settings).current_dir(self.directory.path());
        // Were there a panic, it should show.
        command.env("RUST_BACKTRACE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn call(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).wait()
    }

    /// Runs a command to its end that reads this from standard input.
    pub(crate) fn call_with_input(&self, arguments: &[&str], input: &str) -> Ended {
        let mut command = self.command(arguments);
        let mut running = Running::spawn({
            command.stdin(Stdio::piped());
            command
        });
        let mut stdin = running.child.stdin.take().unwrap();
        // A command that has seen enough closes its end.
        drop(stdin.write_all(input.as_bytes()));
        drop(stdin);
        running.wait()
    }

    /// Where commands find a file of that name, and write it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file that a command has written.
    pub(crate) fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Starts a command and leaves it running.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::spawn(self.command(arguments))
    }

    /// Starts a command as the argument of another program, which gives it less of the machine.
    pub(crate) fn start_under(&self, wrapper: &[&str], arguments: &[&str]) -> Running {
        let inner = self.command(arguments);
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(inner.get_program()).args(inner.get_args()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::spawn(command)
    }

    /// Starts a consumer, which runs until it is stopped.
    pub(crate) fn start_run(&self) -> Running {
        self.start(&["run", "--report", "json"])
    }

    /// Runs a consumer until it has read what is there.
    pub(crate) fn run_until_caught_up(&self) -> Report {
        self.start(&["run", "--until-caught-up", "--report", "json"]).wait().report()
    }
}
