//! The cached drafts, read without a lease and without filling anything in.

use redis::{RedisResult, Value, cmd};

use crate::config;
use crate::redis::{CacheConnection, CacheError, Scan};

/// A connection to the cache.
pub(super) struct Cached {
    config: config::Cache,
    connection: CacheConnection,
}

impl Cached {
    /// Connects.
    pub(super) async fn connect(config: &config::Cache) -> Result<Cached, CacheError> {
        let connection = crate::redis::connect(config).await?;
        Ok(Cached { config: config.clone(), connection })
    }

    /// What all that is cached has as its keys: to be gone through with [`Cached::next_ids`].
    pub(super) fn all(&self) -> Scan {
        Scan::new(self.config.key.pattern())
    }

    /// The drafts that the next part of the keys is named after; `None` after the last.
    pub(super) async fn next_ids(
        &mut self,
        scan: &mut Scan,
    ) -> Result<Option<Vec<String>>, CacheError> {
        let deadline = self.config.timeout;
        let keys = tokio::time::timeout(deadline, self.connection.scan(scan))
            .await
            .map_err(|_elapsed| CacheError::NoAnswer(deadline))??;
        let id =
            |key: &Vec<u8>| Some(self.config.key.id(std::str::from_utf8(key).ok()?)?.to_owned());
        Ok(keys.map(|keys| keys.iter().filter_map(id).collect()))
    }

    /// What is cached of each of these drafts. What is no text is shown as far as it is one: it is
    /// no draft.
    pub(super) async fn get(&mut self, ids: &[&str]) -> Result<Vec<Option<String>>, CacheError> {
        let mut values = Vec::with_capacity(ids.len());
        for ids in ids.chunks(self.config.batch_keys) {
            let get = |id: &&str| cmd("GET").arg(self.config.key.key(id)).take();
            let gets = ids.iter().map(get).collect();
            let replies = self.connection.send(gets, self.config.timeout).await?;
            for reply in replies {
                values.push(text(reply)?);
            }
        }
        Ok(values)
    }
}

fn text(reply: RedisResult<Value>) -> Result<Option<String>, CacheError> {
    match reply {
        Ok(Value::Nil) => Ok(None),
        Ok(Value::BulkString(bytes)) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Ok(other) => Ok(Some(format!("{other:?}"))),
        // A list or a hash under the key of a draft.
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(Some(error.to_string())),
        Err(error) => Err(error.into()),
    }
}
