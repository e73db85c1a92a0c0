//! ingest: from polled records to fed epochs, with a bound on what is in flight.
//!
//! Owned by the poll thread. Records are copied into chunks, chunks go to the worker with the
//! shortest queue, and the open epoch is closed by size or by linger, as soon as not too many are
//! under way: small when it is quiet, for latency; large when the sinks are busy, for throughput.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use dataflows::Epoch;
use dataflows::feed::Feed;
use dataflows::held::Held;
use dataflows::ledger::{Imbalance, Ledger, NextOffset, UnderWay};
use dataflows::outcome::Tally;
use dataflows::peers::Waker;
use dataflows::record::{Chunk, RawRecord};
use tokio::time::Instant;

use crate::config::Run;
use crate::progress::{Progress, Watch};

/// A chunk is passed on when it holds so many records: enough to make the hand-over cheap, few
/// enough to spread evenly.
pub const CHUNK_RECORDS: usize = 512;
/// ... or so many bytes.
const CHUNK_BYTES: usize = 256 * 1024;

/// So many beginnings of epochs may be known besides those that will be asked for.
const BEGUN_MAX: usize = 64;

/// One worker's entrance.
#[derive(Debug)]
pub struct Entrance {
    /// Its queue.
    pub queue: Sender<Feed>,
    /// Wakes its source.
    pub waker: Waker,
}

/// The first offset read of a partition, and the last.
pub type Range = (i64, i64);

/// The state of the ingest.
#[derive(Debug)]
pub struct Ingest {
    entrances: Vec<Entrance>,
    limits: Run,
    chunk: Chunk,
    epoch: Epoch,
    epoch_records: usize,
    epoch_bytes: usize,
    epoch_since: Option<Instant>,
    /// Whether more may have been fetched than was taken in.
    more_waits: bool,
    ledger: Ledger,
    progress: Arc<Progress>,
    watch: Watch,
    waited: Duration,
    idled: Duration,
    /// The turns of the poll thread, for whoever watches that it goes on.
    turns: Arc<AtomicU64>,
    /// When each epoch that is not through was begun.
    begun: VecDeque<(Epoch, Instant)>,
    read: u64,
    ranges: BTreeMap<i32, Range>,
    /// What counts the bytes of everything in the graph, and how many there may be, if that decides
    /// when an epoch ends.
    memory: Option<(Held, usize)>,
}

impl Ingest {
    /// An ingest into these entrances, one for each worker.
    pub fn new(
        entrances: Vec<Entrance>,
        limits: Run,
        progress: Arc<Progress>,
        watch: Watch,
    ) -> Ingest {
        Ingest {
            entrances,
            limits,
            chunk: Chunk::default(),
            epoch: 0,
            epoch_records: 0,
            epoch_bytes: 0,
            epoch_since: None,
            more_waits: false,
            ledger: Ledger::default(),
            progress,
            watch,
            waited: Duration::ZERO,
            idled: Duration::ZERO,
            turns: Arc::default(),
            begun: VecDeque::new(),
            read: 0,
            ranges: BTreeMap::new(),
            memory: None,
        }
    }

    /// Ends an epoch when all that is held, of it and of those before it, takes up so many bytes.
    pub fn within(self, held: Held, bytes_max: usize) -> Ingest {
        Ingest { memory: Some((held, bytes_max)), ..self }
    }

    /// Takes in a record. The names of its headers may be any bytes.
    pub fn push<'a>(
        &mut self,
        record: RawRecord<'_>,
        headers: impl Iterator<Item = (impl AsRef<[u8]>, Option<&'a [u8]>)>,
    ) {
        self.take_in(record, |chunk| chunk.push_named(record, headers));
    }

    /// [`push`](Ingest::push), with the bytes that the headers are read from.
    pub fn push_encoded<'a>(
        &mut self,
        record: RawRecord<'_>,
        encoded: &[u8],
        headers: impl Iterator<Item = (impl AsRef<[u8]>, Option<&'a [u8]>)>,
    ) {
        self.take_in(record, |chunk| chunk.push_encoded(record, encoded, headers));
    }

