//! What the workers tell the poll thread: how far the probe has come, and what became of the
//! records.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use dataflows::Epoch;
use dataflows::outcome::Tally;

/// The workers' end.
#[derive(Debug)]
pub struct Progress {
    done_below: AtomicU64,
    news: Sender<News>,
}

#[derive(Debug)]
enum News {
    Settled(Epoch, Box<Tally>),
    Moved,
}

/// The poll thread's end.
#[derive(Debug)]
pub struct Watch {
    news: Receiver<News>,
}

/// Makes the two ends.
pub fn progress() -> (Progress, Watch) {
    let (sender, news) = unbounded();
    (Progress { done_below: AtomicU64::new(0), news: sender }, Watch { news })
}

impl Progress {
    /// Reports what became of an epoch's records on one worker, before the probe passes the epoch.
    pub fn settle(&self, epoch: Epoch, tally: Tally) {
        // Nobody listens any more: the process is on its way down.
        let _gone = self.news.send(News::Settled(epoch, Box::new(tally))).is_err();
    }

    /// Reports the probe's frontier; `None` is the end of the input.
    ///
    /// Every worker sees the frontier of all workers, some earlier than others.
    pub fn advance(&self, frontier: Option<Epoch>) {
        let frontier = frontier.unwrap_or(Epoch::MAX);
        // Behind the tallies in the channel, so that whoever sees the frontier has seen them.
        if self.done_below.fetch_max(frontier, Ordering::AcqRel) < frontier {
            let _gone = self.news.send(News::Moved).is_err();
        }
    }

    /// All epochs below this one are through.
    pub fn done_below(&self) -> Epoch {
        self.done_below.load(Ordering::Acquire)
    }
}

impl Watch {
    /// Hands over the tallies that have come in, without waiting.
    pub fn settled(&self, mut enter: impl FnMut(Epoch, &Tally)) {
        for news in self.news.try_iter() {
            if let News::Settled(epoch, tally) = news {
                enter(epoch, &tally);
            }
        }
    }

    /// Waits for news, at most so long, and hands over the tallies that have come in.
    pub fn wait(&self, patience: Duration, mut enter: impl FnMut(Epoch, &Tally)) {
        match self.news.recv_timeout(patience) {
            Ok(News::Settled(epoch, tally)) => enter(epoch, &tally),
            Ok(News::Moved) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        self.settled(enter);
    }
}
