//! One connection and its three statements.

use std::future::Future;
use std::time::Duration;

use dataflows::change::Change;
use dataflows::latest::Group;
use dataflows::outcome::Outcome;
use dataflows::record::Position;
use dataflows::row::{JOBS_REMEMBERED, Judgement, Remembered, RowMemory, judge};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::failure::{DatabaseError, Failure};
use crate::config::Database;

/// How long the client waits beyond the server's own statement timeout: a frozen server enforces nothing.
const GRACE: Duration = Duration::from_secs(5);

/// The way of a part into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// One event a draft: written if it is newer than the row and its job unknown to it.
    Fast,
    /// Read, judge, amend.
    Judged,
}

/// What became of one group.
#[derive(Debug)]
pub enum Verdict {
    /// One durable outcome for each event.
    Settled(Vec<Outcome>),
    /// Not settled by this statement; the row must be judged.
    Undecided,
    /// There is no row with that id.
    NoSuchRow,
}

/// A lane's connection, made when it is needed.
pub struct Session {
    config: Database,
    id_type: &'static str,
    open: Option<Open>,
}

struct Open {
    client: Client,
    write: Statement,
    read: Statement,
    amend: Statement,
}

impl Session {
    /// A session for that table, not connected yet. `id_type` is the id column's type as SQL.
    pub fn new(config: Database, id_type: &'static str) -> Session {
        Session { config, id_type, open: None }
    }

    /// Drops the connection; the next statement makes a new one.
    pub fn disconnect(&mut self) {
        self.open = None;
    }

    /// Sends a part down its path. One verdict for each group, in their order.
    ///
    /// # Errors
    ///
    /// [`Failure`] says what follows. Then no group has a verdict, though [`Failure::Out`] leaves open whether the statement
    /// took effect.
    pub async fn write(&mut self, path: Path, groups: &[&Group]) -> Result<Vec<Verdict>, Failure> {
        let deadline = self.config.statement_timeout + GRACE;
        let open = match &mut self.open {
            Some(open) => open,
            closed => {
                closed.insert(within(deadline, Open::connect(&self.config, self.id_type)).await?)
            }
        };
        match path {
            Path::Fast => open.write(groups, deadline).await,
            Path::Judged => open.judge(groups, deadline).await,
        }
    }
}

/// Waits for an answer, but not for ever.
async fn within<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(deadline, answer)
        .await
        .unwrap_or_else(|_elapsed| Err(Failure::Out(DatabaseError::NoAnswer(deadline))))
}

impl Open {
    async fn connect(config: &Database, id_type: &str) -> Result<Open, Failure> {
        let client =
            crate::postgres::connect(config).await.map_err(|error| Failure::Out(error.into()))?;
        let setup = async {
            // Thousands of ids make the planner prefer reading the whole table. Through the index the rows are also locked
            // in the order in which they are given, so that two writers cannot deadlock.
            client.batch_execute("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off").await?;
            let table = config.table.sql();
            Ok((
                client.prepare(&write_sql(table, id_type)).await?,
                client.prepare(&read_sql(table, id_type)).await?,
                client.prepare(&amend_sql(table, id_type)).await?,
            ))
        };
        let (write, read, amend) =
            setup.await.map_err(|error: tokio_postgres::Error| Failure::Out(error.into()))?;
        Ok(Open { client, write, read, amend })
    }

    async fn query(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
        deadline: Duration,
    ) -> Result<Vec<Row>, Failure> {
        within(deadline, async {
            self.client.query(statement, parameters).await.map_err(Failure::of)
        })
        .await
    }

    async fn write(&self, groups: &[&Group], deadline: Duration) -> Result<Vec<Verdict>, Failure> {
        let columns = EventColumns::of(groups.iter().map(|group| &group.events[0]));
        let EventColumns { ordinals, drafts, images, jobs, timestamps, offsets, partitions } =
            &columns;
        let rows = self
            .query(
                &self.write,
                &[ordinals, drafts, images, jobs, timestamps, offsets, partitions],
                deadline,
            )
            .await?;
        let mut verdicts: Vec<Verdict> = groups.iter().map(|_| Verdict::Undecided).collect();
        for row in rows {
            verdicts[ordinal(&row)] = Verdict::Settled(vec![Outcome::Applied]);
        }
        Ok(verdicts)
    }