    fn take_in(&mut self, record: RawRecord<'_>, copy: impl FnOnce(&mut Chunk)) {
        let before = self.chunk.bytes();
        copy(&mut self.chunk);
        let bytes = self.chunk.bytes() - before;
        self.ledger.enter(self.epoch, record.partition, record.offset, bytes);
        self.read += 1;
        self.more_waits = true;
        self.ranges.entry(record.partition).or_insert((record.offset, record.offset)).1 =
            record.offset;
        self.epoch_records += 1;
        self.epoch_bytes += bytes;
        self.epoch_since.get_or_insert_with(Instant::now);
        if self.chunk.len() >= CHUNK_RECORDS || self.chunk.bytes() >= CHUNK_BYTES {
            self.pass_chunk_on();
        }
    }

    /// Notes that all that has been fetched is taken in.
    pub fn none_waits(&mut self) {
        self.more_waits = false;
    }

    /// Whether more may have been fetched than was taken in.
    pub fn more_waits(&self) -> bool {
        self.more_waits
    }

    fn pass_chunk_on(&mut self) {
        if self.chunk.is_empty() {
            return;
        }
        // As much as comes now will come again: a full chunk in bulk, a record when it is quiet.
        let next = self.chunk.another();
        let mut chunk = std::mem::replace(&mut self.chunk, next);
        if let Some((held, _)) = &self.memory {
            chunk.count(held);
        }
        let idlest = self.entrances.iter().min_by_key(|entrance| entrance.queue.len());
        idlest.expect("there is at least one worker").send(Feed::Chunk(chunk));
    }

    /// Closes the open epoch if it is full, or has lingered long enough, and there is room for one
    /// more in flight. It does not end while there is more to take in at once: the larger an epoch,
    /// the cheaper its records.
    pub fn close_if_due(&mut self) {
        let lingered = !self.more_waits
            && self.epoch_since.is_some_and(|since| since.elapsed() >= self.limits.linger);
        // What still waits for a worker may turn out to take up less.
        let cut = self.memory_is_full() && self.chunks_queued() == 0;
        if (self.epoch_is_full() || lingered || cut) && self.has_room() {
            self.close_epoch();
        }
    }

    /// Closes the open epoch, whatever is in flight, and returns the first epoch after it.
    pub fn close_epoch(&mut self) -> Epoch {
        if let Some(since) = self.epoch_since.take() {
            self.begun.push_back((self.epoch, since));
            self.forget_what_is_settled();
            self.pass_chunk_on();
            self.entrances.iter().for_each(|entrance| entrance.send(Feed::CloseEpoch));
            self.ledger.close();
            self.epoch += 1;
            (self.epoch_records, self.epoch_bytes) = (0, 0);
        }
        self.epoch
    }

    /// Settled epochs behind one that is held are never asked for their age: drops when they were
    /// begun.
    fn forget_what_is_settled(&mut self) {
        let UnderWay { busy, held, .. } = self.ledger.under_way();
        if self.begun.len() > BEGUN_MAX + 2 * (busy + held) {
            let ledger = &self.ledger;
            self.begun.retain(|(epoch, _)| !ledger.is_settled(*epoch));
        }
    }

    /// Closes the last epoch and ends the input.
    pub fn end(&mut self) {
        self.close_epoch();
        self.entrances.iter().for_each(|entrance| entrance.send(Feed::End));
    }

    /// Whether the open epoch has as much as one may have.
    pub fn epoch_is_full(&self) -> bool {
        self.epoch_records >= self.limits.epoch_records
            || self.epoch_bytes >= self.limits.epoch_bytes
    }

    /// What is closed and not settled.
    pub fn under_way(&self) -> UnderWay {
        self.ledger.under_way()
    }

    /// Whether one more epoch may be under way. One of which something is held, while the others go
    /// on, takes no place among them, but its records do: a row that somebody keeps locked, or a
    /// draft that is not there yet, stops what comes behind it only when memory says so.
    fn has_room(&self) -> bool {
        let UnderWay { busy, held: _, records, bytes } = self.under_way();
        let Run { epochs_in_flight, epoch_records, epoch_bytes, .. } = self.limits;
        let records_max = u64::try_from(epochs_in_flight.saturating_mul(epoch_records));
        busy < epochs_in_flight
            && records_max.is_ok_and(|max| records < max)
            && bytes < epochs_in_flight.saturating_mul(epoch_bytes)
    }

    /// Whether nothing more may be taken in for now.
    pub fn is_full(&self) -> bool {
        (self.epoch_is_full() && !self.has_room()) || self.memory_is_full()
    }

