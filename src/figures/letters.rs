//! The newest dead letters: where they came from and why, and nothing of what was in them.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dataflows::reject::{Rejected, Stage};
use serde::Serialize;

use crate::clock::now_ms;
use crate::lock::lock;

/// How many are kept.
const KEPT: usize = 20;

/// How much of a message is kept, characters. Ours are sentences; the database's may be anything.
const MESSAGE_MAX: usize = 300;

/// One dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// When it was acknowledged, milliseconds since 1970.
    pub at_ms: i64,
    /// The reason's code.
    pub reason: &'static str,
    /// The stage that rejected the record.
    pub stage: &'static str,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The sentence beside the code.
    pub message: String,
}

/// The newest dead letters, and how many each stage has rejected.
#[derive(Debug, Default)]
pub struct Letters {
    newest: Mutex<VecDeque<Letter>>,
    accept: AtomicU64,
    write: AtomicU64,
}

impl Letters {
    /// Notes a batch of dead letters that are acknowledged.
    pub fn note(&self, batch: &[Rejected]) {
        let at_ms = now_ms();
        let of = |stage| batch.iter().filter(|rejected| rejected.stage == stage).count();
        let add = |sum: &AtomicU64, count| {
            sum.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed)
        };
        add(&self.accept, of(Stage::Accept));
        add(&self.write, of(Stage::Write));
        let mut newest = lock(&self.newest);
        for rejected in &batch[batch.len().saturating_sub(KEPT)..] {
            let record = rejected.record();
            newest.push_back(Letter {
                at_ms,
                reason: rejected.fault.reason.code(),
                stage: rejected.stage.name(),
                partition: record.partition(),
                offset: record.offset(),
                message: rejected.fault.message.chars().take(MESSAGE_MAX).collect(),
            });
        }
        while newest.len() > KEPT {
            newest.pop_front();
        }
    }

    /// The newest ones, the newest first.
    pub fn newest(&self) -> Vec<Letter> {
        let newest = lock(&self.newest);
        newest.iter().rev().cloned().collect()
    }

    /// How many records were rejected before the database had seen them, and by the database.
    pub fn rejected(&self) -> (u64, u64) {
        (self.accept.load(Ordering::Relaxed), self.write.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use dataflows::change::{Arena, Events};
    use dataflows::record::{Chunk, RawRecord};
    use dataflows::reject::{Fault, Reason};

    use super::*;

    #[test]
    fn a_letter_names_its_stage_as_its_header_does() {
        let mut chunk = Chunk::default();
        chunk.push(RawRecord::default(), []);
        let fault = Fault::new(Reason::NullValue, "there is no value");
        let rejected = Rejected::new(Arena::new(chunk, Events::default()), 0, fault);
        let mut refused = rejected.clone();
        refused.stage = Stage::Write;
        let letters = Letters::default();
        letters.note(&[refused, rejected]);
        let stages: Vec<_> = letters.newest().iter().map(|letter| letter.stage).collect();
        assert_eq!(stages, [Stage::Accept, Stage::Write].map(Stage::name));
    }
}