    async fn judge(&self, groups: &[&Group], deadline: Duration) -> Result<Vec<Verdict>, Failure> {
        let mut verdicts: Vec<Verdict> = groups.iter().map(|_| Verdict::NoSuchRow).collect();
        let mut amendments = Vec::new();
        for (ordinal, seen) in self.read(groups, deadline).await? {
            let Judgement { outcomes, winner, memory } = judge(&seen, &groups[ordinal].events);
            verdicts[ordinal] = match memory {
                None => Verdict::Settled(outcomes),
                Some(memory) => {
                    amendments.push(Amendment {
                        ordinal,
                        group: groups[ordinal],
                        winner,
                        seen,
                        memory,
                        outcomes,
                    });
                    Verdict::Undecided
                }
            };
        }
        if amendments.is_empty() {
            return Ok(verdicts);
        }
        // Only where the part is a single group is the winner surely the one that was refused.
        let suspect = if groups.len() == 1 { amendments[0].winner } else { None };
        let amended =
            self.amend(&amendments, deadline).await.map_err(|failure| failure.blame(suspect))?;
        for Amendment { ordinal, outcomes, .. } in amendments {
            if amended.contains(&ordinal) {
                verdicts[ordinal] = Verdict::Settled(outcomes);
            }
        }
        Ok(verdicts)
    }

    async fn read(
        &self,
        groups: &[&Group],
        deadline: Duration,
    ) -> Result<Vec<(usize, RowMemory)>, Failure> {
        let ordinals: Vec<i32> = (0..).take(groups.len()).collect();
        let drafts: Vec<&str> = groups.iter().map(|group| group.draft_id()).collect();
        let rows = self.query(&self.read, &[&ordinals, &drafts], deadline).await?;
        Ok(rows.iter().map(|row| (ordinal(row), row_memory(row))).collect())
    }

    async fn amend(
        &self,
        amendments: &[Amendment<'_>],
        deadline: Duration,
    ) -> Result<Vec<usize>, Failure> {
        // The images of a group without a winner are sent, but not looked at.
        let columns = EventColumns::of(amendments.iter().map(|amendment| amendment.event()));
        let EventColumns { ordinals: _, drafts, images, jobs, timestamps, offsets, partitions } =
            &columns;
        let ordinals: Vec<i32> =
            amendments.iter().map(|amendment| int(amendment.ordinal)).collect();
        let wins: Vec<bool> =
            amendments.iter().map(|amendment| amendment.winner.is_some()).collect();
        let seen: Vec<String> =
            amendments.iter().map(|amendment| positions_literal(&amendment.seen.recent)).collect();
        let recent_jobs: Vec<String> =
            amendments.iter().map(|amendment| jobs_literal(&amendment.memory.recent)).collect();
        let recent_positions: Vec<String> = amendments
            .iter()
            .map(|amendment| positions_literal(&amendment.memory.recent))
            .collect();
        let parameters: [&(dyn ToSql + Sync); 11] = [
            &ordinals,
            drafts,
            images,
            jobs,
            timestamps,
            offsets,
            partitions,
            &wins,
            &seen,
            &recent_jobs,
            &recent_positions,
        ];
        let rows = self.query(&self.amend, &parameters, deadline).await?;
        Ok(rows.iter().map(ordinal).collect())
    }
}

/// What a judged row is to become.
struct Amendment<'a> {
    ordinal: usize,
    group: &'a Group,
    winner: Option<usize>,
    /// What the row remembered when it was judged. If it remembers something else by now, it is judged again.
    seen: RowMemory,
    memory: RowMemory,
    outcomes: Vec<Outcome>,
}

impl Amendment<'_> {
    fn event(&self) -> &Change {
        &self.group.events[self.winner.unwrap_or_default()]
    }
}

/// Events as parameters: one array a column.
#[derive(Default)]
struct EventColumns<'a> {
    ordinals: Vec<i32>,
    drafts: Vec<&'a str>,
    images: Vec<&'a str>,
    jobs: Vec<&'a str>,
    timestamps: Vec<i64>,
    offsets: Vec<i64>,
    partitions: Vec<i32>,
}

impl<'a> EventColumns<'a> {
    fn of(events: impl Iterator<Item = &'a Change>) -> EventColumns<'a> {
        let mut columns = EventColumns::default();
        for (ordinal, change) in (0..).zip(events) {
            let Position { timestamp_ms, offset, partition } = change.position();
            columns.ordinals.push(ordinal);
            columns.drafts.push(change.draft_id());
            columns.images.push(change.images());
            columns.jobs.push(change.job_id());
            columns.timestamps.push(timestamp_ms);
            columns.offsets.push(offset);
            columns.partitions.push(partition);
        }
        columns
    }
}

/// The events of a statement, one row each, as `b`.
fn events_sql(id_type: &str, more: &str, more_columns: &str) -> String {
    format!(
        "(SELECT u.*, timestamptz 'epoch' + u.ms * interval '1 millisecond' AS event_at
          FROM unnest($1::int4[], $2::text[]::{id_type}[], $3::text[], $4::text[], $5::int8[], $6::int8[], $7::int4[]{more})
               AS u (n, draft, images, job, ms, event_offset, event_partition{more_columns})) AS b"
    )
}

