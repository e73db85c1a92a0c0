//! What a verification has found, for people as a table, for machines as one JSON object a line.

use std::io::{self, Write};

use dataflows::record::Position;
use serde_json::{Value, json};

use super::{Compared, Difference, Options};
use crate::printable::{one_line, table};
use crate::report::grouped;

/// Writes the differences, and in the table how much was compared.
pub(super) fn write(
    differences: &[Difference],
    compared: &Compared,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<()> {
    if options.json {
        return differences.iter().try_for_each(|difference| writeln!(out, "{}", line(difference)));
    }
    if !differences.is_empty() {
        let shown: Vec<[String; 6]> = differences.iter().take(options.limit).map(cells).collect();
        table(["difference", "draft", "row", "topic", "mended", "what"], &shown, out)?;
        if differences.len() > shown.len() {
            let rest = differences.len() - shown.len();
            writeln!(out, "… and {} more; --json has all of them", grouped(count(rest)))?;
        }
        writeln!(out)?;
    }
    let unmended = differences.iter().filter(|difference| difference.mended != Some(true)).count();
    let left = match unmended {
        _ if !options.repair => "",
        0 => "all of them mended",
        _ => "not all of them mended",
    };
    let Compared { records, told, rows, cached } = *compared;
    let numbers = [
        ("records", records, "read, to where everything must be in its row"),
        ("drafts", told.drafts, "that these are about"),
        ("rows", rows, "held against them"),
        ("cached", cached, "held against their rows"),
        ("differences", count(differences.len()), left),
    ];
    for (name, number, about) in numbers {
        writeln!(out, "{}", format!("  {name:<14} {:>12}  {about}", grouped(number)).trim_end())?;
    }
    Ok(())
}

/// Says that it watches, and what.
pub(super) fn beginning(
    compared: &Compared,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<()> {
    if options.json {
        return Ok(());
    }
    let [rows, drafts, cached] =
        [compared.rows, compared.told.drafts, compared.cached].map(grouped);
    writeln!(out, "watching {rows} rows, {drafts} drafts with events, {cached} cached drafts")
}

/// Writes what has appeared and what has gone, a line each.
pub(super) fn changes(
    old: &[Difference],
    new: &[Difference],
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<()> {
    let not_in = |others: &[Difference], one: &Difference| {
        !others.iter().any(|other| (other.kind, &other.draft) == (one.kind, &one.draft))
    };
    let appeared = new.iter().filter(|one| not_in(old, one)).map(|one| ("appeared", one));
    let gone = old.iter().filter(|one| not_in(new, one)).map(|one| ("gone", one));
    for (what, difference) in gone.chain(appeared) {
        if options.json {
            let mut line = line(difference);
            line["change"] = what.into();
            writeln!(out, "{line}")?;
            continue;
        }
        let Difference { kind, draft, detail, .. } = difference;
        let (kind, draft) = (kind.code(), one_line(draft.as_bytes()));
        let now = jiff::Timestamp::now();
        writeln!(out, "{now:.0}  {what:<8}  {kind}  {draft}  {detail}")?;
    }
    Ok(())
}

/// One difference for machines.
fn line(difference: &Difference) -> Value {
    let Difference { kind, draft, detail, row, topic, mended, remedy: _ } = difference;
    json!({
        "kind": kind.code(),
        "draft": draft,
        "message": detail,
        "row": row.map(position),
        "topic": topic.map(position),
        "mendable": difference.is_mendable(),
        "mended": mended,
    })
}

fn position(Position { timestamp_ms, offset, partition }: Position) -> Value {
    json!({ "timestamp": timestamp_ms, "offset": offset, "partition": partition })
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn cells(difference: &Difference) -> [String; 6] {
    let Difference { kind, draft, detail, row, topic, mended, remedy: _ } = difference;
    let place = |at: &Option<Position>| match at {
        None => "-".to_owned(),
        Some(Position { offset, partition, .. }) => format!("{partition}:{offset}"),
    };
    [
        kind.code().to_owned(),
        one_line(draft.as_bytes()),
        place(row),
        place(topic),
        mended.map_or("-", |mended| if mended { "yes" } else { "no" }).to_owned(),
        detail.clone(),
    ]
}
