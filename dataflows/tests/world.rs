//! The world outside: a table, a cache and a dead-letter topic, in memory, and what each effect
//! does to them.
//!
//! What the graph promises about the order of effects is asserted here, where the effects happen.

use std::collections::{BTreeMap, BTreeSet};

use dataflows::accept::sort;
use dataflows::change::Change;
use dataflows::graph::Invalidated;
use dataflows::latest::Group;
use dataflows::outcome::{Outcome, Outcomes, Settled};
use dataflows::reject::{Fault, Reason, Rejected};
use dataflows::row::{RowMemory, judge};
use dataflows::validate::DraftIdType;
use dataflows::written::Written;

use crate::model::{Fate, Row};
use crate::topic::{At, Sent, is_refused};

/// How often a refused event and one of an unknown draft were tried.
pub(crate) const ATTEMPTS: u32 = 4;

/// A row, and when it was written last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    pub images: Option<String>,
    pub job: Option<String>,
    pub memory: RowMemory,
    pub written_at: u64,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub reason: Reason,
    pub message: String,
    pub attempts: u32,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Everything outside the graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub table: BTreeMap<String, Stored>,
    /// When the key of each draft was deleted last.
    pub deleted_at: BTreeMap<String, u64>,
    pub letters: BTreeMap<At, Vec<Letter>>,
    /// What became of each record when it was decided first.
    pub fates: BTreeMap<At, Fate>,
    /// Counts the effects.
    pub clock: u64,
    /// The effect after which this run comes to a sudden end.
    pub crash_at: Option<u64>,
    /// The records, for whoever has dropped part of one and reads it again.
    pub topic: BTreeMap<At, Sent>,
    /// Whether some answers are lost after their effect.
    pub loses_answers: bool,
    /// What follows is of this run only. The jobs that the table has answered for.
    pub durable: BTreeSet<(String, String)>,
    /// The records whose last effect has been answered.
    pub finished: BTreeSet<At>,
    /// The worker and lane that writes each draft.
    pub writers: BTreeMap<String, (usize, usize)>,
}

impl World {
    /// Forgets what belongs to one run.
    pub(crate) fn restart(&mut self, crash_after: Option<u64>) {
        self.durable.clear();
        self.finished.clear();
        self.writers.clear();
        self.crash_at = crash_after.map(|effects| self.clock + effects);
    }

    pub(crate) fn is_crashed(&self) -> bool {
        self.crash_at.is_some_and(|at| self.clock >= at)
    }

    pub(crate) fn rows(&self) -> BTreeMap<String, Row> {
        let row = |stored: &Stored| Row {
            images: stored.images.clone(),
            job: stored.job.clone(),
            applied: stored.memory.applied,
            recent: (stored.memory.recent.iter())
                .map(|known| (known.position, known.job_id.clone()))
                .collect(),
        };
        self.table.iter().map(|(draft, stored)| (draft.clone(), row(stored))).collect()
    }

    pub(crate) fn write(&mut self, Group { mut events }: Group, is_lost: bool) -> Written {
        let (mut written, mut outcomes) = (Written::default(), Outcomes::new());
        let refused = |change: Change, reason| {
            let fault = Fault::new(
                reason,
                if reason == Reason::UnknownDraft { "no such row" } else { "a constraint" },
            );
            change.refuse(fault, ATTEMPTS)
        };
        let topic = &self.topic;
        let Some(row) = self.table.get_mut(events[0].draft_id()) else {
            recall(topic, &mut events);
            let refused = events.into_iter().map(|event| refused(event, Reason::UnknownDraft));
            return Written { refused: refused.collect(), ..Written::default() };
        };
        // What the database refused is known. What it wrote is not, if the answer is lost: then it
        // is done again.
        for _ in 0..times(is_lost) {
            let judgement = loop {
                let judgement = judge(&row.memory, &events);
                let winner = judgement.winner.map(|winner| &events[winner]);
                let is_in_doubt =
                    |winner: &Change| !winner.has_images() || is_refused(&winner.images());
                if winner.is_some_and(|winner| !winner.has_record() && is_in_doubt(winner)) {
                    recall(topic, &mut events);
                    continue;
                }
                match judgement.winner.filter(|&winner| is_refused(&events[winner].images())) {
                    None => break judgement,
                    Some(winner) => {
                        let event = events.swap_remove(winner);
                        written.refused.push(refused(event, Reason::DatabaseRefused));
                    }
                }
            };
            if let Some(memory) = judgement.memory {
                row.memory = memory;
                row.written_at = self.clock;
            }
            if let Some(winner) = judgement.winner {
                row.images = Some(events[winner].images());
                row.job = Some(events[winner].job_id().to_owned());
            }
            for (change, outcome) in events.iter().zip(&judgement.outcomes) {
                self.fates.entry(at(change)).or_insert(fate(*outcome));
            }
            outcomes = judgement.outcomes;
        }
        if !events.is_empty() {
            written.settled.push(Settled { group: Group { events }, outcomes });
        }
        written
    }

    pub(crate) fn delete(&mut self, settled: Vec<Settled>) -> Invalidated {
        let mut drafts = BTreeSet::new();
        for (change, outcome) in settled.iter().flat_map(events) {
            assert!(
                self.durable.contains(&job_key(change)),
                "the key of {} is deleted before its row is known to be written",
                change.draft_id()
            );
            self.fates.entry(at(change)).or_insert(fate(outcome));
            drafts.insert(change.draft_id());
        }
        let deletes = u64::try_from(drafts.len()).unwrap();
        for draft in drafts {
            self.deleted_at.insert(draft.to_owned(), self.clock);
        }
        Invalidated { settled, deletes, keys_deleted: 0 }
    }

    pub(crate) fn bury(&mut self, rejected: &Rejected) {
        let record = rejected.record();
        let at = (record.partition(), record.offset());
        self.fates.entry(at).or_insert(Fate::Rejected(rejected.fault.reason));
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        self.letters.entry(at).or_default().push(Letter {
            reason: rejected.fault.reason,
            message: rejected.fault.message.clone(),
            attempts: rejected.attempts,
            timestamp_ms: rejected.timestamp_ms(),
            key: owned(record.key()),
            value: owned(record.value()),
            headers: record
                .headers()
                .map(|(name, value)| (name.to_owned(), owned(value)))
                .collect(),
        });
    }
}

/// Reads in full what was compacted.
fn recall(topic: &BTreeMap<At, Sent>, events: &mut [Change]) {
    for event in events.iter_mut().filter(|event| !event.has_record()) {
        let draft_ids = DraftIdType::Text { max_chars: None };
        let whole = sort(topic[&at(event)].chunk(), draft_ids).changes.pop().unwrap();
        assert_eq!((whole.position(), whole.job_id()), (event.position(), event.job_id()));
        *event = whole;
    }
}

/// How often something is done, depending on whether the first answer is lost.
pub(crate) fn times(is_lost: bool) -> usize {
    if is_lost { 2 } else { 1 }
}

pub(crate) fn at(change: &Change) -> At {
    (change.position().partition, change.position().offset)
}

pub(crate) fn job_key(change: &Change) -> (String, String) {
    (change.draft_id().to_owned(), change.job_id().to_owned())
}

fn fate(outcome: Outcome) -> Fate {
    match outcome {
        Outcome::Applied => Fate::Applied,
        Outcome::Duplicate => Fate::Duplicate,
        Outcome::Superseded => Fate::Superseded,
    }
}

/// Each event, and what became of it.
fn events(settled: &Settled) -> impl Iterator<Item = (&Change, Outcome)> {
    settled.group.events.iter().zip(settled.outcomes.iter().copied())
}
