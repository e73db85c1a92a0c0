//! The migrations: in the program, applied under a lock, once each.
//!
//! The table's name is configurable, so `:table` in a migration stands for it, always with its
//! schema: found on the search path if the table exists, else the schema where it will be made.
//! (`CREATE TABLE IF NOT EXISTS` looks only into the first schema of the search path; without its
//! schema, a table further down would get an empty double.) What has been applied is noted beside
//! the table, under a name with the table's name in it, so that two tables in one database are
//! migrated independently.
//!
//! While one version replaces another, both serve one table, and the older one may have to come
//! back. So a migration may only add what an older program does not have to know: columns with a
//! default, or that may be NULL. And a table that a newer program has migrated is left as it is.

use std::io::{self, Write};
use std::time::Duration;

use refinery::{Migration, Runner};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::check::missing_columns;
use crate::config::{Config, TableName};
use crate::postgres;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// For everything; the migrations themselves take milliseconds, waiting for another migrating
/// process may take longer.
const DEADLINE: Duration = Duration::from_secs(120);

/// Which advisory lock: "contentf" as a number, so that it is unlikely to be anybody else's.
const LOCK: i64 = 0x636f_6e74_656e_7466;

/// Why the migrations were not applied.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// There is no session.
    #[error(transparent)]
    Connect(#[from] postgres::ConnectError),
    /// The server refused.
    #[error("{what}; {remedy}")]
    Refused {
        /// What it says.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// The output could not be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl From<tokio_postgres::Error> for MigrateError {
    fn from(error: tokio_postgres::Error) -> MigrateError {
        refused(&error)
    }
}

impl From<refinery::Error> for MigrateError {
    fn from(error: refinery::Error) -> MigrateError {
        use refinery::error::Kind;
        match error.kind() {
            Kind::MissingVersion(migration) => MigrateError::Refused {
                what: format!(
                    "the database has the migration {migration}, which this program does not know"
                ),
                remedy: "it was migrated by another build of contentflow: use that one, or drop the content_* columns that \
                         it added (not content_images) and its table of migrations, migrate, and replay the topic"
                    .to_owned(),
            },
            Kind::Connection(_, cause) if cause.is::<tokio_postgres::Error>() => {
                refused(cause.downcast_ref().expect("its type was just asked"))
            }
            other => MigrateError::Refused { what: other.to_string(), remedy: LOG.to_owned() },
        }
    }
}

/// Where to look when the message is all that is known.
const LOG: &str =
    "look into the server's log, then run it again: a migration is applied whole or not at all";

fn refused(error: &tokio_postgres::Error) -> MigrateError {
    let remedy = match error.code() {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            "migrate as the table's owner, with CREATE on its schema: DATABASE_URL=… for this one command"
        }
        Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => {
            "another transaction holds the table: run it again when that is done, nothing is left half made"
        }
        Some(code) if *code == SqlState::INVALID_SCHEMA_NAME => {
            "create the schema named in database.table first"
        }
        _ => LOG,
    };
    MigrateError::Refused { what: postgres::describe(error), remedy: remedy.to_owned() }
}

/// Applies what is pending and says what was done.
pub async fn run(config: &Config, out: &mut impl Write) -> Result<(), MigrateError> {
    let Applied { migrations, newer } = within_deadline(apply(config)).await?;
    for migration in &migrations {
        writeln!(out, "applied {}", titled(migration))?;
    }
    if migrations.is_empty() {
        let (table, count) = (&config.database.table, known().len());
        let more = newer.map_or(String::new(), |version| {
            format!(", and V{version} of a newer contentflow, which this one leaves as it is")
        });
        writeln!(out, "nothing to do: {table} has all {count} migrations{more}")?;
    }
    Ok(())
}

/// What a migration has come to.
struct Applied {
    migrations: Vec<Migration>,
    /// The last migration in the table, if only a newer program knows it.
    newer: Option<i32>,
}

