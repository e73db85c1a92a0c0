//! The limit of the database: the UPDATE alone, without guard, memory, cache and offsets.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;

use super::events::{Batch, Events};
use super::process::{Stopwatch, Taken};
use super::servers::Servers;
use super::settings::WORKERS;

/// [`update_all`] over a table that is as if it were new.
pub(crate) fn measure(servers: &Servers, events: &Events) -> anyhow::Result<Taken> {
    servers.refill(events.len())?;
    update_all(servers, events)
}

/// Updates every draft once, each batch a transaction, over as many connections as the pipeline
/// has.
pub(crate) fn update_all(servers: &Servers, events: &Events) -> anyhow::Result<Taken> {
    let batches = events.batches()?;
    let connections: Vec<_> = servers.runtime.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..WORKERS {
            connections.push(Connection::open(servers).await?);
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

/// A connection and its statement.
pub(crate) struct Connection {
    client: tokio_postgres::Client,
    update: tokio_postgres::Statement,
}

impl Connection {
    pub(crate) async fn open(servers: &Servers) -> anyhow::Result<Connection> {
        let client = servers.connect().await?;
        // The planner's advantages of the real sink.
        client.batch_execute(contentflow::postgres::BY_INDEX).await?;
        let sql = format!(
            "UPDATE {} SET content_images = b.images::jsonb, updated_at = now()
             FROM unnest($1::text[], $2::text[]) AS b (id, images) WHERE event_draft_id = b.id",
            servers.config.database.table.sql()
        );
        let update = client.prepare(&sql).await?;
        Ok(Connection { client, update })
    }

    pub(crate) async fn update(&self, batch: &Batch<'_>) -> anyhow::Result<()> {
        let Batch { ids, images } = batch;
        let rows = self.client.execute(&self.update, &[ids, images]).await?;
        ensure!(u64::try_from(ids.len()) == Ok(rows), "{rows} of {} rows are updated", ids.len());
        Ok(())
    }
}
