//! A failover of Redis that loses a DEL, on two servers of its own: what is not promised, and what
//! bounds it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use contentflow::lease::Lease;
use redis::{Client, Commands, Connection};
use tempfile::TempDir;

use crate::world::{World, event, eventually};

const TTL: Duration = Duration::from_secs(604_800);

/// A Redis server that nobody else uses. Killed when it is dropped.
struct Redis {
    port: u16,
    process: Child,
    _directory: TempDir,
}

impl Redis {
    fn start() -> Redis {
        let directory = TempDir::new().unwrap();
        // Free a moment ago; somebody may be faster.
        let started = (0..10).find_map(|_| {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut process = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
                .args(["--repl-diskless-sync-delay", "0"])
                .current_dir(directory.path())
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server is installed, see `dev/stack deps`");
            loop {
                if process.try_wait().unwrap().is_some() {
                    return None;
                }
                if Client::open(url(port)).unwrap().get_connection().is_ok() {
                    return Some((port, process));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let (port, process) = started.expect("a Redis server starts");
        Redis { port, process, _directory: directory }
    }

    fn connection(&self) -> Connection {
        Client::open(url(self.port)).unwrap().get_connection().unwrap()
    }

    fn replicate(&self, host: &str, port: &str) {
        redis::cmd("REPLICAOF").arg(host).arg(port).exec(&mut self.connection()).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/0")
}

#[test]
fn f10_a_del_that_a_failover_loses_is_told_by_wait_and_bounded_by_the_ttl() {
    let mut world = World::new("f10");
    world.drafts(["d1"]);
    let (primary, replica) = (Redis::start(), Redis::start());
    replica.replicate("127.0.0.1", &primary.port.to_string());
    world.set("cache.url", url(primary.port));
    let key = "event:draft:d1";
    let mut cache = primary.connection();
    let lease = Lease::draw(key);
    lease.taking(TTL).exec(&mut cache).unwrap();
    assert!(lease.filling("old", TTL).query::<bool>(&mut cache).unwrap());
    let mut successor = replica.connection();
    eventually("it is replicated", || {
        successor.get::<_, Option<String>>(key).unwrap().as_deref() == Some("old")
    });

    // The replica is promoted, and the primary has not heard of it: it takes the DELs and answers
    // them.
    replica.replicate("NO", "ONE");
    world.publish([event("d1", "job-1")]);
    assert_eq!(world.run_until_caught_up().applied, 1);
    assert!(!cache.exists::<_, bool>(key).unwrap(), "the DEL was acknowledged");
    let replicas: u64 = redis::cmd("WAIT").arg(1).arg(100).query(&mut cache).unwrap();
    assert_eq!(replicas, 0, "WAIT tells that nobody else has it");
    drop(primary);

    assert!(successor.exists::<_, bool>(key).unwrap(), "the DEL is lost, as documented");
    let left: u64 = successor.ttl(key).unwrap();
    assert!(left <= TTL.as_secs(), "{left} s: the time to live bounds it");
    // Whatever happens to the draft next mends it.
    world.set("cache.url", url(replica.port));
    world.publish([event("d1", "job-1")]);
    assert_eq!(world.run_until_caught_up().duplicate, 1);
    assert!(!successor.exists::<_, bool>(key).unwrap());
}
