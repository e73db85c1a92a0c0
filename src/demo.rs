//! demo: the whole job with generated events, told step by step, and a proof at the end that it
//! went right.
//!
//! ```text
//! nothing there yet? -> table, topics, drafts -> some drafts cached -> publish -> run -> look -> compare -> clear away
//! ```

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::check;
use crate::clock::now_ms;
use crate::config::Config;
use crate::dead_letters::{self, Which};
use crate::drafts::{self, Rows};
use crate::generate::Mix;
use crate::progress_bar::Bar;
use crate::publish;
use crate::report::{Report, grouped};
use crate::run::consume;
use crate::shutdown::stop_on_signals;
use crate::source::Until;

mod ground;
mod expected;
mod page;
mod compare;
mod error;

pub use error::DemoError;
pub(crate) use error::ELSEWHERE;

use compare::Comparison;
use expected::Expected;
use ground::{Ground, PARTITIONS};
use page::Page;

/// What to show.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many events.
    pub events: u64,
    /// About how many drafts.
    pub drafts: u64,
    /// The same seed makes the same events.
    pub seed: u64,
    /// Whether to leave everything behind.
    pub keep: bool,
    /// Whether headings may be bold.
    pub bold: bool,
}

/// Runs the demo. True if everything came out as it should.
///
/// # Errors
///
/// [`DemoError`]. What was made by then is deleted, unless it is to be kept.
pub fn run(
    config: &Arc<Config>,
    options: &Options,
    runtime: &Runtime,
    out: &mut dyn Write,
) -> Result<bool, DemoError> {
    let mut page = Page::new(out, options.bold);
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signals(runtime, Arc::clone(&stop));
    let mut ground = runtime.block_on(Ground::inspect(config))?;
    let told = Demo { config, options, runtime, stop }.tell(&mut ground, &mut page);
    if options.keep {
        let agrees = told?;
        page.text(AFTER_KEEP)?;
        return Ok(agrees);
    }
    // What went wrong first is what counts.
    let cleared = runtime.block_on(ground.clear());
    let agrees = told?;
    cleared?;
    page.text(AFTER_CLEARING)?;
    Ok(agrees)
}

const AFTER_KEEP: &str = "
Everything is left as it is. Look around with
  contentflow draft list            the drafts that changed last
  contentflow draft get ID          one of them, through the cache
  contentflow dlq count --by-reason the dead letters
  contentflow run                   wait for more, for example from
  contentflow publish --generate 1000 --duplicates 0.1
";

const AFTER_CLEARING: &str = "
The topics, the drafts and what was cached of them are deleted again.
`contentflow demo --keep` leaves them, to look around.
";

/// One demo.
struct Demo<'a> {
    config: &'a Arc<Config>,
    options: &'a Options,
    runtime: &'a Runtime,
    stop: Arc<AtomicBool>,
}

