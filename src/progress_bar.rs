//! How far a long command is, on standard error: a bar on a terminal, a line now and then elsewhere.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

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
        /// When the last line was written, or the command began.
        last: Instant,
    },
}

impl Bar {
    /// A bar that counts `what` from 0 to `total`.
    pub fn new(what: &'static str, total: u64) -> Bar {
        if !std::io::stderr().is_terminal() {
            return Bar::Lines { what, total, last: Instant::now() };
        }
        let template = format!(
            "{{wide_bar}} {{percent:>3}}% {{human_pos}}/{{human_len}} {what}, {{rate}}/s, {{eta}} left"
        );
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
            Bar::Lines { what, total, last } => {
                if last.elapsed() < LINE_INTERVAL {
                    return;
                }
                *last = Instant::now();
                // Nobody reads it: no reason to stop.
                drop(writeln!(std::io::stderr(), "{done} of {total} {what}"));
            }
        }
    }

    /// Takes the bar off the terminal; the report says the rest.
    pub fn finish(self) {
        if let Bar::Drawn(bar) = self {
            bar.finish_and_clear();
        }
    }
}
