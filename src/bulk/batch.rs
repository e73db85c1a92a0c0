//! Kafka's record batches, as brokers store and send them ([message format] 2).
//!
//! A batch is read where it lies: its header when it is fetched, its records when they are taken
//! in, and it is decompressed no earlier: what waits takes up no more than on its way. What it says
//! of itself is not trusted: a length that leads past its end makes it corrupt.
//!
//! [message format]: https://kafka.apache.org/documentation/#messageformat

use std::ops::Range;

use bytes::Bytes;

use super::compression::Codec;

/// A batch begins with its offset and its length.
const PREFIX: usize = 12;

/// The only format that is read here, the one of all brokers since Kafka 0.11.
const FORMAT: i8 = 2;

// Bits of the attributes.
const STAMPED_BY_TOPIC: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// Why a batch is left to the client library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is not what was published: its checksum is wrong.
    #[error("the batch at offset {0} fails its checksum")]
    Corrupt(i64),
    /// It is not what it says of itself, or too much to decompress.
    #[error("a batch is not what its header says")]
    Malformed,
    /// It belongs to a transaction, or says how one has ended.
    #[error("batches belong to transactions")]
    Transactional,
    /// It was written before Kafka 0.11.
    #[error("batches have an old format")]
    OldFormat,
}

/// A batch whose checksum is right, and how far it has been read.
#[derive(Clone, Debug)]
pub struct Batch {
    records: Bytes,
    /// How they are compressed still.
    codec: Option<Codec>,
    /// Where in them the next one begins.
    at: usize,
    records_left: u32,
    base_offset: i64,
    /// The least and the most that the offset of the next record can be behind that.
    offset_delta: i64,
    last_offset_delta: i64,
    base_timestamp: i64,
    /// When the broker took the batch, where that is the time of its records.
    stamped_ms: Option<i64>,
    leader_epoch: i32,
    /// Where the headers stand that were looked through last: the same bytes again need not be.
    headers_seen: Range<usize>,
}

/// A record where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the epoch; -1 where it has no time.
    pub timestamp_ms: i64,
    /// Whether the topic stamps its records itself.
    pub stamped_by_topic: bool,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers<'a>,
}

/// The headers of a record, in their order. Their names may be any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    /// All of them, behind their number.
    encoded: &'a [u8],
    bytes: Cursor<'a>,
    left: u32,
}

impl Batch {
    /// Takes the first batch off what was fetched. `None` if none of it is whole: brokers cut what
    /// they send by bytes.
    ///
    /// # Errors
    ///
    /// [`Unfit`].
    pub fn split_off(fetched: &mut Bytes) -> Result<Option<Batch>, Unfit> {
        let mut prefix = Cursor(fetched);
        let (Some(base_offset), Some(length)) = (prefix.i64(), prefix.i32()) else {
            return Ok(None);
        };
        let length = usize::try_from(length).map_err(|_negative| Unfit::Malformed)?;
        if prefix.0.len() < length {
            return Ok(None);
        }
        let bytes = fetched.split_to(PREFIX + length).split_off(PREFIX);
        Batch::parse(base_offset, &bytes).ok_or(Unfit::Malformed)?.map(Some)
    }

    /// `None` if it is not what its header says.
    fn parse(base_offset: i64, bytes: &Bytes) -> Option<Result<Batch, Unfit>> {
        let mut header = Cursor(bytes);
        let leader_epoch = header.i32()?;
        if header.i8()? != FORMAT {
            return Some(Err(Unfit::OldFormat));
        }
        let checksum = u32::from_be_bytes(header.array()?);
        if crc32c::crc32c(header.0) != checksum {
            return Some(Err(Unfit::Corrupt(base_offset)));
        }
        let attributes = header.i16()?;
        let last_offset_delta = i64::from(header.i32()?);
        let base_timestamp = header.i64()?;
        let max_timestamp = header.i64()?;
        let _producer = (header.i64()?, header.i16()?);
        let _sequence = header.i32()?;
        let records_left = u32::try_from(header.i32()?).ok()?;
        if attributes & (TRANSACTIONAL | CONTROL) != 0 {
            return Some(Err(Unfit::Transactional));
        }
        if base_offset < 0 || last_offset_delta < 0 {
            return None;
        }
        // The sum is that of an offset in a log, and so in range.
        base_offset.checked_add(last_offset_delta)?.checked_add(1)?;
        Some(Ok(Batch {
            records: bytes.slice_ref(header.0),
            codec: Codec::of(attributes).ok()?,
            at: 0,
            records_left,
            base_offset,
            offset_delta: 0,
            last_offset_delta,
            base_timestamp,
            stamped_ms: (attributes & STAMPED_BY_TOPIC != 0).then_some(max_timestamp),
            leader_epoch,
            headers_seen: 0..0,
        }))
    }

