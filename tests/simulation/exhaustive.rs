//! Small histories, all of them: every mix of up to three records on two drafts, every reply to
//! every request, a crash after every turn.

use super::history::{Chances, History, Kind, Limits, Record};
use super::run::{Ran, Schedule, run};
use super::world::{Fate, Reply};

/// What a record of a mix is: kind, whose draft, and whether it is older than those before, or
/// repeats the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Letter {
    Newer,
    Older,
    Repeat,
    OtherDraft,
    Refused,
    Unknown,
    Bad,
}

const LETTERS: [Letter; 7] = [
    Letter::Newer,
    Letter::Older,
    Letter::Repeat,
    Letter::OtherDraft,
    Letter::Refused,
    Letter::Unknown,
    Letter::Bad,
];

const REPLIES: [Reply; 5] =
    [Reply::Before, Reply::After, Reply::Late, Reply::Deadlock, Reply::Locked];

/// All mixes of up to so many records.
pub(crate) fn mixes(most: usize) -> Vec<History> {
    let mut words: Vec<Vec<Letter>> = vec![Vec::new()];
    let mut mixes = Vec::new();
    for _ in 0..most {
        let longer = |word: &Vec<Letter>| {
            let word = word.clone();
            LETTERS.map(move |letter| [word.as_slice(), &[letter]].concat())
        };
        words = words.iter().flat_map(longer).collect();
        mixes.extend(words.iter().map(|word| history(word)));
    }
    mixes
}

fn history(word: &[Letter]) -> History {
    let record = |(index, letter): (usize, &Letter)| {
        let offset = i64::try_from(index).unwrap();
        let (kind, draft) = match letter {
            Letter::Newer | Letter::Older | Letter::Repeat => (Kind::Event, "d0"),
            Letter::OtherDraft => (Kind::Event, "d1"),
            Letter::Refused => (Kind::Refused, "d0"),
            Letter::Unknown => (Kind::Event, "nobody"),
            Letter::Bad => (Kind::Bad, "d0"),
        };
        let timestamp_ms = if *letter == Letter::Older { -offset } else { 0 };
        let first = word.iter().position(|it| matches!(it, Letter::Newer | Letter::Older));
        let job = match (letter, first) {
            (Letter::Repeat, Some(first)) if first < index => first,
            _ => index,
        };
        // A repeat is stamped as its original.
        let timestamp_ms = if job == index { timestamp_ms } else { stamp(word, job) };
        Record::new((0, offset), timestamp_ms, kind, (format!("j{job}"), draft.to_owned()), 0)
    };
    History {
        seed: 1,
        instances: 1,
        partitions: 1,
        records: word.iter().enumerate().map(record).collect(),
        drafts: vec!["d0".to_owned(), "d1".to_owned()],
        late_drafts: Vec::new(),
        sealed: None,
        faults: Vec::new(),
        chances: Chances::default(),
        limits: Limits {
            lanes: 1,
            batch_rows: 4,
            epoch_records: 2,
            epochs_in_flight: 2,
            dedupe_jobs: 4,
        },
        is_replayed: false,
    }
}

fn stamp(word: &[Letter], index: usize) -> i64 {
    if word[index] == Letter::Older { -i64::try_from(index).unwrap() } else { 0 }
}

/// Plays a mix in every way: as it is, with each reply to each request, with two of them where the
/// mix is short, and there with a crash after every turn too.
pub(crate) fn play(
    runtime: &tokio::runtime::Runtime,
    history: &History,
    mut each: impl FnMut(&Fate, Schedule, Ran),
) {
    let mut one = |replies: Vec<Reply>, dies_after: Option<u32>| {
        let schedule = Schedule::Even { dies_after };
        let ran = run(runtime, history, Fate::Scripted(replies.clone()), schedule);
        let (turns, requests) = (ran.turns, ran.world.requests);
        each(&Fate::Scripted(replies), schedule, ran);
        (turns, requests)
    };
    let (_, requests) = one(Vec::new(), None);
    let is_short = history.records.len() <= 2;
    for first in 0..requests {
        for reply in REPLIES {
            let mut replies = vec![Reply::Ok; first];
            replies.push(reply);
            let (turns, requests) = one(replies.clone(), None);
            if !is_short {
                continue;
            }
            // Past the first hundred turns it waits for something that it waited for before.
            for turn in 0..turns.min(100) {
                one(replies.clone(), Some(turn));
            }
            for second in first + 1..requests.min(first + 6) {
                for reply in REPLIES {
                    let mut replies = replies.clone();
                    replies.resize(second, Reply::Ok);
                    replies.push(reply);
                    one(replies, None);
                }
            }
        }
    }
}
