//! One connection to PostgreSQL and its statements.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use bytes::BytesMut;
use dataflows::change::Change;
use dataflows::record::Position;
use dataflows::row::{JOBS_REMEMBERED, Remembered, RowMemory};
use tokio_postgres::types::{IsNull, ToSql, Type, accepts, to_sql_checked};
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
    async fn connect(config: &Database, id_type: &str) -> Result<Open, Failure> {
        let client = postgres::connect(config).await.map_err(|error| Failure::Out(error.into()))?;
        let setup = async {
            let settings = [postgres::BY_INDEX, &postgres::impatient(config)].join("; ");
            client.batch_execute(&settings).await?;
            let table = config.table.sql();
            Ok((
                client.prepare(&update_sql(table, id_type)).await?,
                client.prepare(&read_sql(table, id_type)).await?,
                client.prepare(&amend_sql(table, id_type)).await?,
                client.prepare(&locked_sql(table, id_type)).await?,
            ))
        };
        let (update, read, amend, locked) =
            setup.await.map_err(|error: tokio_postgres::Error| Failure::Out(error.into()))?;
        Ok(Open { client, update, read, amend, locked })
    }
}

/// Events as parameters: one array a column.
struct EventColumns<'a> {
    ordinals: Ordinals,
    drafts: Vec<&'a str>,
    /// By style.
    urls: [Vec<Ascii<'a>>; 3],
    jobs: Vec<&'a str>,
    timestamps: Vec<Timestamptz>,
    offsets: Vec<i64>,
    partitions: Vec<i32>,
}

impl<'a> EventColumns<'a> {
    fn of(events: &[&'a Change]) -> EventColumns<'a> {
        let mut urls = [(); 3].map(|()| Vec::with_capacity(events.len()));
        let mut bytes = 0;
        for event in events {
            let of_event = event.urls();
            bytes += of_event.iter().map(|url| url.len()).sum::<usize>();
            bytes += event.draft_id().len() + event.job_id().len() + Ordinals::BYTES_BESIDES_TEXTS;
            urls.iter_mut().zip(of_event).for_each(|(urls, url)| urls.push(Ascii(url)));
        }
        EventColumns {
            ordinals: Ordinals { ordinals: (0..).take(events.len()).collect(), bytes },
            drafts: events.iter().map(|event| event.draft_id()).collect(),
            urls,
            jobs: events.iter().map(|event| event.job_id()).collect(),
            timestamps: events.iter().map(|event| Timestamptz::of(event.position())).collect(),
            offsets: events.iter().map(|event| event.position().offset).collect(),
            partitions: events.iter().map(|event| event.position().partition).collect(),
        }
    }

    /// In the order of [`events_sql`].
    fn parameters(&self) -> [&(dyn ToSql + Sync); 9] {
        let EventColumns { ordinals, drafts, urls, jobs, timestamps, offsets, partitions } = self;
        let [simple, fancy, trendy] = urls;
        [ordinals, drafts, simple, fancy, trendy, jobs, timestamps, offsets, partitions]
    }
}

/// The numbers of the events, the first parameter: room is made for all the others with it. Else
/// the buffer grows by doubling, and each time all of it is copied.
#[derive(Debug)]
struct Ordinals {
    ordinals: Vec<i32>,
    /// What all the parameters take together.
    bytes: usize,
}

impl Ordinals {
    /// What an event takes besides its texts: the lengths of nine values, two of them of four bytes
    /// and two of eight.
    const BYTES_BESIDES_TEXTS: usize = 64;
}

impl ToSql for Ordinals {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.reserve(self.bytes);
        self.ordinals.to_sql(kind, out)
    }

    accepts!(INT4_ARRAY);
    to_sql_checked!();
}

/// A text that is known to be ASCII, and so not looked at again.
#[derive(Clone, Copy, Debug)]
struct Ascii<'a>(&'a [u8]);

impl ToSql for Ascii<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }

    accepts!(TEXT);
    to_sql_checked!();
}

/// A time as the server keeps it: microseconds since the year 2000. Sending it so spares the server
/// the arithmetic, for each row several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timestamptz(i64);

impl Timestamptz {
    const EPOCH_MS: i64 = 946_684_800_000;
    /// What a row has before its first event: `-infinity`.
    const NEVER: Timestamptz = Timestamptz(i64::MIN);

