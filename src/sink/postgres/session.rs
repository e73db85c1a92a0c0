//! One connection to PostgreSQL and its statements.

use std::future::Future;
use std::time::Duration;

use dataflows::change::Change;
use dataflows::record::Position;
use dataflows::row::{Remembered, RowMemory};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use self::parameters::{EventColumns, Timestamptz, joined_jobs, length, push_positions};
use super::failure::{DatabaseError, Failure};
use super::table::{Amendment, Table};
use crate::config::Database;
use crate::postgres;

mod parameters;
mod statements;

/// A lane's connection, made when it is needed.
pub struct Session {
    config: Database,
    id_type: &'static str,
    open: Option<Open>,
}

struct Open {
    client: Client,
    update: Statement,
    read: Statement,
    amend: Statement,
    locked: Statement,
}

impl Session {
    /// A session for that table, not connected yet. `id_type` is the id column's type as SQL.
    pub fn new(config: Database, id_type: &'static str) -> Session {
        Session { config, id_type, open: None }
    }

    async fn query(
        &mut self,
        statement: impl Fn(&Open) -> &Statement + Send,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let deadline = postgres::deadline(&self.config);
        let open = match &mut self.open {
            Some(open) => open,
            closed => closed.insert(Open::connect(&self.config, self.id_type).await?),
        };
        let answer =
            async { open.client.query(statement(open), parameters).await.map_err(Failure::of) };
        within(deadline, answer).await
    }
}

impl Table for Session {
    async fn update(&mut self, events: &[&Change]) -> Result<Vec<usize>, Failure> {
        let columns = EventColumns::of(events);
        let rows = self.query(|open| &open.update, &columns.parameters()).await?;
        let written: Option<Vec<i32>> = rows.first().and_then(|row| row.get("written"));
        Ok(written.unwrap_or_default().into_iter().map(index).collect())
    }

    async fn read(&mut self, drafts: &[&str]) -> Result<Vec<(usize, RowMemory)>, Failure> {
        let ordinals: Vec<i32> = (0..).take(drafts.len()).collect();
        let rows = self.query(|open| &open.read, &[&ordinals, &drafts]).await?;
        Ok(rows.iter().map(|row| (ordinal(row), row_memory(row))).collect())
    }

    async fn amend(&mut self, amendments: &[Amendment<'_>]) -> Result<Vec<usize>, Failure> {
        // The images of a group without a winner are sent, but not looked at.
        let events: Vec<&Change> = amendments.iter().map(Amendment::event).collect();
        let columns = EventColumns::of(&events);
        let wins: Vec<bool> = amendments.iter().map(|it| it.winner.is_some()).collect();
        let jobs: Vec<String> = amendments.iter().map(|it| joined_jobs(&it.memory)).collect();
        let applied = amendments.iter().map(|it| it.seen.applied);
        let applied_at: Vec<Timestamptz> =
            applied.clone().map(|at| at.map_or(Timestamptz::NEVER, Timestamptz::of)).collect();
        let applied_offsets: Vec<i64> =
            applied.clone().map(|at| at.map_or(-1, |at| at.offset)).collect();
        let applied_partitions: Vec<i32> =
            applied.map(|at| at.map_or(-1, |at| at.partition)).collect();
        let (mut numbers, mut bounds) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
        for Amendment { seen, memory, .. } in amendments {
            bounds[0].push(length(&numbers));
            push_positions(&mut numbers, seen);
            bounds[1].push(length(&numbers));
            push_positions(&mut numbers, memory);
            bounds[2].push(length(&numbers));
        }
        let [seen, new, end] = &bounds;
        let more: [&(dyn ToSql + Sync); 9] = [
            &wins,
            &jobs,
            seen,
            new,
            end,
            &applied_at,
            &applied_offsets,
            &applied_partitions,
            &numbers,
        ];
        let parameters = [&columns.parameters()[..], &more].concat();
        let rows = self.query(|open| &open.amend, &parameters).await?;
        Ok(rows.iter().map(ordinal).collect())
    }

    async fn locked(&mut self, drafts: &[&str]) -> Result<Vec<usize>, Failure> {
        let ordinals: Vec<i32> = (0..).take(drafts.len()).collect();
        let rows = self.query(|open| &open.locked, &[&ordinals, &drafts]).await?;
        Ok(rows.iter().map(ordinal).collect())
    }

    fn disconnect(&mut self) {
        self.open = None;
    }
}

/// Waits for an answer, but not for ever.
pub(crate) async fn within<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(deadline, answer)
        .await
        .unwrap_or_else(|_elapsed| Err(Failure::Out(DatabaseError::NoAnswer(deadline))))
}

impl Open {
    /// Connecting has deadlines of its own, one a host.
    async fn connect(config: &Database, id_type: &str) -> Result<Open, Failure> {
        let client = postgres::connect(config).await.map_err(|error| Failure::Out(error.into()))?;
        let setup = async {
            let settings = [postgres::PLANS, &postgres::impatient(config)].join("; ");
            client.batch_execute(&settings).await?;
            let table = config.table.sql();
            let updated_at = client.prepare(&statements::updated_at(table)).await?;
            let now = statements::now(updated_at.columns()[0].type_());
            Ok::<_, tokio_postgres::Error>((
                client.prepare(&statements::update(table, id_type)).await?,
                client.prepare(&statements::read(table, id_type)).await?,
                client.prepare(&statements::amend(table, id_type, now)).await?,
                client.prepare(&statements::locked(table, id_type)).await?,
            ))
        };
        let setup = async { setup.await.map_err(|error| Failure::Out(error.into())) };
        let (update, read, amend, locked) = within(postgres::deadline(config), setup).await?;
        Ok(Open { client, update, read, amend, locked })
    }
}

fn ordinal(row: &Row) -> usize {
    index(row.get("n"))
}

fn index(ordinal: i32) -> usize {
    usize::try_from(ordinal).expect("an ordinal that we sent")
}

fn row_memory(row: &Row) -> RowMemory {
    let jobs: Option<Vec<String>> = row.get("content_older_jobs");
    let numbers: Option<Vec<i64>> = row.get("content_older_positions");
    let (jobs, numbers) = (jobs.unwrap_or_default(), numbers.unwrap_or_default());
    let positions = numbers.as_chunks::<3>().0;
    let older =
        jobs.into_iter().zip(positions).map(|(job_id, &[timestamp_ms, offset, partition])| {
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            Remembered { position: Position { timestamp_ms, offset, partition }, job_id }
        });
    let applied = row.get::<_, Option<i64>>("event_ms").map(|timestamp_ms| Position {
        timestamp_ms,
        offset: row.get("content_event_offset"),
        partition: row.get("content_event_partition"),
    });
    RowMemory::new(applied.map(|at| (at, row.get("content_job_id"))), older.collect())
}
