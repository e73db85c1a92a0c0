//! compact: `latest` for epochs that are larger than the memory, in a replay.
//!
//! Of each draft it keeps the images of the event that is likely to win, and of every event its
//! place and its job, since every event must have its outcome, and a row remembers jobs: some 50
//! bytes an event instead of some 700. Which event wins is decided by the row, later, as ever.
//! Where that turns out to be one whose images were dropped (the database refuses the newest, the
//! row knows its job, a job was published twice), whoever writes has it read again:
//! [`Change::has_images`].

use std::collections::BTreeMap;

use hashbrown::HashTable;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Capability, Operator};

use crate::Epoch;
use crate::change::{Change, Husks};
use crate::held::{Held, Share};
use crate::latest::{Group, order};
use crate::operators;
use crate::peers::Peers;
use crate::record::Position;

mod flow;
mod log;

pub use flow::Flow;

/// How `latest` compacts.
#[derive(Clone, Debug)]
pub struct Compaction {
    /// Counts the bytes that are kept.
    pub held: Held,
    /// How many drafts are passed on at a time: what is on its way to the database is not compact.
    pub drafts_at_once: usize,
}

/// Waits for the end of the epoch, as [`latest`](crate::latest::latest) does, and keeps little of
/// what it waits with. Then passes on some drafts at a time, in the same order.
pub fn compact<'scope>(
    changes: Stream<'scope, Epoch, Vec<Change>>,
    compaction: Compaction,
    flow: &Flow,
    peers: &Peers,
) -> Stream<'scope, Epoch, Vec<Group>> {
    let scope = changes.scope();
    let (flow, peers) = (flow.clone(), peers.clone());
    changes.unary_frontier(Pipeline, operators::LATEST, |initial, info| {
        drop(initial);
        flow.wake_by(scope.activator_for(info.address));
        let mut open: BTreeMap<Epoch, (Capability<Epoch>, Drafts)> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each_stamp(|capability, batches| {
                let Some(kept) = capability.retain_least(0) else { return };
                let (_, drafts) = open
                    .entry(*kept.time())
                    .or_insert_with(|| (kept, Drafts::new(&compaction.held)));
                for batch in batches {
                    drafts.add(batch);
                    batch.clear();
                }
                drafts.settle_accounts();
            });
            while flow.is_open()
                && let Some(mut entry) = open.first_entry()
                && !frontier.less_equal(entry.key())
            {
                let (capability, drafts) = entry.get_mut();
                let mut groups = drafts.take(compaction.drafts_at_once);
                flow.pass(groups.iter().map(|group| group.events.len()).sum());
                output.session(&*capability).give_container(&mut groups);
                if drafts.is_empty() {
                    entry.remove();
                }
            }
            peers.note_frontier(frontier.frontier().first().copied(), !open.is_empty());
        }
    })
}

/// The drafts of one epoch.
struct Drafts {
    /// Indices into `kept`, by the draft's hash. Empty once the drafts are being taken.
    index: HashTable<u32>,
    kept: Vec<Draft>,
    /// Empty between two batches: where the drafts of a batch are.
    places: Vec<Option<usize>>,
    /// Bytes on the heap that the drafts own.
    bytes: usize,
    share: Share,
    is_sorted: bool,
}

/// What is kept of one draft.
#[derive(Debug)]
struct Draft {
    hash: u64,
    /// The id, the images of the event at `latest`, and the log: every event, its place and its
    /// job. One allocation, for there are millions of them, all over the memory.
    texts: Vec<u8>,
    /// How long the id is.
    id_len: usize,
    /// Where the log begins.
    log_at: usize,
    /// The newest event whose job had not been seen when it came.
    latest: Position,
    /// Where that event stands in the log.
    latest_at: usize,
    /// A bit for each job in the log, of 64 that jobs share. A job without its bit is not in the
    /// log, which is far away in the memory.
    jobs: u64,
    events: usize,
}

/// How many events a draft may have, on the average, when as many drafts are passed on at a time as
/// are asked for: on their way events take four times the memory. A single draft is not divided.
const EVENTS_A_DRAFT: usize = 16;