/// The guard stands in the WHERE: a row that holds something newer, or remembers the job, is not touched.
fn write_sql(table: &str, id_type: &str) -> String {
    let events = events_sql(id_type, "", "");
    let numbers = 3 * JOBS_REMEMBERED;
    format!(
        "UPDATE {table} AS d
         SET content_images = b.images::jsonb, updated_at = now(), content_job_id = b.job, content_event_at = b.event_at,
             content_event_offset = b.event_offset, content_event_partition = b.event_partition,
             content_recent_jobs = (b.job || d.content_recent_jobs)[:{JOBS_REMEMBERED}],
             content_recent_positions =
                 (ARRAY[b.ms, b.event_offset, b.event_partition] || d.content_recent_positions)[:{numbers}]
         FROM {events}
         WHERE d.event_draft_id = b.draft AND b.job <> ALL (d.content_recent_jobs)
           AND (b.event_at, b.event_offset, b.event_partition)
             > (d.content_event_at, d.content_event_offset, d.content_event_partition)
         RETURNING b.n"
    )
}

fn read_sql(table: &str, id_type: &str) -> String {
    format!(
        "SELECT b.n, CASE WHEN d.content_event_at > '-infinity'
                          THEN (extract(epoch FROM d.content_event_at) * 1000)::int8 END AS event_ms,
                d.content_event_offset, d.content_event_partition, d.content_recent_jobs, d.content_recent_positions
         FROM unnest($1::int4[], $2::text[]::{id_type}[]) AS b (n, draft)
         JOIN {table} AS d ON d.event_draft_id = b.draft"
    )
}

/// Compare and set: the row is amended only while it remembers what it was judged by.
fn amend_sql(table: &str, id_type: &str) -> String {
    let events = events_sql(
        id_type,
        ", $8::bool[], $9::text[], $10::text[], $11::text[]",
        ", wins, seen, recent_jobs, recent_positions",
    );
    let if_wins =
        |new: &str, old: &str| format!("{old} = CASE WHEN b.wins THEN {new} ELSE d.{old} END");
    let images = [
        if_wins("b.images::jsonb", "content_images"),
        if_wins("now()", "updated_at"),
        if_wins("b.job", "content_job_id"),
        if_wins("b.event_at", "content_event_at"),
        if_wins("b.event_offset", "content_event_offset"),
        if_wins("b.event_partition", "content_event_partition"),
    ]
    .join(", ");
    format!(
        "UPDATE {table} AS d
         SET {images}, content_recent_jobs = b.recent_jobs::text[], content_recent_positions = b.recent_positions::int8[]
         FROM {events}
         WHERE d.event_draft_id = b.draft AND d.content_recent_positions = b.seen::int8[]
         RETURNING b.n"
    )
}

fn ordinal(row: &Row) -> usize {
    usize::try_from(row.get::<_, i32>("n")).expect("an ordinal that we sent")
}

fn int(index: usize) -> i32 {
    i32::try_from(index).expect("a batch is small")
}

fn row_memory(row: &Row) -> RowMemory {
    let jobs: Vec<String> = row.get("content_recent_jobs");
    let numbers: Vec<i64> = row.get("content_recent_positions");
    let recent = jobs.into_iter().zip(numbers.chunks_exact(3)).map(|(job_id, at)| {
        let partition = i32::try_from(at[2]).unwrap_or(i32::MAX);
        Remembered { position: Position { timestamp_ms: at[0], offset: at[1], partition }, job_id }
    });
    let applied = row.get::<_, Option<i64>>("event_ms").map(|timestamp_ms| Position {
        timestamp_ms,
        offset: row.get("content_event_offset"),
        partition: row.get("content_event_partition"),
    });
    RowMemory { applied, recent: recent.collect() }
}

/// An array literal of texts. Every element is quoted; a quote or a backslash in it is escaped.
fn jobs_literal(recent: &[Remembered]) -> String {
    let quoted = recent.iter().map(|known| {
        let escaped = known.job_id.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{escaped}\"")
    });
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

/// An array literal of numbers, three for each job.
fn positions_literal(recent: &[Remembered]) -> String {
    let numbers = recent.iter().map(|Remembered { position, .. }| {
        format!("{},{},{}", position.timestamp_ms, position.offset, position.partition)
    });
    format!("{{{}}}", numbers.collect::<Vec<_>>().join(","))
}
