//! Load: events of every kind at a steady rate, and readers that go through the cache as a service
//! should.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use contentflow::clock::now_ms;
use contentflow::config::{Config, Secret};
use contentflow::drafts::{self, Source};
use contentflow::generate::{Generator, Kind, Mix};
use contentflow::publish::{Event, Publisher};
use dataflows::reject::Reason;
use tokio::runtime::Runtime;

use crate::link::{Link, Protocol};

/// How many of the newest drafts are read more than others: where reads and writes meet.
const HOT: usize = 32;
const READERS: u64 = 6;

/// How long the cache is from a reader, one way: so long that an event of the draft can come
/// through between its read of the row and its fill of the cache. Without the lease, the old row
/// would stay in the cache.
const FAR: Duration = Duration::from_millis(20);

/// The drafts in the table, and those that make trouble.
pub(crate) const DRAFTS: u64 = 20_000;

/// The constraint that refuses the images of one draft in a thousand.
pub(crate) const REFUSED: &str = "CHECK (content_images IS NULL OR event_draft_id NOT LIKE '%777')";

/// One draft in a thousand has no row.
pub(crate) const ABSENT: &str = "event_draft_id LIKE '%555'";

/// Why the database takes no event of the draft: [`REFUSED`], [`ABSENT`], and those that the
/// generator makes up.
pub(crate) fn refusal(draft: &str) -> Option<Reason> {
    if draft.ends_with("777") && draft.starts_with("draft-") {
        Some(Reason::DatabaseRefused)
    } else {
        let absent = draft.ends_with("555") || draft.starts_with("no-such-draft");
        absent.then_some(Reason::UnknownDraft)
    }
}

fn mix(seed: u64, rate: u64) -> Mix {
    Mix {
        seed,
        events: u64::MAX,
        drafts: DRAFTS,
        start_ms: now_ms(),
        spacing_us: 1_000_000 / rate,
        duplicates: 0.05,
        stale: 0.03,
        bad: 0.001,
        foreign: 0.02,
        ..Mix::default()
    }
}

/// What was published, by kind.
pub(crate) type Published = BTreeMap<Kind, u64>;

/// Publishes until it is told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    hot: Arc<Mutex<VecDeque<String>>>,
    publisher: JoinHandle<Result<Published>>,
}

impl Load {
    pub(crate) fn start(config: &Config, seed: u64, rate: u64) -> Result<Load> {
        let (stop, hot) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut kafka = config.kafka.clone();
        // Longer than the broker is away, whatever happens to it.
        kafka.properties.insert("message.timeout.ms".to_owned(), "300000".to_owned());
        let (stopped, newest) = (Arc::clone(&stop), Arc::clone(&hot));
        let publisher = std::thread::spawn(move || {
            publish(Publisher::new(&kafka)?, mix(seed, rate), rate, &newest, &stopped)
        });
        Ok(Load { stop, hot, publisher })
    }

    /// The drafts that were published last.
    pub(crate) fn hot(&self) -> Arc<Mutex<VecDeque<String>>> {
        Arc::clone(&self.hot)
    }

    /// Waits until all that was published is acknowledged, and tells how much that is.
    pub(crate) fn stop(self) -> Result<Published> {
        self.stop.store(true, Ordering::Relaxed);
        self.publisher.join().expect("the publisher does not panic")
    }
}

fn publish(
    publisher: Publisher,
    mix: Mix,
    rate: u64,
    hot: &Mutex<VecDeque<String>>,
    stop: &AtomicBool,
) -> Result<Published> {
    let (mut published, began) = (Published::new(), Instant::now());
    for (number, event) in (0_u32..).zip(Generator::new(mix)?) {
        let due = began + Duration::from_secs(1) * number / u32::try_from(rate)?;
        while let Some(pause) = due.checked_duration_since(Instant::now()) {
            publisher.idle(pause);
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        publisher.send(&Event::from(&event))?;
        *published.entry(event.kind).or_default() += 1;
        let mut hot = hot.lock().unwrap();
        hot.push_front(event.key);
        hot.truncate(HOT);
    }
    let acknowledged = publisher.finish()?.events;
    ensure!(acknowledged == published.values().sum::<u64>(), "{acknowledged} of {published:?}");
    Ok(published)
}

/// Reads drafts through the cache, with the lease, until they are told to stop.
pub(crate) struct Readers {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Reads>>,
}

/// How reads ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reads {
    pub(crate) hits: u64,
    pub(crate) fills: u64,
    pub(crate) uncached: u64,
    pub(crate) failed: u64,
}

impl Readers {
    pub(crate) fn start(
        runtime: &Runtime,
        config: &Config,
        seed: u64,
        hot: &Arc<Mutex<VecDeque<String>>>,
    ) -> Result<Readers> {
        let far = Link::new(Protocol::Redis)?;
        let (_, server) = config.cache.url.expose().split_once("://").context("a URL")?;
        far.lead_to(server.trim_end_matches("/0"));
        far.slow_down(FAR);
        let mut config = config.clone();
        config.cache.url = Secret::new(format!("redis://{}/0", far.address()));
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..READERS).map(|reader| {
            let (config, hot, stop) = (config.clone(), Arc::clone(hot), Arc::clone(&stop));
            let mut rng = fastrand::Rng::with_seed(seed ^ reader);
            runtime.spawn(async move {
                let mut reads = Reads::default();
                while !stop.load(Ordering::Relaxed) {
                    let id = some_draft(&mut rng, &hot);
                    match drafts::read(&config, &id).await {
                        Ok((_, Source::Cache)) => reads.hits += 1,
                        Ok((_, Source::DatabaseAndFilled)) => reads.fills += 1,
                        Ok((_, Source::Database)) => reads.uncached += 1,
                        Err(_) => reads.failed += 1,
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                reads
            })
        });
        Ok(Readers { tasks: tasks.collect(), stop })
    }

    pub(crate) fn stop(self, runtime: &Runtime) -> Reads {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Reads::default();
        for task in self.tasks {
            let reads = runtime.block_on(task).expect("a reader does not panic");
            all.hits += reads.hits;
            all.fills += reads.fills;
            all.uncached += reads.uncached;
            all.failed += reads.failed;
        }
        all
    }
}

fn some_draft(rng: &mut fastrand::Rng, hot: &Mutex<VecDeque<String>>) -> String {
    let hot = hot.lock().unwrap();
    if rng.bool() && !hot.is_empty() {
        return hot[rng.usize(..hot.len())].clone();
    }
    contentflow::generate::DraftIds::Text.id(rng.u64(1..=DRAFTS))
}