/// What an allocation takes besides its bytes.
const ALLOCATION: usize = 16;

/// A log longer than this is not searched for a job any more: a draft with a hundred events is
/// rare, one with a million must not take a million searches. A job that was overlooked costs a
/// second look at the topic at worst.
const LOG_SEARCHED_MAX: usize = 4_096;

impl Draft {
    fn of(change: &Change) -> Draft {
        let (id, images) = (change.draft_id(), change.image_parts());
        let log_at = id.len() + length(&images);
        let mut texts = Vec::with_capacity(log_at + entry(change).size_max());
        texts.extend_from_slice(id.as_bytes());
        images.into_iter().for_each(|part| texts.extend_from_slice(part));
        let mut draft = Draft {
            hash: change.draft_hash(),
            texts,
            id_len: id.len(),
            log_at,
            latest: change.position(),
            latest_at: 0,
            jobs: 0,
            events: 0,
        };
        draft.note(change);
        draft
    }

    fn id(&self) -> &[u8] {
        &self.texts[..self.id_len]
    }

    fn images(&self) -> &[u8] {
        &self.texts[self.id_len..self.log_at]
    }

    fn log(&self) -> &[u8] {
        &self.texts[self.log_at..]
    }

    fn add(&mut self, change: &Change) {
        let (position, job) = (change.position(), change.job_id().as_bytes());
        let is_newer = position > self.latest;
        let wins = if self.jobs & bit(change) == 0 {
            is_newer
        } else if self.latest_job() == Some(job) {
            // Chunks overtake one another: the first delivery of a job may come after the second.
            comes_first(position, self.latest)
        } else {
            is_newer && (self.log().len() > LOG_SEARCHED_MAX || !log::has_job(self.log(), job))
        };
        if wins {
            self.latest = position;
            self.latest_at = self.log().len();
            self.replace_images(change.image_parts());
        }
        self.note(change);
    }

    fn replace_images(&mut self, parts: [&[u8]; 7]) {
        self.fit_images(length(&parts));
        let mut rest = &mut self.texts[self.id_len..self.log_at];
        for part in parts {
            let (place, behind) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = behind;
        }
    }

    /// Moves the log so that there is room for images of so many bytes before it, and for no more.
    fn fit_images(&mut self, bytes: usize) {
        let (before, log_at, end) = (self.log_at, self.id_len + bytes, self.texts.len());
        if log_at == before {
            return;
        }
        if log_at > before {
            self.texts.reserve_exact(log_at - before);
            self.texts.resize(end + log_at - before, 0);
        }
        self.texts.copy_within(before..end, log_at);
        self.texts.truncate(end + log_at - before);
        self.log_at = log_at;
    }

    /// The job of the event at `latest`.
    fn latest_job(&self) -> Option<&[u8]> {
        log::read(&self.log()[self.latest_at..]).next().map(|event| event.job)
    }

    fn note(&mut self, change: &Change) {
        let entry = entry(change);
        let needed = entry.size_max();
        if self.texts.capacity() - self.texts.len() < needed {
            // Room for a few more, then for a quarter more, not twice as much: most of the memory
            // is here.
            self.texts.reserve_exact((4 * needed).max(self.log().len() / 4));
        }
        log::append(&mut self.texts, &entry);
        self.jobs |= bit(change);
        self.events += 1;
    }

    fn bytes(&self) -> usize {
        self.texts.capacity() + ALLOCATION
    }
}

fn length(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

fn entry(change: &Change) -> log::Entry<'_> {
    let job = change.job_id().as_bytes();
    log::Entry { position: change.position(), job, replayed: change.replayed() }
}

/// The bit of its job.
fn bit(change: &Change) -> u64 {
    1 << (change.job_hash() % 64)
}

/// Of two events of one job, whether the one at `a` stands for it, as far as these two can tell:
/// see [`crate::row::judge`].
fn comes_first(a: Position, b: Position) -> bool {
    if a.partition == b.partition { a.offset < b.offset } else { a < b }
}

fn widen(place: u32) -> usize {
    usize::try_from(place).expect("an index of 32 bits fits a pointer")
}

