//! A server that answers nothing for a minute, under load: memory stays bounded, the group stays as
//! it is, nothing is given up, and the work goes on soon after the server does.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::checker::Expected;
use crate::ground::Ground;
use crate::instances::Instance;
use crate::load::Load;
use crate::offsets::Offsets;
use crate::servers::Server;
use crate::{RATE, RSS_MAX_KB, converge, number, pause, record, say};

/// How soon the work goes on.
const RESUMED: Duration = Duration::from_secs(5);

/// A session outlives the broker's silence, which tells the members nothing about one another.
const SESSION: [(&str, &str); 1] = [("KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", "90000")];

pub(crate) fn run(directory: &Path) -> Result<()> {
    let seed = number("SEED", fastrand::u64(..1_000_000))?;
    let frozen = Duration::from_secs(number("DURATION", 60)?);
    say(&format!("freeze: SEED={seed}, each server for {frozen:?}"));
    let mut late = Vec::new();
    for server in [Server::Postgres, Server::Redis, Server::Kafka] {
        let ground = Ground::make(directory, &SESSION)?;
        let resumed = ground.tended(|| freeze(&ground, server, frozen, seed))?;
        if resumed > RESUMED {
            late.push(server.name());
        }
    }
    ensure!(late.is_empty(), "resumed later than after {RESUMED:?}: {late:?}");
    Ok(())
}

fn freeze(ground: &Ground, server: Server, frozen: Duration, seed: u64) -> Result<Duration> {
    ground.start_instances()?;
    let offsets = Offsets::new(&ground.config.kafka)?;
    let load = Load::start(&ground.config, seed, RATE)?;
    pause(Duration::from_secs(5))?;
    let rebalances = || ground.instances.iter().map(Instance::rebalances).sum::<usize>();
    let before = rebalances();
    let guard = ground.servers.freeze(server)?;
    pause(frozen)?;
    let progress = Progress::before(ground, &offsets, server)?;
    let since = Instant::now();
    drop(guard);
    while !progress.is_made(ground, &offsets) && since.elapsed() < crate::PATIENCE {
        pause(Duration::from_millis(20))?;
    }
    let resumed = since.elapsed();
    let published = load.stop()?;
    let caught_up = converge(&offsets)?;
    let rebalanced = rebalances() - before;
    let expected = Expected::of(ground, &published)?;
    let found = expected.check(ground, &offsets)?;
    let record = record(ground)?;
    say(&format!(
        "freeze: server={} frozen_s={} records={} rss_max_mb={} rebalances={rebalanced} {} resumed_s={:.2} caught_up_s={:.1}",
        server.name(),
        frozen.as_secs(),
        expected.records,
        record.peak_rss_kb / 1024,
        crate::line(&found),
        resumed.as_secs_f64(),
        caught_up.as_secs_f64(),
    ));
    ensure!(found.is_clean(), "it does not end as it must");
    ensure!(rebalanced == 0, "the group has rebalanced");
    ensure!(record.peak_rss_kb <= RSS_MAX_KB, "{} kB of memory", record.peak_rss_kb);
    Ok(resumed)
}

/// Work that goes on, seen where the frozen server is not in the way.
enum Progress {
    /// More is committed. Rows would not do: what was sent to a frozen database it writes when it
    /// wakes.
    Committed(i64),
    /// Rows are written after that time.
    Written(String),
}

impl Progress {
    fn before(ground: &Ground, offsets: &Offsets, server: Server) -> Result<Progress> {
        if server == Server::Kafka {
            let now = ground.drafts_sql("SELECT now()")?;
            return Ok(Progress::Written(now.concat().concat()));
        }
        Ok(Progress::Committed(offsets.committed()?.values().sum()))
    }

    fn is_made(&self, ground: &Ground, offsets: &Offsets) -> bool {
        match self {
            Progress::Committed(before) => {
                offsets.committed().is_ok_and(|now| now.values().sum::<i64>() > *before)
            }
            Progress::Written(before) => {
                let written =
                    format!("SELECT count(*) FROM event_drafts WHERE updated_at > '{before}'");
                ground.number(&written).is_ok_and(|rows| rows > 0)
            }
        }
    }
}
