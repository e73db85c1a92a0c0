//! The table of drafts, as PostgreSQL's catalog describes it.

use std::time::Duration;

use dataflows::validate::DraftIdType;
use tokio_postgres::Client;

use super::{Access, Finding};
use crate::config::{Database, TableName};

/// A column, the types that it may have, and the right beside SELECT that it needs.
const COLUMNS: [(&str, &[&str], bool); 9] = [
    ("event_draft_id", &["text", "varchar", "uuid", "int8", "int4"], false),
    ("content_images", &["jsonb"], true),
    ("updated_at", &["timestamptz", "timestamp"], true),
    ("content_job_id", &["text"], true),
    ("content_event_at", &["timestamptz"], true),
    ("content_event_offset", &["int8"], true),
    ("content_event_partition", &["int4"], true),
    ("content_older_jobs", &["_text"], true),
    ("content_older_positions", &["_int8"], true),
];

/// A column as it is.
struct Column {
    name: String,
    /// The catalog's name of its type: int8, not bigint.
    base_type: String,
    /// As SQL writes it, with the length of a varchar.
    full_type: String,
    type_modifier: i32,
    /// Whether only the same texts are equal in its collation.
    is_deterministic: bool,
    may_select: bool,
    may_update: bool,
}

/// Why the type of event_draft_id is not known.
#[derive(Debug, thiserror::Error)]
pub enum DraftTableError {
    /// No session with the database.
    #[error(transparent)]
    Connect(#[from] crate::postgres::ConnectError),
    /// There is no such table on the search path.
    #[error("the table {0} does not exist; run `contentflow migrate`, or set database.table")]
    NoTable(TableName),
    /// It has no such column.
    #[error(
        "the table {0} has no column event_draft_id; set database.table to the table of drafts"
    )]
    NoColumn(TableName),
    /// It is of a type that ids cannot have.
    #[error(
        "event_draft_id of {table} is {found}; it must be text, varchar, uuid, bigint or integer"
    )]
    UnknownType {
        /// The table.
        table: TableName,
        /// The column's type.
        found: String,
    },
    /// Its collation takes different ids for one.
    #[error("event_draft_id of {table} {FOLDS}; {remedy}")]
    Folds {
        /// The table.
        table: TableName,
        /// The statement that changes it.
        remedy: String,
    },
    /// The server did not say.
    #[error("the type of event_draft_id cannot be read: {}", crate::postgres::describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// The server said nothing.
    #[error("the type of event_draft_id cannot be read: no answer within {} s", CATALOG_TIMEOUT.as_secs())]
    Unanswered,
}

impl DraftTableError {
    /// Whether the server is away: it may pass by itself.
    pub fn is_outage(&self) -> bool {
        match self {
            DraftTableError::Connect(error) => error.is_outage(),
            DraftTableError::Database(error) => crate::postgres::is_lost(error),
            DraftTableError::Unanswered => true,
            DraftTableError::NoTable(_)
            | DraftTableError::NoColumn(_)
            | DraftTableError::UnknownType { .. }
            | DraftTableError::Folds { .. } => false,
        }
    }
}

/// For a few reads of the catalog, which take milliseconds.
pub(super) const CATALOG_TIMEOUT: Duration = Duration::from_secs(10);

/// [`draft_id_type`] of the table of that configuration, over a connection of its own.
pub async fn draft_ids(config: &Database) -> Result<DraftIdType, DraftTableError> {
    let client = crate::postgres::connect(config).await?;
    draft_id_type(&client, &config.table).await
}

/// The type of event_draft_id: what an id must look like, and what the statements cast to.
pub async fn draft_id_type(
    client: &Client,
    table: &TableName,
) -> Result<DraftIdType, DraftTableError> {
    let work = async {
        let oid = find(client, table).await?;
        let oid = oid.ok_or_else(|| DraftTableError::NoTable(table.clone()))?;
        Ok::<_, DraftTableError>(columns(client, oid).await?)
    };
    let columns = tokio::time::timeout(CATALOG_TIMEOUT, work)
        .await
        .map_err(|_| DraftTableError::Unanswered)??;
    let column = columns.iter().find(|column| column.name == "event_draft_id");
    let column = column.ok_or_else(|| DraftTableError::NoColumn(table.clone()))?;
    if !column.is_deterministic {
        let remedy = to_deterministic(column, table);
        return Err(DraftTableError::Folds { table: table.clone(), remedy });
    }
    id_type(column).ok_or_else(|| DraftTableError::UnknownType {
        table: table.clone(),
        found: column.full_type.clone(),
    })
}

/// What a table lacks that every table of drafts has, whoever made it. Nothing where there is none.
pub(crate) async fn missing_columns(
    client: &Client,
    table: &TableName,
) -> Result<Vec<&'static str>, tokio_postgres::Error> {
    let Some(oid) = find(client, table).await? else { return Ok(Vec::new()) };
    let columns = columns(client, oid).await?;
    let own = ["event_draft_id", "content_images", "updated_at"];
    let is_there = |name: &str| columns.iter().any(|column| column.name == name);
    Ok(own.into_iter().filter(|name| !is_there(name)).collect())
}

