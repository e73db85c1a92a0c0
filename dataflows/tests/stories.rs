//! The rules told by examples: every file in `stories` is a scenario and what comes of it.
//!
//! ```text
//! # What the story shows.
//! drafts d1 d2                   rows that come into being here
//! epoch                          the records up to the next one are read together
//! 0@7 t=1000 a d1                partition 0, offset 7, time 1000: job a has images for draft d1
//! 0@8 t=1000 a d1 refused        ... which the database refuses
//! 0@9 t=1000 eventType=X {...}   a header, and the value as it stands
//! 0@9 t=1000 stamped null        a topic that stamps its own time, and no value
//! ---
//! what comes of it
//! ```
//!
//! Each is run on one worker and on three, and compared with the model as well. `UPDATE_STORIES=1`
//! rewrites what comes of it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::model::{Fate, Row, fold};
use crate::run::{Setup, lock, run};
use crate::topic::{Epoch, Part, Sent, event};
use crate::world::World;

const END: &str = "---\n";

#[test]
fn stories_end_as_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "there are stories");
    let different: Vec<String> = files.iter().filter_map(|file| tell(file)).collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Runs a story, and returns what is different from what it tells.
fn tell(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let (scenario, told) = text.split_once(END).unwrap_or((&text, ""));
    let epochs = parse(scenario);
    let ending = play(&epochs, 1);
    assert_eq!(ending, play(&epochs, 3), "{}: one worker and three differ", file.display());
    if is_update() {
        std::fs::write(file, format!("{scenario}{END}{ending}")).unwrap();
        return None;
    }
    (ending != told).then(|| format!("{}\n--- told\n{told}--- happened\n{ending}", file.display()))
}

#[expect(clippy::disallowed_methods, reason = "the core has no environment, its tests may")]
fn is_update() -> bool {
    std::env::var("UPDATE_STORIES").is_ok()
}

fn parse(scenario: &str) -> Vec<Epoch> {
    let mut epochs: Vec<Epoch> = Vec::new();
    let mut created = Vec::new();
    for line in scenario.lines().map(str::trim) {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        match first {
            "" | "#" => {}
            "drafts" => created.extend(rest.split_whitespace().map(str::to_owned)),
            "epoch" => epochs.push(Epoch { created: std::mem::take(&mut created), chunks: vec![] }),
            _ => {
                let chunks = &mut epochs.last_mut().expect("an epoch is open").chunks;
                // Each record by itself, to another worker each.
                chunks.push(Part { worker: chunks.len(), records: vec![record(first, rest)] });
            }
        }
    }
    epochs
}

fn record(at: &str, rest: &str) -> Sent {
    let (partition, offset) = at.split_once('@').expect(at);
    let (partition, offset) = (partition.parse().unwrap(), offset.parse().unwrap());
    let mut sent = Sent { partition, offset, ..Sent::default() };
    let mut rest = rest.trim();
    while !rest.is_empty() {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        match word.split_once('=') {
            _ if word.starts_with(['{', '[', '"']) => {
                sent.value = Some(rest.into());
                return sent;
            }
            Some(("t", time)) => sent.timestamp_ms = time.parse().unwrap(),
            Some((name, value)) => sent.headers.push((name.to_owned(), Some(value.into()))),
            None if word == "stamped" => sent.stamped_by_topic = true,
            None if word == "null" => return sent,
            None => {
                let (draft, refused) = after.split_once(' ').unwrap_or((after, ""));
                sent.value = Some(event(sent.at(), word, draft, refused == "refused"));
                return sent;
            }
        }
        rest = after.trim_start();
    }
    sent
}

/// What comes of the epochs, as text.
fn play(epochs: &[Epoch], workers: usize) -> String {
    let setup = Setup {
        workers,
        lanes: 2,
        rows_max: 2,
        keys_max: 2,
        dedupe_jobs: 1_000,
        epochs_in_flight: 1,
        compaction: None,
        in_turns: true,
        seed: 1,
    };
    let world = Arc::new(Mutex::new(World::default()));
    run(&setup, epochs, &world);
    let (world, expected) = (lock(&world), fold(epochs));
    assert_eq!(world.rows(), expected.rows, "the model ends otherwise");
    let mut text = String::new();
    for record in epochs.iter().flat_map(Epoch::records) {
        let fate = world.fates.get(&record.at()).copied().unwrap_or(Fate::Skipped);
        assert_eq!(fate, expected.fates[&record.at()], "the model ends otherwise");
        let (partition, offset) = record.at();
        writeln!(text, "{partition}@{offset} {}", outcome(fate, &world, record)).unwrap();
    }
    text.push('\n');
    for (draft, row) in world.rows() {
        writeln!(text, "{draft}: {}", content(&row)).unwrap();
    }
    let deleted: Vec<&str> = world.deleted_at.keys().map(String::as_str).collect();
    writeln!(text, "deleted keys: {}", or_none(&deleted)).unwrap();
    text
}

fn outcome(fate: Fate, world: &World, record: &Sent) -> String {
    let Fate::Rejected(reason) = fate else { return format!("{fate:?}").to_lowercase() };
    let letter = &world.letters[&record.at()][0];
    assert_eq!((&letter.value, &letter.headers), (&record.value, &record.headers));
    let tries = match letter.attempts {
        0 => String::new(),
        attempts => format!(", {attempts} tries"),
    };
    let time = letter.timestamp_ms;
    format!("rejected, {}: {}{tries}; dead letter of t={time}", reason.code(), letter.message)
}

/// A row in words. The images of an event that the story did not spell out are named by its place.
fn content(row: &Row) -> String {
    let jobs: BTreeMap<_, _> = row.recent.iter().map(|(at, job)| (at, job.as_str())).collect();
    let jobs: Vec<&str> = jobs.into_values().rev().collect();
    let remembered = or_none(&jobs);
    let (Some(images), Some(at), Some(job)) = (&row.images, row.applied, &row.job) else {
        return format!("as it was; remembers {remembered}");
    };
    let place = format!("/cdn/{}/{}/", at.partition, at.offset);
    let images = if images.contains(&place) {
        format!("images of {}@{}", at.partition, at.offset)
    } else {
        images.clone()
    };
    format!("{images}, job {job}, t={}; remembers {remembered}", at.timestamp_ms)
}

fn or_none(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}
