//! What the statements are given, encoded as is cheapest for both sides.

use std::error::Error;

use bytes::BytesMut;
use dataflows::change::Change;
use dataflows::record::Position;
use dataflows::row::{Remembered, RowMemory};
use tokio_postgres::types::{IsNull, ToSql, Type, accepts, to_sql_checked};

/// Events as parameters: one array a column.
pub(super) struct EventColumns<'a> {
    ordinals: Ordinals,
    drafts: Vec<&'a str>,
    /// By style.
    urls: [Vec<Ascii<'a>>; 3],
    jobs: Vec<&'a str>,
    timestamps: Vec<Timestamptz>,
    offsets: Vec<i64>,
    partitions: Vec<i32>,
}

impl<'a> EventColumns<'a> {
    /// In one pass: what an event's columns are made of is mostly far away in the memory.
    pub(super) fn of(events: &[&'a Change]) -> EventColumns<'a> {
        let count = events.len();
        let mut columns = EventColumns {
            ordinals: Ordinals { ordinals: (0..).take(count).collect(), bytes: 0 },
            drafts: Vec::with_capacity(count),
            urls: [(); 3].map(|()| Vec::with_capacity(count)),
            jobs: Vec::with_capacity(count),
            timestamps: Vec::with_capacity(count),
            offsets: Vec::with_capacity(count),
            partitions: Vec::with_capacity(count),
        };
        for event in events {
            columns.push(event);
        }
        columns
    }

    fn push(&mut self, event: &'a Change) {
        let (draft, urls, job) = (event.draft_id(), event.urls(), event.job_id());
        let position = event.position();
        self.ordinals.bytes += Ordinals::BYTES_BESIDES_TEXTS
            + urls.iter().map(|url| url.len()).sum::<usize>()
            + draft.len()
            + job.len();
        self.drafts.push(draft);
        self.urls.iter_mut().zip(urls).for_each(|(urls, url)| urls.push(Ascii(url)));
        self.jobs.push(job);
        self.timestamps.push(Timestamptz::of(position));
        self.offsets.push(position.offset);
        self.partitions.push(position.partition);
    }

    /// In the order of the statements' first nine parameters.
    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 9] {
        let EventColumns { ordinals, drafts, urls, jobs, timestamps, offsets, partitions } = self;
        let [simple, fancy, trendy] = urls;
        [ordinals, drafts, simple, fancy, trendy, jobs, timestamps, offsets, partitions]
    }
}

/// The numbers of the events, the first parameter: room is made for all the others with it. Else
/// the buffer grows by doubling, and each time all of it is copied.
#[derive(Debug)]
struct Ordinals {
    ordinals: Vec<i32>,
    /// What all the parameters take together.
    bytes: usize,
}

impl Ordinals {
    /// What an event takes besides its texts: the lengths of nine values, two of them of four bytes
    /// and two of eight.
    const BYTES_BESIDES_TEXTS: usize = 64;
}

impl ToSql for Ordinals {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.reserve(self.bytes);
        self.ordinals.to_sql(kind, out)
    }

    accepts!(INT4_ARRAY);
    to_sql_checked!();
}

/// A text that is known to be ASCII, and so not looked at again.
#[derive(Clone, Copy, Debug)]
struct Ascii<'a>(&'a [u8]);

impl ToSql for Ascii<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }

    accepts!(TEXT);
    to_sql_checked!();
}

/// A time as the server keeps it: microseconds since the year 2000. Sending it so spares the server
/// the arithmetic, for each row several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timestamptz(i64);

impl Timestamptz {
    const EPOCH_MS: i64 = 946_684_800_000;
    /// What a row has before its first event: `-infinity`.
    pub(super) const NEVER: Timestamptz = Timestamptz(i64::MIN);

    /// The time of an event. One that is too far away for the server is sent as one that is: the
    /// server refuses the row.
    pub(super) fn of(Position { timestamp_ms, .. }: Position) -> Timestamptz {
        let since = timestamp_ms.saturating_sub(Timestamptz::EPOCH_MS).saturating_mul(1_000);
        // The ends of the range are the infinities.
        Timestamptz(since.clamp(i64::MIN + 1, i64::MAX - 1))
    }
}

impl ToSql for Timestamptz {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.0.to_sql(&Type::INT8, out)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

/// Parts jobs in a text: no id has a control character.
const SEPARATOR: &str = "\u{1}";

/// The older jobs of a row as one text, which costs the server a sixth of an array's literal.
pub(super) fn joined_jobs(memory: &RowMemory) -> String {
    let bytes = memory.older().map(|known| known.job_id.len() + SEPARATOR.len()).sum();
    let mut jobs = String::with_capacity(bytes);
    for known in memory.older() {
        if !jobs.is_empty() {
            jobs.push_str(SEPARATOR);
        }
        jobs.push_str(&known.job_id);
    }
    jobs
}

/// The positions of a row's older jobs, three numbers each, behind those of other rows: a slice of
/// one array of numbers costs the server a third of a literal.
pub(super) fn push_positions(numbers: &mut Vec<i64>, memory: &RowMemory) {
    for Remembered { position: Position { timestamp_ms, offset, partition }, .. } in memory.older()
    {
        numbers.extend([*timestamp_ms, *offset, i64::from(*partition)]);
    }
}

pub(super) fn length(numbers: &[i64]) -> i32 {
    i32::try_from(numbers.len()).expect("90 numbers a row at most")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_from_the_year_2000_and_never_infinite() {
        let of = |timestamp_ms| Timestamptz::of(Position { timestamp_ms, offset: 0, partition: 0 });
        assert_eq!(of(946_684_800_000), Timestamptz(0));
        assert_eq!(of(-1), Timestamptz(-946_684_800_001_000));
        assert_eq!(of(1_500_000_000_005), Timestamptz(553_315_200_005_000));
        assert_eq!(of(i64::MAX), Timestamptz(i64::MAX - 1));
        assert_eq!(of(i64::MIN), Timestamptz(i64::MIN + 1));
        assert_ne!(of(i64::MIN), Timestamptz::NEVER);
    }
}
