//! Records as they came from Kafka, many to a chunk, so that reading one allocates nothing.
//!
//! A [`Chunk`] owns the bytes of a few hundred records in one arena. It is the unit that travels
//! from the poll thread to a worker, and it stays alive as long as one of its records may still
//! have to be dead-lettered byte for byte.

use serde::{Deserialize, Serialize};

use crate::held::{Held, Share};

/// Where a record stands in the order that decides what is newer: the larger position is the newer
/// event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The record's timestamp, milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The record's offset within its partition.
    pub offset: i64,
    /// The partition that the record was read from.
    pub partition: i32,
}

/// A range of bytes in an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The span that covers what was appended since the arena was `start` bytes long.
    pub(crate) fn since(start: usize, arena_len: usize) -> Span {
        Span { start: narrow(start), end: narrow(arena_len) }
    }

    /// The range to index the arena with.
    pub(crate) fn range(self) -> std::ops::Range<usize> {
        widen(self.start)..widen(self.end)
    }

    /// How many bytes it covers.
    pub(crate) fn len(self) -> usize {
        self.range().len()
    }
}

/// One record to copy into a chunk, borrowed from the client library. The default is a tombstone
/// without a key, first of partition 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawRecord<'a> {
    /// The partition that the record was read from.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The record's timestamp in milliseconds since the epoch; -1 where the record has none.
    pub timestamp_ms: i64,
    /// Whether the topic stamps its records itself (`message.timestamp.type=LogAppendTime`).
    pub stamped_by_topic: bool,
    /// The key's bytes; `None` is a null key.
    pub key: Option<&'a [u8]>,
    /// The value's bytes; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    stamped_by_topic: bool,
    key: Option<Span>,
    value: Option<Span>,
    headers: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    name: Span,
    value: Option<Span>,
}

/// Records in the order they were read, in one arena.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Chunk {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    headers: Vec<Header>,
    /// The bytes that the last record's headers were read from, where they are known.
    #[serde(skip)]
    encoded: Vec<u8>,
    /// What it counts for among all that is held, if anybody counts.
    #[serde(skip)]
    share: Option<Share>,
}

impl Chunk {
    /// An empty chunk with room for so many records of so many bytes together.
    pub fn with_capacity(records: usize, bytes: usize) -> Chunk {
        Chunk {
            arena: Vec::with_capacity(bytes),
            entries: Vec::with_capacity(records),
            ..Chunk::default()
        }
    }

    /// An empty chunk with room for as much as this one has, and a little more: records are never
    /// quite as long as those before.
    pub fn another(&self) -> Chunk {
        Chunk {
            headers: Vec::with_capacity(self.headers.len()),
            ..Chunk::with_capacity(self.len(), self.bytes() + self.bytes() / 16)
        }
    }

    /// A chunk of this record alone, without room for more: hundreds of thousands may wait, each in
    /// a chunk of its own.
    pub fn of(record: RecordView<'_>) -> Chunk {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let of_header = |(name, value): (&[u8], _)| name.len() + length(value);
        let headers: usize = record.named_headers().map(of_header).sum();
        let bytes = length(record.key()) + length(record.value()) + headers;
        let mut chunk = Chunk {
            headers: Vec::with_capacity(record.named_headers().count()),
            ..Chunk::with_capacity(1, bytes)
        };
        chunk.push_named(record.raw(), record.named_headers());
        chunk
    }

    /// How many bytes of memory it takes, itself included.
    pub fn memory(&self) -> usize {
        size_of::<Chunk>()
            + self.arena.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.headers.capacity() * size_of::<Header>()
            + self.encoded.capacity()
    }