impl Drafts {
    fn new(held: &Held) -> Drafts {
        Drafts {
            index: HashTable::new(),
            kept: Vec::new(),
            places: Vec::new(),
            bytes: 0,
            share: held.share(0),
            is_sorted: false,
        }
    }

    fn add(&mut self, changes: &[Change]) {
        // Each look-up waits for the memory two or three times. One behind the other in a short
        // loop, several wait at once.
        let mut places = std::mem::take(&mut self.places);
        places.extend(changes.iter().map(|change| self.place_of(change)));
        for (change, place) in changes.iter().zip(places.drain(..)) {
            // It may be here by now.
            match place.or_else(|| self.place_of(change)) {
                Some(place) => {
                    let draft = &mut self.kept[place];
                    let before = draft.bytes();
                    draft.add(change);
                    self.bytes += draft.bytes();
                    self.bytes -= before;
                }
                None => self.begin(change),
            }
        }
        self.places = places;
    }

    /// Where the draft of this change is, in `kept`.
    fn place_of(&self, change: &Change) -> Option<usize> {
        let (hash, id) = (change.draft_hash(), change.draft_id().as_bytes());
        let is_it = |&place: &u32| {
            let draft = &self.kept[widen(place)];
            draft.hash == hash && draft.id() == id
        };
        self.index.find(hash, is_it).map(|&place| widen(place))
    }

    fn begin(&mut self, change: &Change) {
        let place =
            u32::try_from(self.kept.len()).expect("the memory ends before 4 billion drafts");
        let draft = Draft::of(change);
        self.bytes += draft.bytes();
        self.kept.push(draft);
        let kept = &self.kept;
        self.index.insert_unique(change.draft_hash(), place, |&place| kept[widen(place)].hash);
    }

    /// Reports what is held by now.
    fn settle_accounts(&mut self) {
        let tables = self.kept.capacity() * size_of::<Draft>() + self.index.allocation_size();
        self.share.set(self.bytes + tables);
    }

    fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Takes out the next drafts, in the order of every batch: so many, or fewer if they have many
    /// events.
    fn take(&mut self, drafts: usize) -> Vec<Group> {
        if !self.is_sorted {
            self.index = HashTable::new();
            let mut kept: Vec<_> = std::mem::take(&mut self.kept).into_iter().map(Some).collect();
            let order = order(kept.len(), |place| kept[place].as_ref().map_or(&[], Draft::id));
            // The first ones last: there they can be taken away.
            self.kept = order.into_iter().rev().filter_map(|place| kept[place].take()).collect();
            self.is_sorted = true;
        }
        let (mut rest, mut events) = (self.kept.len(), 0);
        while rest > 0 && self.kept.len() - rest < drafts && events < EVENTS_A_DRAFT * drafts {
            rest -= 1;
            events += self.kept[rest].events;
        }
        let taken: Vec<Draft> = self.kept.drain(rest..).rev().collect();
        if self.kept.len() < self.kept.capacity() / 2 {
            self.kept.shrink_to_fit();
        }
        self.bytes -= taken.iter().map(Draft::bytes).sum::<usize>();
        self.settle_accounts();
        groups(&taken)
    }
}

/// The groups that the drafts were made of, without what was dropped.
fn groups(drafts: &[Draft]) -> Vec<Group> {
    let events = drafts.iter().map(|draft| draft.events).sum();
    let bytes = drafts.iter().map(|draft| draft.texts.len()).sum();
    let text = |bytes| str::from_utf8(bytes).expect("written as a text");
    let mut husks = Husks::with_capacity(events, bytes);
    for draft in drafts {
        husks.begin(text(draft.id()), draft.hash, draft.latest, text(draft.images()));
        for log::Entry { position, job, replayed } in log::read(draft.log()) {
            husks.push(position, text(job), replayed);
        }
    }
    let mut changes = husks.finish();
    drafts
        .iter()
        .map(|draft| Group { events: changes.by_ref().take(draft.events).collect() })
        .collect()
}

#[cfg(test)]
mod tests;
