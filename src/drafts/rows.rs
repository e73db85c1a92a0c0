//! The drafts' table, whatever its id column and other columns are.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::DraftError;
use crate::config::{Database, quoted};
use crate::generate::DraftIds;
use crate::postgres;

/// The columns in which a row remembers its events. They are no part of the draft that services see
/// and cache.
pub const BOOKKEEPING: [&str; 6] = [
    "content_job_id",
    "content_event_at",
    "content_event_offset",
    "content_event_partition",
    "content_older_jobs",
    "content_older_positions",
];

const ID: &str = "event_draft_id";

/// Rows that one statement inserts: a second's work, well below the limit for a statement.
const INSERT_ROWS_MAX: u64 = 100_000;

/// Rows that one statement reads: some megabytes.
const READ_ROWS_MAX: usize = 10_000;

/// A session with the database, and what it says about the table.
#[derive(Debug)]
pub struct Rows {
    client: Client,
    deadline: Duration,
    /// The table's name, for SQL.
    table: String,
    /// The columns with their types as SQL writes them.
    columns: BTreeMap<String, String>,
}

/// A draft in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListedDraft {
    pub(super) id: String,
    pub(super) has_images: bool,
    pub(super) updated_at: Option<String>,
}

impl Rows {
    /// Connects, and reads the table's columns from the catalogue.
    ///
    /// # Errors
    ///
    /// When there is no session or no such table, or the table has no `event_draft_id`.
    pub async fn connect(config: &Database) -> Result<Rows, DraftError> {
        let client = postgres::connect(config).await?;
        let deadline = postgres::deadline(config);
        let mut rows = Rows {
            client,
            deadline,
            table: config.table.sql().to_owned(),
            columns: BTreeMap::new(),
        };
        let columns = "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute \
             WHERE attrelid = to_regclass($1::text) AND attnum > 0 AND NOT attisdropped";
        let found = rows.query("read its catalogue", columns, &[&rows.table]).await?;
        rows.columns = found.iter().map(|row| (row.get(0), row.get(1))).collect();
        let fault = if rows.columns.is_empty() {
            "does not exist"
        } else if !rows.columns.contains_key(ID) {
            "has no column event_draft_id"
        } else {
            return Ok(rows);
        };
        Err(DraftError::Table { table: config.table.to_string(), fault })
    }

    /// The type of the id column, as SQL writes it.
    pub fn id_type(&self) -> &str {
        &self.columns[ID]
    }

    /// How generated ids must look to fit the id column.
    pub fn draft_ids(&self) -> DraftIds {
        match self.id_type() {
            "uuid" => DraftIds::Uuid,
            "bigint" | "integer" => DraftIds::Number,
            _ => DraftIds::Text,
        }
    }

    /// The id as the column spells it.
    pub(super) async fn canonical(&self, id: &str) -> Result<String, DraftError> {
        let sql = format!("SELECT $1::text::{}::text", self.id_type());
        match self.query("read an id", &sql, &[&id]).await {
            Ok(rows) => Ok(rows.iter().map(|row| row.get(0)).next().unwrap_or_default()),
            Err(error) => Err(self.about_id(id, error)),
        }
    }

    /// The draft as JSON without the bookkeeping. The id is cast to the column's type, and not the
    /// column to text, so that the index is used.
    pub(super) async fn read(&self, id: &str) -> Result<Option<String>, DraftError> {
        let Rows { table, .. } = self;
        let sql = format!(
            "SELECT (to_jsonb(draft) - $2::text[])::text FROM {table} AS draft WHERE {ID} = $1::text::{}",
            self.id_type()
        );
        let rows = self.query("read a draft", &sql, &[&id, &BOOKKEEPING.as_slice()]).await;
        Ok(rows.map_err(|error| self.about_id(id, error))?.iter().map(|row| row.get(0)).next())
    }

    /// Inserts a draft; the columns of `data` must be the table's own.
    pub(super) async fn insert(&self, id: &str, data: Option<&str>) -> Result<String, DraftError> {
        let data = data.unwrap_or("{}");
        let columns = self.columns_of(data)?;
        let Rows { table, .. } = self;
        let names: String = columns.iter().map(|name| format!(", {name}")).collect();
        let values: String = columns.iter().map(|name| format!(", data.{name}")).collect();
        let sql = format!(
            "INSERT INTO {table} ({ID}{names}) SELECT $1::text::{}{values} \
             FROM jsonb_populate_record(NULL::{table}, $2::text::jsonb) AS data RETURNING {ID}::text",
            self.id_type()
        );
        match self.query("create a draft", &sql, &[&id, &data]).await {
            Ok(rows) => Ok(rows.iter().map(|row| row.get(0)).next().unwrap_or_default()),
            Err(error) if has_state(&error, &SqlState::UNIQUE_VIOLATION) => {
                match self.read(id).await? {
                    Some(_) => Err(DraftError::Exists { id: id.to_owned() }),
                    None => Err(error),
                }
            }
            Err(error) if columns.is_empty() => Err(self.about_id(id, error)),
            Err(error) => Err(error),
        }
    }

    /// The columns that the data is for, quoted for SQL.
    fn columns_of(&self, data: &str) -> Result<Vec<String>, DraftError> {
        let parsed: Value = serde_json::from_str(data)
            .map_err(|error| DraftError::Data(format!("is not JSON: {error}")))?;
        let Value::Object(object) = parsed else {
            return Err(DraftError::Data("is not a JSON object".to_owned()));
        };
        for name in object.keys() {
            let fault = match name.as_str() {
                ID => "names event_draft_id, which is the id itself",
                name if BOOKKEEPING.contains(&name) => "names a column that belongs to contentflow",
                name if !self.columns.contains_key(name) => {
                    "names a column that the table does not have"
                }
                _ => continue,
            };
            return Err(DraftError::Data(format!("{fault}: {name:?}")));
        }
        Ok(object.keys().map(|name| quoted(name)).collect())
    }