    /// Copies a record and its headers to the end of the chunk. Of the headers, what is as in the
    /// record before is not copied again: mostly that is all of them.
    ///
    /// # Panics
    ///
    /// When the chunk would grow past 4 GiB: whoever fills chunks closes them long before.
    pub fn push<'a>(
        &mut self,
        record: RawRecord<'_>,
        headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) {
        self.push_named(record, headers);
    }

    /// [`push`](Chunk::push) for headers whose names may be any bytes.
    ///
    /// # Panics
    ///
    /// As [`push`](Chunk::push).
    pub fn push_named<'a>(
        &mut self,
        record: RawRecord<'_>,
        headers: impl IntoIterator<Item = (impl AsRef<[u8]>, Option<&'a [u8]>)>,
    ) {
        self.push_copied(record, |chunk| {
            chunk.encoded.clear();
            chunk.copy_headers(headers)
        });
    }

    /// [`push_named`](Chunk::push_named), with the bytes that the headers are read from: where they
    /// are those of the record before, its headers are, and need not be read.
    ///
    /// # Panics
    ///
    /// As [`push`](Chunk::push).
    pub fn push_encoded<'a>(
        &mut self,
        record: RawRecord<'_>,
        encoded: &[u8],
        headers: impl IntoIterator<Item = (impl AsRef<[u8]>, Option<&'a [u8]>)>,
    ) {
        self.push_copied(record, |chunk| match chunk.entries.last() {
            Some(last) if !encoded.is_empty() && chunk.encoded == encoded => last.headers,
            _ => {
                chunk.encoded.clear();
                chunk.encoded.extend_from_slice(encoded);
                chunk.copy_headers(headers)
            }
        });
    }

    fn push_copied(&mut self, record: RawRecord<'_>, headers: impl FnOnce(&mut Self) -> Span) {
        let key = record.key.map(|bytes| self.copy(bytes));
        let value = record.value.map(|bytes| self.copy(bytes));
        let headers = headers(self);
        self.entries.push(Entry {
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            stamped_by_topic: record.stamped_by_topic,
            key,
            value,
            headers,
        });
    }

    fn copy_headers<'a>(
        &mut self,
        headers: impl IntoIterator<Item = (impl AsRef<[u8]>, Option<&'a [u8]>)>,
    ) -> Span {
        let first = self.headers.len();
        let before = self.entries.last().map_or(Span::since(first, first), |last| last.headers);
        for (place, (name, value)) in (before.range().start..).zip(headers) {
            let like = before.range().contains(&place).then(|| self.headers[place]);
            let name = self.copy_unless(like.map(|it| it.name), name.as_ref());
            let value = value.map(|value| self.copy_unless(like.and_then(|it| it.value), value));
            self.headers.push(Header { name, value });
        }
        if self.headers[first..] == self.headers[before.range()] {
            self.headers.truncate(first);
            return before;
        }
        Span::since(first, self.headers.len())
    }

    /// Copies bytes, unless they are there.
    fn copy_unless(&mut self, there: Option<Span>, bytes: &[u8]) -> Span {
        match there.filter(|there| self.bytes_at(there.range()) == bytes) {
            Some(there) => there,
            None => self.copy(bytes),
        }
    }

    fn copy(&mut self, bytes: &[u8]) -> Span {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        Span::since(start, self.arena.len())
    }

    /// Has the chunk counted as held for as long as it, or anything of it, is there: its bytes, and
    /// half as many again for the texts that will be decoded from it.
    pub fn count(&mut self, held: &Held) {
        self.share = Some(held.share(self.arena.capacity() / 2 * 3));
    }

    /// Where a text stands that was borrowed from a record of this chunk.
    pub(crate) fn span_of(&self, text: &str) -> Option<Span> {
        let start = text.as_ptr().addr().checked_sub(self.arena.as_ptr().addr())?;
        let end = start.checked_add(text.len()).filter(|end| *end <= self.arena.len())?;
        Some(Span::since(start, end))
    }

    /// The bytes that stand there.
    pub(crate) fn bytes_at(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.arena[range]
    }

    /// How many records the chunk holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the chunk holds no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes of keys, values and headers the chunk holds.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// The record at `index`, in the order of reading.
    pub fn record(&self, index: usize) -> RecordView<'_> {
        RecordView { chunk: self, entry: &self.entries[index] }
    }

    /// All records, in the order of reading.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        self.entries.iter().map(|entry| RecordView { chunk: self, entry })
    }
}

/// One record inside its chunk.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    chunk: &'a Chunk,
    entry: &'a Entry,
}

