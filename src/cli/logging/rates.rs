//! How often a line may stand in the log: a server that fails a thousand times a second, or a
//! stranger's thousand records, must not fill it. The first lines of a kind are told, the others
//! counted, and the number is told when the minute is over.
//!
//! A kind is a place in the program, for each server that it tells of: one that comes and goes
//! hides no other. What somebody has asked for (`-v`) is not held back.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::lock::lock;

/// How long lines of a kind are counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// How many of them are told: enough to see what goes on, and a screenful at most.
const MOST: u32 = 20;
/// How many errors of ours: each is for a person to see, and they come once for each partition at
/// most.
const MOST_ERRORS: u32 = 200;
/// What the targets of our own lines begin with.
const OURS: &str = "contentflow";
/// How much of the first line that is left out is shown, characters.
const EXAMPLE_CHARS: usize = 200;
/// The target of what is told about the lines themselves.
const OWN_TARGET: &str = "contentflow::log";

/// How many lines of each kind there were.
#[derive(Debug)]
struct Rates<K> {
    kinds: HashMap<K, Kind>,
}

#[derive(Debug)]
struct Kind {
    since: Instant,
    told: u32,
    left_out: u64,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Tell,
    /// The first that is left out. The number is to be told at that time.
    Begin(Instant),
    LeaveOut,
}

impl<K: Eq + Hash> Rates<K> {
    /// Judges a line of that kind, of which so many may be told.
    fn judge(&mut self, kind: K, most: u32, now: Instant) -> Verdict {
        let kind = self.kinds.entry(kind).or_insert(Kind { since: now, told: 0, left_out: 0 });
        // What is left out is told before the next minute begins.
        if kind.left_out == 0 && now.duration_since(kind.since) >= WINDOW {
            *kind = Kind { since: now, told: 0, left_out: 0 };
        }
        if kind.told < most {
            kind.told += 1;
            return Verdict::Tell;
        }
        kind.left_out += 1;
        if kind.left_out == 1 { Verdict::Begin(kind.since + WINDOW) } else { Verdict::LeaveOut }
    }

    /// How many lines of the kind were left out since it was asked last.
    fn take(&mut self, kind: &K) -> u64 {
        self.kinds.get_mut(kind).map_or(0, |kind| std::mem::take(&mut kind.left_out))
    }
}

/// A kind of line: where it is told, and the server that it is about, if it names one as its
/// `dependency`.
type KindOfLine = (Identifier, Option<String>);

/// Holds back lines that come too often.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    rates: Arc<Mutex<Rates<KindOfLine>>>,
    /// What is being left out: an example of each kind.
    examples: Arc<Mutex<HashMap<KindOfLine, Example>>>,
}

/// A line that is left out.
#[derive(Debug)]
struct Example {
    level: Level,
    from: &'static str,
    like: String,
}

impl Limits {
    pub(super) fn new() -> Limits {
        let rates = Rates { kinds: HashMap::new() };
        Limits { rates: Arc::new(Mutex::new(rates)), examples: Arc::default() }
    }

    /// Tells what is left out and has not been told yet.
    pub(super) fn finish(&self) {
        let kinds: Vec<KindOfLine> = lock(&self.examples).keys().cloned().collect();
        kinds.iter().for_each(|kind| self.tell(kind));
    }

    fn begin(&self, kind: KindOfLine, event: &Event<'_>, at: Instant) {
        let mut message = Message::default();
        event.record(&mut message);
        let (metadata, like) = (event.metadata(), message.0.chars().take(EXAMPLE_CHARS).collect());
        let example = Example { level: *metadata.level(), from: metadata.target(), like };
        lock(&self.examples).insert(kind.clone(), example);
        let limits = self.clone();
        // Without a thread to spare it is told at the end.
        let told = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            limits.tell(&kind);
        });
        drop(told);
    }

    fn tell(&self, kind: &KindOfLine) {
        let Some(Example { level, from, like }) = lock(&self.examples).remove(kind) else { return };
        let more = lock(&self.rates).take(kind);
        let within_s = WINDOW.as_secs();
        if level == Level::INFO {
            tracing::info!(target: OWN_TARGET, more, within_s, from, like, "more lines of a kind");
        } else {
            tracing::warn!(target: OWN_TARGET, more, within_s, from, like, "more lines of a kind");
        }
    }
}

impl<S: Subscriber> Layer<S> for Limits {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let most = match *metadata.level() {
            Level::ERROR if metadata.target().starts_with(OURS) => MOST_ERRORS,
            Level::ERROR | Level::WARN | Level::INFO => MOST,
            _ => return true,
        };
        if metadata.target() == OWN_TARGET {
            return true;
        }
        let mut dependency = Dependency::default();
        event.record(&mut dependency);
        let kind = (metadata.callsite(), dependency.0);
        let verdict = lock(&self.rates).judge(kind.clone(), most, Instant::now());
        if let Verdict::Begin(at) = verdict {
            self.begin(kind, event, at);
        }
        verdict == Verdict::Tell
    }
}

/// The words of a line, without its fields.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// The server that a line is about.
#[derive(Default)]
struct Dependency(Option<String>);

impl Visit for Dependency {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "dependency" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges a line of that kind at so many seconds.
    fn judged(
        rates: &mut Rates<&'static str>,
        kind: &'static str,
        began: Instant,
        s: u64,
    ) -> Verdict {
        rates.judge(kind, 3, began + Duration::from_secs(s))
    }

    #[test]
    fn the_first_are_told_and_the_others_counted_until_the_minute_is_over() {
        let (mut rates, began) = (Rates { kinds: HashMap::new() }, Instant::now());
        let mut at = |s| judged(&mut rates, "storm", began, s);
        assert_eq!([at(5), at(6), at(7)], [Verdict::Tell; 3]);
        let end = began + Duration::from_secs(65);
        assert_eq!(
            [at(8), at(9), at(64)],
            [Verdict::Begin(end), Verdict::LeaveOut, Verdict::LeaveOut]
        );
        // Whoever is to tell the number is late.
        assert_eq!(at(66), Verdict::LeaveOut);
        assert_eq!((rates.take(&"storm"), rates.take(&"storm")), (4, 0));
        let mut at = |s| judged(&mut rates, "storm", began, s);
        assert_eq!([at(67), at(67), at(67), at(68)][..3], [Verdict::Tell; 3]);
        assert_eq!(at(69), Verdict::LeaveOut);
    }

    #[test]
    fn what_comes_now_and_then_is_always_told() {
        let (mut rates, began) = (Rates { kinds: HashMap::new() }, Instant::now());
        for s in (0..1_000).step_by(20) {
            assert_eq!(judged(&mut rates, "seldom", began, s), Verdict::Tell, "{s}");
        }
    }

    #[test]
    fn one_kind_does_not_silence_another() {
        let (mut rates, began) = (Rates { kinds: HashMap::new() }, Instant::now());
        for _ in 0..100 {
            judged(&mut rates, "storm", began, 0);
        }
        assert_eq!(judged(&mut rates, "other", began, 0), Verdict::Tell);
        assert_eq!((rates.take(&"storm"), rates.take(&"other"), rates.take(&"none")), (97, 0, 0));
    }
}