    /// The drafts that changed last, the newest first.
    pub(super) async fn newest(&self, limit: u32) -> Result<Vec<ListedDraft>, DraftError> {
        let Rows { table, .. } = self;
        let sql = format!(
            "SELECT {ID}::text, content_images IS NOT NULL, updated_at::text FROM {table} \
             ORDER BY updated_at DESC NULLS LAST, {ID} LIMIT $1"
        );
        let rows = self.query("list drafts", &sql, &[&i64::from(limit)]).await?;
        let listed = rows.iter().map(|row| ListedDraft {
            id: row.get(0),
            has_images: row.get(1),
            updated_at: row.get(2),
        });
        Ok(listed.collect())
    }

    /// Creates the generated drafts 1 to `drafts`, leaves those that exist as they are, and reports
    /// after each step how many of the numbers are done. The result is how many were new.
    ///
    /// # Errors
    ///
    /// When the database fails; the steps before stay.
    pub async fn create_generated(
        &self,
        drafts: u64,
        draft_ids: DraftIds,
        mut done: impl FnMut(u64),
    ) -> Result<u64, DraftError> {
        let Rows { table, .. } = self;
        let sql = format!(
            "INSERT INTO {table} ({ID}) SELECT {} FROM generate_series($1::bigint, $2::bigint) AS number \
             ON CONFLICT DO NOTHING",
            self.generated_id(draft_ids)
        );
        self.in_steps("create drafts", &sql, drafts, &mut done).await
    }

    /// Deletes the generated drafts 1 to `drafts`, and returns how many there were.
    ///
    /// # Errors
    ///
    /// When the database fails; the steps before stay.
    pub async fn delete_generated(
        &self,
        drafts: u64,
        draft_ids: DraftIds,
    ) -> Result<u64, DraftError> {
        let Rows { table, .. } = self;
        let sql = format!(
            "DELETE FROM {table} WHERE {ID} IN \
             (SELECT {} FROM generate_series($1::bigint, $2::bigint) AS number)",
            self.generated_id(draft_ids)
        );
        self.in_steps("delete drafts", &sql, drafts, &mut |_done| {}).await
    }

    /// The id of the generated draft `number`, as SQL. The same as [`DraftIds::id`].
    fn generated_id(&self, draft_ids: DraftIds) -> String {
        let id = match draft_ids {
            DraftIds::Text => {
                "'draft-' || lpad(number::text, greatest(7, length(number::text)), '0')"
            }
            DraftIds::Number => "number",
            DraftIds::Uuid => "'00000000-0000-4000-8000-' || lpad(to_hex(number), 12, '0')",
        };
        format!("({id})::{}", self.id_type())
    }

    /// Executes a statement over the numbers 1 to `drafts`, so many at a time that each takes about
    /// a second.
    async fn in_steps(
        &self,
        doing: &'static str,
        sql: &str,
        drafts: u64,
        done: &mut dyn FnMut(u64),
    ) -> Result<u64, DraftError> {
        let mut rows = 0;
        let mut from = 1;
        while from <= drafts {
            let to = drafts.min(from + INSERT_ROWS_MAX - 1);
            let [first, last] = [from, to].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
            let bounds: [&(dyn ToSql + Sync); 2] = [&first, &last];
            rows += self.within(doing, self.client.execute(sql, &bounds)).await?;
            done(to);
            from = to + 1;
        }
        Ok(rows)
    }

    /// Whether the table has no row.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn is_empty(&self) -> Result<bool, DraftError> {
        let sql = format!("SELECT FROM {} LIMIT 1", self.table);
        Ok(self.query("look for drafts", &sql, &[]).await?.is_empty())
    }

    /// Shows the images of each of these drafts to `visit`, as JSON; drafts that are not there are
    /// passed over.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn images(
        &self,
        ids: &[&str],
        mut visit: impl FnMut(&str, Option<&str>),
    ) -> Result<(), DraftError> {
        let Rows { table, .. } = self;
        let sql = format!(
            "SELECT {ID}::text, content_images::text FROM {table} WHERE {ID} = ANY ($1::text[]::{}[])",
            self.id_type()
        );
        for page in ids.chunks(READ_ROWS_MAX) {
            for row in self.query("read images", &sql, &[&page]).await? {
                visit(row.get(0), row.get(1));
            }
        }
        Ok(())
    }

    async fn query(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, DraftError> {
        self.within(doing, self.client.query(sql, parameters)).await
    }

    /// A frozen server keeps a connection and answers nothing: every wait has an end.
    async fn within<T>(
        &self,
        doing: &'static str,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DraftError> {
        match tokio::time::timeout(self.deadline, answer).await {
            Ok(answer) => answer.map_err(|source| DraftError::Database { doing, source }),
            Err(_) => Err(DraftError::Silent { doing, seconds: self.deadline.as_secs() }),
        }
    }

    /// The error, in better words if it is the id that does not fit.
    fn about_id(&self, id: &str, error: DraftError) -> DraftError {
        let unfit = [
            SqlState::INVALID_TEXT_REPRESENTATION,
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            SqlState::STRING_DATA_RIGHT_TRUNCATION,
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        ];
        if unfit.iter().any(|state| has_state(&error, state)) {
            return DraftError::InvalidId {
                id: id.to_owned(),
                column_type: self.id_type().to_owned(),
            };
        }
        error
    }
}

fn has_state(error: &DraftError, state: &SqlState) -> bool {
    matches!(error, DraftError::Database { source, .. } if source.code() == Some(state))
}