    fn memory_is_full(&self) -> bool {
        self.memory.as_ref().is_some_and(|(held, bytes_max)| held.bytes() >= *bytes_max)
    }

    /// How many chunks wait for a worker.
    pub fn chunks_queued(&self) -> usize {
        self.entrances.iter().map(|entrance| entrance.queue.len()).sum()
    }

    /// How many chunks wait for each worker.
    pub fn queues(&self) -> Vec<usize> {
        self.entrances.iter().map(|entrance| entrance.queue.len()).collect()
    }

    /// All epochs below this one are through.
    pub fn done_below(&self) -> Epoch {
        self.progress.done_below()
    }

    /// When the oldest epoch that is not through was begun.
    pub fn oldest_since(&self) -> Option<Instant> {
        self.begun.front().map(|(_, since)| *since).or(self.epoch_since)
    }

    /// How long a poll may wait for a record: while an epoch is open that may end, until it has
    /// lingered; briefly while something is under way. Otherwise longer, for the client spends the
    /// last millisecond of each wait with a look at the clock.
    pub fn patience(&self) -> Duration {
        let busy = Duration::from_millis(20);
        match self.epoch_since {
            Some(since) if self.has_room() => {
                match self.limits.linger.saturating_sub(since.elapsed()) {
                    // Only what has been fetched is wanted.
                    Duration::ZERO => Duration::ZERO,
                    left => left.clamp(Duration::from_millis(1), busy),
                }
            }
            None if self.is_drained() => 5 * busy,
            _ => busy,
        }
    }

    /// How many epochs have been closed.
    pub fn epochs_closed(&self) -> u64 {
        self.epoch
    }

    /// Whether everything that was taken in is through.
    pub fn is_drained(&self) -> bool {
        self.ledger.is_empty()
    }

    /// Waits until the workers have news, at most so long.
    pub fn wait(&mut self, patience: Duration) {
        let (ledger, since) = (&mut self.ledger, Instant::now());
        self.watch.wait(patience, |epoch, tally| ledger.settle(epoch, tally));
        self.waited += since.elapsed();
        self.turn();
    }

    /// Notes that the poll thread goes on.
    pub fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Where it notes that.
    pub fn turns(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.turns)
    }

    /// Notes time that the poll thread has waited for records.
    pub fn idle(&mut self, time: Duration) {
        self.idled += time;
    }

    /// How long the poll thread has waited for records.
    pub fn idled(&self) -> Duration {
        self.idled
    }

    /// How long the poll thread has waited for the workers.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The offsets that have become committable since the last call.
    ///
    /// # Errors
    ///
    /// [`Imbalance`] when the outcomes of an epoch do not add up to its records.
    pub fn collect(&mut self) -> Result<Vec<NextOffset>, Imbalance> {
        self.turn();
        // The frontier first: what lies below it has been reported before.
        let frontier = self.progress.done_below();
        let ledger = &mut self.ledger;
        self.watch.settled(|epoch, tally| ledger.settle(epoch, tally));
        // Epoch::MAX stands for the end of the input, below which every epoch is through.
        while self.begun.front().is_some_and(|(epoch, _)| *epoch < frontier) {
            self.begun.pop_front();
        }
        self.ledger.pass(frontier)
    }

    /// Lets go of a partition that is no longer ours.
    pub fn forget(&mut self, partition: i32) {
        self.ledger.forget(partition);
    }

    /// Notes that a partition is read from there on, whatever was read of it before.
    pub fn rewind(&mut self, partition: i32, next: i64) {
        if let Some((first, last)) = self.ranges.get_mut(&partition) {
            *last = (*last).min(next - 1);
            if last < first {
                self.ranges.remove(&partition);
            }
        }
    }

    /// Lets go of a partition whose topic is another one now: what was read of the old one says
    /// nothing of its offsets.
    pub fn forget_range(&mut self, partition: i32) {
        self.forget(partition);
        self.ranges.remove(&partition);
    }

    /// How many records were taken in.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// What became of the records that are through.
    pub fn totals(&self) -> &Tally {
        self.ledger.totals()
    }

    /// What was read of each partition.
    pub fn ranges(&self) -> &BTreeMap<i32, Range> {
        &self.ranges
    }
}

impl Entrance {
    /// Feeds the worker, and wakes it.
    pub fn send(&self, feed: Feed) {
        // A worker that is gone took the process with it.
        if self.queue.send(feed).is_ok() {
            self.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
