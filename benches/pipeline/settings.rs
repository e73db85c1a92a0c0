//! What to measure, and where: from the environment.

use anyhow::{Context, ensure};
use contentflow::config::{Config, Overrides};

/// Worker threads of the whole pipeline, and connections of the bare UPDATE beside it.
pub(crate) const WORKERS: usize = 2;

/// Everything that can be chosen, and the configuration that follows from it.
pub(crate) struct Settings {
    /// How many events; as many drafts.
    pub(crate) events: u64,
    /// How many events there are to replay.
    pub(crate) replay_events: u64,
    /// How many events go through one process.
    pub(crate) flat_events: u64,
    /// How many rounds.
    pub(crate) rounds: u64,
    /// Storage parameters of the table, such as `fillfactor = 50`; empty for PostgreSQL's defaults.
    pub(crate) table: String,
    /// Other builds of the program, to be measured beside this one.
    pub(crate) others: Vec<String>,
    /// What to measure, by name; nothing is `limits` to `replay`.
    only: Vec<String>,
    /// A corner of the servers that nobody else uses.
    pub(crate) config: Config,
    /// The same for another process: its environment.
    pub(crate) environment: Vec<(String, String)>,
}

impl Settings {
    /// Whether this is to be measured.
    pub(crate) fn measures(&self, name: &str) -> bool {
        self.only.is_empty() || self.asks_for(name)
    }

    /// Whether this was named.
    pub(crate) fn asks_for(&self, name: &str) -> bool {
        self.only.iter().any(|only| only == name)
    }

    /// Reads them from the environment.
    pub(crate) fn read() -> anyhow::Result<Settings> {
        let events = number("BENCH_EVENTS", 1_000_000)?;
        let rounds = number("BENCH_RUNS", 3)?;
        let replay_events = number("REPLAY_EVENTS", 2_000_000)?;
        let flat_events = number("FLAT_EVENTS", 10_000_000)?;
        let table = std::env::var("BENCH_TABLE").unwrap_or_default();
        let only = std::env::var("BENCH_ONLY").unwrap_or_default();
        let others = std::env::var("OTHERS").unwrap_or_default();
        let others = others.split_terminator(',').map(str::to_owned).collect();
        let only: Vec<String> = only.split_terminator(',').map(str::to_owned).collect();
        for name in &only {
            let known = [
                "limits", "whole", "latency", "replay", "poison", "flat", "backlogs", "tune",
                "watched", "versus",
            ];
            ensure!(known.contains(&name.as_str()), "BENCH_ONLY={name:?} is none of {known:?}");
        }
        let unique = format!("contentflow-bench-{:08x}", fastrand::u32(..));
        let mut environment = Vec::new();
        for name in ["KAFKA_BROKERS", "DATABASE_URL", "REDIS_URL"] {
            let value = std::env::var(name)
                .with_context(|| format!("{name} is not set: run `make bench`"))?;
            environment.push((name.to_owned(), value));
        }
        environment.extend([
            ("CONTENTFLOW_KAFKA__TOPIC".to_owned(), unique.clone()),
            ("CONTENTFLOW_KAFKA__GROUP".to_owned(), unique.clone()),
            ("CONTENTFLOW_DATABASE__TABLE".to_owned(), unique.replace('-', "_")),
            ("CONTENTFLOW_CACHE__KEY".to_owned(), format!("{unique}:draft:{{id}}")),
            ("CONTENTFLOW_RUN__WORKERS".to_owned(), WORKERS.to_string()),
            ("CONTENTFLOW_HTTP__LISTEN".to_owned(), "off".to_owned()),
        ]);
        let none = std::path::Path::new("");
        let config = Config::load_from(None, none, environment.clone(), Overrides::default())
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Settings {
            events,
            replay_events,
            flat_events,
            rounds,
            table,
            others,
            only,
            config,
            environment,
        })
    }
}

fn number(name: &str, default: u64) -> anyhow::Result<u64> {
    let Ok(text) = std::env::var(name) else { return Ok(default) };
    let number = text
        .replace('_', "")
        .parse()
        .with_context(|| format!("{name}={text:?} is not a number"))?;
    ensure!((1..=100_000_000).contains(&number), "{name} must be from 1 to 100,000,000");
    Ok(number)
}
