//! A Redis server of a test's own.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

use super::super::certificates::redis_tls;
use super::super::eventually;
use super::{Frozen, free_port};

/// A Redis server that survives being killed with all its keys. Stopped and deleted when it is
/// dropped.
pub(crate) struct Redis {
    pub(crate) url: String,
    pub(crate) port: u16,
    arguments: Vec<String>,
    directory: TempDir,
    child: Mutex<Child>,
}

impl Redis {
    pub(crate) fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// A server with further arguments, as a configuration file has them.
    pub(crate) fn start_with(arguments: &[&str]) -> Redis {
        let directory = TempDir::new().unwrap();
        let arguments: Vec<String> =
            arguments.iter().map(|argument| (*argument).to_owned()).collect();
        // Somebody else may have taken the port meanwhile: then it ends at once, and gets another
        // one.
        for _ in 0..5 {
            let port = free_port();
            let mut child = spawn(port, &directory, &arguments);
            if listens(&mut child, port) {
                let url = format!("redis://127.0.0.1:{port}");
                return Redis { url, port, arguments, directory, child: Mutex::new(child) };
            }
        }
        panic!("Redis ends at once with {arguments:?}");
    }

    /// A server that speaks TLS as well, at a port of its own.
    pub(crate) fn start_encrypted(certificates: &Path, arguments: &[&str]) -> Redis {
        let tls = redis_tls(certificates, free_port());
        let tls: Vec<String> =
            tls.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect();
        let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
        Redis::start_with(&[&tls, arguments].concat())
    }

    /// Where it speaks TLS.
    pub(crate) fn secure_port(&self) -> u16 {
        let [_, port]: [String; 2] = self.ask("CONFIG GET tls-port").unwrap();
        port.parse().unwrap()
    }

    /// The directory that it writes to.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// One command, of several words. The answer does not matter, an error does.
    pub(crate) fn tell(&self, command: &str) {
        self.try_tell(command).unwrap_or_else(|error| panic!("{command}: {error}"));
    }

    pub(crate) fn try_tell(&self, command: &str) -> redis::RedisResult<()> {
        self.ask(command)
    }

    /// One command, of several words, and its answer.
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        let client = redis::Client::open(self.url.as_str()).unwrap();
        command.query(&mut client.get_connection()?)
    }

    /// An ACL command, whose words may have blanks.
    pub(crate) fn acl(&self, words: &[&str]) {
        let client = redis::Client::open(self.url.as_str()).unwrap();
        redis::cmd("ACL").arg(words).exec(&mut client.get_connection().unwrap()).unwrap();
    }

    /// A field of its INFO.
    pub(crate) fn info(&self, field: &str) -> String {
        let client = redis::Client::open(self.url.as_str()).unwrap();
        let info: redis::InfoDict =
            redis::cmd("INFO").query(&mut client.get_connection().unwrap()).unwrap();
        info.get(field).unwrap_or_else(|| panic!("no {field}"))
    }

    /// Whether its INFO about replication says so. Not while it is away, or cuts its connections
    /// since its role changes.
    pub(crate) fn says(&self, what: &str) -> bool {
        self.ask::<String>("INFO replication").is_ok_and(|info| info.contains(what))
    }

    pub(crate) fn freeze(&self) -> Frozen {
        Frozen::freeze(&[self.child.lock().unwrap().id()])
    }

    /// Kills it, as a machine that fails does.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts it again at its old address, with the keys that it had.
    pub(crate) fn start_again(&self) {
        let mut child = spawn(self.port, &self.directory, &self.arguments);
        assert!(listens(&mut child, self.port), "Redis ends at once at port {}", self.port);
        *self.child.lock().unwrap() = child;
    }
}

/// Waits until it takes connections; false if it has ended.
fn listens(child: &mut Child, port: u16) -> bool {
    let mut has_ended = false;
    eventually("Redis listens", || {
        has_ended = child.try_wait().unwrap().is_some();
        has_ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    !has_ended
}

fn spawn(port: u16, directory: &TempDir, arguments: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command.arg("--dir").arg(directory.path()).args(["--databases", "64"]);
    // Every key is on the disk before the answer.
    command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is installed")
}

impl Drop for Redis {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        // Of one that has ended already there is nothing to kill.
        drop(child.kill());
        drop(child.wait());
    }
}
