//! What a replay reads: which partitions, from which offset to which.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::ReplayError;
use super::reader::Reader;
use crate::commit::Offsets;
use crate::config::{Config, OnDataLoss};
use crate::kafka::{self, Admin, METADATA_TIMEOUT};
use crate::scan::{Stretch, Stretches};

/// How long one question about offsets may take.
const ANSWER: Duration = METADATA_TIMEOUT;

/// Where a replay begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// With the first record that there is of each partition.
    Beginning,
    /// With the first record of each partition whose timestamp is this one or later, milliseconds
    /// since the epoch.
    Time(i64),
    /// With these offsets; partitions that are not named are left out.
    Offsets(Offsets),
}

/// What a replay is asked to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Where it begins.
    pub from: From,
    /// The partitions; `None` is all of them.
    pub partitions: Option<BTreeSet<i32>>,
}

/// By partition, what is to be read of it, up to the high watermark when the replay began; of some
/// there may be nothing.
pub type Plan = Stretches;

/// Finds out what there is to read. Its end is where each partition ends now.
///
/// # Errors
///
/// [`ReplayError`] when the topic or a partition does not exist, when offsets to go on from are not
/// there, or when no broker answers.
pub fn plan(config: &Config, reader: &Reader, scope: &Scope) -> Result<Plan, ReplayError> {
    let topic = &config.kafka.topic;
    let count = Admin::new(&config.kafka)?.partitions(topic, METADATA_TIMEOUT)?;
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    let named: BTreeSet<i32> = match (&scope.from, &scope.partitions) {
        (From::Offsets(offsets), _) => offsets.keys().copied().collect(),
        (_, Some(partitions)) => partitions.clone(),
        (_, None) => (0..count).collect(),
    };
    if let Some(partition) = named.iter().copied().find(|it| !(0..count).contains(it)) {
        return Err(ReplayError::NoSuchPartition { topic: topic.clone(), partition, count });
    }
    // Which topic that is, before its offsets are asked for.
    kafka::metadata(reader.client(), Some(topic), ANSWER)
        .map_err(|code| unanswered(topic, KafkaError::MetadataFetch(code)))?;
    let mut plan = Plan::new();
    for partition in named {
        let watermarks = reader.fetch_watermarks(topic, partition, ANSWER);
        let (low, high) = watermarks.map_err(|error| unanswered(topic, error))?;
        plan.insert(partition, Stretch { from: low, to: high });
    }
    match &scope.from {
        From::Beginning => {}
        From::Time(ms) => begin_at_time(reader, topic, *ms, &mut plan)?,
        From::Offsets(offsets) => begin_at_offsets(offsets, config.run.on_data_loss, &mut plan)?,
    }
    Ok(plan)
}

fn begin_at_time(
    reader: &Reader,
    topic: &str,
    ms: i64,
    plan: &mut Plan,
) -> Result<(), ReplayError> {
    let mut times = TopicPartitionList::new();
    for partition in plan.keys() {
        let added = times.add_partition_offset(topic, *partition, Offset::Offset(ms));
        added.map_err(|error| unanswered(topic, error))?;
    }
    let found =
        reader.offsets_for_times(times, ANSWER).map_err(|error| unanswered(topic, error))?;
    for element in found.elements() {
        element.error().map_err(|error| unanswered(topic, error))?;
        let Some(stretch) = plan.get_mut(&element.partition()) else { continue };
        stretch.from = match element.offset() {
            Offset::Offset(offset) => offset.clamp(stretch.from, stretch.to),
            // No record is as late as that.
            _ => stretch.to,
        };
    }
    Ok(())
}

fn begin_at_offsets(
    offsets: &Offsets,
    on_data_loss: OnDataLoss,
    plan: &mut Plan,
) -> Result<(), ReplayError> {
    for (&partition, &offset) in offsets {
        let Some(Stretch { from, to }) = plan.get_mut(&partition) else { continue };
        if offset > *to {
            return Err(ReplayError::PastTheEnd { partition, offset, end: *to });
        }
        if offset < *from && on_data_loss == OnDataLoss::Stop {
            return Err(ReplayError::Deleted { partition, offset, low: *from });
        }
        if offset < *from {
            let lost = *from - offset;
            tracing::error!(partition, lost, "records are gone; going on from the earliest offset");
        }
        *from = offset.max(*from);
    }
    Ok(())
}

