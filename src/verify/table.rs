//! The table: a snapshot of it, a few thousand rows at a time.

use std::collections::HashSet;
use std::time::Duration;

use dataflows::record::Position;
use dataflows::verify::stored::StoredRow;
use tokio_postgres::{Client, IsolationLevel, Row};

use super::VerifyError;
use crate::config;
use crate::drafts::BOOKKEEPING;
use crate::postgres;

/// Rows in one answer: some megabytes.
const FETCH_ROWS: i32 = 5_000;

/// A row as it was read.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// The draft's id, as the column spells it.
    pub(super) id: String,
    /// Which version of the row it is. Another one after each change.
    pub(super) version: String,
    /// What contentflow has written.
    pub(super) row: StoredRow,
    /// The draft as services see it, JSON.
    pub(super) draft: String,
}

/// Reads the whole table as it is at one moment, and hands it over in parts.
pub(super) async fn snapshot(
    config: &config::Database,
    mut visit: impl AsyncFnMut(Vec<Stored>) -> Result<(), VerifyError>,
) -> Result<(), VerifyError> {
    let mut client = postgres::connect(config).await?;
    let deadline = postgres::deadline(config);
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start();
    let transaction = within(deadline, READ, transaction).await?;
    let sql = select(config, "");
    let portal = within(deadline, READ, transaction.bind(&sql, &[])).await?;
    loop {
        let rows = within(deadline, READ, transaction.query_portal(&portal, FETCH_ROWS)).await?;
        if rows.is_empty() {
            break;
        }
        visit(rows.iter().map(stored).collect()).await?;
    }
    within(deadline, READ, transaction.commit()).await
}

/// Reads these drafts' rows again, as they are now.
pub(super) async fn again(
    config: &config::Database,
    id_type: &str,
    client: &Client,
    ids: &[&str],
) -> Result<Vec<Stored>, VerifyError> {
    let which = format!("WHERE event_draft_id = ANY ($1::text[]::{id_type}[])");
    let (sql, deadline) = (select(config, &which), postgres::deadline(config));
    let rows = within(deadline, READ, client.query(&sql, &[&ids])).await?;
    Ok(rows.iter().map(stored).collect())
}

/// Which of these ids have a row.
pub(super) async fn present(
    config: &config::Database,
    id_type: &str,
    client: &Client,
    ids: &[&str],
) -> Result<HashSet<String>, VerifyError> {
    let (table, deadline) = (config.table.sql(), postgres::deadline(config));
    let sql = format!(
        "SELECT event_draft_id::text FROM {table} WHERE event_draft_id = ANY ($1::text[]::{id_type}[])"
    );
    let rows = within(deadline, READ, client.query(&sql, &[&ids])).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

const READ: &str = "read the table";

/// A time that is infinite has no milliseconds; arrays become JSON, so that nothing in them is a
/// surprise.
fn select(config: &config::Database, which: &str) -> String {
    let table = config.table.sql();
    let bookkeeping = BOOKKEEPING.map(|name| format!("'{name}'")).join(", ");
    format!(
        "SELECT event_draft_id::text AS id, xmin::text AS version,
                CASE WHEN isfinite(content_event_at) THEN (extract(epoch FROM content_event_at) * 1000)::int8
                     WHEN content_event_at > '-infinity' THEN 9223372036854775807 END AS event_ms,
                content_event_offset, content_event_partition, content_job_id, content_images::text AS images,
                to_jsonb(content_older_jobs)::text AS jobs, to_jsonb(content_older_positions)::text AS positions,
                (to_jsonb(d) - ARRAY[{bookkeeping}])::text AS draft
         FROM {table} AS d {which}"
    )
}

fn stored(row: &Row) -> Stored {
    let applied = row.get::<_, Option<i64>>("event_ms").map(|timestamp_ms| Position {
        timestamp_ms,
        offset: row.get::<_, Option<i64>>("content_event_offset").unwrap_or(-1),
        partition: row.get::<_, Option<i32>>("content_event_partition").unwrap_or(-1),
    });
    let list = |name: &str| row.get::<_, Option<String>>(name).unwrap_or("[]".to_owned());
    let older_jobs = serde_json::from_str(&list("jobs"));
    // What is no list of positions fits no list of jobs.
    let older_positions = serde_json::from_str(&list("positions")).unwrap_or(vec![0]);
    let older_positions = if older_jobs.is_ok() { older_positions } else { vec![0] };
    let stored = StoredRow {
        applied,
        job_id: row.get("content_job_id"),
        images: row.get("images"),
        older_jobs: older_jobs.unwrap_or_default(),
        older_positions,
    };
    Stored { id: row.get("id"), version: row.get("version"), row: stored, draft: row.get("draft") }
}

/// A frozen server keeps a connection and answers nothing: every wait has an end.
pub(super) async fn within<T>(
    deadline: Duration,
    doing: &'static str,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, VerifyError> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(answer) => answer.map_err(|source| VerifyError::Database { doing, source }),
        Err(_) => Err(VerifyError::Silent { doing, within: deadline }),
    }
}
