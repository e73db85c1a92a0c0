//! The lane on a table that is made up, in time that passes when it sleeps.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dataflows::accept::sort;
use dataflows::change::Change;
use dataflows::effect::Effect;
use dataflows::latest::group;
use dataflows::peers::Waker;
use dataflows::record::Chunk;
use dataflows::row::RowMemory;
use dataflows::validate::DraftIdType;

use super::failure::DatabaseError;
use super::table::Amendment;
use super::*;
use crate::config::OnOutage;
use crate::generate::{Generator, Mix};
use crate::shutdown::Abort;
use crate::sink::{Remote, remote};

mod refused;

/// What a batch of rows takes that nobody has locked.
const WRITE: Duration = Duration::from_millis(10);

/// A table whose first rows are locked until so many batches are written. A try at these takes a
/// long time.
struct Locked {
    drafts: Vec<String>,
    /// Batches until they are free.
    left: u32,
    tries: Arc<Mutex<Duration>>,
    /// How long the server is away from the first try on, and when that was.
    outage: Duration,
    first_try: Option<Instant>,
}

const TRY: Duration = Duration::from_secs(5);

impl Locked {
    fn is_locked(&self, draft: &str) -> bool {
        self.left > 0 && self.drafts.iter().any(|it| it == draft)
    }
}

impl Table for Locked {
    async fn update(&mut self, events: &[&Change]) -> Result<Vec<usize>, Failure> {
        tokio::time::sleep(WRITE).await;
        if events.iter().any(|event| self.is_locked(event.draft_id())) {
            return Err(Failure::Locked(DatabaseError::NoAnswer(WRITE)));
        }
        self.left = self.left.saturating_sub(1);
        Ok((0..events.len()).collect())
    }

    async fn read(&mut self, drafts: &[&str]) -> Result<Vec<(usize, RowMemory)>, Failure> {
        Ok((0..drafts.len()).map(|draft| (draft, RowMemory::default())).collect())
    }

    async fn amend(&mut self, amendments: &[Amendment<'_>]) -> Result<Vec<usize>, Failure> {
        if self.first_try.get_or_insert_with(Instant::now).elapsed() < self.outage {
            return Err(Failure::Out(DatabaseError::NoAnswer(WRITE)));
        }
        if self.left == 0 {
            return Ok((0..amendments.len()).collect());
        }
        tokio::time::sleep(TRY).await;
        *self.tries.lock().unwrap() += TRY;
        Err(Failure::Locked(DatabaseError::NoAnswer(TRY)))
    }

    async fn locked(&mut self, drafts: &[&str]) -> Result<Vec<usize>, Failure> {
        Ok((0..drafts.len()).filter(|&draft| self.is_locked(drafts[draft])).collect())
    }

    fn disconnect(&mut self) {}
}

/// A table without a row.
struct Empty;

impl Table for Empty {
    async fn update(&mut self, _events: &[&Change]) -> Result<Vec<usize>, Failure> {
        tokio::time::sleep(WRITE).await;
        Ok(Vec::new())
    }

    async fn read(&mut self, _drafts: &[&str]) -> Result<Vec<(usize, RowMemory)>, Failure> {
        Ok(Vec::new())
    }

    async fn amend(&mut self, _amendments: &[Amendment<'_>]) -> Result<Vec<usize>, Failure> {
        Ok(Vec::new())
    }

    async fn locked(&mut self, _drafts: &[&str]) -> Result<Vec<usize>, Failure> {
        Ok(Vec::new())
    }

    fn disconnect(&mut self) {}
}

const RETRY: Retry = Retry { retries: 3, backoff: Duration::from_millis(100) };

fn policy() -> OutagePolicy {
    OutagePolicy { on_outage: OnOutage::Wait, abort: Arc::new(Abort::default()), figures: None }
}

/// So many events, each of a draft of its own.
pub(super) fn groups(count: u32) -> Vec<Group> {
    let count = u64::from(count);
    let mut chunk = Chunk::default();
    fill(&mut chunk, Mix { events: count, drafts: count, ..Mix::default() });
    group(sort(chunk, DraftIdType::Text { max_chars: None }).changes)
}

fn fill(chunk: &mut Chunk, mix: Mix) {
    for (event, offset) in Generator::new(mix).unwrap().zip(0..) {
        chunk.push(event.record_at(0, offset), []);
    }
}

const BATCHES: u32 = 50_000;

/// A lane whose first batch has two rows, so that it is asked which of them are locked, with more
/// batches behind it than it gets done in some minutes.
fn batches_behind_two_locked_rows() -> (Remote<Group, Written>, Lane<Group, Written>, Vec<String>) {
    let (mut worker, mut lanes) = remote(1, &Waker::of_nobody());
    let mut groups = groups(BATCHES);
    let first: Vec<Group> = groups.drain(..2).collect();
    let drafts = first.iter().map(|group| group.draft_id().to_owned()).collect();
    worker.submit(0, 0, first);
    for (group, ticket) in groups.into_iter().zip(1..) {
        worker.submit(ticket, 0, vec![group]);
    }
    (worker, lanes.remove(0), drafts)
}

#[tokio::test(start_paused = true)]
async fn e10_an_outage_is_no_time_that_tries_at_locked_rows_have_had() {
    const OUTAGE: Duration = Duration::from_secs(3_600);
    let (mut worker, lane, drafts) = batches_behind_two_locked_rows();
    let tries = Arc::default();
    let table = Locked { drafts, left: 100, tries, outage: OUTAGE, first_try: None };

    // Both in one statement.
    let served = serve(lane, table, 2, RETRY, policy());
    let first_is_done = async {
        let began = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            while let Some(answered) = worker.poll() {
                if answered.ticket == 0 && answered.done {
                    drop(worker);
                    return began.elapsed();
                }
            }
        }
    };
    let ((), took) = tokio::join!(served, first_is_done);
    assert!(took >= OUTAGE, "{took:?}");
    assert!(
        took < OUTAGE + Duration::from_secs(60),
        "tried again as soon as the server is back: {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn e10_tries_at_locked_rows_have_a_tenth_of_the_time_while_batches_wait() {
    let (worker, lane, drafts) = batches_behind_two_locked_rows();
    drop(worker);
    let tries = Arc::default();
    let table = Locked {
        drafts,
        left: BATCHES - 2,
        tries: Arc::clone(&tries),
        outage: Duration::ZERO,
        first_try: None,
    };

    let began = Instant::now();
    let served = serve(lane, table, 1, RETRY, policy());
    tokio::time::timeout(Duration::from_secs(3_600), served).await.expect("the others go on");

    let (took, tries) = (began.elapsed(), *tries.lock().unwrap());
    assert!(tries >= 2 * TRY, "they are tried at: {tries:?} of {took:?}");
    // The first rest begins behind the first try.
    assert!(tries <= took / (RETRY_REST + 1) + 2 * TRY, "{tries:?} of {took:?}");
}

/// A table that has every row, and notes which drafts each statement writes.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<Vec<String>>>>);

impl Table for Noting {
    async fn update(&mut self, events: &[&Change]) -> Result<Vec<usize>, Failure> {
        tokio::time::sleep(WRITE).await;
        let drafts = events.iter().map(|event| event.draft_id().to_owned());
        self.0.lock().unwrap().push(drafts.collect());
        Ok((0..events.len()).collect())
    }

