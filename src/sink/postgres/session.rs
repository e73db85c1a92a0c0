//! One connection to PostgreSQL and its three statements.

use std::future::Future;
use std::time::Duration;

use dataflows::change::Change;
use dataflows::record::Position;
use dataflows::row::{JOBS_REMEMBERED, Remembered, RowMemory};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::failure::{DatabaseError, Failure};
use super::table::{Amendment, Table};
use crate::config::Database;
use crate::postgres;

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
            closed => {
                closed.insert(within(deadline, Open::connect(&self.config, self.id_type)).await?)
            }
        };
        let answer =
            async { open.client.query(statement(open), parameters).await.map_err(Failure::of) };
        within(deadline, answer).await
    }
}

impl Table for Session {
    async fn update(&mut self, events: &[&Change]) -> Result<Vec<usize>, Failure> {
        let columns = EventColumns::of(events.iter().copied());
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
        let columns = EventColumns::of(amendments.iter().map(Amendment::event));
        let wins: Vec<bool> = amendments.iter().map(|it| it.winner.is_some()).collect();
        let jobs: Vec<String> = amendments.iter().map(|it| joined_jobs(&it.memory)).collect();
        let (mut numbers, mut bounds) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
        for Amendment { seen, memory, .. } in amendments {
            bounds[0].push(length(&numbers));
            push_positions(&mut numbers, seen);
            bounds[1].push(length(&numbers));
            push_positions(&mut numbers, memory);
            bounds[2].push(length(&numbers));
        }
        let [seen, new, end] = &bounds;
        let more: [&(dyn ToSql + Sync); 6] = [&wins, &jobs, seen, new, end, &numbers];
        let parameters = [&columns.parameters()[..], &more].concat();
        let rows = self.query(|open| &open.amend, &parameters).await?;
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
    async fn connect(config: &Database, id_type: &str) -> Result<Open, Failure> {
        let client = postgres::connect(config).await.map_err(|error| Failure::Out(error.into()))?;
        let setup = async {
            client.batch_execute(postgres::BY_INDEX).await?;
            let table = config.table.sql();
            Ok((
                client.prepare(&update_sql(table, id_type)).await?,
                client.prepare(&read_sql(table, id_type)).await?,
                client.prepare(&amend_sql(table, id_type)).await?,
            ))
        };
        let (update, read, amend) =
            setup.await.map_err(|error: tokio_postgres::Error| Failure::Out(error.into()))?;
        Ok(Open { client, update, read, amend })
    }
}

/// Events as parameters: one array a column.
#[derive(Default)]
struct EventColumns<'a> {
    ordinals: Vec<i32>,
    drafts: Vec<&'a str>,
    /// By style.
    urls: [Vec<&'a str>; 3],
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
            columns.urls.iter_mut().zip(change.urls()).for_each(|(urls, url)| urls.push(url));
            columns.jobs.push(change.job_id());
            columns.timestamps.push(timestamp_ms);
            columns.offsets.push(offset);
            columns.partitions.push(partition);
        }
        columns
    }

    /// In the order of [`events_sql`].
    fn parameters(&self) -> [&(dyn ToSql + Sync); 9] {
        let EventColumns { ordinals, drafts, urls, jobs, timestamps, offsets, partitions } = self;
        let [simple, fancy, trendy] = urls;
        [ordinals, drafts, simple, fancy, trendy, jobs, timestamps, offsets, partitions]
    }
}

/// Parts jobs in a text: no id has a control character.
const SEPARATOR: &str = "\u{1}";

/// The jobs of a row as one text, which costs the server a sixth of an array's literal.
fn joined_jobs(memory: &RowMemory) -> String {
    let mut jobs = String::new();
    for known in &memory.recent {
        if !jobs.is_empty() {
            jobs.push_str(SEPARATOR);
        }
        jobs.push_str(&known.job_id);
    }
    jobs
}

/// The positions of a row's jobs, three numbers each, behind those of other rows: a slice of one array of numbers costs the server a
/// third of a literal.
fn push_positions(numbers: &mut Vec<i64>, memory: &RowMemory) {
    for Remembered { position: Position { timestamp_ms, offset, partition }, .. } in &memory.recent
    {
        numbers.extend([*timestamp_ms, *offset, i64::from(*partition)]);
    }
}

fn length(numbers: &[i64]) -> i32 {
    i32::try_from(numbers.len()).expect("48 numbers a row at most")
}

