//! Connecting to PostgreSQL: TLS as libpq's `sslmode` means it, deadlines from the first byte on,
//! errors that say what to do.

use std::time::Duration;

use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Socket};
use tracing::Instrument;

use self::target::Target;
use crate::config::{Database, Secret, TableName};

mod target;
mod tls;
mod error;

pub use error::{ConnectError, describe, is_away, is_forbidden, is_lost};
pub use target::whereabouts;

/// From the first packet to a usable session, for each host. A server that is there answers in
/// milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client waits for an answer beyond the server's own statement timeout: a frozen server
/// enforces nothing.
const GRACE: Duration = Duration::from_secs(5);

/// The longest wait for the answer to a statement.
pub fn deadline(config: &Database) -> Duration {
    config.statement_timeout + GRACE
}

/// How long a session waits for a lock that keeps nobody else waiting meanwhile: at least longer
/// than the server's usual `deadlock_timeout`, after which an autovacuum gives way.
pub fn lock_patience(config: &Database) -> Duration {
    config.lock_timeout.max(Duration::from_secs(2))
}

/// How statements are planned that look for rows by ids in arrays. Through the index: thousands of
/// ids make the planner prefer reading the whole table, and in the order of the ids the rows are
/// locked, so that two writers cannot deadlock. And once: a session whose first statements have a
/// row each would have every further one planned anew, which takes as long as the rest of it.
pub const PLANS: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; \
                         SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan";

/// The number and the schema of a table, if it is there: under its own schema, or found on the
/// search path.
pub(crate) async fn find_table(
    client: &Client,
    table: &TableName,
) -> Result<Option<(u32, String)>, tokio_postgres::Error> {
    let sql = "SELECT pg_class.oid, nspname::text FROM pg_class
               JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = to_regclass($1)";
    let found = client.query_opt(sql, &[&table.sql()]).await?;
    found.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

/// For a session whose waiting for a row keeps others waiting: `database.lock_timeout_ms` as it is.
pub fn impatient(config: &Database) -> String {
    format!("SET lock_timeout = {}", config.lock_timeout.as_millis())
}

/// Connects, and leaves the connection to a task of its own, which ends with the returned client.
///
/// Of several hosts, each has its turn and its own deadline, or one that says nothing would keep us
/// from those behind it for ever.
pub async fn connect(config: &Database) -> Result<Client, ConnectError> {
    let target = Target::parse(&config.url).map_err(|reason| ConnectError::BadUrl { reason })?;
    let mut failed = None;
    for host in target.one_by_one() {
        match tokio::time::timeout(CONNECT_TIMEOUT, session(&host, &target, config)).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => failed = Some(error),
            Err(_elapsed) => failed = None,
        }
    }
    Err(failed.unwrap_or_else(|| ConnectError::Unreachable {
        address: target.address(),
        reason: format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
    }))
}

/// Whether a URL is one that [`connect`] can use. The message shows nothing of it.
pub fn check_url(url: &Secret) -> Result<(), String> {
    Target::parse(url).map(|_| ())
}

async fn session(
    host: &tokio_postgres::Config,
    target: &Target,
    config: &Database,
) -> Result<Client, ConnectError> {
    let classify = |error| ConnectError::from_driver(&error, target);
    let client = if host.get_ssl_mode() == SslMode::Disable {
        let (client, connection) = host.connect(tokio_postgres::NoTls).await.map_err(classify)?;
        drive(connection);
        client
    } else {
        let connector = tls::connector(target)
            .map_err(|reason| ConnectError::Tls { address: target.address(), reason })?;
        let (client, connection) = host.connect(connector).await.map_err(classify)?;
        drive(connection);
        client
    };
    // Set in the session and not as start-up options, which connection poolers refuse.
    let timeouts = format!(
        "SET lock_timeout = {}; SET statement_timeout = {}",
        lock_patience(config).as_millis(),
        config.statement_timeout.as_millis()
    );
    client.batch_execute(&timeouts).await.map_err(classify)?;
    Ok(client)
}

/// The connection's own task: it carries the bytes until the client is dropped or the server goes
/// away. The client's callers see every failure themselves, so that the end is worth no more than a
/// debug line.
fn drive<T>(connection: tokio_postgres::Connection<Socket, T>)
where
    T: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
{
    let task = async move {
        match connection.await {
            Ok(()) => tracing::debug!("closed"),
            Err(error) => tracing::debug!(%error, "lost"),
        }
    };
    tokio::spawn(task.instrument(tracing::debug_span!("postgres_connection")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn nobody_there_is_an_outage_and_shows_no_password() {
        let mut config = Config::default().database;
        config.url = Secret::new("postgres://user:SENTINEL@127.0.0.1:1/d");
        let error = connect(&config).await.unwrap_err();
        assert!(error.is_outage(), "{error}");
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains("cannot be reached at 127.0.0.1:1: ") && !shown.contains("SENTINEL"),
            "{shown}"
        );
    }
}