    /// The offset behind its last record.
    pub fn next_offset(&self) -> i64 {
        self.base_offset + self.last_offset_delta + 1
    }

    /// Which leader took it: the first, the second, and so on.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Its next record; `None` behind the last one.
    ///
    /// # Errors
    ///
    /// [`Unfit::Malformed`].
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, Unfit> {
        if let Some(codec) = self.codec.take() {
            self.records = codec.decompress(&self.records).map_err(|_| Unfit::Malformed)?;
        }
        if let Some(left) = self.records_left.checked_sub(1) {
            self.records_left = left;
            return self.record().map(Some).ok_or(Unfit::Malformed);
        }
        // Nothing may stand behind the last one.
        if self.at == self.records.len() { Ok(None) } else { Err(Unfit::Malformed) }
    }

    fn record(&mut self) -> Option<Record<'_>> {
        let mut rest = Cursor(&self.records[self.at..]);
        let length = rest.length()?;
        let mut record = Cursor(rest.take(length)?);
        self.at = self.records.len() - rest.0.len();
        let _attributes = record.i8()?;
        let timestamp_delta = record.varint()?;
        let offset_delta = record.varint()?;
        if !(self.offset_delta..=self.last_offset_delta).contains(&offset_delta) {
            return None;
        }
        self.offset_delta = offset_delta + 1;
        let (key, value) = (record.bytes()?, record.bytes()?);
        let encoded = record.0;
        let left = u32::try_from(record.varint()?).ok()?;
        let headers = Headers { encoded, bytes: record, left };
        if *encoded != self.records[self.headers_seen.clone()] {
            headers.is_whole().then_some(())?;
            self.headers_seen = self.at - encoded.len()..self.at;
        }
        Some(Record {
            offset: self.base_offset + offset_delta,
            timestamp_ms: match self.stamped_ms {
                Some(stamped_ms) => stamped_ms,
                None => self.base_timestamp.checked_add(timestamp_delta)?,
            },
            stamped_by_topic: self.stamped_ms.is_some(),
            key,
            value,
            headers,
        })
    }
}

impl<'a> Headers<'a> {
    /// The bytes that they are read from: where these are the same, they are.
    pub fn encoded(&self) -> &'a [u8] {
        self.encoded
    }

    /// Whether they are as many as they say, and nothing stands behind them.
    fn is_whole(mut self) -> bool {
        while self.left > 0 {
            if self.next().is_none() {
                return false;
            }
        }
        self.bytes.0.is_empty()
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = self.bytes.bytes()??;
        Some((name, self.bytes.bytes()?))
    }
}

/// Bytes from which fields are taken off at the front; `None` where there are too few.
#[derive(Clone, Copy, Debug)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        self.0.split_off(..count)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn i8(&mut self) -> Option<i8> {
        self.array().map(i8::from_be_bytes)
    }

    fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// A number in as few bytes as it needs, seven bits each, the lowest first; its sign is in the
    /// lowest bit of all.
    fn varint(&mut self) -> Option<i64> {
        let mut folded = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            folded |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed());
            }
        }
        None
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }

    /// Bytes behind their length, or the null that a length of -1 stands for. `None` where they
    /// are cut.
    fn bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match self.varint()? {
            -1 => Some(None),
            length => Some(Some(self.take(usize::try_from(length).ok()?)?)),
        }
    }
}

#[cfg(test)]
mod tests;
