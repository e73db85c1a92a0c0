//! A Redis master, its replica, and the sentinels that watch them, of a test's own. All of them want passwords.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::super::eventually;
use super::{Redis, free_port};

/// What the sentinels call the master.
const MASTER: &str = "drafts";

/// Of the servers, and of the sentinels.
const PASSWORD: &str = "serv3r-s3cret";
const SENTINEL_PASSWORD: &str = "sent1nel-s3cret";

/// Two servers and three sentinels, of which two decide.
pub(crate) struct RedisSentinels {
    /// The master at first, and its replica at first.
    pub(crate) servers: [Redis; 2],
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    port: u16,
    child: Child,
    _directory: TempDir,
}

impl RedisSentinels {
    pub(crate) fn start() -> RedisSentinels {
        let start = || {
            let passwords = ["--requirepass", PASSWORD, "--masterauth", PASSWORD];
            let mut server =
                Redis::start_with(&[&passwords[..], &["--repl-diskless-sync-delay", "0"]].concat());
            server.url = format!("redis://:{PASSWORD}@127.0.0.1:{}", server.port);
            server
        };
        let servers = [start(), start()];
        let master = servers[0].port;
        servers[1].tell(&format!("REPLICAOF 127.0.0.1 {master}"));
        eventually("the replica is in step", || servers[1].says("master_link_status:up"));
        let sentinels = (0..3).map(|_| Sentinel::start(master)).collect();
        let these = RedisSentinels { servers, sentinels };
        these.await_whole();
        these
    }

    /// Waits until every sentinel sees a master that is up, a replica in step with it, and the other sentinels.
    pub(crate) fn await_whole(&self) {
        for sentinel in &self.sentinels {
            eventually("the sentinel sees everybody", || {
                let info: redis::RedisResult<String> = sentinel.ask(&["INFO", "sentinel"]);
                info.is_ok_and(|info| {
                    info.contains("status=ok,") && info.contains("slaves=1,sentinels=3")
                }) && sentinel.ask::<String>(&["SENTINEL", "CKQUORUM", MASTER]).is_ok()
            });
        }
        eventually("there is a replica in step with its master", || {
            self.servers
                .iter()
                .any(|server| server.says("role:slave") && server.says("master_link_status:up"))
        });
    }

    /// Has the master and its replica change places.
    pub(crate) fn fail_over(&self) {
        eventually("a sentinel begins a failover", || {
            self.sentinels[0].ask::<String>(&["SENTINEL", "FAILOVER", MASTER]).is_ok()
        });
    }

    /// What `cache.url` is to be.
    pub(crate) fn url(&self) -> String {
        self.url_of(MASTER)
    }

    /// The same with another name for the master.
    pub(crate) fn url_of(&self, master: &str) -> String {
        let addresses: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        let addresses = addresses.join(",");
        format!(
            "redis+sentinel://:{PASSWORD}@{addresses}/{master}/0?sentinel_password={SENTINEL_PASSWORD}"
        )
    }
}

impl Sentinel {
    fn start(master: u16) -> Sentinel {
        let directory = TempDir::new().unwrap();
        let port = free_port();
        let file = directory.path().join("sentinel.conf");
        // Down after three seconds: with one, a busy machine lets a master that lives be replaced now and then.
        let configuration = format!(
            "bind 127.0.0.1\n\
             port {port}\n\
             dir {directory}\n\
             requirepass {SENTINEL_PASSWORD}\n\
             sentinel sentinel-pass {SENTINEL_PASSWORD}\n\
             sentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
             sentinel auth-pass {MASTER} {PASSWORD}\n\
             sentinel down-after-milliseconds {MASTER} 3000\n\
             sentinel failover-timeout {MASTER} 5000\n",
            directory = directory.path().display(),
        );
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("redis-server is installed");
        Sentinel { port, child, _directory: directory }
    }

    fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let url = format!("redis://:{SENTINEL_PASSWORD}@127.0.0.1:{}", self.port);
        let mut connection = redis::Client::open(url)?.get_connection()?;
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Of one that has ended already there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