impl<'a> RecordView<'a> {
    /// The record without its headers, as it was copied.
    pub fn raw(&self) -> RawRecord<'a> {
        RawRecord {
            partition: self.partition(),
            offset: self.offset(),
            timestamp_ms: self.timestamp_ms(),
            stamped_by_topic: self.stamped_by_topic(),
            key: self.key(),
            value: self.value(),
        }
    }

    /// The partition that the record was read from.
    pub fn partition(&self) -> i32 {
        self.entry.partition
    }

    /// The record's offset.
    pub fn offset(&self) -> i64 {
        self.entry.offset
    }

    /// The record's own timestamp, milliseconds since the epoch.
    pub fn timestamp_ms(&self) -> i64 {
        self.entry.timestamp_ms
    }

    /// Whether the topic stamps its records itself.
    pub fn stamped_by_topic(&self) -> bool {
        self.entry.stamped_by_topic
    }

    /// The key's bytes.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.entry.key.map(|span| &self.chunk.arena[span.range()])
    }

    /// The value's bytes.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.entry.value.map(|span| &self.chunk.arena[span.range()])
    }

    /// Where the value begins among the bytes of the chunk.
    pub(crate) fn value_start(&self) -> usize {
        self.entry.value.map_or(0, |span| span.range().start)
    }

    /// The headers in their order, names as they came, without those whose name is not UTF-8.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone + use<'a> {
        self.named_headers()
            .filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)))
    }

    /// Whether it has the same headers as that record, of the same chunk, as far as that can be
    /// seen at a glance: records in a row mostly have.
    pub fn shares_headers(&self, other: &RecordView<'_>) -> bool {
        std::ptr::eq(self.chunk, other.chunk) && self.entry.headers == other.entry.headers
    }

    /// Which header, from 0 on, is the first whose name is not UTF-8.
    pub fn unreadable_header(&self) -> Option<usize> {
        self.named_headers().position(|(name, _)| std::str::from_utf8(name).is_err())
    }

    fn named_headers(
        &self,
    ) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone + use<'a> {
        let chunk = self.chunk;
        chunk.headers[self.entry.headers.range()].iter().map(move |header| {
            let value = header.value.map(|span| &chunk.arena[span.range()]);
            (&chunk.arena[header.name.range()], value)
        })
    }

    /// The value of the last header of that name, as Kafka's own clients read it; an absent or null
    /// one is `None`.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let named = self.named_headers().filter(|(key, _)| *key == name.as_bytes());
        named.last().and_then(|(_, value)| value)
    }
}

fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("a chunk stays far below 4 GiB")
}

fn widen(index: u32) -> usize {
    usize::try_from(index).expect("an index of 32 bits fits a pointer")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    fn named(headers: &Headers) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref()))
    }

    fn push(chunk: &mut Chunk, headers: &Headers) {
        chunk.push_named(RawRecord::default(), named(headers));
    }

    fn headers() -> impl Strategy<Value = Headers> {
        // Few of them, so that records in a row have the same ones, or some of them, or the same in
        // another order.
        let name =
            prop_oneof![Just(b"type".to_vec()), Just(b"id".to_vec()), Just(b"\xff".to_vec())];
        let value = prop_oneof![Just(None), Just(Some(Vec::new())), Just(Some(b"a".to_vec()))];
        vec((name, value), 0..4)
    }

    proptest! {
        #[test]
        fn headers_come_out_as_they_went_in_whatever_the_neighbours_have(all in vec(headers(), 0..8), encoded in any::<[bool; 8]>()) {
            let mut chunk = Chunk::default();
            // Any bytes will do for those that they are read from: the same for the same.
            for (headers, is_encoded) in all.iter().zip(encoded) {
                let bytes = format!("{headers:?}");
                match is_encoded {
                    true => chunk.push_encoded(RawRecord::default(), bytes.as_bytes(), named(headers)),
                    false => push(&mut chunk, headers),
                }
            }
            for (record, headers) in chunk.records().zip(&all) {
                let found = record.named_headers().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)));
                prop_assert_eq!(&found.collect::<Headers>(), headers);
            }
            for ((a, of_a), (b, of_b)) in chunk.records().zip(&all).zip(chunk.records().zip(&all).skip(1)) {
                prop_assert_eq!(a.shares_headers(&b), of_a == of_b);
            }
        }
    }

    #[test]
    fn headers_that_come_again_take_no_more_room() {
        let mut chunk = Chunk::default();
        let like = |id: &[u8]| {
            vec![(b"type".to_vec(), Some(b"a".to_vec())), (b"id".to_vec(), Some(id.to_vec()))]
        };
        push(&mut chunk, &like(b"1"));
        let once = chunk.bytes();
        push(&mut chunk, &like(b"1"));
        assert_eq!(chunk.bytes(), once);
        push(&mut chunk, &like(b"2"));
        assert_eq!(chunk.bytes(), once + 1, "only the value that differs");
    }

    /// Hundreds of thousands of events may wait, each in a chunk of its own.
    #[test]
    fn a_chunk_of_one_record_has_no_room_for_more() {
        let mut chunk = Chunk::default();
        let record =
            RawRecord { key: Some(b"key"), value: Some(&[7; 300]), ..RawRecord::default() };
        chunk.push(record, [("eventType", Some(&b"ContentCreated"[..])), ("none", None)]);
        let one = Chunk::of(chunk.record(0));
        let exact = size_of::<Chunk>() + one.bytes() + size_of::<Entry>() + 2 * size_of::<Header>();
        assert_eq!(one.memory(), exact);
        assert!(one.memory() < chunk.memory(), "pushing leaves room");
    }
}
