use std::io::{Read as _, Write as _};

use bytes::BytesMut;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record as Published, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

/// Where these stand in a batch.
const CHECKSUM: usize = 17;
const ATTRIBUTES: usize = 21;
/// How long a batch's header is.
const HEADER: usize = 61;

/// What is read of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    offset: i64,
    timestamp_ms: i64,
    stamped_by_topic: bool,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Seen {
    fn of(record: &Record<'_>) -> Seen {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        Seen {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            stamped_by_topic: record.stamped_by_topic,
            key: owned(record.key),
            value: owned(record.value),
            headers: record.headers.map(|(name, value)| (name.to_vec(), owned(value))).collect(),
        }
    }

    fn published(&self) -> Published {
        let header = |(name, value): &(Vec<u8>, Option<Vec<u8>>)| {
            let name = StrBytes::from_utf8(name.clone().into()).unwrap();
            (name, value.clone().map(Bytes::from))
        };
        Published {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 7,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset: self.offset,
            // As far behind the offset in every record, or the reference begins a new batch.
            sequence: i32::try_from(self.offset).unwrap(),
            timestamp: self.timestamp_ms,
            key: self.key.clone().map(Bytes::from),
            value: self.value.clone().map(Bytes::from),
            headers: self.headers.iter().map(header).collect(),
        }
    }
}

/// Records as brokers store them, by another's hand.
fn stored(records: &[Seen]) -> Vec<u8> {
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let records: Vec<Published> = records.iter().map(Seen::published).collect();
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.to_vec()
}

/// Makes the checksum of a batch right again.
fn seal(batch: &mut [u8]) {
    let checksum = crc32c::crc32c(&batch[ATTRIBUTES..]);
    batch[CHECKSUM..ATTRIBUTES].copy_from_slice(&checksum.to_be_bytes());
}

/// All that is read until something is the matter.
fn read(bytes: Vec<u8>) -> (Vec<Seen>, Result<(), Unfit>) {
    let (mut bytes, mut seen) = (Bytes::from(bytes), Vec::new());
    let mut read = || {
        while let Some(mut batch) = Batch::split_off(&mut bytes)? {
            while let Some(record) = batch.next_record()? {
                seen.push(Seen::of(&record));
            }
        }
        Ok(())
    };
    let end = read();
    (seen, end)
}

fn records() -> impl Strategy<Value = Vec<Seen>> {
    let bytes = || option::of(vec(any::<u8>(), 0..200));
    let headers = btree_map("[a-z]{0,5}", bytes(), 0..4);
    let record = (1_i64..300, 0_i64..4_000_000_000_000, bytes(), bytes(), headers);
    vec((record, any::<bool>()), 1..20).prop_map(|records| {
        let (mut offset, mut before) = (0, Vec::new());
        let seen = records.into_iter().map(|((gap, timestamp_ms, key, value, headers), again)| {
            offset += gap;
            if !again {
                let named = headers.into_iter().map(|(name, value)| (name.into_bytes(), value));
                before = named.collect();
            }
            let headers = before.clone();
            Seen { offset, timestamp_ms, stamped_by_topic: false, key, value, headers }
        });
        seen.collect()
    })
}

fn one() -> Vec<Seen> {
    vec![Seen {
        offset: 5,
        timestamp_ms: 1_700_000_000_000,
        stamped_by_topic: false,
        key: Some(b"key".to_vec()),
        value: Some(b"value".to_vec()),
        headers: vec![(b"name".to_vec(), Some(b"of it".to_vec())), (b"null".to_vec(), None)],
    }]
}

