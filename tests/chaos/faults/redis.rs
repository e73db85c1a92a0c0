//! Faults of Redis that it brings about itself when it is told to.

use anyhow::Result;

use super::Heal;
use crate::eventually;
use crate::ground::Ground;

/// Faults of the cache: it answers, and does not what it is asked for.
pub(super) fn turn<'a>(kind: &str, ground: &'a Ground) -> Result<Heal<'a>> {
    let (turn, error, back): (&[&str], &'static str, &'static [&'static str]) = match kind {
        "read-only-redis" => {
            (&["REPLICAOF", "127.0.0.1", "1"], "READONLY", &["REPLICAOF", "NO", "ONE"])
        }
        "no-replicas-of-redis" => (
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            "NOREPLICAS",
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
        ),
        "forbid-deletes" => (
            &["ACL", "SETUSER", "default", "-del"],
            "NOPERM",
            &["ACL", "SETUSER", "default", "+@all"],
        ),
        // It ends by itself.
        _ => {
            let () = ground.redis(&["CLIENT", "PAUSE", "2500", "ALL"])?;
            return Ok(Box::new(|| Ok(())));
        }
    };
    // Redis counts its errors by their first word.
    let count = move |ground: &Ground| -> u64 {
        let stats: String = ground.redis(&["INFO", "errorstats"]).unwrap_or_default();
        let count = stats.split(&format!("errorstat_{error}:count=")).nth(1);
        count.and_then(|rest| rest.lines().next()?.trim().parse().ok()).unwrap_or(0)
    };
    let before = count(ground);
    let () = ground.redis(turn)?;
    Ok(Box::new(move || {
        let shown = eventually(error, || count(ground) > before);
        let () = ground.redis(back)?;
        shown
    }))
}
