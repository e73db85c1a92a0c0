//! Faults of PostgreSQL that it brings about itself when it is told to.

use anyhow::Result;

use super::{Heal, refuse};
use crate::eventually;
use crate::ground::{DATABASE, Ground};
use crate::servers::Server::Postgres;
use crate::servers::send;

/// Sessions of the program.
const SESSIONS: &str = "FROM pg_stat_activity WHERE application_name = 'contentflow'";

/// A database that answers, and does not what it is asked for.
pub(super) fn turn<'a>(kind: &str, ground: &'a Ground) -> Result<Heal<'a>> {
    match kind {
        "crash-postgres" => {
            // The server takes the end of one backend for a sign of broken memory, ends all of
            // them, and recovers.
            refuse(ground, (Postgres, "terminating any other active server processes"), |crash| {
                if crash {
                    send("KILL", &[some_number(ground, &format!("SELECT pid {SESSIONS}"))?]);
                }
                Ok(())
            })
        }
        "terminate-sessions" => {
            let terminated =
                format!("SELECT nullif(count(pg_terminate_backend(pid)), 0) {SESSIONS}");
            some_number(ground, &terminated)?;
            Ok(Box::new(|| Ok(())))
        }
        "cancel-statements" => cancel_statements(ground),
        "lock-rows" => lock_rows(ground),
        "read-only-postgres" => refuse(ground, (Postgres, "in a read-only transaction"), |on| {
            ground.sql(&format!("ALTER SYSTEM SET default_transaction_read_only = {on}"))?;
            ground.sql("SELECT pg_reload_conf()").map(drop)
        }),
        // The disk itself is fine: what counts is the code with which the server refuses.
        "full-postgres" => refuse(ground, (Postgres, "chaos: no space left"), |full| {
            let raise = "RAISE 'chaos: no space left' USING ERRCODE = 'disk_full';";
            gate(ground, if full { raise } else { "" })
        }),
        _shut_out => {
            refuse(ground, (Postgres, "is not currently accepting connections"), |shut_out| {
                let allowed = !shut_out;
                ground.sql(&format!("ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS {allowed}"))?;
                ground.sql(&format!("SELECT pg_terminate_backend(pid) {SESSIONS}")).map(drop)
            })
        }
    }
}

/// Has the gate do that before each statement.
fn gate(ground: &Ground, body: &str) -> Result<()> {
    let function = "CREATE OR REPLACE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql";
    ground.drafts_sql(&format!("{function} AS $$ BEGIN {body} RETURN NULL; END $$"))?;
    Ok(())
}

/// Cancels statements as an administrator does; they take long enough to be met.
fn cancel_statements(ground: &Ground) -> Result<Heal<'_>> {
    let words = "canceling statement due to user request";
    let before = ground.logged(Postgres, words);
    gate(ground, "PERFORM pg_sleep(0.2);")?;
    Ok(Box::new(move || {
        let cancel = format!("SELECT pg_cancel_backend(pid) {SESSIONS} AND state = 'active'");
        let cancelled = eventually(words, || {
            ground.sql(&cancel).is_ok() && ground.logged(Postgres, words) > before
        });
        gate(ground, "")?;
        cancelled
    }))
}

/// Another transaction keeps one draft in a hundred locked.
fn lock_rows(ground: &Ground) -> Result<Heal<'_>> {
    let url = ground.config.database.url.expose();
    let (client, connection) =
        ground.runtime.block_on(tokio_postgres::connect(url, tokio_postgres::NoTls))?;
    ground.runtime.spawn(connection);
    let lock = "BEGIN; SELECT FROM event_drafts WHERE event_draft_id LIKE '%37' FOR UPDATE";
    ground.runtime.block_on(client.batch_execute(lock))?;
    Ok(Box::new(move || {
        let waits = format!("SELECT nullif(count(*), 0) {SESSIONS} AND wait_event_type = 'Lock'");
        let shown = some_number(ground, &waits);
        drop(client);
        shown.map(drop)
    }))
}

/// A number that the query does not always have.
fn some_number(ground: &Ground, query: &str) -> Result<u32> {
    let mut number = None;
    eventually(query, || {
        let rows = ground.sql(query).unwrap_or_default();
        number = rows.first().and_then(|row| row.first()).and_then(|text| text.parse().ok());
        number.is_some()
    })?;
    Ok(number.unwrap_or_default())
}
