//! repair: writes into the rows what they should hold, and deletes what is cached of them.
//!
//! A row is written only while it is as it was judged: whatever has changed it meanwhile was newer,
//! and wins. So a repair can run beside the pipeline.
//!
//! An event that the database refuses gives its turn to the next newest, as in a run. But it has no
//! dead letter before a run or a replay writes one: until then it is a difference, and said to be
//! one.

use std::collections::{BTreeSet, HashMap, HashSet};

use dataflows::change::Change;
use dataflows::record::Position;
use dataflows::row::{Remembered, RowMemory};
use dataflows::verify::{About, DraftKey};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::look::{Difference, Remedy};
use super::table::within;
use super::topic::Topic;
use super::{Verify, VerifyError};
use crate::postgres;
use crate::printable::one_line;
use crate::sink::postgres::failure::Failure;
use crate::sink::postgres::session;
use crate::sink::redis::{Connection, Keys};

/// How often what is touched is looked at again: others may have changed a row in between.
const ROUNDS: u32 = 3;

/// How often it is looked at again where the database refuses something: each time the next newest
/// events have their turn, and the topic is read once more.
const TURNS: u32 = 16;

/// A row to write.
struct Rewrite<'a> {
    draft: &'a str,
    remedy: &'a Remedy,
}

/// A row that the database does not take.
struct Refused {
    draft: String,
    /// The event whose images it was to hold, if it was to hold others.
    event: Option<Position>,
    message: String,
}

