//! commit: sends what is durable to the group coordinator, one request at a time, from a thread of its own.
//!
//! Of its own, because a commit to a broker that hangs can block for longer than the poll thread may stay away, and the client
//! library reports nothing back from a commit that does not block. A commit that fails is never an error of the data: the offsets
//! are sent again, or the records are delivered again.
//!
//! Before each commit the coordinator is asked for the last one. A topic that is deleted takes its offsets with it; the client
//! reads on in the one that is made again as if it were the same, and a commit would cover up what it has not read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use dataflows::ledger::NextOffset;
use rdkafka::error::KafkaError;
use tokio::time::Instant;

use crate::source::client::Client;

/// How often offsets are committed at most. It bounds what is delivered again after a crash, not what is lost: nothing is.
const INTERVAL: Duration = Duration::from_millis(250);

/// By partition, the next offset to read.
pub type Offsets = BTreeMap<i32, i64>;

/// What is durable, what was sent, and what was answered. The poll thread's end.
#[derive(Debug)]
pub struct Committer {
    durable: Offsets,
    committed: Offsets,
    /// The partitions of which the coordinator has an offset, by all that we know.
    known: BTreeSet<i32>,
    vanished: BTreeSet<i32>,
    in_flight: Option<Offsets>,
    last: Instant,
    requests: Option<Sender<Request>>,
    answers: Receiver<Answer>,
}

/// What is to be committed.
#[derive(Clone, Debug)]
pub struct Request {
    offsets: Offsets,
    /// The partitions of which the coordinator must have an offset already.
    known: BTreeSet<i32>,
}

/// What became of a commit.
#[derive(Debug)]
pub enum Answer {
    /// It is done.
    Committed,
    /// Nothing was sent: the coordinator knows these partitions no more.
    Vanished(BTreeSet<i32>),
    /// It is not done, or nobody knows.
    Failed(KafkaError),
}

/// Commits, if the coordinator still has what was committed before, and waits for its answer.
pub fn commit(client: &impl Client, request: &Request) -> Answer {
    let known: Vec<i32> = request.known.iter().copied().collect();
    let committed = if known.is_empty() { Ok(Vec::new()) } else { client.committed(&known) };
    let vanished: BTreeSet<i32> = match committed {
        Ok(offsets) => offsets.iter().filter(|it| it.1.is_none()).map(|it| it.0).collect(),
        Err(error) => return Answer::Failed(error),
    };
    if !vanished.is_empty() {
        return Answer::Vanished(vanished);
    }
    match client.commit(&request.offsets) {
        Ok(()) => Answer::Committed,
        Err(error) => Answer::Failed(error),
    }
}

/// The commit thread's end.
#[derive(Debug)]
pub struct Commits {
    /// What is to be committed, one request at a time.
    pub requests: Receiver<Request>,
    /// What became of it.
    pub answers: Sender<Answer>,
}

impl Commits {
    /// Sends commits and reports their answers, until the committer is closed.
    pub fn serve(&self, client: &impl Client) {
        for request in &self.requests {
            if self.answers.send(commit(client, &request)).is_err() {
                return;
            }
        }
    }
}

impl Committer {
    /// The two ends.
    pub fn new() -> (Committer, Commits) {
        let (requests_in, requests) = unbounded();
        let (answers_in, answers) = unbounded();
        let committer = Committer {
            durable: Offsets::new(),
            committed: Offsets::new(),
            known: BTreeSet::new(),
            vanished: BTreeSet::new(),
            in_flight: None,
            last: Instant::now(),
            requests: Some(requests_in),
            answers,
        };
        (committer, Commits { requests, answers: answers_in })
    }

    /// Sends nothing any more, so that the commit thread can end.
    pub fn close(&mut self) {
        self.requests = None;
    }

    /// Notes that the coordinator has an offset of a partition.
    pub fn knows(&mut self, partition: i32) {
        self.known.insert(partition);
    }

    /// The partitions whose offsets have vanished, once.
    pub fn take_vanished(&mut self) -> BTreeSet<i32> {
        std::mem::take(&mut self.vanished)
    }

    /// Notes offsets that have become committable.
    pub fn note(&mut self, offsets: Vec<NextOffset>) {
        self.durable.extend(offsets);
    }

    /// Lets go of a partition that is no longer ours: the broker would accept a commit for it and move the offset back.
    pub fn forget(&mut self, partition: i32) {
        self.durable.remove(&partition);
        self.committed.remove(&partition);
        self.known.remove(&partition);
        if let Some(sent) = &mut self.in_flight {
            sent.remove(&partition);
        }
    }

    /// Whether everything durable has been committed.
    pub fn is_even(&self) -> bool {
        self.in_flight.is_none() && self.durable == self.committed
    }

    /// Takes in answers, and sends what is durable if the last commit is answered and long enough ago.
    pub fn tend(&mut self, at_once: bool) {
        if self.is_under_way() || self.durable == self.committed {
            return;
        }
        if at_once || self.last.elapsed() >= INTERVAL {
            let request = Request { offsets: self.durable.clone(), known: self.known.clone() };
            if self.requests.as_ref().is_some_and(|requests| requests.send(request).is_ok()) {
                self.in_flight = Some(self.durable.clone());
                self.last = Instant::now();
            }
        }
    }

    /// Takes in the answer to the last commit if there is one. Whether it is still to come.
    pub fn is_under_way(&mut self) -> bool {
        if let Ok(answer) = self.answers.try_recv() {
            let sent = self.in_flight.take().unwrap_or_default();
            match answer {
                Answer::Committed => self.note_committed(sent),
                Answer::Vanished(partitions) => {
                    // Only what is still ours: it may have been handed over meanwhile.
                    self.vanished.extend(partitions.intersection(&self.known));
                }
                Answer::Failed(error) => {
                    tracing::warn!(%error, "offsets not committed, they are sent again")
                }
            }
        }
        self.in_flight.is_some()
    }

    /// Commits what is durable of some partitions and waits for the answer, because they are about to be another's.
    pub fn commit_now(&mut self, client: &impl Client, partitions: &[i32]) {
        let offsets: Offsets = partitions
            .iter()
            .filter_map(|partition| Some((*partition, *self.durable.get(partition)?)))
            .filter(|(partition, offset)| self.committed.get(partition) != Some(offset))
            .collect();
        if offsets.is_empty() {
            return;
        }
        let known = self.known.iter().filter(|it| offsets.contains_key(it)).copied().collect();
        match commit(client, &Request { offsets: offsets.clone(), known }) {
            Answer::Committed => self.note_committed(offsets),
            // The next owner starts lower and finds duplicates, or from the beginning of a topic that was made again.
            Answer::Failed(error) => {
                tracing::warn!(%error, "offsets not committed before handing partitions over")
            }
            Answer::Vanished(partitions) => {
                tracing::warn!(?partitions, "not committed: the topic was made again")
            }
        }
    }

    fn note_committed(&mut self, offsets: Offsets) {
        self.known.extend(offsets.keys());
        self.committed.extend(offsets);
    }
}