/// Shows every migration and when it was applied.
pub async fn status(config: &Config, out: &mut impl Write) -> Result<(), MigrateError> {
    let dates = within_deadline(applied(config)).await?;
    for migration in known() {
        let state = match dates.iter().find(|(version, _)| *version == migration.version()) {
            Some((_, date)) => format!("applied {date}"),
            None => "pending".to_owned(),
        };
        writeln!(out, "{:<28} {state}", titled(&migration))?;
    }
    for (version, date) in dates.iter().filter(|(version, _)| !is_known(*version)) {
        let whose = if *version > newest_known() { "a newer" } else { "another" };
        writeln!(out, "{:<28} applied {date}", format!("V{version} of {whose} contentflow"))?;
    }
    Ok(())
}

async fn within_deadline<T>(
    work: impl Future<Output = Result<T, MigrateError>>,
) -> Result<T, MigrateError> {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| {
        Err(MigrateError::Refused {
            what: format!("no end after {} s", DEADLINE.as_secs()),
            remedy: "see in pg_stat_activity what it waits for".to_owned(),
        })
    })
}

async fn apply(config: &Config) -> Result<Applied, MigrateError> {
    let mut client = postgres::connect(&config.database).await?;
    // The lock is the session's, and goes with it. Whoever waits for it finds everything done.
    client
        .batch_execute(&format!(
            "SET lock_timeout = 0; SET statement_timeout = 0; SELECT pg_advisory_lock({LOCK})"
        ))
        .await?;
    let lock_timeout = postgres::lock_patience(&config.database).as_millis();
    client.batch_execute(&format!("SET lock_timeout = {lock_timeout}")).await?;
    let place = Place::find(&client, &config.database.table).await?;
    let noted = noted(&client, &place.history).await?;
    let versions: Vec<i32> = noted.into_iter().map(|(version, _)| version).collect();
    if let Some(version) = newer(&versions) {
        return Ok(Applied { migrations: Vec::new(), newer: Some(version) });
    }
    // A name that was mistyped may be that of somebody else's table.
    let missing = missing_columns(&client, &place.table).await?;
    if !missing.is_empty() {
        return Err(MigrateError::Refused {
            what: format!("the table {} has no {}", place.table, missing.join(", no ")),
            remedy: "nothing was changed; set database.table to the table of drafts, or add what it lacks".to_owned(),
        });
    }
    let report = runner(&place)?.run_async(&mut client).await?;
    Ok(Applied { migrations: report.applied_migrations().clone(), newer: None })
}

/// The last of the versions, if they are all that this program knows and some of a newer one. Of
/// what another build has done nothing is known.
fn newer(versions: &[i32]) -> Option<i32> {
    let has_all = known().iter().all(|migration| versions.contains(&migration.version()));
    let is_ours = |version: i32| is_known(version) || version > newest_known();
    let last = versions.iter().copied().max()?;
    let is_newer = has_all && versions.iter().copied().all(is_ours) && !is_known(last);
    is_newer.then_some(last)
}

fn is_known(version: i32) -> bool {
    known().iter().any(|migration| migration.version() == version)
}

fn newest_known() -> i32 {
    known().iter().map(Migration::version).max().unwrap_or_default()
}

/// Version and date of what has been applied.
async fn applied(config: &Config) -> Result<Vec<(i32, String)>, MigrateError> {
    let client = postgres::connect(&config.database).await?;
    let history = Place::find(&client, &config.database.table).await?.history;
    noted(&client, &history).await
}

async fn noted(client: &Client, history: &TableName) -> Result<Vec<(i32, String)>, MigrateError> {
    let exists: bool = client
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&history.sql()])
        .await?
        .try_get(0)?;
    if !exists {
        return Ok(Vec::new());
    }
    let rows = client
        .query(&format!("SELECT version, applied_on FROM {} ORDER BY version", history.sql()), &[])
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, whole_seconds(row.try_get(1)?)))).collect()
}

