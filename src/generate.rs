//! Synthetic events: an endless supply of realistic input, the same for the same seed.
//!
//! ```text
//! Mix (seed, how many, shares) -> Generator -> GeneratedEvent, GeneratedEvent, … in the order of publication
//! ```
//!
//! Nothing here reads a clock or the environment. The generator keeps a few dozen recent jobs and
//! nothing per draft, so a million drafts cost it no memory: the next draft is the next step of a
//! walk that visits every draft once before it visits one again.

use dataflows::record::RawRecord;
use dataflows::reject::Reason;
use fastrand::Rng;
use std::collections::VecDeque;
use std::fmt::Write;

mod bad;
mod mix;

pub use bad::bad_reasons;
pub use mix::DraftIds;
pub use mix::Mix;
pub use mix::MixError;

/// How many of the newest jobs a repeat may repeat. A producer's retry follows its first try
/// closely, and a job this young is still among the sixteen that a draft's row remembers.
const RECENT_JOBS_MAX: u64 = 64;

/// How many of those jobs may belong to one draft, by the same reason.
const RECENT_JOBS_PER_DRAFT: u64 = 8;

/// How much older than its draft's published event a stale one is, at most, in milliseconds.
const STALE_MS_MAX: i64 = 60_000;

/// What an event is meant to be, and so what must become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A new job, newer than all before it.
    Fresh,
    /// A recent job once more.
    Duplicate,
    /// A new job, older than an event of its draft published before.
    Stale,
    /// Another event type.
    Foreign,
    /// An event to reject, with the reason.
    Bad(Reason),
}

impl Kind {
    /// The kind in one word, for reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Fresh => "fresh",
            Kind::Duplicate => "duplicate",
            Kind::Stale => "stale",
            Kind::Foreign => "foreign",
            Kind::Bad(_) => "bad",
        }
    }
}

/// Header names with their values.
pub type Headers = &'static [(&'static str, &'static str)];

/// The headers that a Content Service sends with each event.
pub const CONTENT_CREATED: Headers =
    &[("eventType", "ContentCreated"), ("content-type", "application/json")];

const DRAFT_DELETED: Headers =
    &[("eventType", "DraftDeleted"), ("content-type", "application/json")];
const NO_TYPE: Headers = &[("content-type", "application/json")];

/// One event, ready to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedEvent {
    /// The record's key: the draft's id, so that a draft's events share a partition and keep their
    /// order.
    pub key: String,
    /// The record's value; `None` only where a null value is what is wrong with it.
    pub value: Option<Vec<u8>>,
    /// The record's headers.
    pub headers: Headers,
    /// The record's timestamp, milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// What it is meant to be.
    pub kind: Kind,
}

impl GeneratedEvent {
    /// The record that it becomes at that place of a topic.
    pub fn record_at(&self, partition: i32, offset: i64) -> RawRecord<'_> {
        RawRecord {
            partition,
            offset,
            timestamp_ms: self.timestamp_ms,
            key: Some(self.key.as_bytes()),
            value: self.value.as_deref(),
            ..RawRecord::default()
        }
    }
}

/// A job of the generator: its content follows from the seed and these numbers.
#[derive(Clone, Copy, Debug)]
struct Job {
    number: u64,
    draft: u64,
    timestamp_ms: i64,
}

/// The events of a mix, in the order of publication.
#[derive(Clone, Debug)]
pub struct Generator {
    mix: Mix,
    rng: Rng,
    /// How many events have been generated.
    events: u64,
    /// How many jobs have been given out.
    jobs: u64,
    /// How many fresh events there were: the place in the walk over the drafts.
    fresh: u64,
    /// How many bad events there were: the place in the round of reasons.
    bad: u64,
    /// How many events of another type there were.
    foreign: u64,
    /// The step of the walk, coprime to the number of drafts.
    stride: u64,
    recent: VecDeque<Job>,
    recent_max: u64,
}

impl Generator {
    /// A generator at its first event.
    ///
    /// # Errors
    ///
    /// When the shares are no shares, or there is no draft to speak of.
    pub fn new(mix: Mix) -> Result<Generator, MixError> {
        mix.check()?;
        Ok(Generator {
            rng: Rng::with_seed(mix.seed),
            events: 0,
            jobs: 0,
            fresh: 0,
            bad: 0,
            foreign: 0,
            stride: stride(mix.drafts),
            recent: VecDeque::new(),
            recent_max: RECENT_JOBS_MAX.min(mix.drafts.saturating_mul(RECENT_JOBS_PER_DRAFT)),
            mix,
        })
    }

    /// What comes next, as the shares say.
    fn next_kind(&mut self) -> Kind {
        let mut dice = self.rng.f64();
        let shares = [
            (self.mix.duplicates, Kind::Duplicate),
            (self.mix.stale, Kind::Stale),
            (self.mix.bad, Kind::Bad(bad::next_reason(self.mix.draft_ids, self.bad))),
            (self.mix.foreign, Kind::Foreign),
        ];
        for (share, kind) in shares {
            if dice < share {
                return kind;
            }
            dice -= share;
        }
        Kind::Fresh
    }

    fn now_ms(&self) -> i64 {
        let elapsed_ms = self.events.saturating_mul(self.mix.spacing_us) / 1000;
        self.mix.start_ms.saturating_add(i64::try_from(elapsed_ms).unwrap_or(i64::MAX))
    }

    fn new_job(&mut self, draft: u64, timestamp_ms: i64) -> Job {
        self.jobs += 1;
        Job { number: self.jobs, draft, timestamp_ms }
    }