proptest! {
    #[test]
    fn records_are_read_as_they_were_published(records in records(), more in records()) {
        let both = [stored(&records), stored(&more)].concat();
        let (seen, end) = read(both.clone());
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(seen, [records.clone(), more].concat());
        // Brokers cut what they send; what is whole of it counts.
        let cut = stored(&records).len();
        for len in [cut, both.len() - 1] {
            let (seen, end) = read(both[..len].to_vec());
            prop_assert_eq!((seen, end), (records.clone(), Ok(())));
        }
    }

    #[test]
    fn a_bit_that_has_changed_is_noticed(records in records(), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let mut bytes = stored(&records);
        // Up to here stand the offset, the length and the leader's epoch, which have no checksum:
        // a broker writes them.
        let at = FORMAT_AT + at.index(bytes.len() - FORMAT_AT);
        bytes[at] ^= 1_u8 << bit;
        let (seen, end) = read(bytes);
        prop_assert!(seen.is_empty());
        prop_assert!(matches!(end, Err(Unfit::Corrupt(_) | Unfit::OldFormat)), "{end:?}");
    }

    #[test]
    fn what_a_batch_says_of_itself_is_not_trusted(
        records in records(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = stored(&records);
        for (at, byte) in changes {
            let at = ATTRIBUTES + at.index(bytes.len() - ATTRIBUTES);
            bytes[at] = byte;
        }
        seal(&mut bytes);
        // Other records, or an error, but no panic and no record from elsewhere.
        let (seen, _) = read(bytes);
        for pair in seen.windows(2) {
            prop_assert!(pair[0].offset < pair[1].offset, "{pair:?}");
        }
    }
}

/// The format stands behind offset, length and leader epoch.
const FORMAT_AT: usize = 16;

#[test]
fn what_is_not_plain_is_told() {
    for (attributes, unfit) in
        [(5, Unfit::Malformed), (1 << 4, Unfit::Transactional), (1 << 5, Unfit::Transactional)]
    {
        let mut bytes = stored(&one());
        bytes[ATTRIBUTES + 1] = attributes;
        seal(&mut bytes);
        assert_eq!(read(bytes), (vec![], Err(unfit)));
    }
    let mut bytes = stored(&one());
    bytes[FORMAT_AT] = 1;
    assert_eq!(read(bytes), (vec![], Err(Unfit::OldFormat)));
}

#[test]
fn compressed_records_are_read_as_they_were_published() {
    let gzip = |records: &[u8]| {
        let mut encoder = flate2::read::GzEncoder::new(records, flate2::Compression::fast());
        let mut bytes = Vec::new();
        encoder.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let lz4 = |records: &[u8]| {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(records).unwrap();
        encoder.finish().unwrap()
    };
    let snappy = |records: &[u8]| snap::raw::Encoder::new().compress_vec(records).unwrap();
    let zstd = |records: &[u8]| zstd::encode_all(records, 1).unwrap();
    let plain = stored(&one());
    let (header, records) = plain.split_at(HEADER);
    let all = [(1, gzip(records)), (2, snappy(records)), (3, lz4(records)), (4, zstd(records))];
    for (codec, compressed) in all {
        let mut bytes = [header, &compressed].concat();
        let length = i32::try_from(bytes.len() - PREFIX).unwrap();
        bytes[8..PREFIX].copy_from_slice(&length.to_be_bytes());
        bytes[ATTRIBUTES + 1] = codec;
        seal(&mut bytes);
        assert_eq!(read(bytes.clone()), (one(), Ok(())), "{codec}");
        let cut = compressed.len() / 2;
        bytes.truncate(bytes.len() - cut);
        bytes[8..PREFIX].copy_from_slice(&(length - i32::try_from(cut).unwrap()).to_be_bytes());
        seal(&mut bytes);
        assert_eq!(read(bytes), (vec![], Err(Unfit::Malformed)), "{codec}");
    }
}

#[test]
fn the_time_is_the_brokers_where_the_topic_says_so() {
    let mut bytes = stored(&one());
    bytes[ATTRIBUTES + 1] = 1 << 3;
    let max_timestamp = ATTRIBUTES + 2 + 4 + 8;
    bytes[max_timestamp..max_timestamp + 8].copy_from_slice(&42_i64.to_be_bytes());
    seal(&mut bytes);
    let stamped = Seen { timestamp_ms: 42, stamped_by_topic: true, ..one().remove(0) };
    assert_eq!(read(bytes), (vec![stamped], Ok(())));
}

#[test]
fn a_header_may_have_any_name() {
    let mut bytes = stored(&one());
    let name = bytes.windows(4).position(|it| it == b"name").unwrap();
    bytes[name] = 0xff;
    seal(&mut bytes);
    let (seen, end) = read(bytes);
    assert_eq!(end, Ok(()));
    assert_eq!(seen[0].headers[0].0, b"\xffame");
}

#[test]
fn a_batch_knows_what_comes_behind_it() {
    let batch = Batch::split_off(&mut Bytes::from(stored(&one()))).unwrap().unwrap();
    assert_eq!((batch.next_offset(), batch.leader_epoch()), (6, 7));
}
