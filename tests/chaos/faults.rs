//! The faults: how each is brought about, how it shows that it really was, and how it ends.

use std::time::Duration;

use anyhow::Result;

use crate::eventually;
use crate::ground::Ground;
use crate::instances::Instance;
use crate::servers::Server::{self, Kafka, Postgres, Redis};

mod wires;
mod postgres;
mod redis;

/// What is hit. Two faults of one moment have different victims: else the one could keep the other
/// from showing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Instance,
    Server(Server),
}

/// Every kind of fault: its name, and its victim.
pub(crate) const KINDS: [(&str, Victim); 34] = [
    ("kill-instance", Victim::Instance),
    ("stop-instance", Victim::Instance),
    ("freeze-instance", Victim::Instance),
    ("join-and-leave", Victim::Instance),
    ("kill-kafka", Victim::Server(Kafka)),
    ("stop-kafka", Victim::Server(Kafka)),
    ("freeze-kafka", Victim::Server(Kafka)),
    ("refuse-dead-letters", Victim::Server(Kafka)),
    ("cut-kafka", Victim::Server(Kafka)),
    ("hold-kafka", Victim::Server(Kafka)),
    ("lose-answer-of-kafka", Victim::Server(Kafka)),
    ("kill-postgres", Victim::Server(Postgres)),
    ("stop-postgres", Victim::Server(Postgres)),
    ("crash-postgres", Victim::Server(Postgres)),
    ("freeze-postgres", Victim::Server(Postgres)),
    ("terminate-sessions", Victim::Server(Postgres)),
    ("cancel-statements", Victim::Server(Postgres)),
    ("lock-rows", Victim::Server(Postgres)),
    ("read-only-postgres", Victim::Server(Postgres)),
    ("full-postgres", Victim::Server(Postgres)),
    ("shut-out-of-postgres", Victim::Server(Postgres)),
    ("cut-postgres", Victim::Server(Postgres)),
    ("hold-postgres", Victim::Server(Postgres)),
    ("slow-postgres", Victim::Server(Postgres)),
    ("lose-answer-of-postgres", Victim::Server(Postgres)),
    ("kill-redis", Victim::Server(Redis)),
    ("freeze-redis", Victim::Server(Redis)),
    ("pause-redis", Victim::Server(Redis)),
    ("read-only-redis", Victim::Server(Redis)),
    ("no-replicas-of-redis", Victim::Server(Redis)),
    ("forbid-deletes", Victim::Server(Redis)),
    ("cut-redis", Victim::Server(Redis)),
    ("hold-redis", Victim::Server(Redis)),
    ("lose-answer-of-redis", Victim::Server(Redis)),
];

/// A fault of the schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: &'static str,
    /// Which of the instances, or whose link.
    pub(crate) instance: usize,
    pub(crate) duration: Duration,
}

/// Ends a fault, and proves first that it has shown where that takes time.
pub(crate) type Heal<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

/// Brings a fault about. An error means that it did not happen.
pub(crate) fn inject(fault: Fault, ground: &Ground) -> Result<Heal<'_>> {
    let instance = &ground.instances[fault.instance];
    match fault.kind {
        kind if kind.ends_with("-instance") => hit_instance(kind, instance),
        "join-and-leave" => join(&ground.guest),
        "kill-kafka" => restart(ground, Kafka, "KILL"),
        "stop-kafka" => restart(ground, Kafka, "TERM"),
        "kill-postgres" => restart(ground, Postgres, "KILL"),
        "stop-postgres" => restart(ground, Postgres, "INT"),
        "kill-redis" => restart(ground, Redis, "KILL"),
        "freeze-kafka" => freeze(ground, Kafka),
        "freeze-postgres" => freeze(ground, Postgres),
        "freeze-redis" => freeze(ground, Redis),
        "cut-kafka" => wires::cut(&ground.servers.kafka),
        "cut-postgres" => wires::cut(&instance.postgres),
        "cut-redis" => wires::cut(&instance.redis),
        "hold-kafka" => wires::hold(&ground.servers.kafka),
        "hold-postgres" => wires::hold(&instance.postgres),
        "hold-redis" => wires::hold(&instance.redis),
        "slow-postgres" => wires::slow_down(&instance.postgres),
        "lose-answer-of-kafka" => wires::lose_answer(&ground.servers.kafka),
        "lose-answer-of-postgres" => wires::lose_answer(&instance.postgres),
        "lose-answer-of-redis" => wires::lose_answer(&instance.redis),
        "refuse-dead-letters" => refuse_dead_letters(ground),
        kind if KINDS.contains(&(kind, Victim::Server(Redis))) => redis::turn(kind, ground),
        kind => postgres::turn(kind, ground),
    }
}

fn hit_instance<'a>(kind: &str, instance: &'a Instance) -> Result<Heal<'a>> {
    if kind == "freeze-instance" {
        let mut frozen = None;
        eventually("the instance runs", || {
            frozen = instance.freeze().ok();
            frozen.is_some()
        })?;
        return Ok(Box::new(move || {
            drop(frozen);
            Ok(())
        }));
    }
    let signal = if kind == "kill-instance" { "KILL" } else { "TERM" };
    // One that has just begun does not know yet what the signal means.
    eventually("the instance runs", || {
        (signal == "KILL" || instance.has_started()) && instance.end(signal)
    })?;
    Ok(Box::new(|| {
        eventually("the instance has ended", || instance.is_gone())?;
        instance.start();
        Ok(())
    }))
}

/// A member more, and a rebalance; and once more, when it leaves.
fn join(guest: &Instance) -> Result<Heal<'_>> {
    guest.start();
    Ok(Box::new(|| {
        eventually("the guest has partitions", || guest.has_started())?;
        eventually("the guest is asked to leave", || guest.end("TERM"))?;
        eventually("the guest leaves", || guest.is_gone())
    }))
}

fn restart<'a>(ground: &'a Ground, server: Server, signal: &str) -> Result<Heal<'a>> {
    ground.servers.end(server, signal)?;
    // The first call may find that a server is being ended elsewhere.
    Ok(Box::new(move || {
        eventually("the server is up again", || {
            ground.servers.up().is_ok() && ground.servers.process(server).is_ok()
        })
    }))
}

fn freeze(ground: &Ground, server: Server) -> Result<Heal<'_>> {
    let frozen = ground.servers.freeze(server)?;
    Ok(Box::new(move || {
        drop(frozen);
        Ok(())
    }))
}

/// Keeps something from the program until its server's log has the words with which it refuses:
/// then a request was met.
fn refuse<'a>(
    ground: &'a Ground,
    (server, words): (Server, &'static str),
    turn: impl Fn(bool) -> Result<()> + Send + 'a,
) -> Result<Heal<'a>> {
    let before = ground.logged(server, words);
    turn(true)?;
    Ok(Box::new(move || {
        let refused = eventually(words, || ground.logged(server, words) > before);
        turn(false)?;
        refused
    }))
}

/// The dead-letter topic takes nothing, which the broker does not log: an instance must say that it
/// waits for it.
fn refuse_dead_letters(ground: &Ground) -> Result<Heal<'_>> {
    let words = "InvalidTimestamp";
    let held = || ground.all_instances().map(|instance| instance.said(words)).sum::<usize>();
    let before = held();
    ground.dead_letters_no_older_than("0")?;
    Ok(Box::new(move || {
        let shown = eventually(words, || held() > before);
        ground.dead_letters_no_older_than("9223372036854775807")?;
        shown
    }))
}
