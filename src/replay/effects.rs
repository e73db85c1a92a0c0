//! The effects of a replay: those of a run, but for what its options leave out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dataflows::change::{Change, Rejected};
use dataflows::effect::{Effect, Waker};
use dataflows::graph::{Invalidated, Written};
use dataflows::latest::Group;
use dataflows::outcome::Settled;
use dataflows::row::RowMemory;

use super::Options;
use crate::run::Servers;
use crate::sink::postgres::failure::Failure;
use crate::sink::postgres::session::Session;
use crate::sink::postgres::table::{Amendment, Table};
use crate::sink::postgres::{self, Retry};
use crate::sink::{Job, Lane, remote};
use crate::worker::MakeEffects;

/// Makes the effects of a replay.
pub(super) struct Effects {
    pub(super) servers: Servers,
    pub(super) options: Options,
    pub(super) rows_written: Arc<AtomicU64>,
}

impl MakeEffects for Effects {
    fn write(&self, waker: Waker) -> impl Effect<Request = Group, Answer = Written> + 'static {
        let Servers { runtime, config, table, policy, .. } = &self.servers;
        let (effect, lanes) = remote(config.database.connections, &waker);
        let retry = Retry { retries: config.run.retries, backoff: config.run.retry_backoff };
        for lane in lanes {
            let session = Session::new(config.database.clone(), table.id_type);
            let table = Rows { table: session, rows_written: Arc::clone(&self.rows_written) };
            runtime.spawn(postgres::serve(lane, table, retry, policy.clone()));
        }
        effect
    }

    fn invalidate(
        &self,
        waker: Waker,
    ) -> impl Effect<Request = Settled, Answer = Invalidated> + 'static {
        self.servers.invalidate(waker)
    }

    fn dead_letter(
        &self,
        waker: Waker,
    ) -> impl Effect<Request = Rejected, Answer = Rejected> + 'static {
        let (effect, lanes) = remote(1, &waker);
        for lane in lanes {
            if self.options.dead_letters {
                self.servers.serve_dead_letters(lane);
            } else {
                self.servers.runtime.spawn(answer_at_once(lane, |batch| batch));
            }
        }
        effect
    }
}

/// Does nothing but answer.
async fn answer_at_once<R, A>(mut lane: Lane<R, A>, answers: impl Fn(Vec<R>) -> Vec<A>) {
    while let Some(Job { ticket, batch }) = lane.jobs.recv().await {
        lane.replies.answer(ticket, answers(batch), true);
    }
}

/// The table, with a count of what is written.
struct Rows<T> {
    table: T,
    rows_written: Arc<AtomicU64>,
}

impl<T> Rows<T> {
    fn count(&self, written: &[usize]) {
        let rows = u64::try_from(written.len()).expect("a statement has few rows");
        self.rows_written.fetch_add(rows, Ordering::Relaxed);
    }
}

impl<T: Table> Table for Rows<T> {
    async fn update(&mut self, events: &[&Change]) -> Result<Vec<usize>, Failure> {
        let written = self.table.update(events).await?;
        self.count(&written);
        Ok(written)
    }

    async fn read(&mut self, drafts: &[&str]) -> Result<Vec<(usize, RowMemory)>, Failure> {
        self.table.read(drafts).await
    }

    async fn amend(&mut self, amendments: &[Amendment<'_>]) -> Result<Vec<usize>, Failure> {
        let amended = self.table.amend(amendments).await?;
        self.count(&amended);
        Ok(amended)
    }

    fn disconnect(&mut self) {
        self.table.disconnect();
    }
}
