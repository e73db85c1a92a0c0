//! The copy of the table that the trials write to. The table itself is only ever read.
//!
//! Two tables beside it: the rows of the sample's drafts as they are, but without the memory of the
//! events that have reached them; and the copy, with all constraints and indexes, which is filled
//! from the first before every trial, so that each has the same work. Their names follow from the
//! table's, a comment marks them as ours, and an advisory lock says whether anybody works with
//! them: so what a killed process has left behind is told from what another one uses, and from what
//! is somebody's.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::config::{Database, TableName, quoted};
use crate::postgres::{self, ConnectError};

/// For one statement: the longest fills the copy.
const DEADLINE: Duration = Duration::from_secs(300);

/// How long a lock is waited for: what a killed process was doing ends with its statement.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Drafts that are copied with one statement.
const COPIED_AT_ONCE: usize = 10_000;

/// The comment on what is ours.
const MARK: &str = "contentflow tune: a scratch copy, may be dropped at any time when no tune runs";

/// "cftn" as a number: which advisory locks are those of this command.
const LOCK: i32 = 0x6366_746e;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// There is no session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The rights are missing.
    #[error("the copy of {table} cannot be made: {reason}")]
    NotAllowed {
        /// The table.
        table: TableName,
        /// What the server says.
        reason: String,
        /// What to grant, as SQL.
        grant: String,
    },
    /// What is done to the copy would be done at the subscribers, too, which have no such table.
    #[error(
        "the publication {publication} takes in every new table, and would replicate the copy of {table}"
    )]
    Published {
        /// The table.
        table: TableName,
        /// The publication.
        publication: String,
    },
    /// Somebody else works with the copy.
    #[error("another `contentflow tune` is at work on {0}")]
    InUse(TableName),
    /// Another user's copy cannot be dropped.
    #[error(
        "what a `contentflow tune` of another user has left behind, {table}, cannot be dropped: {reason}"
    )]
    NotOurs {
        /// The copy.
        table: TableName,
        /// What the server says.
        reason: String,
    },
    /// There is a table of that name that is not ours.
    #[error("there is a table {0}, which no `contentflow tune` has made")]
    NameTaken(TableName),
    /// The table has gone meanwhile.
    #[error("the table {0} does not exist any more")]
    NoTable(TableName),
    /// The table's name leaves no room.
    #[error("no copy of {0} can be made under its name")]
    NoName(TableName),
    /// The server says no.
    #[error("the copy of {table}: {}", postgres::describe(.source))]
    Refused {
        /// The table.
        table: TableName,
        /// Its words.
        source: tokio_postgres::Error,
    },
    /// The server says nothing.
    #[error("the copy of {table}: no answer within {} s", DEADLINE.as_secs())]
    Silent {
        /// The table.
        table: TableName,
    },
}

impl ScratchError {
    /// Whether the server is away: it may pass by itself.
    pub fn is_outage(&self) -> bool {
        match self {
            ScratchError::Connect(error) => error.is_outage(),
            ScratchError::Silent { .. } => true,
            ScratchError::Refused { source, .. } => postgres::is_lost(source),
            _ => false,
        }
    }
}

/// The two tables, and the session that has made them and keeps others away.
pub(super) struct Scratch {
    database: Database,
    client: Client,
    /// The table, with its schema.
    original: TableName,
    /// What the trials write to.
    pub(super) copy: TableName,
    rows: TableName,
    columns: Columns,
}

/// Lists of columns, as SQL.
struct Columns {
    names: String,
    /// What the copy has in them: what the row has, but for its memory.
    values: String,
}

impl Columns {
    /// Those that can be written.
    async fn read(client: &Client, table: &TableName, oid: u32) -> Result<Columns, ScratchError> {
        let sql = "SELECT attname::text, quote_ident(attname) FROM pg_attribute
                   WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum";
        let rows = within(table, client.query(sql, &[&oid])).await?;
        let value = |row: &tokio_postgres::Row| -> String {
            let (name, quoted): (&str, &str) = (row.get(0), row.get(1));
            match name {
                "content_job_id" => format!("NULL::text AS {quoted}"),
                "content_event_at" => format!("'-infinity'::timestamptz AS {quoted}"),
                "content_event_offset" => format!("-1::int8 AS {quoted}"),
                "content_event_partition" => format!("-1::int4 AS {quoted}"),
                "content_older_jobs" => format!("NULL::text[] AS {quoted}"),
                "content_older_positions" => format!("NULL::int8[] AS {quoted}"),
                _ => format!("d.{quoted}"),
            }
        };
        let names: Vec<&str> = rows.iter().map(|row| row.get(1)).collect();
        let values: Vec<String> = rows.iter().map(value).collect();
        Ok(Columns { names: names.join(", "), values: values.join(", ") })
    }
}