    /// The next draft of the walk, from 1.
    fn next_draft(&mut self) -> u64 {
        let place = u128::from(self.fresh) * u128::from(self.stride) + u128::from(self.mix.seed);
        self.fresh += 1;
        let index = place % u128::from(self.mix.drafts);
        u64::try_from(index).expect("less than the number of drafts") + 1
    }

    fn fresh(&mut self) -> GeneratedEvent {
        let draft = self.next_draft();
        let job = self.new_job(draft, self.now_ms());
        if u64::try_from(self.recent.len()).is_ok_and(|len| len >= self.recent_max) {
            self.recent.pop_front();
        }
        self.recent.push_back(job);
        self.event(job, CONTENT_CREATED, Kind::Fresh)
    }

    fn a_recent_job(&mut self) -> Job {
        self.recent[self.rng.usize(..self.recent.len())]
    }

    /// A retry sends the same record again, with the timestamp of the first try: only its offset is
    /// new.
    fn duplicate(&mut self) -> GeneratedEvent {
        let job = self.a_recent_job();
        self.event(job, CONTENT_CREATED, Kind::Duplicate)
    }

    fn stale(&mut self) -> GeneratedEvent {
        let published = self.a_recent_job();
        let age_ms = self.rng.i64(1..=STALE_MS_MAX);
        let job = self.new_job(published.draft, published.timestamp_ms.saturating_sub(age_ms));
        self.event(job, CONTENT_CREATED, Kind::Stale)
    }

    /// By turns the header or a field says that it is another type; the rest looks like a
    /// ContentCreated, so that a consumer which does not look at the type does harm.
    fn foreign(&mut self) -> GeneratedEvent {
        let job = self.elsewhere();
        let by_header = self.foreign.is_multiple_of(2);
        self.foreign += 1;
        let mut event =
            self.event(job, if by_header { DRAFT_DELETED } else { NO_TYPE }, Kind::Foreign);
        if !by_header {
            let body = self.body(job);
            event.value = Some(format!(r#"{{"eventType":"DraftDeleted",{body}}}"#).into_bytes());
        }
        event
    }

    fn bad(&mut self, reason: Reason) -> GeneratedEvent {
        let job = self.elsewhere();
        let turn = self.bad;
        self.bad += 1;
        let mut event = self.event(job, CONTENT_CREATED, Kind::Bad(reason));
        bad::spoil(self, job, turn, reason, &mut event);
        event
    }

    /// A job of any draft, outside the walk: what becomes of it must not leave a gap there.
    fn elsewhere(&mut self) -> Job {
        let draft = self.rng.u64(1..=self.mix.drafts);
        self.new_job(draft, self.now_ms())
    }

    fn event(&self, job: Job, headers: Headers, kind: Kind) -> GeneratedEvent {
        let body = self.body(job);
        let mut value = Vec::with_capacity(body.len() + 2);
        value.push(b'{');
        value.extend_from_slice(body.as_bytes());
        value.push(b'}');
        GeneratedEvent {
            key: self.mix.draft_ids.id(job.draft),
            value: Some(value),
            headers,
            timestamp_ms: job.timestamp_ms,
            kind,
        }
    }

    /// The members of the event's object, without the braces.
    fn body(&self, job: Job) -> String {
        let (job_id, draft_id) = (self.job_id(job), self.mix.draft_ids.id(job.draft));
        let mut body = String::with_capacity(400);
        write!(
            body,
            r#""jobId":"{job_id}","eventDraftId":"{draft_id}","imageUrls":{}"#,
            images(&urls(&job_id))
        )
        .expect("a string takes any text");
        body
    }

    /// A version 4 UUID that follows from the seed and the job's number.
    fn job_id(&self, job: Job) -> String {
        let mut rng = Rng::with_seed(self.mix.seed.rotate_left(32) ^ job.number);
        // Neighbouring seeds give neighbouring first numbers.
        rng.u64(..);
        let bits = rng.u128(..);
        let hex = format!("{bits:032x}");
        format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
    }
}

impl Iterator for Generator {
    type Item = GeneratedEvent;

    fn next(&mut self) -> Option<GeneratedEvent> {
        if self.events == self.mix.events {
            return None;
        }
        let event = match self.next_kind() {
            // As long as nothing is published, nothing can be repeated or outdated.
            Kind::Duplicate | Kind::Stale if self.recent.is_empty() => self.fresh(),
            Kind::Fresh => self.fresh(),
            Kind::Duplicate => self.duplicate(),
            Kind::Stale => self.stale(),
            Kind::Foreign => self.foreign(),
            Kind::Bad(reason) => self.bad(reason),
        };
        self.events += 1;
        Some(event)
    }
}

/// The three styles of a job with their URLs.
fn urls(job_id: &str) -> [(&'static str, String); 3] {
    ["simple", "fancy", "trendy"]
        .map(|style| (style, format!("https://cdn.example.com/{job_id}/{style}.png")))
}

/// The object of styles with their URLs, as JSON.
fn images(urls: &[(&str, String)]) -> String {
    let mut object = String::with_capacity(300);
    for (style, url) in urls {
        let before = if object.is_empty() { '{' } else { ',' };
        write!(object, r#"{before}"{style}":"{url}""#).expect("a string takes any text");
    }
    object.push('}');
    object
}

/// A step near the golden section of `drafts` and coprime to it: stepping so around a circle of
/// that many places visits each once, and neighbours in time are far apart.
fn stride(drafts: u64) -> u64 {
    let golden = u128::from(drafts) * 618_034 / 1_000_000;
    let mut stride = u64::try_from(golden).expect("less than the number of drafts").max(1);
    while gcd(stride, drafts) != 1 {
        stride += 1;
    }
    stride
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;
