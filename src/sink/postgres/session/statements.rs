//! The SQL of the statements, for a table and the type of its ids.

use dataflows::row::JOBS_REMEMBERED;
use tokio_postgres::types::Type;

/// The events of a statement, one row each, as `b`. Arrays that are unnested in the SELECT list
/// cost half of what they cost in FROM, where each of them is materialized first; URLs that are put
/// together here cost less than half of JSON that is parsed.
fn events(id_type: &str, more: &str) -> String {
    format!(
        "(SELECT unnest($1::int4[]) AS n, unnest($2::text[]::{id_type}[]) AS draft,
                 unnest($3::text[]) AS simple, unnest($4::text[]) AS fancy, unnest($5::text[]) AS trendy,
                 unnest($6::text[]) AS job, unnest($7::timestamptz[]) AS event_at,
                 unnest($8::int8[]) AS event_offset, unnest($9::int4[]) AS event_partition{more}) AS b"
    )
}

/// The images of an event of [`events`].
const IMAGES: &str = "jsonb_object('{simple,fancy,trendy}', ARRAY[b.simple, b.fancy, b.trendy])";

/// The milliseconds of the event that a row holds; whoever sets its time by hand may have set
/// microseconds.
const EVENT_MS: &str = "floor(extract(epoch FROM d.content_event_at) * 1000)::int8";

/// Says of which type the times are at which rows were updated.
pub(super) fn updated_at(table: &str) -> String {
    format!("SELECT updated_at FROM {table}")
}

/// The time as that type has it. A CASE of two types would take what a row holds through the
/// session's time zone, in which some times do not exist.
pub(super) fn now(updated_at: &Type) -> &'static str {
    if *updated_at == Type::TIMESTAMP { "localtimestamp" } else { "now()" }
}

/// The guard stands in the WHERE: a row that holds something newer, or remembers the job, is not
/// touched. The job that the row held becomes the first of the older ones. What was written comes
/// back as one array, which costs the client a fraction of a row for each.
pub(super) fn update(table: &str, id_type: &str) -> String {
    let events = events(id_type, "");
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

pub(super) fn read(table: &str, id_type: &str) -> String {
    format!(
        "SELECT b.n, CASE WHEN d.content_event_at > '-infinity' THEN {EVENT_MS} END AS event_ms, d.content_event_offset,
                d.content_event_partition, d.content_job_id, d.content_older_jobs, d.content_older_positions
         FROM unnest($1::int4[], $2::text[]::{id_type}[]) AS b (n, draft)
         JOIN {table} AS d ON d.event_draft_id = b.draft"
    )
}

/// Compare and set: the row is amended only while it holds the event and remembers the jobs that it
/// was judged by.
pub(super) fn amend(table: &str, id_type: &str, now: &str) -> String {
    let events = events(
        id_type,
        ", unnest($10::bool[]) AS wins, unnest($11::text[]) AS jobs,
         unnest($12::int4[]) AS seen, unnest($13::int4[]) AS new, unnest($14::int4[]) AS ends,
         unnest($15::timestamptz[]) AS applied_at, unnest($16::int8[]) AS applied_offset, unnest($17::int4[]) AS applied_partition",
    );
    let if_wins =
        |new: &str, old: &str| format!("{old} = CASE WHEN b.wins THEN {new} ELSE d.{old} END");
    let images = [
        if_wins(IMAGES, "content_images"),
        if_wins(now, "updated_at"),
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

/// Locks every row that can be locked without waiting, as an UPDATE would, until the statement
/// ends; returns the others. The ordinals in their order.
///
/// The UPDATE of no row waits for the table as one that writes does: an index that is built on it
/// lets rows be locked, and not be written.
pub(super) fn locked(table: &str, id_type: &str) -> String {
    let rows = format!(
        "FROM unnest($1::int4[], $2::text[]::{id_type}[]) AS b (n, draft) JOIN {table} AS d ON d.event_draft_id = b.draft"
    );
    format!(
        "WITH nothing AS (UPDATE {table} SET content_job_id = content_job_id WHERE false),
              free AS (SELECT b.n {rows} FOR NO KEY UPDATE OF d SKIP LOCKED)
         SELECT b.n {rows} WHERE b.n NOT IN (SELECT n FROM free) ORDER BY b.n"
    )
}
