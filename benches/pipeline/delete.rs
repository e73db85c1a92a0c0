//! The limit of the cache: DELs as the pipeline sends them, of so many leases and of so many keys
//! at once, and by as many tasks.

use anyhow::Context;
use contentflow::generate::DraftIds;
use contentflow::lease::invalidation_together;

use super::process::{Stopwatch, Taken};
use super::servers::Servers;
use super::settings::WORKERS;

/// Deletes the keys of all drafts, none of which exists, as it is in a cold cache.
pub(crate) fn measure(servers: &Servers, drafts: u64) -> anyhow::Result<Taken> {
    let workers = u64::try_from(WORKERS).unwrap_or(1);
    let watch = Stopwatch::start();
    std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..workers)
            .map(|worker| {
                let numbers = (1..=drafts).filter(move |number| number % workers == worker);
                scope.spawn(move || servers.runtime.block_on(delete(servers, numbers)))
            })
            .collect();
        tasks.into_iter().try_for_each(|task| task.join().expect("a panic ends the bench"))
    })?;
    Ok(watch.stop(drafts))
}

async fn delete(servers: &Servers, mut numbers: impl Iterator<Item = u64>) -> anyhow::Result<()> {
    let cache = &servers.config.cache;
    let mut connection = contentflow::redis::connect(cache).await?;
    loop {
        let some = numbers.by_ref().take(cache.batch_keys);
        let ids: Vec<String> = some.map(|number| DraftIds::Text.id(number)).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let keys = cache.key.keys(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        let deletes = invalidation_together(keys.iter());
        for reply in connection.send(deletes.into(), cache.timeout).await? {
            reply.context("DEL")?;
        }
    }
}