fn id_type(column: &Column) -> Option<DraftIdType> {
    match column.base_type.as_str() {
        "text" => Some(DraftIdType::Text { max_chars: None }),
        // The modifier of a varchar(n) is n + 4, of one without a length -1.
        "varchar" => {
            Some(DraftIdType::Text { max_chars: u32::try_from(column.type_modifier - 4).ok() })
        }
        "uuid" => Some(DraftIdType::Uuid),
        "int8" => Some(DraftIdType::BigInt),
        "int4" => Some(DraftIdType::Integer),
        _ => None,
    }
}

pub(super) async fn findings(
    client: &Client,
    table: &TableName,
    access: Access,
) -> Result<Vec<Finding>, tokio_postgres::Error> {
    let mut findings = vec![server(client, access).await?];
    let Some(oid) = find(client, table).await? else {
        findings.push(Finding::missing(
            "table",
            format!("{table} does not exist"),
            "run `contentflow migrate`, or set database.table (with its schema)",
        ));
        return Ok(findings);
    };
    findings.push(Finding::ok("table", table.to_string()));
    let columns = columns(client, oid).await?;
    findings.push(column_finding(&columns, table));
    findings.push(index(client, oid).await?);
    findings.push(privileges(&columns, table, access));
    Ok(findings)
}

async fn server(client: &Client, access: Access) -> Result<Finding, tokio_postgres::Error> {
    let sql =
        "SELECT current_setting('server_version'), current_database()::text, current_user::text,
                      pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
    let row = client.query_one(sql, &[]).await?;
    let (version, database, user): (String, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(if row.try_get(3)? {
        let what = "the server is a standby in recovery, which takes no writes";
        Finding::fail("database", what, "set database.url to the primary")
    } else if access == Access::Write && row.try_get(4)? {
        let what = format!("transactions of {user} in {database} are read-only");
        Finding::fail(
            "database",
            what,
            "reset default_transaction_read_only for this user, database and server",
        )
    } else {
        Finding::ok("database", format!("PostgreSQL {version}, database {database}, user {user}"))
    })
}

async fn find(client: &Client, table: &TableName) -> Result<Option<u32>, tokio_postgres::Error> {
    client.query_one("SELECT to_regclass($1)::oid", &[&table.sql()]).await?.try_get(0)
}

async fn columns(client: &Client, oid: u32) -> Result<Vec<Column>, tokio_postgres::Error> {
    let sql = "SELECT attname::text, typname::text, format_type(atttypid, atttypmod), atttypmod,
                      coalesce(collisdeterministic, true),
                      has_column_privilege(attrelid, attnum, 'SELECT'), has_column_privilege(attrelid, attnum, 'UPDATE')
               FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
               LEFT JOIN pg_collation ON pg_collation.oid = attcollation
               WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped";
    let rows = client.query(sql, &[&oid]).await?;
    let column = |row: &tokio_postgres::Row| {
        Ok(Column {
            name: row.try_get(0)?,
            base_type: row.try_get(1)?,
            full_type: row.try_get(2)?,
            type_modifier: row.try_get(3)?,
            is_deterministic: row.try_get(4)?,
            may_select: row.try_get(5)?,
            may_update: row.try_get(6)?,
        })
    };
    rows.iter().map(column).collect()
}

fn column_finding(columns: &[Column], table: &TableName) -> Finding {
    let subject = "columns";
    let find = |name: &str| columns.iter().find(|column| column.name == name);
    let wrong: Vec<_> = COLUMNS
        .iter()
        .filter_map(|(name, types, _)| Some((find(name)?, types)))
        .filter(|(column, types)| !types.contains(&column.base_type.as_str()))
        .map(|(column, types)| {
            format!("{} is {}, not {}", column.name, column.full_type, spelled(types))
        })
        .collect();
    let absent: Vec<_> =
        COLUMNS.iter().map(|(name, ..)| *name).filter(|name| find(name).is_none()).collect();
    if !wrong.is_empty() {
        let mut remedy =
            "change their types, or set database.table to the table of drafts".to_owned();
        if find("content_images").is_some_and(|column| column.base_type == "json") {
            remedy += &format!("; {}", to_jsonb(table));
        }
        Finding::fail(subject, wrong.join(", "), remedy)
    } else if let Some(folding) =
        COLUMNS.iter().filter_map(|(name, ..)| find(name)).find(|column| !column.is_deterministic)
    {
        let what = format!("{} {FOLDS}", folding.name);
        Finding::fail(subject, what, to_deterministic(folding, table))
    } else if absent.iter().any(|name| !name.starts_with("content_") || *name == "content_images") {
        let what = format!("there is no {}", absent.join(", no "));
        Finding::missing(
            subject,
            what,
            "add them as the owner of the table, or set database.table to the table of drafts",
        )
    } else if !absent.is_empty() {
        Finding::missing(
            subject,
            format!("there is no {}", absent.join(", no ")),
            "run `contentflow migrate`",
        )
    } else {
        let id = find("event_draft_id").map_or("", |column| column.full_type.as_str());
        Finding::ok(subject, format!("all {}, event_draft_id is {id}", COLUMNS.len()))
    }
}

/// Images are compared and written as jsonb, to which no statement of ours turns a column of json
/// by itself.
fn to_jsonb(table: &TableName) -> String {
    let table = table.sql();
    format!(
        "ALTER TABLE {table} ALTER COLUMN content_images TYPE jsonb USING content_images::jsonb"
    )
}

/// They are different keys to the cache: an event would be written to the row of another draft, and
/// the key of that one would stay.
const FOLDS: &str = "has a nondeterministic collation, for which different texts are equal";

fn to_deterministic(Column { name, full_type, .. }: &Column, table: &TableName) -> String {
    let table = table.sql();
    format!("ALTER TABLE {table} ALTER COLUMN {name} TYPE {full_type} COLLATE \"C\"")
}

/// The catalog's names as SQL writes them.
fn spelled(types: &[&str]) -> String {
    let spelled = types.iter().map(|name| match *name {
        "int8" => "bigint",
        "int4" => "integer",
        "_text" => "text[]",
        "_int8" => "bigint[]",
        other => other,
    });
    spelled.collect::<Vec<_>>().join(" or ")
}

/// Without an index, every batch would read the whole table. It must be complete and begin with the
/// id.
async fn index(client: &Client, oid: u32) -> Result<Finding, tokio_postgres::Error> {
    let sql = "SELECT indexrelid::regclass::text, indisunique AND indnkeyatts = 1 FROM pg_index
               JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0] AND attname = 'event_draft_id'
               WHERE indrelid = $1 AND indisvalid AND indpred IS NULL ORDER BY 2 DESC LIMIT 1";
    let subject = "index";
    Ok(match client.query_opt(sql, &[&oid]).await? {
        Some(row) if row.try_get(1)? => {
            Finding::ok(subject, format!("{}, unique", row.try_get::<_, String>(0)?))
        }
        Some(row) => Finding::fail(
            subject,
            format!(
                "{} on event_draft_id is not unique, so that one event could change several rows",
                row.try_get::<_, String>(0)?
            ),
            "make event_draft_id the primary key, or CREATE UNIQUE INDEX CONCURRENTLY on it alone",
        ),
        None => Finding::missing(
            subject,
            "event_draft_id has no index, so that every batch would read the whole table",
            "make event_draft_id the primary key, or CREATE UNIQUE INDEX CONCURRENTLY on it alone",
        ),
    })
}

