//! sink: the effects on real servers.
//!
//! An [`Effect`] lives on a timely worker and must not block; the servers are spoken to by tokio
//! tasks, one for each lane. A [`Remote`] is the effect's end of the wire, a [`Lane`] the task's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use dataflows::effect::{Answered, Effect, Ticket};
use dataflows::peers::Waker;
use tokio::sync::mpsc;

use crate::figures::histogram::float;
use crate::figures::lanes::{LaneClock, Pause};
use crate::figures::{Figures, Server};
use crate::traces::{LaneSpans, Traced, Tracer};

pub(crate) mod servers;
pub mod outage;
pub mod postgres;
pub mod redis;
pub mod dead_letter;
pub mod nothing;

/// A batch on its way to a lane.
#[derive(Debug)]
pub struct Job<R> {
    /// Names the batch in its answers.
    pub ticket: Ticket,
    /// What is asked for.
    pub batch: Vec<R>,
}

/// The worker's end: hands batches to lanes and collects their answers.
///
/// The channels are unbounded on purpose: what can be in them is bounded by the epochs in flight.
#[derive(Debug)]
pub struct Remote<R, A> {
    lanes: Vec<mpsc::UnboundedSender<Job<R>>>,
    /// How many batches are in the lanes' queues.
    waiting: Arc<AtomicU64>,
    answers: Receiver<Answered<A>>,
}

/// A task's end: receives the batches of its lane in order, and answers them.
#[derive(Debug)]
pub struct Lane<R, A> {
    /// The batches, in the order of submission. Ends when the worker has no more.
    pub jobs: Jobs<R>,
    /// Where the answers go.
    pub replies: Replies<A>,
}

impl<R: Traced, A> Lane<R, A> {
    /// From now on, has its work on that server noted and its batches traced, as far as there is
    /// something to do it with.
    pub fn watch(
        &mut self,
        server: Server,
        figures: Option<&Arc<Figures>>,
        tracer: Option<&Tracer>,
    ) -> Option<LaneSpans> {
        self.jobs.watch(figures, server);
        let spans = tracer.map(|tracer| tracer.lane(server));
        let begin: BeginSpan<R> = LaneSpans::begin::<R>;
        self.jobs.spans = spans.clone().map(|spans| (spans, begin));
        self.replies.spans.clone_from(&spans);
        spans
    }
}

/// The batches of a lane.
#[derive(Debug)]
pub struct Jobs<R> {
    queue: mpsc::UnboundedReceiver<Job<R>>,
    /// Taken out of the queue, and left for the next time.
    next: Option<Job<R>>,
    waiting: Arc<AtomicU64>,
    /// Where its time at work and its batches are noted, if anybody wants to know.
    watched: Option<(Arc<Figures>, Server, Arc<LaneClock>)>,
    /// The spans of the batches, if anybody wants them, and how they begin.
    spans: Option<(LaneSpans, BeginSpan<R>)>,
}

/// [`LaneSpans::begin`]
type BeginSpan<R> = fn(&LaneSpans, Ticket, &[R]);

impl<R> Jobs<R> {
    fn new(queue: mpsc::UnboundedReceiver<Job<R>>, waiting: Arc<AtomicU64>) -> Jobs<R> {
        Jobs { queue, next: None, waiting, watched: None, spans: None }
    }

    /// The next batch. Whatever the lane does between two calls, it is at work.
    pub async fn recv(&mut self) -> Option<Job<R>> {
        let pause = self.watched.as_ref().map(|(_, _, clock)| clock.pause());
        let job = match self.next.take() {
            Some(job) => job,
            None => match self.queue.recv().await {
                Some(job) => job,
                None => {
                    pause.into_iter().for_each(Pause::for_good);
                    return None;
                }
            },
        };
        drop(pause);
        self.note(&job);
        Some(job)
    }

    /// The next batch, and of those that wait behind it as many as may join it and as have no more
    /// than so many requests with it: each is asked for with those before it. None at all when the
    /// worker has no more.
    pub async fn recv_up_to(
        &mut self,
        requests_max: usize,
        mut may_join: impl FnMut(&[Job<R>], &Job<R>) -> bool,
    ) -> Vec<Job<R>> {
        // Nothing is waited for once there is one: who gives up waiting loses none.
        let mut all = Vec::from_iter(self.recv().await);
        let mut requests = all.first().map_or(0, |job| job.batch.len());
        while !all.is_empty()
            && let Ok(job) = self.queue.try_recv()
        {
            requests += job.batch.len();
            if requests > requests_max || !may_join(&all, &job) {
                self.next = Some(job);
                break;
            }
            self.note(&job);
            all.push(job);
        }
        all
    }