impl Scratch {
    /// Makes both tables, empty. What a killed process has left is dropped first.
    pub(super) async fn create(database: &Database) -> Result<Scratch, ScratchError> {
        let client = postgres::connect(database).await?;
        let found = Found::look_up(&client, database).await?;
        let Found { original, schema, user, oid } = found;
        let named = |name: String| {
            TableName::new(Some(schema.clone()), name)
                .map_err(|_| ScratchError::NoName(original.clone()))
        };
        let (copy, rows) = (
            named(format!("contentflow_tune_{oid}"))?,
            named(format!("contentflow_tune_{oid}_rows"))?,
        );
        let columns = Columns::read(&client, &original, oid).await?;
        let database = database.clone();
        let scratch = Scratch { database, client, original, copy, rows, columns };
        scratch.lock().await?;
        scratch.clear_leftovers().await?;
        scratch.refuse_publication(&schema).await?;
        scratch.warn_of_triggers(oid).await?;
        let options = scratch.options(oid).await?;
        match scratch.make(&options).await {
            Err(ScratchError::Refused { table, source })
                if source.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) =>
            {
                let (schema, user) = (quoted(&schema), quoted(&user));
                Err(ScratchError::NotAllowed {
                    grant: format!(
                        "GRANT CREATE ON SCHEMA {schema} TO {user}; GRANT SELECT ON {} TO {user}",
                        table.sql()
                    ),
                    table,
                    reason: postgres::describe(&source),
                })
            }
            made => made.map(|()| scratch),
        }
    }

    /// Waits for whoever works with the tables, not for long.
    async fn lock(&self) -> Result<(), ScratchError> {
        let lock = format!(
            "SET statement_timeout = {}; SET lock_timeout = {}; SELECT pg_advisory_lock({LOCK}, hashtext({}))",
            DEADLINE.as_millis(),
            LOCK_WAIT.as_millis(),
            literal(self.copy.sql()),
        );
        match self.execute(&lock).await {
            Err(ScratchError::Refused { table, source })
                if source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) =>
            {
                Err(ScratchError::InUse(table))
            }
            other => other,
        }
    }

    /// Drops tables with our names, if they are ours.
    async fn clear_leftovers(&self) -> Result<(), ScratchError> {
        for table in [&self.copy, &self.rows] {
            let sql = "SELECT obj_description(to_regclass($1)::oid, 'pg_class') FROM pg_class
                       WHERE pg_class.oid = to_regclass($1)::oid";
            let name = table.sql();
            let found = self.within(self.client.query_opt(sql, &[&name])).await?;
            let Some(row) = found else { continue };
            let mark: Option<String> = row.get(0);
            if mark.as_deref() != Some(MARK) {
                return Err(ScratchError::NameTaken(table.clone()));
            }
            match self.execute(&format!("DROP TABLE {}", table.sql())).await {
                Err(ScratchError::Refused { source, .. })
                    if source.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) =>
                {
                    let (table, reason) = (table.clone(), postgres::describe(&source));
                    return Err(ScratchError::NotOurs { table, reason });
                }
                dropped => dropped?,
            }
            tracing::info!(%table, "dropped what a tune that was killed had left behind");
        }
        Ok(())
    }

    /// A publication of all tables, or since PostgreSQL 15 of a whole schema, takes in the copy as
    /// soon as it is there.
    async fn refuse_publication(&self, schema: &str) -> Result<(), ScratchError> {
        let sql = "SELECT to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL";
        let row = self.within(self.client.query_one(sql, &[])).await?;
        let of_schema = if row.get(0) {
            "OR EXISTS (SELECT FROM pg_publication_namespace JOIN pg_namespace AS n ON n.oid = pnnspid
                        WHERE pnpubid = p.oid AND nspname = $1)"
        } else {
            "OR $1 = ''"
        };
        let sql = format!(
            "SELECT pubname::text FROM pg_publication AS p WHERE puballtables {of_schema} ORDER BY 1 LIMIT 1"
        );
        match self.within(self.client.query_opt(&sql, &[&schema])).await? {
            None => Ok(()),
            Some(row) => Err(ScratchError::Published {
                table: self.original.clone(),
                publication: row.get(0),
            }),
        }
    }

    /// How many more connections the server, the database and the role let us make.
    pub(super) async fn free_connections(&self) -> Result<u64, ScratchError> {
        let sql = "SELECT least(
             current_setting('max_connections')::bigint
               - current_setting('superuser_reserved_connections')::bigint
               - coalesce(current_setting('reserved_connections', true)::bigint, 0)
               - (SELECT sum(numbackends) FROM pg_stat_database)::bigint,
             (SELECT datconnlimit - numbackends FROM pg_database AS d JOIN pg_stat_database ON datid = d.oid
              WHERE d.datname = current_database() AND datconnlimit >= 0),
             (SELECT rolconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE usesysid = r.oid)
              FROM pg_roles AS r WHERE rolname = current_user AND rolconnlimit >= 0 AND NOT rolsuper))";
        let row = self.within(self.client.query_one(sql, &[])).await?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or_default())
    }

    /// Triggers stay behind: what they do elsewhere is none of our business.
    async fn warn_of_triggers(&self, oid: u32) -> Result<(), ScratchError> {
        let sql = "SELECT count(*) FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal";
        let row = self.within(self.client.query_one(sql, &[&oid])).await?;
        let triggers: i64 = row.get(0);
        if triggers > 0 {
            let table = &self.original;
            tracing::warn!(%table, triggers, "the copy has no triggers: what they cost is not measured");
        }
        Ok(())
    }

    /// The table's storage parameters, its fillfactor among them, which LIKE leaves out. Without
    /// autovacuum, which would disturb one trial and not the next.
    async fn options(&self, oid: u32) -> Result<String, ScratchError> {
        let sql = "SELECT coalesce(reloptions, '{}') FROM pg_class WHERE oid = $1";
        let row = self.within(self.client.query_one(sql, &[&oid])).await?;
        let options: Vec<String> = row.get(0);
        let kept = options.iter().filter_map(|option| option.split_once('='));
        let kept = kept
            .filter(|(name, _)| *name != "autovacuum_enabled")
            .map(|(name, value)| format!("{name} = {}", literal(value)));
        Ok(kept.chain(["autovacuum_enabled = false".to_owned()]).collect::<Vec<_>>().join(", "))
    }

    /// In one transaction: a table is marked as ours as soon as it is there.
    async fn make(&self, options: &str) -> Result<(), ScratchError> {
        let Scratch { original, copy, rows, columns, .. } = self;
        let (original, copy, rows) = (original.sql(), copy.sql(), rows.sql());
        let values = &columns.values;
        self.execute(&format!(
            "BEGIN;
             CREATE TABLE {copy} (LIKE {original} INCLUDING ALL) WITH ({options});
             COMMENT ON TABLE {copy} IS '{MARK}';
             CREATE UNLOGGED TABLE {rows} AS SELECT d.ctid AS contentflow_place, {values} FROM {original} AS d WITH NO DATA;
             COMMENT ON TABLE {rows} IS '{MARK}';
             COMMIT"
        ))
        .await
    }

    /// Copies the rows of these drafts, and returns how many there are. `is_stopped` is asked now
    /// and then.
    pub(super) async fn fill(
        &self,
        drafts: &[String],
        id_type: &str,
        is_stopped: impl Fn() -> bool,
    ) -> Result<u64, ScratchError> {
        let Scratch { original, rows, columns, .. } = self;
        let (original, rows, values) = (original.sql(), rows.sql(), &columns.values);
        self.execute(postgres::PLANS).await?;
        let insert = format!(
            "INSERT INTO {rows} SELECT d.ctid, {values} FROM unnest($1::text[]::{id_type}[]) AS b (draft)
             JOIN {original} AS d ON d.event_draft_id = b.draft"
        );
        let mut copied = 0;
        for some in drafts.chunks(COPIED_AT_ONCE) {
            if is_stopped() {
                break;
            }
            copied += self.within(self.client.execute(&insert, &[&some])).await?;
        }
        self.execute("RESET enable_seqscan; RESET enable_hashjoin; RESET enable_mergejoin").await?;
        Ok(copied)
    }

    /// The copy as it is before a trial: every row as it was, in the order of the table, and none
    /// dead.
    pub(super) async fn reset(&self) -> Result<(), ScratchError> {
        let Scratch { copy, rows, columns, .. } = self;
        let (copy, rows, names) = (copy.sql(), rows.sql(), &columns.names);
        self.execute(&format!(
            "TRUNCATE {copy};
             INSERT INTO {copy} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM {rows} ORDER BY contentflow_place"
        ))
        .await?;
        self.execute(&format!("VACUUM (ANALYZE) {copy}")).await
    }

    /// Drops both tables, over a new session if this one is gone.
    pub(super) async fn clear(self) -> Result<(), ScratchError> {
        let drop = format!("DROP TABLE IF EXISTS {}, {}", self.copy.sql(), self.rows.sql());
        if !self.client.is_closed() {
            return self.execute(&drop).await;
        }
        let client = postgres::connect(&self.database).await?;
        Scratch { client, ..self }.execute(&drop).await
    }

    async fn execute(&self, statements: &str) -> Result<(), ScratchError> {
        self.within(self.client.batch_execute(statements)).await
    }

    async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, ScratchError> {
        within(&self.original, answer).await
    }
}

async fn within<T>(
    table: &TableName,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, ScratchError> {
    let answered = tokio::time::timeout(DEADLINE, answer).await;
    let answered = answered.map_err(|_| ScratchError::Silent { table: table.clone() })?;
    answered.map_err(|source| ScratchError::Refused { table: table.clone(), source })
}

/// The table as the catalog has it.
struct Found {
    original: TableName,
    schema: String,
    user: String,
    oid: u32,
}

impl Found {
    async fn look_up(client: &Client, database: &Database) -> Result<Found, ScratchError> {
        let table = &database.table;
        let found = within(table, postgres::find_table(client, table)).await?;
        // The caller has just found it, and somebody has dropped it since.
        let (oid, schema) = found.ok_or_else(|| ScratchError::NoTable(table.clone()))?;
        let original = TableName::new(Some(schema.clone()), table.name().to_owned())
            .map_err(|_| ScratchError::NoName(table.clone()))?;
        let user = within(table, client.query_one("SELECT current_user::text", &[])).await?;
        Ok(Found { original, schema, user: user.get(0), oid })
    }
}

/// A text as SQL. Backslashes stay what they are in names and options.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
