//! The limit of the database: the UPDATE alone, without guard, cache and offsets; and the same with
//! what a row remembers behind a replay.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;

use super::events::{Batch, Events};
use super::process::{Stopwatch, Taken};
use super::replay::EVENTS_A_DRAFT;
use super::servers::Servers;
use super::settings::WORKERS;

/// [`update_all`] over a table that is as if it were new.
pub(crate) fn measure(servers: &Servers, events: &Events) -> anyhow::Result<Taken> {
    servers.refill(events.len())?;
    update_all(servers, events)
}

/// The same for so many drafts of a replay, each with all of its jobs.
pub(crate) fn measure_of_replay(servers: &Servers, drafts: u64) -> anyhow::Result<Taken> {
    let events = Events::generate(drafts)?;
    servers.refill(drafts)?;
    update_each(servers, &events, Some(Memory::of_replay()))
}

/// Updates every draft once, each batch a transaction, over as many connections as the pipeline
/// has.
pub(crate) fn update_all(servers: &Servers, events: &Events) -> anyhow::Result<Taken> {
    update_each(servers, events, None)
}

fn update_each(
    servers: &Servers,
    events: &Events,
    memory: Option<Memory>,
) -> anyhow::Result<Taken> {
    let batches = events.batches()?;
    let connections: Vec<_> = servers.runtime.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..WORKERS {
            connections.push(Connection::open_with(servers, memory.clone()).await?);
        }
        anyhow::Ok(connections)
    })?;
    let next = AtomicUsize::new(0);
    let watch = Stopwatch::start();
    std::thread::scope(|scope| {
        let (next, batches) = (&next, &batches);
        let threads: Vec<_> = connections
            .iter()
            .map(|connection| {
                let update = async move {
                    while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                        connection.update(batch).await?;
                    }
                    anyhow::Ok(())
                };
                scope.spawn(move || servers.runtime.block_on(update))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a panic ends the bench"))
    })?;
    Ok(watch.stop(events.len()))
}

/// The older jobs of a row, and their positions.
#[derive(Clone)]
struct Memory {
    jobs: Vec<String>,
    positions: Vec<i64>,
}

impl Memory {
    /// Of a row whose draft has had [`EVENTS_A_DRAFT`] events.
    fn of_replay() -> Memory {
        let older = 1..EVENTS_A_DRAFT;
        let jobs: Vec<String> =
            older.map(|job| format!("00000000-0000-4000-8000-{job:012}")).collect();
        let positions = (0..).take(3 * jobs.len()).collect();
        Memory { jobs, positions }
    }
}

/// A connection and its statement.
pub(crate) struct Connection {
    client: tokio_postgres::Client,
    update: tokio_postgres::Statement,
    memory: Option<Memory>,
}

impl Connection {
    pub(crate) async fn open(servers: &Servers) -> anyhow::Result<Connection> {
        Connection::open_with(servers, None).await
    }

    async fn open_with(servers: &Servers, memory: Option<Memory>) -> anyhow::Result<Connection> {
        let client = servers.connect().await?;
        // The planner's advantages of the real sink.
        client.batch_execute(contentflow::postgres::PLANS).await?;
        let remembered = match memory {
            None => "",
            Some(_) => {
                ", content_job_id = b.id, content_event_at = now(), content_event_offset = 0, content_event_partition = 0,
                 content_older_jobs = $3::text[], content_older_positions = $4::int8[]"
            }
        };
        let sql = format!(
            "UPDATE {} SET content_images = b.images::jsonb, updated_at = now(){remembered}
             FROM unnest($1::text[], $2::text[]) AS b (id, images) WHERE event_draft_id = b.id",
            servers.config.database.table.sql()
        );
        let update = client.prepare(&sql).await?;
        Ok(Connection { client, update, memory })
    }

    pub(crate) async fn update(&self, batch: &Batch<'_>) -> anyhow::Result<()> {
        let Batch { ids, images } = batch;
        let rows = match &self.memory {
            None => self.client.execute(&self.update, &[ids, images]).await?,
            Some(Memory { jobs, positions }) => {
                self.client.execute(&self.update, &[ids, images, jobs, positions]).await?
            }
        };
        ensure!(u64::try_from(ids.len()) == Ok(rows), "{rows} of {} rows are updated", ids.len());
        Ok(())
    }
}
