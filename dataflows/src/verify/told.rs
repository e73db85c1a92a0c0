//! told: what the topic says of each draft, in bounded memory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use differential_dataflow::{AsCollection, VecCollection};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Operator;

use super::{About, Claim, DraftKey, Round, digest};
use crate::accept::sort;
use crate::change::Change;
use crate::operators;
use crate::record::{Chunk, Position};
use crate::row::JOBS_REMEMBERED;
use crate::validate::DraftIdType;

/// An event, as much of it as an account needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    draft: DraftKey,
    job: Job,
}

/// A job that has reached a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Job {
    position: Position,
    /// The hash of its id.
    id: u64,
    /// The hash of its images.
    images: u64,
}

impl Event {
    /// The event without its texts.
    pub fn of(change: &Change) -> Event {
        let images = crate::change::hash(&change.images());
        let job = Job { position: change.position(), id: change.job_hash(), images };
        Event { draft: DraftKey::of(change.draft_id()), job }
    }
}

/// What the topic says of one draft: the jobs that its row must remember, the newest first, and the
/// images of each.
///
/// The rule is that of [`crate::row::judge`], one event at a time, on hashes. It takes a
/// partition's events in their order.
#[derive(Clone, Debug, Default)]
pub struct Account {
    jobs: Vec<Job>,
    /// What was last claimed.
    claimed: Option<u128>,
    is_touched: bool,
}

impl Account {
    /// Takes the next event in.
    fn enter(&mut self, job: Job) {
        if let Some(known) = self.jobs.iter().position(|known| known.id == job.id) {
            let known_at = self.jobs[known].position;
            // Between partitions the oldest counts, within one the first delivered.
            if known_at.partition == job.position.partition || known_at < job.position {
                return;
            }
            self.jobs.remove(known);
        }
        let place = self.jobs.partition_point(|other| other.position > job.position);
        if place < JOBS_REMEMBERED {
            self.jobs.truncate(JOBS_REMEMBERED - 1);
            self.jobs.insert(place, job);
        }
    }

    fn says(&self) -> Option<u128> {
        let newest = self.jobs.first()?;
        let jobs = self.jobs.iter().map(|job| (job.position, job.id));
        Some(row_says(Some(newest.position), newest.id, newest.images, jobs))
    }
}

/// What is said of a row that holds these: the applied event's position, its job's hash, the
/// images' hash, and the jobs remembered.
pub(super) fn row_says(
    applied: Option<Position>,
    job: u64,
    images: u64,
    jobs: impl Iterator<Item = (Position, u64)>,
) -> u128 {
    digest((applied, job, images, jobs.collect::<Vec<_>>()))
}

/// What one worker holds, to show that it is bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that have come in since the beginning.
    pub events: u64,
    /// Drafts with an account.
    pub drafts: u64,
    /// Jobs in all the accounts together.
    pub jobs: u64,
}

/// Decodes the records, and claims at the end of each round what the topic says of each draft by
/// then.
///
/// The chunks of one partition must come to one worker, in order. `counts` is kept up to date at the
/// end of each round.
pub fn told<'scope>(
    chunks: Stream<'scope, Round, Vec<Chunk>>,
    draft_ids: DraftIdType,
    counts: &Rc<RefCell<Counts>>,
) -> VecCollection<'scope, Round, Claim, isize> {
    let counts = Rc::clone(counts);
    events(chunks, draft_ids)
        .unary_frontier(
            // By the upper half: the collection goes by its own hash.
            Exchange::new(|event: &Event| u64::try_from(event.draft.0 >> 64).unwrap_or_default()),
            "told",
            move |initial, _info| {
                drop(initial);
                let mut accounts: HashMap<DraftKey, Account> = HashMap::new();
                let mut rounds: BTreeMap<Round, (_, Vec<DraftKey>)> = BTreeMap::new();
                move |(input, frontier), output| {
                    input.for_each_stamp(|capability, batches| {
                        let Some(kept) = capability.retain_least(0) else { return };
                        let round = *kept.time();
                        let (_, touched) = rounds.entry(round).or_insert((kept, Vec::new()));
                        let mut counts = counts.borrow_mut();
                        for Event { draft, job } in batches.flat_map(|batch| batch.drain(..)) {
                            let account = accounts.entry(draft).or_default();
                            let before = account.jobs.len();
                            account.enter(job);
                            counts.events += 1;
                            counts.jobs += u64::from(account.jobs.len() > before);
                            if !std::mem::replace(&mut account.is_touched, true) {
                                touched.push(draft);
                            }
                        }
                        counts.drafts = u64::try_from(accounts.len()).unwrap_or(u64::MAX);
                    });
                    while let Some(entry) = rounds.first_entry() {
                        if frontier.less_equal(entry.key()) {
                            break;
                        }
                        let (capability, touched) = entry.remove();
                        let round = *capability.time();
                        let mut session = output.session(&capability);
                        for draft in touched {
                            let Some(account) = accounts.get_mut(&draft) else { continue };
                            account.is_touched = false;
                            let says = account.says();
                            let claimed = std::mem::replace(&mut account.claimed, says);
                            for (says, diff) in [(claimed, -1), (says, 1)] {
                                if let Some(says) = says {
                                    let claim = Claim { draft, about: About::Row, says };
                                    session.give((claim, round, diff));
                                }
                            }
                        }
                    }
                }
            },
        )
        .as_collection()
}

fn events<'scope>(
    chunks: Stream<'scope, Round, Vec<Chunk>>,
    draft_ids: DraftIdType,
) -> Stream<'scope, Round, Vec<Event>> {
    chunks.unary(Pipeline, operators::ACCEPT, move |_capability, _info| {
        move |input, output| {
            input.for_each_stamp(|capability, batches| {
                let mut session = output.session(&capability);
                for chunk in batches.flat_map(|batch| batch.drain(..)) {
                    let changes = sort(chunk, draft_ids).changes;
                    session.give_iterator(changes.iter().map(Event::of));
                }
            });
        }
    })
}
