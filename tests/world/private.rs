//! Servers that one test has for itself: it may freeze, kill, restart and reconfigure them, and
//! nobody else notices.
//!
//! Whatever is frozen is thawed and whatever runs is stopped when its guard is dropped, also by a
//! failing test.

use std::net::TcpListener;
use std::process::Command;

mod disk;
mod postgres;
mod redis;
mod redis_cluster;
mod redis_sentinels;

pub(crate) use disk::SmallDisk;
pub(crate) use postgres::Postgres;
pub(crate) use redis::Redis;
pub(crate) use redis_cluster::RedisCluster;
pub(crate) use redis_sentinels::RedisSentinels;

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let [port] = free_ports();
    port
}

/// Different ports that nobody listens on, below the range of outgoing connections, so that a
/// server can come back to its own.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    // Each is taken until all are found: none comes twice.
    let ports = std::iter::repeat_with(|| fastrand::u16(20_000..32_000)).take(1_000);
    let taken = ports.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    let taken: Vec<TcpListener> = taken.take(N).collect();
    let ports: Vec<u16> = taken.iter().map(|it| it.local_addr().unwrap().port()).collect();
    ports.try_into().expect("there are free ports")
}

/// Sends a signal to processes that the test has started, itself or through a server of its own.
pub(crate) fn signal(pids: &[u32], name: &str) {
    let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let kill = format!("kill -{name} {pids}");
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
}

/// Processes that stand still, until this is dropped.
#[must_use = "they are thawed when it is dropped"]
pub(crate) struct Frozen(Vec<u32>);

impl Frozen {
    pub(crate) fn freeze(pids: &[u32]) -> Frozen {
        assert!(!pids.is_empty(), "there is nothing to freeze");
        let frozen = Frozen(pids.to_vec());
        signal(pids, "STOP");
        frozen
    }

    pub(crate) fn thaw(self) {}
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            // One that has been killed meanwhile needs no thawing.
            drop(Command::new("sh").args(["-c", &format!("kill -CONT {pid}")]).output());
        }
    }
}

/// The processes that a process has started.
fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may contain anything; behind it stand the state and the parent.
        let (_, rest) = stat.rsplit_once(')')?;
        let its_parent: u32 = rest.split_whitespace().nth(1)?.parse().ok()?;
        (its_parent == parent).then_some(pid)
    });
    processes.collect()
}
