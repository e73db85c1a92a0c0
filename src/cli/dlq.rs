//! `contentflow dlq …`

use std::fmt;
use std::str::FromStr;

use clap::{Args, Subcommand};
use dataflows::reject::Reason;

/// `contentflow dlq …`
#[derive(Clone, Debug, Subcommand)]
pub enum DlqCommand {
    /// List the dead letters, the newest last
    List(ListArgs),
    /// Show one dead letter with everything that is known about it
    Show(ShowArgs),
    /// Count the dead letters
    Count(CountArgs),
    /// Publish dead letters to their topic again
    Replay(ReplayArgs),
}

/// `contentflow dlq list`
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// How many at most, counted from the newest
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,

    /// Only those with this reason
    #[arg(long, value_parser = reason)]
    pub reason: Option<Reason>,

    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `contentflow dlq show`
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Where it is in the dead-letter topic
    #[arg(value_name = "PARTITION:OFFSET")]
    pub position: Position,
}

/// `contentflow dlq count`
#[derive(Clone, Debug, Args)]
pub struct CountArgs {
    /// One line for each reason
    #[arg(long)]
    pub by_reason: bool,
}

/// `contentflow dlq replay`
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Which dead letters.
    #[command(flatten)]
    pub which: Which,

    /// Also those that have been replayed before
    #[arg(long)]
    pub again: bool,
}

/// Exactly one of them is given.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// All of them
    #[arg(long)]
    pub all: bool,

    /// Those with this reason
    #[arg(long, value_parser = reason)]
    pub reason: Option<Reason>,

    /// The one at this place in the dead-letter topic
    #[arg(long, value_name = "PARTITION:OFFSET")]
    pub offset: Option<Position>,
}

/// A record's place in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

impl FromStr for Position {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Position, &'static str> {
        let parsed = text.split_once(':').and_then(|(partition, offset)| {
            Some(Position {
                partition: partition.parse().ok()?,
                offset: offset.parse().ok()?,
            })
        });
        parsed
            .filter(|position| position.partition >= 0 && position.offset >= 0)
            .ok_or("write partition and offset as two numbers, like 0:42; `contentflow dlq list` shows them")
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

fn reason(code: &str) -> Result<Reason, String> {
    Reason::from_code(code).ok_or_else(|| {
        format!(
            "the reasons are {}",
            Reason::ALL.map(Reason::code).join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_two_numbers() {
        assert_eq!(
            "3:42".parse(),
            Ok(Position {
                partition: 3,
                offset: 42
            })
        );
        for bad in ["", "3", "3:", ":42", "-1:0", "0:-1", "3:42:1", "a:b"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }
}
