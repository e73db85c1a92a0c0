//! The database of a world: its rows, and sessions that get in their way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{RUNTIME, World, block_on};

/// When the drafts of a test were last changed, before the test.
pub(crate) const LONG_AGO: &str = "2020-01-01T00:00:00+00:00";

/// A draft's row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// Changes whenever anything writes the row, and only then.
    pub(crate) xmin: String,
    /// The columns by name.
    pub(crate) columns: Value,
}

impl Row {
    pub(crate) fn images(&self) -> &Value {
        &self.columns["content_images"]
    }

    /// The job whose images they are.
    pub(crate) fn job(&self) -> Option<&str> {
        self.columns["content_job_id"].as_str()
    }

    pub(crate) fn updated_at(&self) -> &str {
        self.columns["updated_at"].as_str().unwrap()
    }

    /// Whether the row is as it was created.
    pub(crate) fn is_untouched(&self) -> bool {
        self.images().is_null() && self.updated_at() == LONG_AGO
    }

    /// The jobs that the row remembers, newest first.
    pub(crate) fn jobs(&self) -> Vec<&str> {
        let older = self.columns["content_older_jobs"].as_array().into_iter().flatten();
        self.job().into_iter().chain(older.map(|job| job.as_str().unwrap())).collect()
    }

    /// All that follows from the events: everything but the times of writing.
    pub(crate) fn content(&self) -> Value {
        let mut columns = self.columns.clone();
        for time in ["created_at", "updated_at"] {
            columns.as_object_mut().unwrap().remove(time);
        }
        columns
    }
}

/// A session with a database. One that the server has lost is made anew.
pub(crate) struct Session {
    url: String,
    client: Mutex<Arc<Client>>,
}

impl Session {
    fn open(url: &str) -> Session {
        let client = Session::connect(url).unwrap_or_else(|error| panic!("PostgreSQL: {error}"));
        Session { url: url.to_owned(), client: Mutex::new(Arc::new(client)) }
    }

    fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = block_on(tokio_postgres::connect(url, NoTls))?;
        // Ends with the client, or is cut off together with its database.
        RUNTIME.spawn(connection);
        Ok(client)
    }

    fn client(&self) -> Arc<Client> {
        let mut client = self.client.lock().unwrap();
        if client.is_closed() {
            let again = Session::connect(&self.url);
            *client = Arc::new(again.unwrap_or_else(|error| panic!("PostgreSQL: {error}")));
        }
        Arc::clone(&client)
    }

    /// Runs SQL and gives its rows as text.
    pub(crate) fn sql(&self, statement: &str) -> Vec<Vec<Option<String>>> {
        let answers = block_on(self.client().simple_query(statement));
        let answers = answers.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        let rows = answers.iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| (0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()).collect()
    }

    /// The only value of a query.
    pub(crate) fn value(&self, query: &str) -> String {
        self.sql(query)[0][0].clone().unwrap_or_else(|| panic!("{query} gives NULL"))
    }

    /// The only number of a query.
    pub(crate) fn number(&self, query: &str) -> u64 {
        self.value(query).parse().unwrap()
    }
}

/// A database of its own.
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) name: String,
    /// A session with the database that is there always.
    pub(crate) server: Session,
    /// A session with this one; made when it is first needed, since a database that is just made
    /// has enough to do.
    session: Session,
}

impl Database {
    pub(super) fn create(world: &str, server: &str) -> Database {
        let name = format!("contentflow_{}", world.replace('-', "_"));
        let url = at_database(server, &name);
        let server = Session::open(server);
        server.sql(&format!("CREATE DATABASE {name}"));
        let session = Session::open(&url);
        Database { url, name, server, session }
    }

    /// One more session, for a transaction that gets in the way.
    pub(crate) fn session(&self) -> Session {
        Session::open(&self.url)
    }

    /// One more session, if the server has one left.
    pub(crate) fn try_session(&self) -> Option<Session> {
        let client = Session::connect(&self.url).ok()?;
        Some(Session { url: self.url.clone(), client: Mutex::new(Arc::new(client)) })
    }

    pub(crate) fn sql(&self, statement: &str) -> Vec<Vec<Option<String>>> {
        self.session.sql(statement)
    }

    pub(crate) fn value(&self, query: &str) -> String {
        self.session.value(query)
    }

    pub(crate) fn number(&self, query: &str) -> u64 {
        self.session.number(query)
    }

