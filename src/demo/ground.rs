//! The ground that the demo stands on: topics and rows that it has made itself, and so may delete.
//!
//! A demo must never touch what is somebody's. So it refuses topics that exist, even empty ones,
//! because what is published there meanwhile could not be told from its own; a table with rows; a
//! consumer group with members, who would take part; and cached drafts under its keys. What it has
//! made is noted the moment it is there, so that a demo that fails half way deletes that much. An
//! empty table stays: it is as good as none.

use std::time::{Duration, Instant};

use redis::{RedisResult, Value};

use super::DemoError;
use crate::check::{DraftTableError, draft_id_type};
use crate::config::Config;
use crate::drafts::{self, Rows, Source};
use crate::generate::DraftIds;
use crate::kafka::{Admin, KafkaError, METADATA_TIMEOUT};
use crate::lease;
use crate::progress_bar::Bar;
use crate::redis::CacheError;
use crate::retry::Backoff;
use crate::{migrate, postgres};

/// As many as a small installation has, and more than one, so that the order of partitions is seen
/// to play no part.
pub(super) const PARTITIONS: i32 = 4;

/// Dead letters are few.
const DEAD_LETTER_PARTITIONS: i32 = 1;

/// What the demo has made so far.
pub(super) struct Ground<'a> {
    config: &'a Config,
    admin: Admin,
    topics: Vec<&'a str>,
    drafts: Option<(u64, DraftIds)>,
    cached: Vec<String>,
}

impl<'a> Ground<'a> {
    /// Makes sure that there is nothing yet. Changes nothing.
    pub(super) async fn inspect(config: &'a Config) -> Result<Ground<'a>, DemoError> {
        let admin = Admin::new(&config.kafka)?;
        for topic in [&config.kafka.topic, &config.dead_letters.topic] {
            match admin.partitions(topic, METADATA_TIMEOUT) {
                Err(KafkaError::MissingTopic(_)) => {}
                Ok(_) => return Err(in_use(format!("the topic {topic} exists"))),
                Err(error) => return Err(error.into()),
            }
        }
        let group = &config.kafka.group;
        if admin.group_members(group)? > 0 {
            return Err(in_use(format!("a consumer of the group {group} is running")));
        }
        if table_exists(config).await? && !Rows::connect(&config.database).await?.is_empty().await?
        {
            return Err(in_use(format!("the table {} has rows", config.database.table)));
        }
        crate::redis::connect(&config.cache).await.map_err(CacheError::from)?;
        Ok(Ground { config, admin, topics: Vec::new(), drafts: None, cached: Vec::new() })
    }

    /// Makes the topics and the table.
    pub(super) async fn prepare(&mut self) -> Result<DraftIds, DemoError> {
        let Config { kafka, dead_letters, .. } = self.config;
        if !table_exists(self.config).await? {
            migrate::run(self.config, &mut std::io::sink()).await?;
        }
        for (topic, partitions) in
            [(&kafka.topic, PARTITIONS), (&dead_letters.topic, DEAD_LETTER_PARTITIONS)]
        {
            if !self.admin.ensure_topic(topic, partitions).await? {
                return Err(in_use(format!("somebody has just made the topic {topic}")));
            }
            self.topics.push(topic);
            self.wait_for(topic).await?;
        }
        Ok(Rows::connect(&self.config.database).await?.draft_ids())
    }

    /// A topic that was made is not known to every broker at once.
    async fn wait_for(&self, topic: &str) -> Result<(), KafkaError> {
        let since = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(20));
        loop {
            match self.admin.partitions(topic, METADATA_TIMEOUT) {
                Ok(_) => return Ok(()),
                Err(KafkaError::MissingTopic(_) | KafkaError::Refused(_))
                    if since.elapsed() < METADATA_TIMEOUT =>
                {
                    backoff.wait().await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes the drafts.
    pub(super) async fn create_drafts(
        &mut self,
        drafts: u64,
        draft_ids: DraftIds,
    ) -> Result<(), DemoError> {
        let rows = Rows::connect(&self.config.database).await?;
        self.drafts = Some((drafts, draft_ids));
        let mut bar = Bar::new("drafts", drafts);
        let created = rows.create_generated(drafts, draft_ids, |done| bar.set(done)).await;
        bar.finish();
        if created? < drafts {
            // Not ours, and not told from ours by their ids.
            self.drafts = None;
            return Err(in_use("somebody has just made drafts with the same ids".to_owned()));
        }
        Ok(())
    }

    /// Reads these drafts as a service does, after which they are cached.
    pub(super) async fn cache_drafts(&mut self, ids: &[&str]) -> Result<(), DemoError> {
        for id in ids {
            let (_draft, source) = drafts::read(self.config, id).await?;
            match source {
                Source::DatabaseAndFilled => self.cached.push(self.config.cache.key.key(id)),
                Source::Cache => return Err(in_use(format!("a draft {id} is cached"))),
                Source::Database => {
                    return Err(in_use(format!("the cache does not take the draft {id}")));
                }
            }
        }
        Ok(())
    }

    /// How many of the drafts that were cached still are.
    pub(super) async fn still_cached(&self) -> Result<u64, DemoError> {
        Ok(self.existing(&self.cached).await?)
    }

    /// Whether the draft is cached.
    pub(super) async fn is_cached(&self, id: &str) -> Result<bool, DemoError> {
        Ok(self.existing(&[self.config.cache.key.key(id)]).await? > 0)
    }

    async fn existing(&self, keys: &[String]) -> Result<u64, CacheError> {
        if keys.is_empty() {
            return Ok(0);
        }
        let mut cache = crate::redis::connect(&self.config.cache).await?;
        let exists = |key| redis::cmd("EXISTS").arg(key).take();
        let found =
            cache.send(keys.iter().map(exists).collect(), self.config.cache.timeout).await?;
        let number = |found: RedisResult<Value>| Ok(redis::from_redis_value::<u64>(found?)?);
        Ok(found.into_iter().map(number).sum::<RedisResult<u64>>()?)
    }

    /// Deletes what was made. Goes on after a failure, and reports the first one.
    pub(super) async fn clear(&self) -> Result<(), DemoError> {
        let topics = self.admin.delete_topics(&self.topics).await.map_err(DemoError::from);
        let drafts = self.delete_drafts().await;
        let cached = self.delete_cached().await.map_err(DemoError::from);
        topics.and(drafts).and(cached)
    }

    async fn delete_drafts(&self) -> Result<(), DemoError> {
        let Some((drafts, draft_ids)) = self.drafts else { return Ok(()) };
        let rows = Rows::connect(&self.config.database).await?;
        rows.delete_generated(drafts, draft_ids).await?;
        Ok(())
    }

    async fn delete_cached(&self) -> Result<(), CacheError> {
        if self.cached.is_empty() {
            return Ok(());
        }
        let mut cache = crate::redis::connect(&self.config.cache).await?;
        for key in &self.cached {
            lease::invalidate(&mut cache, key).await?;
        }
        Ok(())
    }
}

fn in_use(what: String) -> DemoError {
    DemoError::InUse(what)
}

async fn table_exists(config: &Config) -> Result<bool, DemoError> {
    let client = postgres::connect(&config.database).await?;
    match draft_id_type(&client, &config.database.table).await {
        Ok(_) => Ok(true),
        Err(DraftTableError::NoTable(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