/// The events of a statement, one row each, as `b`. Arrays that are unnested in the SELECT list cost half of what they cost in FROM, where each
/// of them is materialized first; URLs that are put together here cost less than half of JSON that is parsed.
fn events_sql(id_type: &str, more: &str) -> String {
    format!(
        "(SELECT u.*, timestamptz 'epoch' + u.ms * interval '1 millisecond' AS event_at,
                 jsonb_object('{{simple,fancy,trendy}}', ARRAY[u.simple, u.fancy, u.trendy]) AS images
          FROM (SELECT unnest($1::int4[]) AS n, unnest($2::text[]::{id_type}[]) AS draft,
                       unnest($3::text[]) AS simple, unnest($4::text[]) AS fancy, unnest($5::text[]) AS trendy,
                       unnest($6::text[]) AS job, unnest($7::int8[]) AS ms,
                       unnest($8::int8[]) AS event_offset, unnest($9::int4[]) AS event_partition{more}) AS u) AS b"
    )
}

/// The guard stands in the WHERE: a row that holds something newer, or remembers the job, is not touched. What was written comes back
/// as one array, which costs the client a fraction of a row for each.
fn update_sql(table: &str, id_type: &str) -> String {
    let events = events_sql(id_type, "");
    let numbers = 3 * JOBS_REMEMBERED;
    format!(
        "WITH updated AS (
         UPDATE {table} AS d
         SET content_images = b.images, updated_at = now(), content_job_id = b.job, content_event_at = b.event_at,
             content_event_offset = b.event_offset, content_event_partition = b.event_partition,
             content_recent_jobs = (b.job || d.content_recent_jobs)[:{JOBS_REMEMBERED}],
             content_recent_positions =
                 (ARRAY[b.ms, b.event_offset, b.event_partition] || d.content_recent_positions)[:{numbers}]
         FROM {events}
         WHERE d.event_draft_id = b.draft AND b.job <> ALL (d.content_recent_jobs)
           AND (b.event_at, b.event_offset, b.event_partition)
             > (d.content_event_at, d.content_event_offset, d.content_event_partition)
         RETURNING b.n)
         SELECT array_agg(n) AS written FROM updated"
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

/// Compare and set: the row is amended only while it remembers what it was judged by, and never with what is older than its images.
fn amend_sql(table: &str, id_type: &str) -> String {
    let events = events_sql(
        id_type,
        ", unnest($10::bool[]) AS wins, unnest($11::text[]) AS jobs,
         unnest($12::int4[]) AS seen, unnest($13::int4[]) AS new, unnest($14::int4[]) AS ends",
    );
    let if_wins =
        |new: &str, old: &str| format!("{old} = CASE WHEN b.wins THEN {new} ELSE d.{old} END");
    let images = [
        if_wins("b.images", "content_images"),
        if_wins("now()", "updated_at"),
        if_wins("b.job", "content_job_id"),
        if_wins("b.event_at", "content_event_at"),
        if_wins("b.event_offset", "content_event_offset"),
        if_wins("b.event_partition", "content_event_partition"),
    ]
    .join(", ");
    format!(
        "UPDATE {table} AS d
         SET {images}, content_recent_jobs = string_to_array(b.jobs, E'\\x01'),
             content_recent_positions = ($15::int8[])[b.new + 1 : b.ends]
         FROM {events}
         WHERE d.event_draft_id = b.draft AND d.content_recent_positions = ($15::int8[])[b.seen + 1 : b.new]
           AND (NOT b.wins OR (b.event_at, b.event_offset, b.event_partition)
                           >= (d.content_event_at, d.content_event_offset, d.content_event_partition))
         RETURNING b.n"
    )
}

fn ordinal(row: &Row) -> usize {
    index(row.get("n"))
}

fn index(ordinal: i32) -> usize {
    usize::try_from(ordinal).expect("an ordinal that we sent")
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
pub(crate) fn jobs_literal(recent: &[Remembered]) -> String {
    let quoted = recent.iter().map(|known| {
        let escaped = known.job_id.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{escaped}\"")
    });
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

/// An array literal of numbers, three for each job.
pub(crate) fn positions_literal(recent: &[Remembered]) -> String {
    let numbers = recent.iter().map(|Remembered { position, .. }| {
        format!("{},{},{}", position.timestamp_ms, position.offset, position.partition)
    });
    format!("{{{}}}", numbers.collect::<Vec<_>>().join(","))
}
