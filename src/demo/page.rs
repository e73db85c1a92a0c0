//! How the demo looks: numbered headings, and under each of them aligned lines.

use std::fmt::Display;
use std::io::{self, Write};

/// Wide enough for the longest name.
const NAME_WIDTH: usize = 14;

/// What is written for people.
pub(super) struct Page<'a> {
    out: &'a mut dyn Write,
    bold: bool,
    headings: u32,
}

impl<'a> Page<'a> {
    pub(super) fn new(out: &'a mut dyn Write, bold: bool) -> Page<'a> {
        Page { out, bold, headings: 0 }
    }

    /// A heading, shown at once: what it announces may take a while.
    pub(super) fn heading(&mut self, text: impl Display) -> io::Result<()> {
        self.headings += 1;
        let (on, off) = if self.bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        let space = if self.headings == 1 { "" } else { "\n" };
        writeln!(self.out, "{space}{on}{}. {text}{off}", self.headings)?;
        self.out.flush()
    }

    /// A name and what there is to say about it.
    pub(super) fn line(&mut self, name: &str, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{}", format!("  {name:<NAME_WIDTH$}  {text}").trim_end())?;
        self.out.flush()
    }

    /// Text as it is.
    pub(super) fn text(&mut self, text: impl Display) -> io::Result<()> {
        write!(self.out, "{text}")?;
        self.out.flush()
    }
}