    /// How many sessions wait for a lock.
    pub(crate) fn waiting(&self) -> u64 {
        self.server.number(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = 'Lock'",
            self.name
        ))
    }

    /// Whether a session waits for a lock.
    pub(crate) fn somebody_waits(&self) -> bool {
        self.waiting() > 0
    }

    /// The server's processes for the sessions of the program.
    pub(crate) fn backends(&self) -> Vec<u32> {
        let pids = self.server.sql(&format!(
            "SELECT pid FROM pg_stat_activity WHERE datname = '{}' AND application_name = 'contentflow'",
            self.name
        ));
        pids.into_iter().map(|mut row| row.remove(0).unwrap().parse().unwrap()).collect()
    }

    /// Cuts off every session of the program.
    pub(crate) fn cut_sessions(&self) -> u64 {
        self.server.number(&format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{}' \
             AND application_name = 'contentflow'",
            self.name
        ))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop_database = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        if let Err(error) = block_on(self.server.client().batch_execute(&drop_database)) {
            eprintln!("{} is left behind: {error}", self.name);
        }
    }
}

/// The URL with another database in it.
fn at_database(url: &str, name: &str) -> String {
    let (place, query) = url
        .split_once('?')
        .map_or((url, String::new()), |(place, query)| (place, format!("?{query}")));
    let (scheme, rest) = place.split_once("://").expect("DATABASE_URL is a URL");
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    format!("{scheme}://{authority}/{name}{query}")
}

impl World {
    /// Creates drafts, each with something in the cache.
    pub(crate) fn drafts<I: AsRef<str>>(&self, ids: impl IntoIterator<Item = I>) {
        let ids: Vec<String> = ids.into_iter().map(|id| id.as_ref().to_owned()).collect();
        let id_type = self.database.value(
            "SELECT format_type(atttypid, NULL) FROM pg_attribute
             WHERE attrelid = 'event_drafts'::regclass AND attname = 'event_draft_id'",
        );
        let insert = format!(
            "INSERT INTO event_drafts (event_draft_id, updated_at)
             SELECT id::{id_type}, '{LONG_AGO}' FROM unnest($1::text[]) AS id"
        );
        block_on(self.database.session.client().execute(&insert, &[&ids])).unwrap();
        self.cache.fill(&ids);
    }

    /// The rows by their ids.
    pub(crate) fn rows(&self) -> BTreeMap<String, Row> {
        let rows = self.database.sql(
            "SELECT event_draft_id::text, xmin::text, to_jsonb(d)::text FROM event_drafts AS d",
        );
        let rows = rows.into_iter().map(|row| {
            let [id, xmin, columns] =
                <[Option<String>; 3]>::try_from(row).unwrap().map(Option::unwrap);
            (id, Row { xmin, columns: serde_json::from_str(&columns).unwrap() })
        });
        rows.collect()
    }

    /// One row.
    pub(crate) fn row(&self, id: &str) -> Row {
        self.rows().remove(id).unwrap_or_else(|| panic!("there is no draft {id}"))
    }

    /// The rows' content, see [`Row::content`].
    pub(crate) fn contents(&self) -> BTreeMap<String, Value> {
        self.rows().into_iter().map(|(id, row)| (id, row.content())).collect()
    }

    /// How many rows have images.
    pub(crate) fn rows_with_images(&self) -> u64 {
        self.database.number("SELECT count(*) FROM event_drafts WHERE content_images IS NOT NULL")
    }

    /// Makes every statement that writes rows take longer, so that a load lasts until a test has
    /// done what it wants to do in the middle of it.
    pub(crate) fn slow_down(&self, statement_ms: u32) {
        self.database.sql(&format!(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep({statement_ms} / 1000.0); RETURN NULL; END $$;
             CREATE TRIGGER slow BEFORE UPDATE ON event_drafts EXECUTE FUNCTION slow()"
        ));
    }

    /// As fast as ever again.
    pub(crate) fn speed_up(&self) {
        self.database.sql("DROP FUNCTION slow CASCADE");
    }

    /// Has the database refuse to write the images of these jobs.
    pub(crate) fn refuse_jobs(&self, jobs: &[&str]) {
        let jobs = jobs.iter().map(|job| format!("'{job}'")).collect::<Vec<_>>().join(", ");
        self.database.sql(&format!(
            "ALTER TABLE event_drafts ADD CONSTRAINT refused CHECK (content_job_id NOT IN ({jobs}))"
        ));
    }
}
