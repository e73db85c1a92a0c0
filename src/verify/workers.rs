//! The workers of the dataflow, fed from here: records and claims go in, what differs comes out at
//! the end of each round.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use dataflows::record::Chunk;
use dataflows::validate::DraftIdType;
use dataflows::verify::told::{Counts, told};
use dataflows::verify::{About, Claim, DraftKey, Round, difference};
use differential_dataflow::input::Input as _;
use rdkafka::message::{BorrowedMessage, Message};
use timely::communication::WorkerGuards;
use timely::dataflow::operators::Input as _;
use timely::dataflow::operators::probe::Handle;
use timely::worker::Worker;

use super::VerifyError;
use super::topic::copy;

use crate::lock::lock;

/// A chunk is passed on with so many records, or so many bytes: enough to make the hand-over cheap.
const CHUNK_RECORDS: usize = 256;
const CHUNK_BYTES: usize = 256 * 1024;

/// Claims that travel together.
const CLAIMS: usize = 1_024;

/// Chunks that wait for a worker: some megabytes. Then the topic waits.
const QUEUE: usize = 16;

/// How long an idle worker sleeps before it looks again, doubled up to the second. The end of a
/// round wakes all of them.
const NAPS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(64)];

enum Feed {
    Chunk(Chunk),
    Claims(Vec<(Claim, isize)>),
    EndOfRound,
}

/// What a worker says.
enum News {
    /// The difference has changed.
    Changed(Claim, isize),
    /// The round is over, and this is what the worker holds.
    Done(Counts),
}

/// The running workers, and what they have found to differ so far.
pub(super) struct Workers {
    queues: Vec<Sender<Feed>>,
    chunks: Vec<Chunk>,
    claims: Vec<(Claim, isize)>,
    news: Receiver<News>,
    differing: HashMap<Claim, isize>,
    guards: WorkerGuards<()>,
}

impl Workers {
    /// Starts the workers.
    pub(super) fn start(workers: usize, draft_ids: DraftIdType) -> Result<Workers, VerifyError> {
        let (queues, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| bounded(QUEUE)).unzip();
        let receivers: Vec<_> =
            receivers.into_iter().map(|receiver| Mutex::new(Some(receiver))).collect();
        let (tell, news) = unbounded();
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let queue = lock(&receivers[worker.index()]).take();
            serve(worker, &queue.expect("each worker starts once"), draft_ids, &tell);
        });
        let guards = guards.map_err(VerifyError::Workers)?;
        let chunks = (0..workers).map(|_| Chunk::default()).collect();
        let (claims, differing) = (Vec::new(), HashMap::new());
        Ok(Workers { queues, chunks, claims, news, differing, guards })
    }

    /// Passes a record of the topic on. A partition's records go to one worker, so that they stay
    /// in order.
    pub(super) fn record(&mut self, message: &BorrowedMessage<'_>) {
        let worker = usize::try_from(message.partition()).unwrap_or(0) % self.chunks.len();
        let chunk = &mut self.chunks[worker];
        copy(message, chunk);
        if chunk.len() >= CHUNK_RECORDS || chunk.bytes() >= CHUNK_BYTES {
            let chunk = std::mem::take(chunk);
            self.feed(worker, Feed::Chunk(chunk));
        }
    }

    /// One side says this of a draft (+1), or no longer says it (-1). What the table says counts
    /// the other way round.
    pub(super) fn claim(&mut self, claim: Claim, diff: isize) {
        self.claims.push((claim, diff));
        if self.claims.len() >= CLAIMS {
            self.pass_claims_on();
        }
    }

    fn pass_claims_on(&mut self) {
        let claims = std::mem::take(&mut self.claims);
        let idlest = (0..self.queues.len()).min_by_key(|worker| self.queues[*worker].len());
        self.feed(idlest.unwrap_or(0), Feed::Claims(claims));
    }

    /// A worker that is gone has panicked, which ends the process with a message.
    fn feed(&self, worker: usize, feed: Feed) {
        drop(self.queues[worker].send(feed));
    }

    /// Ends the round, and waits until everything that was fed is in the difference. Returns what
    /// the workers hold.
    pub(super) fn end_round(&mut self) -> Result<Counts, VerifyError> {
        for worker in 0..self.chunks.len() {
            let chunk = std::mem::take(&mut self.chunks[worker]);
            self.feed(worker, Feed::Chunk(chunk));
        }
        self.pass_claims_on();
        (0..self.queues.len()).for_each(|worker| self.feed(worker, Feed::EndOfRound));
        let mut all = Counts::default();
        let mut working = self.queues.len();
        while working > 0 {
            let gone = |_| VerifyError::Workers("a worker has ended before its time".to_owned());
            match self.news.recv().map_err(gone)? {
                News::Changed(claim, diff) => {
                    let count = self.differing.entry(claim).or_default();
                    *count += diff;
                    if *count == 0 {
                        self.differing.remove(&claim);
                    }
                }
                News::Done(held) => {
                    let Counts { events, drafts, jobs } = held;
                    all.events += events;
                    all.drafts += drafts;
                    all.jobs += jobs;
                    working -= 1;
                }
            }
        }
        Ok(all)
    }

    /// The claims that only one side makes.
    pub(super) fn differing(&self) -> impl Iterator<Item = &Claim> {
        self.differing.keys()
    }

    /// The drafts that they are about.
    pub(super) fn suspects(&self) -> HashSet<(DraftKey, About)> {
        self.differing().map(|claim| (claim.draft, claim.about)).collect()
    }

    /// Ends the workers and frees what they hold.
    pub(super) fn finish(self) {
        drop(self.queues);
        drop(self.guards);
    }
}

fn serve(worker: &mut Worker, queue: &Receiver<Feed>, draft_ids: DraftIdType, tell: &Sender<News>) {
    let held = Rc::new(RefCell::new(Counts::default()));
    let probe = Handle::new();
    let (mut chunks, mut claims) = worker.dataflow::<Round, _, _>(|scope| {
        let (chunks_in, chunks) = scope.new_input::<Vec<Chunk>>();
        let (claims_in, claims) = scope.new_collection::<Claim, isize>();
        let told = told(chunks, draft_ids, &held);
        let tell = tell.clone();
        // Nobody listens any more only when the command has ended.
        difference(told, claims.negate())
            .inspect(move |(claim, _round, diff)| drop(tell.send(News::Changed(*claim, *diff))))
            .probe_with(&probe);
        (chunks_in, claims_in)
    });
    let mut round: Round = 0;
    let [shortest, longest] = NAPS;
    let mut nap = shortest;
    loop {
        let fed = queue.recv_timeout(nap);
        nap = if fed.is_ok() { shortest } else { longest.min(2 * nap) };
        match fed {
            Ok(Feed::Chunk(chunk)) => chunks.send(chunk),
            Ok(Feed::Claims(some)) => {
                some.into_iter().for_each(|(claim, diff)| claims.update(claim, diff));
                claims.flush();
            }
            Ok(Feed::EndOfRound) => {
                round += 1;
                chunks.advance_to(round);
                claims.advance_to(round);
                claims.flush();
                worker.step_or_park_while(None, || probe.less_than(&round));
                drop(tell.send(News::Done(*held.borrow())));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        worker.step();
    }
}
