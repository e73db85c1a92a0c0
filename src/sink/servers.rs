//! The effects on the three servers, put together: a lane for each connection, each with its
//! session, its figures and its spans.

use std::sync::Arc;
use std::time::Duration;

use dataflows::effect::Effect;
use dataflows::graph::Invalidated;
use dataflows::latest::Group;
use dataflows::outcome::Settled;
use dataflows::peers::Waker;
use dataflows::reject::Rejected;
use dataflows::validate::DraftIdType;
use dataflows::written::Written;
use tokio::runtime::{Handle, Runtime};

use super::dead_letter::{DeadLetterProducer, Topic};
use super::outage::OutagePolicy;
use super::postgres::Retry;
use super::postgres::session::Session;
use super::postgres::table::Table;
use super::redis::Connection;
use super::redis::second_delete::SecondDeletes;
use super::{Job, Lane, Remote, dead_letter, postgres, redis, remote};
use crate::config::Config;
use crate::figures::Server;
use crate::traces::spans::within;
use crate::traces::{LaneSpans, Traced, Tracer};
use crate::worker::MakeEffects;

/// What is granted for what has been put off, at least.
const LEAST: Duration = Duration::from_secs(1);

/// Makes the effects on the servers. A clone makes effects on the same ones.
#[derive(Clone)]
pub(crate) struct Servers {
    runtime: Handle,
    config: Arc<Config>,
    draft_ids: DraftIdType,
    policy: OutagePolicy,
    second_deletes: Option<SecondDeletes>,
    dead_letters: Option<Arc<DeadLetterProducer>>,
    tracer: Option<Tracer>,
}

impl Servers {
    /// The servers of that configuration. Rejected records are only counted, and nothing is traced.
    pub(crate) fn new(
        config: &Arc<Config>,
        draft_ids: DraftIdType,
        policy: OutagePolicy,
        runtime: &Runtime,
    ) -> Servers {
        let runtime = runtime.handle().clone();
        let second_deletes = SecondDeletes::start(&runtime, &config.cache, &policy);
        let config = Arc::clone(config);
        let (dead_letters, tracer) = (None, None);
        Servers { runtime, config, draft_ids, policy, second_deletes, dead_letters, tracer }
    }

    /// The same, with rejected records published.
    pub(crate) fn with_dead_letters(self, producer: &Arc<DeadLetterProducer>) -> Servers {
        Servers { dead_letters: Some(Arc::clone(producer)), ..self }
    }

    /// The same, with a span for each batch, if there is something to trace with.
    pub(crate) fn traced(self, tracer: Option<Tracer>) -> Servers {
        Servers { tracer, ..self }
    }

    /// Does what has been put off, when no lane has work any more. However little of the time that
    /// a stop grants is left, it has a second: a cache that answers does much within that.
    pub(crate) fn finish(self, left: Duration) {
        if let Some(second_deletes) = self.second_deletes {
            self.runtime.block_on(second_deletes.finish(left.max(LEAST)));
        }
    }

    /// Writes through tables that are made of sessions, one for each lane.
    pub(crate) fn write_through<T: Table + 'static>(
        &self,
        waker: &Waker,
        table: impl Fn(Session) -> T,
    ) -> Remote<Group, Written> {
        let Servers { config, policy, .. } = self;
        let (effect, lanes) = remote(config.database.connections, waker);
        let retry = Retry { retries: config.run.retries, backoff: config.run.retry_backoff };
        for mut lane in lanes {
            let spans = self.watch(&mut lane, Server::Database);
            let session = Session::new(config.database.clone(), self.draft_ids.sql());
            let rows_max = config.database.batch_rows;
            let serve = postgres::serve(lane, table(session), rows_max, retry, policy.clone());
            tokio::spawn(within(spans, serve));
        }
        effect
    }

    /// Asks nobody, and answers at once.
    pub(crate) fn pass_by<R: Send + 'static, A: Send + 'static>(
        &self,
        waker: &Waker,
        answers: impl Fn(Vec<R>) -> Vec<A> + Copy + Send + Sync + 'static,
    ) -> Remote<R, A> {
        let (effect, lanes) = remote(1, waker);
        lanes.into_iter().for_each(|lane| drop(tokio::spawn(pass_by(lane, answers))));
        effect
    }

    /// Deletes the keys of what is settled.
    pub(crate) fn delete(&self, waker: &Waker) -> Remote<Settled, Invalidated> {
        let (effect, lanes) = remote(1, waker);
        lanes.into_iter().for_each(|lane| self.serve_deletes(lane));
        effect
    }

    fn watch<R: Traced, A>(&self, lane: &mut Lane<R, A>, server: Server) -> Option<LaneSpans> {
        lane.watch(server, self.policy.figures.as_ref(), self.tracer.as_ref())
    }

    fn serve_deletes(&self, mut lane: Lane<Settled, Invalidated>) {
        let spans = self.watch(&mut lane, Server::Cache);
        let connection = Connection::new(self.config.cache.clone());
        let second = self.second_deletes.clone();
        let keys_max = self.config.cache.batch_keys;
        let serve = redis::serve(lane, connection, keys_max, second, self.policy.clone());
        tokio::spawn(within(spans, serve));
    }

    fn serve_dead_letters(
        &self,
        mut lane: Lane<Rejected, Rejected>,
        producer: &Arc<DeadLetterProducer>,
    ) {
        let spans = self.watch(&mut lane, Server::DeadLetters);
        let topic = Topic { config: Arc::clone(&self.config), producer: Arc::clone(producer) };
        tokio::spawn(within(spans, dead_letter::serve(lane, topic, self.policy.clone())));
    }
}

impl MakeEffects for Servers {
    fn write(&self, waker: Waker) -> impl Effect<Request = Group, Answer = Written> + 'static {
        self.write_through(&waker, |session| session)
    }

    fn invalidate(
        &self,
        waker: Waker,
    ) -> impl Effect<Request = Settled, Answer = Invalidated> + 'static {
        self.delete(&waker)
    }

    fn dead_letter(
        &self,
        waker: Waker,
    ) -> impl Effect<Request = Rejected, Answer = Rejected> + 'static {
        let Some(producer) = &self.dead_letters else {
            return self.pass_by(&waker, |rejected| rejected);
        };
        let (effect, lanes) = remote(1, &waker);
        lanes.into_iter().for_each(|lane| self.serve_dead_letters(lane, producer));
        effect
    }
}

async fn pass_by<R, A>(mut lane: Lane<R, A>, answers: impl Fn(Vec<R>) -> Vec<A>) {
    while let Some(Job { ticket, batch }) = lane.jobs.recv().await {
        lane.replies.answer(ticket, answers(batch), true);
    }
}