    /// The time of an event. One that is too far away for the server is sent as one that is: the
    /// server refuses the row.
    fn of(Position { timestamp_ms, .. }: Position) -> Timestamptz {
        let since = timestamp_ms.saturating_sub(Timestamptz::EPOCH_MS).saturating_mul(1_000);
        // The ends of the range are the infinities.
        Timestamptz(since.clamp(i64::MIN + 1, i64::MAX - 1))
    }
}

impl ToSql for Timestamptz {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.0.to_sql(&Type::INT8, out)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

/// Parts jobs in a text: no id has a control character.
const SEPARATOR: &str = "\u{1}";

/// The older jobs of a row as one text, which costs the server a sixth of an array's literal.
fn joined_jobs(memory: &RowMemory) -> String {
    let bytes = memory.older().map(|known| known.job_id.len() + SEPARATOR.len()).sum();
    let mut jobs = String::with_capacity(bytes);
    for known in memory.older() {
        if !jobs.is_empty() {
            jobs.push_str(SEPARATOR);
        }
        jobs.push_str(&known.job_id);
    }
    jobs
}

/// The positions of a row's older jobs, three numbers each, behind those of other rows: a slice of
/// one array of numbers costs the server a third of a literal.
fn push_positions(numbers: &mut Vec<i64>, memory: &RowMemory) {
    for Remembered { position: Position { timestamp_ms, offset, partition }, .. } in memory.older()
    {
        numbers.extend([*timestamp_ms, *offset, i64::from(*partition)]);
    }
}

fn length(numbers: &[i64]) -> i32 {
    i32::try_from(numbers.len()).expect("90 numbers a row at most")
}

/// The events of a statement, one row each, as `b`. Arrays that are unnested in the SELECT list
/// cost half of what they cost in FROM, where each of them is materialized first; URLs that are put
/// together here cost less than half of JSON that is parsed.
fn events_sql(id_type: &str, more: &str) -> String {
    format!(
        "(SELECT unnest($1::int4[]) AS n, unnest($2::text[]::{id_type}[]) AS draft,
                 unnest($3::text[]) AS simple, unnest($4::text[]) AS fancy, unnest($5::text[]) AS trendy,
                 unnest($6::text[]) AS job, unnest($7::timestamptz[]) AS event_at,
                 unnest($8::int8[]) AS event_offset, unnest($9::int4[]) AS event_partition{more}) AS b"
    )
}

/// The images of an event of [`events_sql`].
const IMAGES: &str = "jsonb_object('{simple,fancy,trendy}', ARRAY[b.simple, b.fancy, b.trendy])";

/// The milliseconds of the event that a row holds; whoever sets its time by hand may have set
/// microseconds.
const EVENT_MS: &str = "floor(extract(epoch FROM d.content_event_at) * 1000)::int8";

/// The guard stands in the WHERE: a row that holds something newer, or remembers the job, is not
/// touched. The job that the row held becomes the first of the older ones. What was written comes
/// back as one array, which costs the client a fraction of a row for each.
fn update_sql(table: &str, id_type: &str) -> String {
    let events = events_sql(id_type, "");
    let older = JOBS_REMEMBERED - 1;
    let numbers = 3 * older;
    let if_held = |column: &str, longer: &str| {
        format!("{column} = CASE WHEN d.content_job_id IS NULL THEN d.{column} ELSE {longer} END")
    };
    let jobs = format!("(d.content_job_id || d.content_older_jobs)[:{older}]");
    let positions = format!(
        "(ARRAY[{EVENT_MS}, d.content_event_offset, d.content_event_partition] || d.content_older_positions)[:{numbers}]"
    );
    let jobs = if_held("content_older_jobs", &jobs);
    let positions = if_held("content_older_positions", &positions);
    format!(
        "WITH updated AS (
         UPDATE {table} AS d
         SET content_images = {IMAGES}, updated_at = now(), content_job_id = b.job, content_event_at = b.event_at,
             content_event_offset = b.event_offset, content_event_partition = b.event_partition, {jobs}, {positions}
         FROM {events}
         WHERE d.event_draft_id = b.draft AND b.job IS DISTINCT FROM d.content_job_id
           AND (b.job <> ALL (d.content_older_jobs)) IS NOT FALSE
           AND (b.event_at, b.event_offset, b.event_partition)
             > (d.content_event_at, d.content_event_offset, d.content_event_partition)
         RETURNING b.n)
         SELECT array_agg(n) AS written FROM updated"
    )
}