fn unanswered(topic: &str, error: KafkaError) -> ReplayError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            crate::kafka::KafkaError::MissingTopic(topic.to_owned()).into()
        }
        _ => ReplayError::Offsets { topic: topic.to_owned(), source: error },
    }
}

/// Reads `0,3-5`.
///
/// # Errors
///
/// What is wrong with it, for people.
pub fn parse_partitions(text: &str) -> Result<BTreeSet<i32>, String> {
    const FORM: &str = "write partitions and ranges of them with commas, like 0,3-5";
    let number = |text: &str| match text.trim().parse::<i32>() {
        Ok(number @ 0..) => Ok(number),
        _ => Err(format!("{:?} is not a partition; {FORM}", text.trim())),
    };
    let mut partitions = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{part:?} is an empty range; {FORM}"));
        }
        // More than a cluster has of all its topics.
        if last - first > 1_000_000 {
            return Err(format!("{part:?} is too large a range; {FORM}"));
        }
        partitions.extend(first..=last);
    }
    Ok(partitions)
}

/// Reads `0:1234,1:99`.
///
/// # Errors
///
/// What is wrong with it, for people.
pub fn parse_offsets(text: &str) -> Result<Offsets, String> {
    const FORM: &str = "write PARTITION:OFFSET with commas, like 0:1234,1:99";
    let mut offsets = Offsets::new();
    for part in text.split(',') {
        let fault = || format!("{:?} is not a partition and an offset; {FORM}", part.trim());
        let (partition, offset) = part.trim().split_once(':').ok_or_else(fault)?;
        let partition = partition.parse::<i32>().ok().filter(|it| *it >= 0).ok_or_else(fault)?;
        let offset = offset.parse::<i64>().ok().filter(|it| *it >= 0).ok_or_else(fault)?;
        if offsets.insert(partition, offset).is_some() {
            return Err(format!("partition {partition} is named twice; {FORM}"));
        }
    }
    Ok(offsets)
}

/// Writes what [`parse_offsets`] reads.
pub fn describe_offsets(offsets: &Offsets) -> String {
    let parts: Vec<String> =
        offsets.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
    parts.join(",")
}

/// Reads a time of RFC 3339, or milliseconds since the epoch.
///
/// # Errors
///
/// What is wrong with it, for people.
pub fn parse_time(text: &str) -> Result<i64, String> {
    let time = || text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
    match text.parse().ok().or_else(time) {
        Some(ms @ 0..) => Ok(ms),
        Some(_) => Err(format!("{text:?} is before 1970, which no record's timestamp is")),
        None => Err(format!(
            "{text:?} is not a time; write RFC 3339, like 2026-11-22T15:50:16Z, or milliseconds since the epoch"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_numbers_and_ranges() {
        assert_eq!(parse_partitions("0,3-5").unwrap(), [0, 3, 4, 5].into());
        assert_eq!(parse_partitions(" 7 , 7-7").unwrap(), [7].into());
        for nonsense in ["", ",", "1,", "-1", "a", "5-3", "1-2-3", "0-2147483647", "2147483648"] {
            assert!(parse_partitions(nonsense).is_err(), "{nonsense:?}");
        }
    }

    #[test]
    fn offsets_are_read_as_they_are_written() {
        let offsets: Offsets = [(0, 1_234), (1, 99)].into();
        assert_eq!(describe_offsets(&offsets), "0:1234,1:99");
        assert_eq!(parse_offsets("0:1234,1:99").unwrap(), offsets);
        for nonsense in ["", "0", "0:", ":1", "0:-1", "-1:0", "0:1,0:2", "0:1,", "a:1", "0:1:2"] {
            assert!(parse_offsets(nonsense).is_err(), "{nonsense:?}");
        }
    }

    #[test]
    fn a_time_is_rfc_3339_or_milliseconds() {
        assert_eq!(parse_time("1500000000123").unwrap(), 1_500_000_000_123);
        assert_eq!(parse_time("2017-07-14T02:40:00.123Z").unwrap(), 1_500_000_000_123);
        assert_eq!(parse_time("2017-07-14T04:40:00.123+02:00").unwrap(), 1_500_000_000_123);
        for nonsense in ["", "yesterday", "2017-07-14", "-5", "1.5", "1969-12-31T23:59:59Z"] {
            assert!(parse_time(nonsense).is_err(), "{nonsense:?}");
        }
    }
}
