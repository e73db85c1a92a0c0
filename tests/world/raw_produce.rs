//! A produce request, byte by byte: for records that no client library would send.
//!
//! Version 3 of the request, which every broker since 0.11 takes, and version 2 of the record
//! batch.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{DEADLINE, given};

/// A record whose header names may be any bytes.
pub(crate) struct RawRecord<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) timestamp_ms: i64,
    pub(crate) headers: &'a [(&'a [u8], &'a [u8])],
}

/// Publishes one record to a partition of the tests' broker, which leads all of them.
pub(crate) fn produce_raw(topic: &str, partition: i32, record: &RawRecord<'_>) {
    let batch = record.batch();
    let mut request = Vec::new();
    // Header: Produce, version 3, correlation id, client id.
    request.extend([0_i16, 3].map(i16::to_be_bytes).concat());
    request.extend(1_i32.to_be_bytes());
    text(&mut request, "raw");
    // Body: no transaction, all in-sync replicas, a deadline; one topic with one partition.
    request.extend([-1_i16, -1].map(i16::to_be_bytes).concat());
    request.extend([30_000_i32, 1].map(i32::to_be_bytes).concat());
    text(&mut request, topic);
    request.extend([1, partition, length(&batch)].map(i32::to_be_bytes).concat());
    request.extend(batch);

    let mut broker = TcpStream::connect(given("KAFKA_BROKERS")).unwrap();
    broker.set_read_timeout(Some(DEADLINE)).unwrap();
    broker.write_all(&length(&request).to_be_bytes()).unwrap();
    broker.write_all(&request).unwrap();
    let mut size = [0; 4];
    broker.read_exact(&mut size).unwrap();
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(size)).unwrap()];
    broker.read_exact(&mut answer).unwrap();
    // The correlation id, one topic with its name, one partition with its number; then the error
    // code.
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(answer[at..at + 2], [0, 0], "the broker takes it: {answer:?}");
}

impl RawRecord<'_> {
    fn batch(&self) -> Vec<u8> {
        let record = self.record();
        // From the attributes on: what the checksum covers. Last offset delta, both timestamps, no
        // producer, one record.
        let mut body = [0_u8; 2 + 4].to_vec();
        body.extend([self.timestamp_ms; 2].map(i64::to_be_bytes).concat());
        body.extend([0xff; 8 + 2 + 4]);
        body.extend(1_i32.to_be_bytes());
        body.extend(record);
        // The base offset; the length, the leader's epoch and the magic number before the checksum.
        let mut batch = [0_u8; 8].to_vec();
        batch.extend((length(&body) + 4 + 1 + 4).to_be_bytes());
        batch.extend((-1_i32).to_be_bytes());
        batch.push(2);
        batch.extend(crc32c(&body).to_be_bytes());
        batch.extend(body);
        batch
    }

    fn record(&self) -> Vec<u8> {
        // Attributes, timestamp delta, offset delta.
        let mut record = vec![0; 3];
        bytes(&mut record, self.key);
        bytes(&mut record, self.value);
        varint(&mut record, length(self.headers));
        for (name, value) in self.headers {
            bytes(&mut record, name);
            bytes(&mut record, value);
        }
        let mut sized = Vec::new();
        varint(&mut sized, length(&record));
        sized.extend(record);
        sized
    }
}

fn length<T>(of: &[T]) -> i32 {
    i32::try_from(of.len()).unwrap()
}

fn text(request: &mut Vec<u8>, text: &str) {
    request.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
    request.extend(text.as_bytes());
}

fn bytes(record: &mut Vec<u8>, bytes: &[u8]) {
    varint(record, length(bytes));
    record.extend(bytes);
}

/// A number that is not negative, zigzag: seven bits to a byte, the lowest first.
fn varint(record: &mut Vec<u8>, number: i32) {
    let mut rest = u32::try_from(number).unwrap() << 1;
    while rest >= 0x80 {
        record.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    record.push(u8::try_from(rest).unwrap());
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[test]
fn the_checksum_is_castagnolis() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