    fn note(&self, Job { ticket, batch }: &Job<R>) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some((figures, server, _)) = &self.watched {
            let size = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            figures.lanes(*server).batches.observe(float(size));
        }
        if let Some((spans, begin)) = &self.spans {
            begin(spans, *ticket, batch);
        }
    }

    /// Whether no batch waits.
    pub fn is_empty(&self) -> bool {
        self.next.is_none() && self.queue.is_empty()
    }

    /// Notes from now on how long the lane is at work, and with how much.
    fn watch(&mut self, figures: Option<&Arc<Figures>>, server: Server) {
        self.watched = figures.map(|figures| {
            let clock = figures.lanes(server).watch(&self.waiting);
            (Arc::clone(figures), server, clock)
        });
    }
}

/// Takes answers back to the worker and wakes it.
#[derive(Debug, Clone)]
pub struct Replies<A> {
    answers: Sender<Answered<A>>,
    waker: Waker,
    spans: Option<LaneSpans>,
}

impl<A> Replies<A> {
    /// Answers a batch, in part or (`done`) for the last time.
    pub fn answer(&self, ticket: Ticket, answers: Vec<A>, done: bool) {
        if let Some(spans) = self.spans.as_ref().filter(|_| done) {
            spans.end(ticket);
        }
        // The answer first, then the wake-up. A worker that is gone wants no answer: the process is
        // on its way down.
        if self.answers.send(Answered { ticket, answers, done }).is_ok() {
            self.waker.wake();
        }
    }
}

/// Makes the two ends of an effect with so many lanes.
pub fn remote<R, A>(lanes: usize, waker: &Waker) -> (Remote<R, A>, Vec<Lane<R, A>>) {
    let (answers_in, answers) = unbounded();
    let waiting = Arc::new(AtomicU64::new(0));
    let (senders, tasks) = (0..lanes)
        .map(|_| {
            let (sender, queue) = mpsc::unbounded_channel();
            let jobs = Jobs::new(queue, Arc::clone(&waiting));
            let replies =
                Replies { answers: answers_in.clone(), waker: waker.clone(), spans: None };
            (sender, Lane { jobs, replies })
        })
        .unzip();
    (Remote { lanes: senders, waiting, answers }, tasks)
}

impl<R: 'static, A: 'static> Effect for Remote<R, A> {
    type Request = R;
    type Answer = A;

    fn submit(&mut self, ticket: Ticket, lane: usize, batch: Vec<R>) {
        // Before it is sent, or it might be taken out first.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // A task that is gone wants no batch: it ends before its worker only when the process is on
        // its way down, with an error to report that a panic here would replace.
        let _gone = self.lanes[lane].send(Job { ticket, batch }).is_err();
    }

    fn poll(&mut self) -> Option<Answered<A>> {
        self.answers.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many batches of two requests each, behind which no more come.
    fn waiting(batches: Ticket) -> Jobs<Ticket> {
        let (sender, queue) = mpsc::unbounded_channel();
        for ticket in 0..batches {
            sender.send(Job { ticket, batch: vec![ticket; 2] }).unwrap();
        }
        Jobs::new(queue, Arc::new(AtomicU64::new(batches)))
    }

    fn tickets(jobs: &[Job<Ticket>]) -> Vec<Ticket> {
        jobs.iter().map(|job| job.ticket).collect()
    }

    #[tokio::test]
    async fn what_waits_is_taken_at_once_and_in_its_order() {
        let mut jobs = waiting(3);
        let all = jobs.recv_up_to(6, |_before, _next| true).await;
        assert_eq!(tickets(&all), [0, 1, 2]);
        assert_eq!(jobs.waiting.load(Ordering::Relaxed), 0);
        assert!(jobs.recv_up_to(6, |_before, _next| true).await.is_empty());
    }

    #[tokio::test]
    async fn what_may_not_join_comes_the_next_time_and_nothing_overtakes_it() {
        let mut jobs = waiting(7);
        let mut taken = Vec::new();
        while !jobs.is_empty() {
            taken.push(tickets(&jobs.recv_up_to(5, |_before, next| next.ticket != 3).await));
        }
        assert_eq!(taken, [vec![0, 1], vec![2], vec![3, 4], vec![5, 6]]);
        assert_eq!(jobs.waiting.load(Ordering::Relaxed), 0);
        assert!(jobs.recv_up_to(5, |_before, _next| true).await.is_empty());
    }
}