fn whole_seconds(date: &str) -> String {
    match date.parse::<jiff::Timestamp>() {
        Ok(date) => date.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => date.to_owned(),
    }
}

/// Where the table is or will be, and where it is noted what has been applied to it.
struct Place {
    table: TableName,
    history: TableName,
}

impl Place {
    async fn find(client: &Client, table: &TableName) -> Result<Place, MigrateError> {
        let schema: Option<String> =
            match (postgres::find_table(client, table).await?, table.schema()) {
                (Some((_oid, schema)), _) => Some(schema),
                (None, Some(schema)) => Some(schema.to_owned()),
                (None, None) => {
                    client.query_one("SELECT current_schema()::text", &[]).await?.try_get(0)?
                }
            };
        let refuse = |what: &str, remedy: &str| MigrateError::Refused {
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        };
        let schema = schema.ok_or_else(|| {
            refuse(
                "no schema of the search path exists, so that the table has no place",
                "give database.table its schema",
            )
        })?;
        let named = |name: String| {
            TableName::new(Some(schema.clone()), name).map_err(|_| {
                refuse(
                    "the table's name is too long to name the list of its migrations after it",
                    "use a shorter one",
                )
            })
        };
        let history = named(format!("contentflow_migrations_{}", table.name()))?;
        Ok(Place { table: named(table.name().to_owned())?, history })
    }
}

/// The migrations as they are in the program.
fn known() -> Vec<Migration> {
    embedded::migrations::runner().get_migrations().clone()
}

fn runner(place: &Place) -> Result<Runner, MigrateError> {
    let placed = known().into_iter().map(|migration| {
        let sql = migration.sql().expect("a migration in the program has its text");
        Migration::unapplied(&migration.to_string(), &sql.replace(":table", place.table.sql()))
    });
    let mut runner = Runner::new(&placed.collect::<Result<Vec<_>, _>>()?);
    runner.set_migration_table_name(place.history.sql());
    // The text holds the schema's name, and a schema that was renamed must not look like other
    // migrations. Which ones have been applied is decided by their versions.
    Ok(runner.set_abort_divergent(false).set_abort_missing(true))
}

/// `V3 the row remembers`
fn titled(migration: &Migration) -> String {
    format!("V{} {}", migration.version(), migration.name().replace('_', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_come_in_their_order_and_name_the_table_by_its_placeholder() {
        assert!(known().is_sorted_by_key(Migration::version));
        for migration in known() {
            let statements: String =
                migration.sql().unwrap().lines().filter(|line| !line.starts_with("--")).collect();
            assert!(
                statements.contains(":table") && !statements.contains("event_drafts"),
                "{migration}"
            );
        }
    }

    #[test]
    fn only_what_follows_all_that_is_known_is_of_a_newer_program() {
        let all: Vec<i32> = known().iter().map(Migration::version).collect();
        let with = |more: &[i32]| newer(&[&all[..], more].concat());
        let next = newest_known() + 1;
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[next, next + 1]), Some(next + 1));
        assert_eq!(with(&[2]), None, "V2 was in no release");
        assert_eq!(with(&[2, next]), None);
        assert_eq!(newer(&[1, next]), None, "one that is known is missing");
        assert_eq!(newer(&[]), None);
    }

    #[test]
    fn the_placeholder_becomes_the_quoted_table() {
        let table = TableName::parse("\"my schema\".drafts").unwrap();
        let place = Place { history: table.clone(), table };
        for migration in runner(&place).unwrap().get_migrations() {
            let sql = migration.sql().unwrap();
            assert!(sql.contains("TABLE") && sql.contains(r#""my schema"."drafts""#), "{sql}");
            assert!(
                !sql.lines().any(|line| !line.starts_with("--") && line.contains(":table")),
                "{sql}"
            );
        }
    }
}
