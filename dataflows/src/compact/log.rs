//! Events one after the other, in a few bytes each.

use crate::record::Position;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) position: Position,
    pub(super) job: &'a [u8],
    pub(super) replayed: bool,
}

impl Entry<'_> {
    /// What it takes at most: three numbers of up to ten bytes and how long they are in one, the
    /// length of the job in two, and the job.
    pub(super) fn size_max(&self) -> usize {
        33 + self.job.len()
    }
}

/// The job stands before the numbers, and how long those are before them, so that a search for a
/// job reads no number.
pub(super) fn append(log: &mut Vec<u8>, entry: &Entry<'_>) {
    let Position { timestamp_ms, offset, partition } = entry.position;
    let length = u64::try_from(entry.job.len()).expect("a job id is short");
    write(log, length << 1 | u64::from(entry.replayed));
    log.extend_from_slice(entry.job);
    let numbers = log.len();
    log.push(0);
    write(log, zigzag(i64::from(partition)));
    write(log, zigzag(offset));
    write(log, zigzag(timestamp_ms));
    log[numbers] = u8::try_from(log.len() - numbers - 1).expect("three numbers are short");
}

/// Whether the log has an event of that job.
pub(super) fn has_job(log: &[u8], job: &[u8]) -> bool {
    let mut rest = log;
    while !rest.is_empty() {
        let (_, other) = read_job(&mut rest);
        if other == job {
            return true;
        }
        let (&numbers, after) = rest.split_first().expect("numbers follow a job");
        rest = &after[usize::from(numbers)..];
    }
    false
}

pub(super) fn read(log: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = log;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (replayed, job) = read_job(&mut rest);
        rest = &rest[1..];
        let partition = i32::try_from(unzigzag(read_number(&mut rest)));
        let offset = unzigzag(read_number(&mut rest));
        let timestamp_ms = unzigzag(read_number(&mut rest));
        let partition = partition.expect("written as a partition");
        let position = Position { timestamp_ms, offset, partition };
        Some(Entry { position, job, replayed })
    })
}

/// Whether the event is a replayed one, and its job.
fn read_job<'a>(rest: &mut &'a [u8]) -> (bool, &'a [u8]) {
    let head = read_number(rest);
    let length = usize::try_from(head >> 1).expect("written as a length");
    let (job, after) = rest.split_at(length);
    *rest = after;
    (head & 1 == 1, job)
}

/// Small numbers in few bytes, seven bits each, the lowest first.
fn write(log: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        log.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    log.push(u8::try_from(number).expect("seven bits"));
}

fn read_number(rest: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (&byte, after) = rest.split_first().expect("a number ends before its log");
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}

/// Negative numbers between the positive ones, so that both are small.
fn zigzag(number: i64) -> u64 {
    (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_its_jobs_are_found() {
        let long = vec![b'j'; 255];
        let jobs: [&[u8]; 4] = [b"a", b"", b"ab", &long];
        let numbers = [i64::MIN, -1, 0, 1_790_000_000_000];
        let entries: Vec<Entry<'_>> = (0..)
            .zip(jobs.into_iter().zip(numbers))
            .map(|(partition, (job, number))| Entry {
                position: Position {
                    timestamp_ms: number,
                    offset: number,
                    partition: partition - 1,
                },
                job,
                replayed: partition % 2 == 1,
            })
            .collect();
        let mut log = Vec::new();
        for (count, entry) in entries.iter().enumerate() {
            assert!(!has_job(&log, entry.job));
            let before = log.len();
            append(&mut log, entry);
            assert!(log.len() - before <= entry.size_max());
            assert_eq!(read(&log).collect::<Vec<_>>(), entries[..=count]);
        }
        assert!(entries.iter().all(|entry| has_job(&log, entry.job)));
        assert!(!has_job(&log, b"b"));
    }
}