impl Verify<'_> {
    /// Mends the differences, looks again, and notes on each whether it is gone. What is found
    /// wrong in the course of it is added.
    pub(super) fn repair(
        &self,
        topic: &mut Topic<'_>,
        mut differences: Vec<Difference>,
    ) -> Result<Vec<Difference>, VerifyError> {
        let touched: HashSet<(DraftKey, About)> = differences
            .iter()
            .map(|difference| DraftKey::of(&difference.draft))
            .flat_map(|draft| [(draft, About::Row), (draft, About::Cached)])
            .collect();
        let mut left = differences.clone();
        let mut refusals: HashMap<String, String> = HashMap::new();
        let (mut rounds, mut turns) = (0, 0);
        while rounds < ROUNDS && turns < TURNS {
            let refused = self.runtime.block_on(self.mend(&left))?;
            if refused.is_empty() {
                rounds += 1;
            } else {
                turns += 1;
            }
            for Refused { draft, event, message } in refused {
                event.into_iter().for_each(|event| topic.refuse(event));
                // The first is that of the newest event.
                refusals.entry(draft).or_insert(message);
            }
            left = self.look(topic, &touched)?;
            left.extend(self.orphans()?);
            if left.iter().all(|difference| !difference.is_mendable()) {
                break;
            }
        }
        for difference in &mut differences {
            let is_same = |other: &Difference| {
                other.draft == difference.draft && other.kind == difference.kind
            };
            difference.mended = Some(!left.iter().any(is_same));
            if let (Some(_), Some(message)) = (&difference.remedy, refusals.get(&difference.draft))
            {
                difference.mended = Some(false);
                difference.detail += &refused(message);
            }
        }
        for new in left {
            let is_same = |other: &Difference| other.draft == new.draft && other.kind == new.kind;
            if !differences.iter().any(is_same) {
                differences.push(Difference { mended: Some(false), ..new });
            }
        }
        Ok(differences)
    }

    /// The rows first, then the keys: as the pipeline does.
    async fn mend(&self, differences: &[Difference]) -> Result<Vec<Refused>, VerifyError> {
        let mut rewrites: Vec<Rewrite<'_>> = differences
            .iter()
            .filter_map(|difference| {
                let remedy = difference.remedy.as_ref()?;
                Some(Rewrite { draft: &difference.draft, remedy })
            })
            .collect();
        // In the order in which the pipeline locks rows: in another one the two could wait for each
        // other.
        rewrites.sort_by_key(|rewrite| rewrite.draft);
        let client = postgres::connect(&self.config.database).await?;
        let deadline = postgres::deadline(&self.config.database);
        within(deadline, WRITE, client.batch_execute(postgres::PLANS)).await?;
        let (whole, memory): (Vec<_>, Vec<_>) =
            rewrites.into_iter().partition(|rewrite| rewrite.remedy.winner.is_some());
        let mut keys = Connection::new(self.config.cache.clone());
        let mut refused = Vec::new();
        for rewrites in [whole, memory] {
            for batch in rewrites.chunks(self.config.database.batch_rows) {
                let written = self.write(&client, batch).await;
                // Also where some of it may be written: who comes next finds no difference in those
                // rows, and leaves their keys.
                self.delete(&mut keys, batch.iter().map(|rewrite| rewrite.draft)).await?;
                refused.extend(written?);
            }
        }
        let cached = differences.iter().filter(|difference| difference.remedy.is_none());
        self.delete(&mut keys, cached.map(|difference| difference.draft.as_str())).await?;
        Ok(refused)
    }

    /// Deletes the keys of these drafts.
    async fn delete<'a>(
        &self,
        keys: &mut Connection,
        drafts: impl Iterator<Item = &'a str>,
    ) -> Result<(), VerifyError> {
        let drafts: Vec<&str> = drafts.collect::<BTreeSet<&str>>().into_iter().collect();
        for drafts in drafts.chunks(self.config.cache.batch_keys) {
            keys.delete(drafts).await?;
        }
        Ok(())
    }

    /// Writes rows, cutting around what the database refuses: that is left as it is, and returned.
    async fn write(
        &self,
        client: &Client,
        batch: &[Rewrite<'_>],
    ) -> Result<Vec<Refused>, VerifyError> {
        let mut refused = Vec::new();
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            match self.try_write(client, part).await {
                Ok(()) => {}
                Err(Failure::Out(error)) => return Err(VerifyError::NotMended(error)),
                Err(_) if part.len() > 1 => {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                }
                Err(Failure::Refused(refusal)) => {
                    let Rewrite { draft, remedy } = part[0];
                    let message = refusal.fault.message;
                    tracing::warn!(draft, "not mended: {message}");
                    let event = remedy.winner.as_ref().map(Change::position);
                    refused.push(Refused { draft: draft.to_owned(), event, message });
                }
                Err(
                    Failure::Contended(error) | Failure::Cancelled(error) | Failure::Locked(error),
                ) => {
                    tracing::warn!(draft = part[0].draft, "not mended: {error}");
                }
            }
        }
        Ok(refused)
    }

    async fn try_write(&self, client: &Client, part: &[Rewrite<'_>]) -> Result<(), Failure> {
        let Some(first) = part.first() else { return Ok(()) };
        let drafts: Vec<&str> = part.iter().map(|rewrite| rewrite.draft).collect();
        let of = |text: fn(&Remedy) -> String| -> Vec<String> {
            part.iter().map(|rewrite| text(rewrite.remedy)).collect()
        };
        let versions = of(|remedy| remedy.version.clone());
        let jobs = of(|remedy| jobs_literal(&remedy.memory));
        let positions = of(|remedy| positions_literal(&remedy.memory));
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&drafts, &versions, &jobs, &positions];
        let winners: Vec<_> =
            part.iter().filter_map(|rewrite| rewrite.remedy.winner.as_ref()).collect();
        let images: Vec<String> = winners.iter().map(|winner| winner.images()).collect();
        let job_ids: Vec<&str> = winners.iter().map(|winner| winner.job_id()).collect();
        let at: Vec<Position> = winners.iter().map(|winner| winner.position()).collect();
        let timestamps: Vec<i64> = at.iter().map(|at| at.timestamp_ms).collect();
        let offsets: Vec<i64> = at.iter().map(|at| at.offset).collect();
        let partitions: Vec<i32> = at.iter().map(|at| at.partition).collect();
        let is_whole = first.remedy.winner.is_some();
        if is_whole {
            let event: [&(dyn ToSql + Sync); 5] =
                [&images, &job_ids, &timestamps, &offsets, &partitions];
            parameters.extend(event);
        }
        let sql = self.sql(is_whole);
        let answer = async { client.execute(&sql, &parameters).await.map_err(Failure::of) };
        let deadline = postgres::deadline(&self.config.database);
        session::within(deadline, answer).await.map(drop)
    }

    /// The version of a row changes with everything that is written into it.
    fn sql(&self, is_whole: bool) -> String {
        let (set, more, columns) = if is_whole {
            (
                "content_images = b.images::jsonb, updated_at = now(), content_job_id = b.job,
                 content_event_at = timestamptz 'epoch' + b.ms * interval '1 millisecond',
                 content_event_offset = b.event_offset, content_event_partition = b.event_partition,",
                ", $5::text[], $6::text[], $7::int8[], $8::int8[], $9::int4[]",
                ", images, job, ms, event_offset, event_partition",
            )
        } else {
            ("", "", "")
        };
        format!(
            "UPDATE {table} AS d
             SET {set} content_older_jobs = nullif(b.jobs, '{{}}')::text[],
                 content_older_positions = nullif(b.positions, '{{}}')::int8[]
             FROM unnest($1::text[]::{id_type}[], $2::text[], $3::text[], $4::text[]{more})
                  AS b (draft, version, jobs, positions{columns})
             WHERE d.event_draft_id = b.draft AND d.xmin::text = b.version",
            table = self.config.database.table.sql(),
            id_type = self.draft_ids.sql(),
        )
    }
}

/// The older jobs as an array literal of texts. Every element is quoted; a quote or a backslash in
/// it is escaped.
fn jobs_literal(memory: &RowMemory) -> String {
    let quoted = memory.older().map(|known| {
        let escaped = known.job_id.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{escaped}\"")
    });
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

/// Their positions as an array literal of numbers, three for each job.
fn positions_literal(memory: &RowMemory) -> String {
    let numbers = memory.older().map(|Remembered { position, .. }| {
        format!("{},{},{}", position.timestamp_ms, position.offset, position.partition)
    });
    format!("{{{}}}", numbers.collect::<Vec<_>>().join(","))
}

/// What is said of a row that the database does not take as it should be. The server's words may
/// quote anybody's.
fn refused(message: &str) -> String {
    let message = one_line(message.as_bytes());
    format!(
        "; the database refuses what it should hold ({message}): a run makes a dead letter of such an event, or \
         `contentflow replay --dead-letters`"
    )
}

const WRITE: &str = "prepare the repair";