fn read_sql(table: &str, id_type: &str) -> String {
    format!(
        "SELECT b.n, CASE WHEN d.content_event_at > '-infinity' THEN {EVENT_MS} END AS event_ms, d.content_event_offset,
                d.content_event_partition, d.content_job_id, d.content_older_jobs, d.content_older_positions
         FROM unnest($1::int4[], $2::text[]::{id_type}[]) AS b (n, draft)
         JOIN {table} AS d ON d.event_draft_id = b.draft"
    )
}

/// Compare and set: the row is amended only while it holds the event and remembers the jobs that it
/// was judged by.
fn amend_sql(table: &str, id_type: &str) -> String {
    let events = events_sql(
        id_type,
        ", unnest($10::bool[]) AS wins, unnest($11::text[]) AS jobs,
         unnest($12::int4[]) AS seen, unnest($13::int4[]) AS new, unnest($14::int4[]) AS ends,
         unnest($15::timestamptz[]) AS applied_at, unnest($16::int8[]) AS applied_offset, unnest($17::int4[]) AS applied_partition",
    );
    let if_wins =
        |new: &str, old: &str| format!("{old} = CASE WHEN b.wins THEN {new} ELSE d.{old} END");
    let images = [
        if_wins(IMAGES, "content_images"),
        if_wins("now()", "updated_at"),
        if_wins("b.job", "content_job_id"),
        if_wins("b.event_at", "content_event_at"),
        if_wins("b.event_offset", "content_event_offset"),
        if_wins("b.event_partition", "content_event_partition"),
    ]
    .join(", ");
    format!(
        "UPDATE {table} AS d
         SET {images}, content_older_jobs = string_to_array(nullif(b.jobs, ''), E'\\x01'),
             content_older_positions = nullif(($18::int8[])[b.new + 1 : b.ends], '{{}}')
         FROM {events}
         WHERE d.event_draft_id = b.draft AND date_trunc('milliseconds', d.content_event_at) = b.applied_at
           AND (NOT isfinite(b.applied_at)
                OR (d.content_event_offset, d.content_event_partition) = (b.applied_offset, b.applied_partition))
           AND d.content_older_positions IS NOT DISTINCT FROM nullif(($18::int8[])[b.seen + 1 : b.new], '{{}}')
         RETURNING b.n"
    )
}

/// What can be locked at once, as an UPDATE would, is locked until the end of the statement; told
/// is the rest. The ordinals in their order.
///
/// The UPDATE of no row waits for the table as one that writes does: an index that is built on it
/// lets rows be locked, and not be written.
fn locked_sql(table: &str, id_type: &str) -> String {
    let rows = format!(
        "FROM unnest($1::int4[], $2::text[]::{id_type}[]) AS b (n, draft) JOIN {table} AS d ON d.event_draft_id = b.draft"
    );
    format!(
        "WITH nothing AS (UPDATE {table} SET content_job_id = content_job_id WHERE false),
              free AS (SELECT b.n {rows} FOR NO KEY UPDATE OF d SKIP LOCKED)
         SELECT b.n {rows} WHERE b.n NOT IN (SELECT n FROM free) ORDER BY b.n"
    )
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

/// The older jobs as an array literal of texts. Every element is quoted; a quote or a backslash in
/// it is escaped.
pub(crate) fn jobs_literal(memory: &RowMemory) -> String {
    let quoted = memory.older().map(|known| {
        let escaped = known.job_id.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{escaped}\"")
    });
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

/// Their positions as an array literal of numbers, three for each job.
pub(crate) fn positions_literal(memory: &RowMemory) -> String {
    let numbers = memory.older().map(|Remembered { position, .. }| {
        format!("{},{},{}", position.timestamp_ms, position.offset, position.partition)
    });
    format!("{{{}}}", numbers.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_from_the_year_2000_and_never_infinite() {
        let of = |timestamp_ms| Timestamptz::of(Position { timestamp_ms, offset: 0, partition: 0 });
        assert_eq!(of(946_684_800_000), Timestamptz(0));
        assert_eq!(of(-1), Timestamptz(-946_684_800_001_000));
        assert_eq!(of(1_500_000_000_005), Timestamptz(553_315_200_005_000));
        assert_eq!(of(i64::MAX), Timestamptz(i64::MAX - 1));
        assert_eq!(of(i64::MIN), Timestamptz(i64::MIN + 1));
        assert_ne!(of(i64::MIN), Timestamptz::NEVER);
    }
}