    async fn read(&mut self, _drafts: &[&str]) -> Result<Vec<(usize, RowMemory)>, Failure> {
        unreachable!("every event is the newest of its draft")
    }

    async fn amend(&mut self, _amendments: &[Amendment<'_>]) -> Result<Vec<usize>, Failure> {
        unreachable!("every event is the only one of its draft")
    }

    async fn locked(&mut self, _drafts: &[&str]) -> Result<Vec<usize>, Failure> {
        Ok(Vec::new())
    }

    fn disconnect(&mut self) {}
}

#[tokio::test(start_paused = true)]
async fn batches_that_wait_are_written_together_each_draft_once_and_no_more_rows_than_may_be() {
    let (mut worker, mut lanes) = remote::<Group, Written>(1, &Waker::of_nobody());
    let mut groups = groups(6);
    groups.sort_by(|a, b| b.draft_id().cmp(a.draft_id()));
    let [f, e, d, c, b, a] = groups.try_into().unwrap();
    let id = |group: &Group| group.draft_id().to_owned();
    let ids = [&a, &b, &c, &d, &e, &f].map(id);
    // The fourth has a draft of the third; with the sixth it would be four rows.
    let batches = [vec![f], vec![e.clone()], vec![b.clone()], vec![b, d], vec![a], vec![c, e]];
    let events: Vec<usize> = batches.iter().map(Vec::len).collect();
    for (ticket, batch) in (0..).zip(batches) {
        worker.submit(ticket, 0, batch);
    }
    let table = Noting::default();
    let mut answered = vec![0; events.len()];
    let served = serve(lanes.remove(0), table.clone(), 3, RETRY, policy());
    let asked = async {
        while answered != events {
            tokio::time::sleep(WRITE).await;
            while let Some(answer) = worker.poll() {
                let settled = answer.answers.iter().map(|written| written.settled.len());
                answered[usize::try_from(answer.ticket).unwrap()] += settled.sum::<usize>();
            }
        }
        drop(worker);
    };
    tokio::join!(served, asked);
    let [a, b, c, d, e, f] = ids;
    let written = table.0.lock().unwrap();
    assert_eq!(*written, [vec![b.clone(), e.clone(), f], vec![a, b, d], vec![c, e]]);
}

#[tokio::test(start_paused = true)]
async fn e17_an_event_of_an_unknown_draft_has_its_own_tries_however_many_follow_it() {
    const EVENTS: u64 = 400;
    let (mut worker, mut lanes) = remote::<Group, Written>(1, &Waker::of_nobody());
    let served = serve(lanes.remove(0), Empty, 1, RETRY, policy());
    let mut waiting = BTreeMap::new();
    let published = async {
        for ticket in 0..EVENTS {
            let mut chunk = Chunk::default();
            fill(&mut chunk, Mix { seed: ticket, events: 1, drafts: 1, ..Mix::default() });
            let groups = group(sort(chunk, DraftIdType::Text { max_chars: None }).changes);
            waiting.insert(ticket, Instant::now());
            worker.submit(ticket, 0, groups);
            tokio::time::sleep(Duration::from_millis(50)).await;
            while let Some(answered) = worker.poll() {
                for rejected in answered.answers.iter().flat_map(|written| &written.refused) {
                    assert_eq!(rejected.attempts, RETRY.retries + 1);
                    waiting.remove(&answered.ticket).expect("each once");
                }
            }
            let longest = waiting.values().map(Instant::elapsed).max().unwrap_or_default();
            assert!(longest < Duration::from_secs(2), "event {ticket}: one waits for {longest:?}");
        }
        drop(worker);
    };
    tokio::join!(served, published);
}
