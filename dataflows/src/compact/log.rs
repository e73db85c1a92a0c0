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
    /// What it takes at most: three numbers of up to ten bytes, the length of the job in two, and the job.
    pub(super) fn size_max(&self) -> usize {
        32 + self.job.len()
    }
}

pub(super) fn append(log: &mut Vec<u8>, entry: &Entry<'_>) {
    let Position { timestamp_ms, offset, partition } = entry.position;
    let length = u64::try_from(entry.job.len()).expect("a job id is short");
    write(log, length << 1 | u64::from(entry.replayed));
    write(log, zigzag(i64::from(partition)));
    write(log, zigzag(offset));
    write(log, zigzag(timestamp_ms));
    log.extend_from_slice(entry.job);
}

pub(super) fn read(log: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = log;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let head = read_number(&mut rest);
        let partition = i32::try_from(unzigzag(read_number(&mut rest)));
        let offset = unzigzag(read_number(&mut rest));
        let timestamp_ms = unzigzag(read_number(&mut rest));
        let partition = partition.expect("written as a partition");
        let length = usize::try_from(head >> 1).expect("written as a length");
        let (job, after) = rest.split_at(length);
        rest = after;
        let position = Position { timestamp_ms, offset, partition };
        Some(Entry { position, job, replayed: head & 1 == 1 })
    })
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
