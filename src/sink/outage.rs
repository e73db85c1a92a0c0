//! Holding while a server is away: an outage is not bad data, so nothing is charged to any event.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::OnOutage;
use crate::figures::calls::CallId;
use crate::figures::lanes::{Again, Lanes};
use crate::figures::{Figures, Server};
use crate::retry::Backoff;
use crate::shutdown::Abort;
use crate::traces::spans::note_held;

/// The first wait in an outage, milliseconds: short enough that a restart of the server costs
/// little.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// How often an outage is told about at most when its cause changes: a server that cannot make up
/// its mind fills no log.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What an effect does when its server is away.
#[derive(Clone, Debug)]
pub struct OutagePolicy {
    /// Wait for the server, or end the process.
    pub on_outage: OnOutage,
    /// Ends the process.
    pub abort: Arc<Abort>,
    /// Where it is noted what is asked, and what became of it, if anybody wants to know.
    pub figures: Option<Arc<Figures>>,
}

impl OutagePolicy {
    /// What has been noted of a server.
    pub fn lanes(&self, server: Server) -> Option<&Lanes> {
        self.figures.as_ref().map(|figures| figures.lanes(server))
    }
}

/// That a connection is gone which was there. That says nothing about the server: whoever closed an
/// idle one may be up, and the next try shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The server, or somebody on the way, has closed it.
    Closed,
    /// It was given up, since no answer came in time.
    Unanswered,
}

/// Something that a server is asked, and maybe again and again: one outage, from the first failure
/// to the next success.
#[derive(Debug)]
pub struct Outage<'a> {
    server: Server,
    policy: &'a OutagePolicy,
    since: Option<Instant>,
    /// Whether a lost connection has had its try at once.
    has_tried_at_once: bool,
    news: News,
    backoff: Backoff,
    /// What is noted of it, and under which number.
    call: Option<(&'a Lanes, CallId)>,
}

impl<'a> Outage<'a> {
    /// No outage yet of the server, which is asked something from now on, until this is dropped.
    pub fn none(server: Server, policy: &'a OutagePolicy) -> Outage<'a> {
        Outage {
            server,
            policy,
            call: policy.lanes(server).map(|lanes| (lanes, lanes.calls.ask())),
            since: None,
            has_tried_at_once: false,
            news: News::default(),
            backoff: Backoff::new(FIRST_WAIT),
        }
    }

    /// Notes a failure and waits before the next try; with `on_outage = "exit"`, ends the process
    /// instead. Where all that is known is that a connection is lost there is one try at once, and
    /// nothing is noted before that has failed, too.
    pub async fn hold(&mut self, error: &impl Display, loss: Option<Loss>) {
        let dependency = self.server.name();
        let exits = self.policy.on_outage == OnOutage::Exit;
        // Whoever waits for the server has waited for an answer already, and says so.
        let is_doubtful = loss == Some(Loss::Closed) || loss == Some(Loss::Unanswered) && exits;
        if is_doubtful && self.since.is_none() && !self.has_tried_at_once {
            self.has_tried_at_once = true;
            tracing::info!(dependency, %error, "connection lost, making another one");
            if let Some((lanes, call)) = self.call {
                lanes.calls.ask_again(call);
            }
            return;
        }
        if exits {
            self.policy.abort.outage(format!("{dependency} is out: {error}"));
        }
        let is_news = self.news.is_news(&error.to_string(), Instant::now());
        if is_news {
            note_held(error);
        }
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::warn!(dependency, %error, "held: waiting for the server, no event is charged for it");
        } else if is_news {
            tracing::warn!(dependency, %error, "still held, by now for another reason");
        }
        let wait = self.backoff.next_wait();
        if let Some((lanes, call)) = self.call {
            lanes.note_again(Again::Outage);
            lanes.calls.failed(call, error.to_string(), wait);
        }
        tokio::time::sleep(wait).await;
        if let Some((lanes, call)) = self.call {
            lanes.calls.ask_again(call);
        }
    }

    /// The server has answered; it is asked again after a wait, for another reason than an outage.
    pub async fn pause(&mut self, wait: Duration, cause: Again) {
        self.answered();
        let policy = self.policy;
        let lanes = policy.lanes(self.server);
        lanes.into_iter().for_each(|lanes| lanes.note_again(cause));
        tokio::time::sleep(wait).await;
        self.call = lanes.map(|lanes| (lanes, lanes.calls.ask()));
    }

    fn answered(&mut self) {
        if let Some((lanes, call)) = self.call.take()
            && let Some(took) = lanes.calls.answered(call)
        {
            lanes.durations.observe(took.as_secs_f64());
        }
    }

    /// How many times it was waited for.
    pub fn tries(&self) -> u32 {
        self.backoff.tries()
    }

    /// Notes a success.
    pub fn over(&mut self) {
        self.answered();
        self.has_tried_at_once = false;
        if let Some(since) = self.since.take() {
            let held_s = since.elapsed().as_secs_f64();
            tracing::info!(dependency = self.server.name(), held_s, "resumed");
            self.news = News::default();
            self.backoff = Backoff::new(FIRST_WAIT);
        }
    }
}

/// Whatever the server has said, it has answered, if nobody has noted a failure.
impl Drop for Outage<'_> {
    fn drop(&mut self) {
        if self.since.is_none() {
            self.answered();
        } else if let Some((lanes, call)) = self.call {
            lanes.calls.forget(call);
        }
    }
}

/// What was told about an outage last, and when.
#[derive(Debug, Default)]
struct News {
    told: Option<(Instant, String)>,
}

impl News {
    /// Whether the cause is to be told: the first one, and another one some time after the last
    /// that was told.
    fn is_news(&mut self, cause: &str, now: Instant) -> bool {
        let is_news = match &self.told {
            None => true,
            Some((at, told)) => told != cause && now.duration_since(*at) >= TELL_EVERY,
        };
        if is_news {
            self.told = Some((now, cause.to_owned()));
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_cause_is_told_but_not_too_often() {
        let began = Instant::now();
        let mut news = News::default();
        let mut told =
            |cause: &str, seconds| news.is_news(cause, began + Duration::from_secs(seconds));
        assert!(told("refused", 0));
        assert!(!told("refused", 60), "the same again");
        assert!(told("starting up", 61));
        assert!(!told("refused", 62), "too soon");
        assert!(told("refused", 66), "and still so");
        assert!(!told("refused", 90));
    }
}
