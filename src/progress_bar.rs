//! How far a long command is, on standard error: a bar on a terminal, a line now and then
//! elsewhere.

use std::fmt;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::notice::Notice;

/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The state of one long command.
pub enum Bar {
    /// A bar that is drawn again and again.
    Drawn(ProgressBar),
    /// Lines in a log.
    Lines {
        /// What is counted.
        what: &'static str,
        /// How many there will be.
        total: u64,
        /// When the command began.
        began: Instant,
        /// When the last line was written, or the command began.
        last: Instant,
        /// What is going on besides.
        note: String,
        /// Whether it says how fast it is.
        has_rate: bool,
    },
}

impl Bar {
    /// A bar that counts `what` from 0 to `total`.
    pub fn new(what: &'static str, total: u64) -> Bar {
        Bar::begin(what, total, true)
    }

    /// The same for something that takes as long as it takes, and is no faster for being many.
    pub fn unrated(what: &'static str, total: u64) -> Bar {
        Bar::begin(what, total, false)
    }

    fn begin(what: &'static str, total: u64, has_rate: bool) -> Bar {
        if !std::io::stderr().is_terminal() {
            let now = Instant::now();
            return Bar::Lines {
                what,
                total,
                began: now,
                last: now,
                note: String::new(),
                has_rate,
            };
        }
        let rate = if has_rate { ", {rate}/s, {eta} left" } else { "" };
        let template =
            format!("{{wide_bar}} {{percent:>3}}% {{human_pos}}/{{human_len}} {what}{rate}{{msg}}");
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("rate", |state: &ProgressState, text: &mut dyn fmt::Write| {
                write!(text, "{:.0}", state.per_sec()).expect("a string takes any text");
            });
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        bar.set_style(style);
        Bar::Drawn(bar)
    }

    /// So many are done.
    pub fn set(&mut self, done: u64) {
        match self {
            Bar::Drawn(bar) => bar.set_position(done),
            Bar::Lines { what, total, began, last, note, has_rate } => {
                if last.elapsed() < LINE_INTERVAL {
                    return;
                }
                *last = Instant::now();
                let line = line(what, done, *total, has_rate.then(|| began.elapsed()));
                Notice::Note(&format!("{line}{note}")).tell();
            }
        }
    }

    /// Adds a word on what is going on besides, from now on.
    pub fn say(&mut self, word: &str) {
        match self {
            Bar::Drawn(bar) => bar.set_message(format!(", {word}")),
            Bar::Lines { note, .. } => *note = format!(", {word}"),
        }
    }

    /// Takes the bar off the terminal; the report says the rest.
    pub fn finish(self) {
        if let Bar::Drawn(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// How far it is: a count, a share, and after so long, a rate, and how long the rest takes at that
/// rate.
fn line(what: &str, done: u64, total: u64, elapsed: Option<Duration>) -> String {
    let [done_wide, total_wide] = [done, total].map(u128::from);
    let percent = (100 * done_wide).checked_div(total_wide).unwrap_or(100);
    let Some(elapsed) = elapsed else {
        return format!("{done} of {total} {what}, {percent} %");
    };
    let elapsed_ms = elapsed.as_millis().max(1);
    let rate = 1_000 * done_wide / elapsed_ms;
    let left_s = total_wide.saturating_sub(done_wide).checked_div(rate);
    let left = left_s.map_or("unknown".to_owned(), |seconds| format!("{seconds} s"));
    format!("{done} of {total} {what}, {percent} %, {rate}/s, {left} left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long_still() {
        let ten = Some(Duration::from_secs(10));
        assert_eq!(line("trials", 3, 12, None), "3 of 12 trials, 25 %");
        assert_eq!(line("records", 250, 1_000, ten), "250 of 1000 records, 25 %, 25/s, 30 s left");
        assert_eq!(line("records", 0, 1_000, ten), "0 of 1000 records, 0 %, 0/s, unknown left");
        assert_eq!(
            line("records", 0, 0, Some(Duration::ZERO)),
            "0 of 0 records, 100 %, 0/s, unknown left"
        );
    }
}