impl Demo<'_> {
    fn tell(&self, ground: &mut Ground<'_>, page: &mut Page<'_>) -> Result<bool, DemoError> {
        page.heading("Prepare")?;
        let draft_ids = self.runtime.block_on(ground.prepare())?;
        let mix = Mix {
            seed: self.options.seed,
            events: self.options.events,
            drafts: self.options.drafts,
            draft_ids,
            start_ms: now_ms(),
            spacing_us: publish::spacing_us(None),
            duplicates: 0.05,
            stale: 0.05,
            bad: 0.001,
            foreign: 0.02,
        };
        let expected = Expected::of(&mix).map_err(publish::PublishError::from)?;
        let sample = expected.sample();
        self.prepare(ground, &mix, &sample, page)?;
        if let Some(id) = sample.first() {
            page.heading(format_args!("The draft {id} before"))?;
            self.show_draft(ground, id, page)?;
        }
        self.publish(mix, &expected, page)?;
        let report = self.consume(page)?;
        let still_cached = self.runtime.block_on(ground.still_cached())?;
        if let Some(id) = sample.first() {
            let events = expected.drafts.get(*id).map_or(0, |newest| newest.events);
            page.heading(format_args!("The draft {id} after {events} events"))?;
            self.show_draft(ground, id, page)?;
        }
        let dead_letters = self.show_dead_letter(page)?;
        let comparison = Comparison {
            expected: &expected,
            report: &report,
            dead_letters,
            right_rows: self.runtime.block_on(self.right_rows(&expected))?,
            cached: u64::try_from(sample.len()).unwrap_or(u64::MAX),
            still_cached,
        };
        page.heading("Does it agree with what was generated?")?;
        Ok(comparison.write(page)?)
    }

    fn prepare(
        &self,
        ground: &mut Ground<'_>,
        mix: &Mix,
        sample: &[&str],
        page: &mut Page<'_>,
    ) -> Result<(), DemoError> {
        let Config { kafka, dead_letters, database, .. } = &**self.config;
        page.line("Kafka", format_args!("topic {}, {PARTITIONS} partitions", kafka.topic))?;
        page.line("", format_args!("topic {} for dead letters", dead_letters.topic))?;
        self.runtime.block_on(ground.create_drafts(mix.drafts, mix.draft_ids))?;
        let drafts = grouped(mix.drafts);
        page.line("PostgreSQL", format_args!("table {}, {drafts} drafts", database.table))?;
        self.runtime.block_on(ground.cache_drafts(sample))?;
        page.line("Redis", format_args!("{} of the drafts, read as a service does", sample.len()))?;
        let problems = self.runtime.block_on(check::problems(self.config, check::Needs::ALL));
        if problems.is_empty() { self.go_on() } else { Err(DemoError::NotReady(problems)) }
    }

    /// A signal ends the demo between two steps; a second one at once.
    fn go_on(&self) -> Result<(), DemoError> {
        if self.stop.load(Ordering::Relaxed) { Err(DemoError::Interrupted) } else { Ok(()) }
    }

    fn publish(&self, mix: Mix, expected: &Expected, page: &mut Page<'_>) -> Result<(), DemoError> {
        page.heading(format_args!("Publish {} events", grouped(mix.events)))?;
        let mut bar = Bar::new("events", mix.events);
        let published =
            publish::publish_generated(&self.config.kafka, mix, None, &mut |sent| bar.set(sent));
        bar.finish();
        let published = published?;
        for (kind, about) in KINDS {
            page.text(format_args!(
                "  {kind:<12} {:>12}  {about}\n",
                grouped(expected.count(kind))
            ))?;
        }
        let (seconds, rate) = (published.elapsed.as_secs_f64(), published.rate());
        page.text(format_args!("  {seconds:.1} s, {rate:.0} events/s\n"))?;
        self.go_on()
    }

    fn consume(&self, page: &mut Page<'_>) -> Result<Report, DemoError> {
        page.heading("Run")?;
        let until = Until { stop: Arc::clone(&self.stop), caught_up: true };
        let report = consume(self.config, &until, self.runtime, None)?;
        self.go_on()?;
        page.text(&report)?;
        Ok(report)
    }

    /// Shows the draft as a service reads it, and whether it was cached before that.
    fn show_draft(
        &self,
        ground: &Ground<'_>,
        id: &str,
        page: &mut Page<'_>,
    ) -> Result<(), DemoError> {
        let cached = self.runtime.block_on(ground.is_cached(id))?;
        let key = self.config.cache.key.key(id);
        page.line(
            "cache key",
            format_args!("{key} {}", if cached { "is there" } else { "is gone" }),
        )?;
        let (draft, source) = self.runtime.block_on(drafts::read(self.config, id))?;
        page.line("draft get", source.describe())?;
        let draft: Value = serde_json::from_str(&draft).unwrap_or_default();
        page.line("updated_at", draft["updated_at"].as_str().unwrap_or("null"))?;
        match draft["content_images"].as_object() {
            None => page.line("content_images", "null")?,
            Some(images) => {
                page.line("content_images", "")?;
                for url in images.values().filter_map(Value::as_str) {
                    page.text(format_args!("    {url}\n"))?;
                }
            }
        }
        Ok(())
    }

    /// Shows the newest dead letter, and counts the records that have one.
    fn show_dead_letter(&self, page: &mut Page<'_>) -> Result<u64, DemoError> {
        let (letters, _replayed) = dead_letters::newest(self.config, &Which::All, usize::MAX)?;
        let mut origins: Vec<_> = letters.iter().map(|letter| &letter.origin).collect();
        origins.sort_unstable();
        origins.dedup();
        if let Some(letter) = letters.last() {
            let origin = &letter.origin;
            page.heading(format_args!(
                "One dead letter, of {}",
                grouped(origins.len().try_into().unwrap_or(0))
            ))?;
            page.line(
                "record",
                format_args!("{} {}:{}", origin.topic, origin.partition, origin.offset),
            )?;
            page.line("reason", &letter.reason)?;
            page.line("message", &letter.message)?;
            page.line("place", format_args!("{0}, see `contentflow dlq show {0}`", letter.place))?;
        }
        Ok(u64::try_from(origins.len()).unwrap_or(u64::MAX))
    }

    async fn right_rows(&self, expected: &Expected) -> Result<u64, DemoError> {
        let rows = Rows::connect(&self.config.database).await?;
        Ok(expected.right_rows(&rows).await?)
    }
}

/// The kinds of events in the order of their shares, and what they are about.
const KINDS: [(&str, &str); 5] = [
    ("fresh", "new images for a draft"),
    ("duplicate", "a recent job once more, as a retry sends it"),
    ("stale", "a new job, older than what its draft has"),
    ("foreign", "another event type on the same topic"),
    ("bad", "to be rejected"),
];
