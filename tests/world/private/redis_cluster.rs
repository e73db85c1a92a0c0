//! A Redis Cluster of a test's own.

use std::ops::RangeInclusive;
use std::path::Path;

use redis::Commands;
use redis::cluster::{ClusterClient, ClusterConnection};
use redis::cluster_routing::Slot;

use super::super::eventually;
use super::{Redis, free_port};

/// How long a node may be silent before the others take it for dead, milliseconds: short, and not
/// so short that a busy machine makes failovers of its own.
const NODE_TIMEOUT_MS: u32 = 2_000;

const SLOTS: usize = 16_384;

/// A cluster of masters with a third of the slots each (if they are three), and perhaps replicas.
pub(crate) struct RedisCluster {
    pub(crate) masters: Vec<Redis>,
    /// Of the first master.
    pub(crate) replica: Option<Redis>,
}

impl RedisCluster {
    /// Three masters.
    pub(crate) fn start() -> RedisCluster {
        RedisCluster::of((0..3).map(|_| node(None)).collect())
    }

    /// Three masters that speak TLS with each other, and at ports of their own with whoever wants
    /// to.
    pub(crate) fn start_encrypted(certificates: &Path) -> RedisCluster {
        RedisCluster::of((0..3).map(|_| node(Some(certificates))).collect())
    }

    fn of(masters: Vec<(Redis, u16)>) -> RedisCluster {
        let share = SLOTS.div_ceil(masters.len());
        for (index, (master, _)) in masters.iter().enumerate() {
            let (first, last) = (index * share, ((index + 1) * share).min(SLOTS) - 1);
            master.tell(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
            // Where two nodes claim one slot, the later epoch wins.
            master.tell(&format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1));
            masters[0].0.tell(&meet(master.port, masters[index].1));
        }
        let masters = masters.into_iter().map(|(master, _)| master).collect();
        let cluster = RedisCluster { masters, replica: None };
        cluster.await_all();
        cluster
    }

    /// Three masters, of which the first has a replica.
    pub(crate) fn start_with_replica() -> RedisCluster {
        let mut cluster = RedisCluster::start();
        let (replica, bus) = node(None);
        cluster.masters[0].tell(&meet(replica.port, bus));
        let master = id(&cluster.masters[0]);
        let follow = format!("CLUSTER REPLICATE {master}");
        eventually("the replica has met its master", || replica.try_tell(&follow).is_ok());
        eventually("the replica is in step", || replica.says("master_link_status:up"));
        cluster.replica = Some(replica);
        cluster.await_all();
        cluster
    }

    /// Waits until every node knows all the others, and its slots are served.
    pub(crate) fn await_all(&self) {
        let nodes = self.masters.len() + usize::from(self.replica.is_some());
        let says = |node: &Redis, what: &str| {
            node.ask::<String>("CLUSTER INFO").is_ok_and(|info| info.contains(what))
        };
        let known = format!("cluster_known_nodes:{nodes}\r");
        for node in self.masters.iter().chain(&self.replica) {
            eventually("the node has met all the others", || {
                says(node, &known) && says(node, "cluster_state:ok")
            });
        }
    }

    /// What `cache.url` is to be.
    pub(crate) fn url(&self) -> String {
        self.url_as("")
    }

    /// The same for a user with a password, with an @ behind them.
    pub(crate) fn url_as(&self, user_info: &str) -> String {
        let addresses: Vec<String> =
            self.masters.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+cluster://{user_info}{}", addresses.join(","))
    }

    /// The same with TLS, for a cluster that speaks it.
    pub(crate) fn secure_url(&self) -> String {
        let addresses: Vec<String> =
            self.masters.iter().map(|node| format!("127.0.0.1:{}", node.secure_port())).collect();
        format!("rediss+cluster://{}", addresses.join(","))
    }

    pub(crate) fn connection(&self) -> ClusterConnection {
        let urls = self.masters.iter().map(|node| node.url.as_str());
        ClusterClient::new(urls).unwrap().get_connection().unwrap()
    }

    /// Whether the key is in one of these slots.
    pub(crate) fn is_in(slots: &RangeInclusive<u16>, key: &str) -> bool {
        slots.clone().any(|slot| Slot::new(slot) == Some(Slot::for_key(key)))
    }

    /// Stores something under each key.
    pub(crate) fn fill(&self, keys: impl IntoIterator<Item = impl AsRef<str>>) {
        let mut connection = self.connection();
        for key in keys {
            connection.set::<_, _, ()>(key.as_ref(), "old").unwrap();
        }
    }

    /// Which of these keys there are.
    pub(crate) fn left(&self, keys: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
        let mut connection = self.connection();
        let keys = keys.into_iter().map(|key| key.as_ref().to_owned());
        keys.filter(|key| connection.exists(key).unwrap()).collect()
    }

    /// The slots of the first node are moved to the second, all the keys in them too, and nobody is
    /// told whose they are from now on: to a client both of them say ASK.
    pub(crate) fn begin_to_move(&self, slots: RangeInclusive<u16>) {
        let (from, to) = (&self.masters[0], &self.masters[1]);
        let (from_id, to_id) = (id(from), id(to));
        for slot in slots {
            to.tell(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
            from.tell(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
            let keys: Vec<String> =
                from.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 10000")).unwrap();
            if !keys.is_empty() {
                let keys = keys.join(" ");
                from.tell(&format!("MIGRATE 127.0.0.1 {}  0 10000 KEYS {keys}", to.port));
            }
        }
    }

    /// The slots are the second node's.
    pub(crate) fn finish_to_move(&self, slots: RangeInclusive<u16>) {
        let to_id = id(&self.masters[1]);
        for slot in slots {
            for node in [1, 0, 2].map(|index| &self.masters[index]) {
                node.tell(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
            }
        }
    }
}

fn node(certificates: Option<&Path>) -> (Redis, u16) {
    let bus = free_port();
    let (bus_text, timeout) = (bus.to_string(), NODE_TIMEOUT_MS.to_string());
    let arguments = ["--cluster-enabled", "yes", "--cluster-port", &bus_text].into_iter().chain([
        "--cluster-node-timeout",
        &timeout,
        "--repl-diskless-sync-delay",
        "0",
    ]);
    let arguments: Vec<&str> = arguments.collect();
    let server = match certificates {
        Some(certificates) => {
            let encrypted = [&arguments[..], &["--tls-cluster", "yes"]].concat();
            Redis::start_encrypted(certificates, &encrypted)
        }
        None => Redis::start_with(&arguments),
    };
    (server, bus)
}

fn meet(port: u16, bus: u16) -> String {
    format!("CLUSTER MEET 127.0.0.1 {port} {bus}")
}

fn id(node: &Redis) -> String {
    node.ask("CLUSTER MYID").unwrap()
}
