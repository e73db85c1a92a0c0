//! The records of a batch, as they were before it was compressed.

use std::io::{self, Read};

use bytes::Bytes;

/// No batch is believed to have more in it. Those of publishers have a megabyte or so.
const BYTES_MAX: usize = 64 << 20;

/// What snappy's streams begin with that Java writes, and two versions of no interest here: then
/// come blocks, each behind its length. Other publishers write one block and nothing else.
const XERIAL: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: usize = XERIAL.len() + 8;

/// How a batch is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// The codec that attributes name, or none; an error if there is no such.
    pub(super) fn of(attributes: i16) -> Result<Option<Codec>, io::Error> {
        match attributes & 0b111 {
            0 => Ok(None),
            1 => Ok(Some(Codec::Gzip)),
            2 => Ok(Some(Codec::Snappy)),
            3 => Ok(Some(Codec::Lz4)),
            4 => Ok(Some(Codec::Zstd)),
            _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }

    /// What was compressed.
    pub(super) fn decompress(self, compressed: &[u8]) -> io::Result<Bytes> {
        match self {
            Codec::Gzip => all_of(flate2::read::MultiGzDecoder::new(compressed)),
            Codec::Snappy => snappy(compressed),
            Codec::Lz4 => all_of(lz4_flex::frame::FrameDecoder::new(compressed)),
            Codec::Zstd => all_of(zstd::stream::read::Decoder::with_buffer(compressed)?),
        }
    }
}

fn all_of(decoder: impl Read) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(BYTES_MAX).unwrap_or(u64::MAX);
    decoder.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() > BYTES_MAX {
        return Err(too_large());
    }
    Ok(bytes.into())
}

fn snappy(compressed: &[u8]) -> io::Result<Bytes> {
    let mut decoder = snap::raw::Decoder::new();
    let mut bytes = Vec::new();
    let mut block = |block: &[u8]| {
        let (start, length) = (bytes.len(), snap::raw::decompress_len(block)?);
        if length > BYTES_MAX - start {
            return Err(too_large());
        }
        bytes.resize(start + length, 0);
        decoder.decompress(block, &mut bytes[start..])?;
        Ok(())
    };
    if !compressed.starts_with(XERIAL) {
        block(compressed)?;
        return Ok(bytes.into());
    }
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut rest = compressed.get(XERIAL_HEADER..).ok_or_else(cut)?;
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(io::Error::other)?;
        let (one, behind) = behind.split_at_checked(length).ok_or_else(cut)?;
        block(one)?;
        rest = behind;
    }
    if rest.is_empty() { Ok(bytes.into()) } else { Err(cut()) }
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "there is too much in it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_would_fill_the_memory_is_refused() {
        let zeros = vec![0; BYTES_MAX + 1];
        let compressed = zstd::encode_all(zeros.as_slice(), 1).unwrap();
        assert!(Codec::Zstd.decompress(&compressed).is_err());
        let compressed = snap::raw::Encoder::new().compress_vec(&zeros).unwrap();
        assert!(Codec::Snappy.decompress(&compressed).is_err());
        assert_eq!(
            Codec::Zstd.decompress(&zstd::encode_all(&zeros[1..], 1).unwrap()).unwrap().len(),
            BYTES_MAX
        );
    }

    #[test]
    fn javas_snappy_is_blocks_behind_their_lengths() {
        let block = |bytes: &[u8]| {
            let block = snap::raw::Encoder::new().compress_vec(bytes).unwrap();
            [&u32::try_from(block.len()).unwrap().to_be_bytes(), block.as_slice()].concat()
        };
        let header = [XERIAL, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        let stream = [header, block(b"two "), block(b"blocks")].concat();
        assert_eq!(Codec::Snappy.decompress(&stream).unwrap(), "two blocks");
        for cut in [XERIAL.len() + 2, stream.len() - 1, stream.len() - 9] {
            assert!(Codec::Snappy.decompress(&stream[..cut]).is_err(), "{cut}");
        }
        let bare = snap::raw::Encoder::new().compress_vec(b"one block").unwrap();
        assert_eq!(Codec::Snappy.decompress(&bare).unwrap(), "one block");
    }
}