fn privileges(columns: &[Column], table: &TableName, access: Access) -> Finding {
    let needed: Vec<_> = columns
        .iter()
        .filter_map(|column| {
            let (_, _, update) = COLUMNS.iter().find(|(name, ..)| *name == column.name)?;
            Some((column, *update && access == Access::Write))
        })
        .collect();
    let select: Vec<_> = needed.iter().map(|(column, _)| (*column, column.may_select)).collect();
    let update = needed.iter().filter(|(_, update)| *update);
    let update: Vec<_> = update.map(|(column, _)| (*column, column.may_update)).collect();
    let lacks: Vec<_> =
        lacking("SELECT", &select).into_iter().chain(lacking("UPDATE", &update)).collect();
    let subject = "privileges";
    if lacks.is_empty() {
        let held = if access == Access::Write { "SELECT and UPDATE" } else { "SELECT" };
        return Finding::ok(subject, held);
    }
    let lacks = lacks.join(", ");
    Finding::missing(
        subject,
        format!("no {lacks} on {table}"),
        format!("GRANT {lacks} ON {} TO …", table.sql()),
    )
}

/// The right, with the columns that lack it unless they all do.
fn lacking(right: &str, columns: &[(&Column, bool)]) -> Option<String> {
    let lacking: Vec<_> = columns
        .iter()
        .filter(|(_, granted)| !granted)
        .map(|(column, _)| column.name.as_str())
        .collect();
    match lacking.len() {
        0 => None,
        all if all == columns.len() => Some(right.to_owned()),
        _ => Some(format!("{right} ({})", lacking.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_with(name: &str, base_type: &str) -> Vec<Column> {
        let column = |(column, types, _): &(&str, &[&str], bool)| Column {
            name: (*column).to_owned(),
            base_type: if *column == name { base_type } else { types[0] }.to_owned(),
            full_type: if *column == name { base_type } else { types[0] }.to_owned(),
            type_modifier: -1,
            is_deterministic: true,
            may_select: true,
            may_update: true,
        };
        COLUMNS.iter().map(column).collect()
    }

    #[test]
    fn images_in_another_type_than_jsonb_are_refused_with_the_statement_that_changes_it() {
        let table = TableName::parse("shop.drafts").unwrap();
        let of = |base_type| column_finding(&table_with("content_images", base_type), &table);
        assert!(of("jsonb").is_ok());
        let problem = of("json").problem().unwrap();
        assert_eq!(problem.what, "columns: content_images is json, not jsonb");
        assert!(problem.remedy.contains(
            "ALTER TABLE \"shop\".\"drafts\" ALTER COLUMN content_images TYPE jsonb USING content_images::jsonb"
        ), "{}", problem.remedy);
    }
}
