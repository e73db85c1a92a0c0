//! A Redis master, its replica, and the sentinels that watch them, of a test's own. All of them
//! want passwords.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::super::certificates::redis_tls;
use super::super::eventually;
use super::{Redis, free_ports};

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
    is_encrypted: bool,
}

struct Sentinel {
    port: u16,
    /// Where it speaks TLS, if it does.
    secure_port: u16,
    child: Child,
    _directory: TempDir,
}

impl RedisSentinels {
    pub(crate) fn start() -> RedisSentinels {
        RedisSentinels::start_with(None)
    }

    /// Servers and sentinels that speak TLS with each other, and at ports of their own with whoever
    /// wants to.
    pub(crate) fn start_encrypted(certificates: &Path) -> RedisSentinels {
        RedisSentinels::start_with(Some(certificates))
    }

    fn start_with(certificates: Option<&Path>) -> RedisSentinels {
        let start = || {
            let passwords = ["--requirepass", PASSWORD, "--masterauth", PASSWORD];
            let arguments = [&passwords[..], &["--repl-diskless-sync-delay", "0"]].concat();
            let mut server = match certificates {
                Some(certificates) => Redis::start_encrypted(certificates, &arguments),
                None => Redis::start_with(&arguments),
            };
            server.url = format!("redis://:{PASSWORD}@127.0.0.1:{}", server.port);
            server
        };
        let servers = [start(), start()];
        let master = match certificates {
            Some(_) => servers[0].secure_port(),
            None => servers[0].port,
        };
        servers[1].tell(&format!("REPLICAOF 127.0.0.1 {master}"));
        eventually("the replica is in step", || servers[1].says("master_link_status:up"));
        let sentinels = (0..3).map(|_| Sentinel::start(master, certificates)).collect();
        let these = RedisSentinels { servers, sentinels, is_encrypted: certificates.is_some() };
        these.await_whole();
        these
    }

    /// Waits until every sentinel sees a master that is up, a replica in step with it, and the
    /// other sentinels.
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

    /// Waits until the sentinels name this server as the master, and the other one has given way,
    /// which it does seconds later. One that is promoted is made a replica again where a failover
    /// takes longer than it may: then the next one is begun.
    pub(crate) fn await_master(&self, server: &Redis) {
        let sentinel = &self.sentinels[0];
        eventually("the sentinels name the other one", || {
            let named = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
            let is_named = named.is_ok_and(|(_, port): (String, u16)| port == server.port);
            if !is_named {
                // Refused while one is under way.
                drop(sentinel.ask::<String>(&["SENTINEL", "FAILOVER", MASTER]));
            }
            let replicas = self.servers.iter().filter(|it| it.says("role:slave"));
            is_named && server.says("role:master") && replicas.count() == 1
        });
    }

    /// What `cache.url` is to be.
    pub(crate) fn url(&self) -> String {
        self.url_of(MASTER)
    }

    /// The same with another name for the master.
    pub(crate) fn url_of(&self, master: &str) -> String {
        let port = |it: &Sentinel| if self.is_encrypted { it.secure_port } else { it.port };
        let addresses: Vec<String> =
            self.sentinels.iter().map(|it| format!("127.0.0.1:{}", port(it))).collect();
        let (addresses, s) = (addresses.join(","), if self.is_encrypted { "s" } else { "" });
        format!(
            "redis{s}+sentinel://:{PASSWORD}@{addresses}/{master}/0?sentinel_password={SENTINEL_PASSWORD}"
        )
    }
}

impl Sentinel {
    fn start(master: u16, certificates: Option<&Path>) -> Sentinel {
        let directory = TempDir::new().unwrap();
        let [port, secure_port] = free_ports();
        let tls = certificates.map(|certificates| redis_tls(certificates, secure_port));
        let tls = tls.into_iter().flatten().map(|(name, value)| format!("{name} {value}\n"));
        let file = directory.path().join("sentinel.conf");
        // Down after eight seconds: with three, a busy machine lets a master that lives be replaced
        // now and then.
        let configuration = format!(
            "bind 127.0.0.1\n\
             port {port}\n\
             dir {directory}\n\
             requirepass {SENTINEL_PASSWORD}\n\
             sentinel sentinel-pass {SENTINEL_PASSWORD}\n\
             sentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
             sentinel auth-pass {MASTER} {PASSWORD}\n\
             sentinel down-after-milliseconds {MASTER} 8000\n\
             sentinel failover-timeout {MASTER} 5000\n\
             {tls}",
            directory = directory.path().display(),
            tls = tls.collect::<String>(),
        );
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("redis-server is installed");
        Sentinel { port, secure_port, child, _directory: directory }
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
