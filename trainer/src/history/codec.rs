//! A change vector as bytes: compact, self-describing, checksummed.
//!
//! | offset | what, little-endian |
//! |---|---|
//! | 0 | magic `FRCV` |
//! | 4 | version, u32 |
//! | 8 | epoch, u32 |
//! | 12 | changes, u32 |
//! | 16 | opened, u64 µs since 1970 |
//! | 24 | sealed, u64 µs since 1970 |
//! | 32 | bytes of the plain body, u32 |
//! | 36 | body, zstd |
//! | end - 4 | CRC-32C of everything before |
//!
//! The body: three roaring bitmaps in the portable format (added, modified, deleted), then for each block
//! in order half a byte, its sub-blocks less one.

use std::io::{self, Read};

use crc_fast::CrcAlgorithm;
use forerun::change_vector::{Change, ChangeKind, ChangeVector};
use forerun::geometry::{BlockIndex, Epoch};
use roaring::RoaringBitmap;
use thiserror::Error;

const MAGIC: [u8; 4] = *b"FRCV";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 36;
/// zstd's default; higher levels gain under 2 % on bitmaps.
const ZSTD_LEVEL: i32 = 3;
/// The longest plain body taken, in bytes: 2^30 blocks as bitmaps and half-bytes, with room.
const MAX_BODY_BYTES: usize = 768 << 20;
/// The largest window taken, as a power of two (4 MiB): zstd's own at this level is half of it.
const WINDOW_LOG_MAX: u32 = 22;
const KINDS: [ChangeKind; 3] = [ChangeKind::Added, ChangeKind::Modified, ChangeKind::Deleted];

/// Bytes that are no change vector.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a stored change vector {0}")]
pub struct CodecError(pub &'static str);

/// CRC-32C (Castagnoli).
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Writes a change vector as bytes.
///
/// # Errors
/// A vector too large to be stored (more than 2^30 changes), or zstd out of memory.
pub fn encode(vector: &ChangeVector) -> Result<Vec<u8>, CodecError> {
    let changes = vector.changes();
    let mut body = Vec::new();
    for kind in KINDS {
        let blocks = changes.iter().filter(|change| change.kind == kind).map(|change| change.block.0);
        let bitmap = RoaringBitmap::from_sorted_iter(blocks).map_err(|_| CodecError("is out of order"))?;
        bitmap.serialize_into(&mut body).map_err(|_| CodecError("does not fit into memory"))?;
    }
    for pair in changes.chunks(2) {
        let half = |index: usize| pair.get(index).map_or(0, |change| change.sub_blocks.wrapping_sub(1) & 15);
        body.push(half(0) | half(1) << 4);
    }
    if body.len() > MAX_BODY_BYTES {
        return Err(CodecError("is too long"));
    }
    let packed = zstd::bulk::compress(&body, ZSTD_LEVEL).map_err(|_| CodecError("cannot be compressed"))?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + packed.len() + 4);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&vector.epoch.0.to_le_bytes());
    bytes.extend_from_slice(&(changes.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&vector.opened_us.to_le_bytes());
    bytes.extend_from_slice(&vector.sealed_us.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&packed);
    let crc = crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// Reads a change vector back.
///
/// # Errors
/// Anything that [`encode`] does not write.
pub fn decode(bytes: &[u8]) -> Result<ChangeVector, CodecError> {
    let (before, crc) = bytes.split_last_chunk::<4>().ok_or(CodecError("is too short"))?;
    if crc32c(before) != u32::from_le_bytes(*crc) {
        return Err(CodecError("has a wrong checksum"));
    }
    let (header, packed) = before.split_at_checked(HEADER_BYTES).ok_or(CodecError("is too short"))?;
    if header.get(..4) != Some(&MAGIC[..]) {
        return Err(CodecError("begins with other bytes"));
    }
    if number(header, 4)? != VERSION {
        return Err(CodecError("has an unknown version"));
    }
    let (epoch, count) = (Epoch(number(header, 8)?), number(header, 12)? as usize);
    let time = |at| Ok(u64::from(number(header, at)?) | u64::from(number(header, at + 4)?) << 32);
    let (opened_us, sealed_us) = (time(16)?, time(24)?);
    let plain_bytes = number(header, 32)? as usize;
    if plain_bytes > MAX_BODY_BYTES {
        return Err(CodecError("is too long"));
    }
    let body = unpack(packed, plain_bytes).map_err(|_| CodecError("does not unpack"))?;
    // Each change has half a byte at the end: so many, and no more, are given memory.
    if count.div_ceil(2) > body.len() {
        return Err(CodecError("has another length than it says"));
    }
    let mut rest = body.as_slice();
    let mut changes = Vec::new();
    for kind in KINDS {
        let bitmap =
            RoaringBitmap::deserialize_from(&mut rest).map_err(|_| CodecError("has a bad bitmap"))?;
        // A run of any number of blocks is a few bytes.
        if changes.len() as u64 + bitmap.len() > count as u64 {
            return Err(CodecError("holds more blocks than it says"));
        }
        changes.extend(bitmap.iter().map(|block| Change { block: BlockIndex(block), kind, sub_blocks: 1 }));
    }
    if changes.len() != count || rest.len() != count.div_ceil(2) {
        return Err(CodecError("has another length than it says"));
    }
    changes.sort_unstable_by_key(|change| change.block);
    for (pair, byte) in changes.chunks_mut(2).zip(rest) {
        for (change, half) in pair.iter_mut().zip([byte & 15, byte >> 4]) {
            change.sub_blocks = half + 1;
        }
    }
    ChangeVector::new(epoch, opened_us, sealed_us, changes).map_err(|_| CodecError("has a block twice"))
}

/// Unpacks to exactly `plain_bytes` bytes; memory is taken as they come, not because the header says so.
fn unpack(packed: &[u8], plain_bytes: usize) -> io::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    let mut body = Vec::new();
    decoder.take(plain_bytes as u64 + 1).read_to_end(&mut body)?;
    if body.len() == plain_bytes { Ok(body) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn number(header: &[u8], at: usize) -> Result<u32, CodecError> {
    header
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_le_bytes)
        .ok_or(CodecError("is too short"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vectors() -> impl Strategy<Value = ChangeVector> {
        let change = (1u8..=3, 1u8..=16);
        let changes = proptest::collection::btree_map(0u32..1 << 30, change, 0..300);
        (1u32.., any::<u64>(), any::<u64>(), changes).prop_map(|(epoch, opened, sealed, changes)| {
            let changes = changes.into_iter().map(|(block, (kind, sub_blocks))| Change {
                block: BlockIndex(block),
                kind: ChangeKind::from_number(kind).expect("1 to 3"),
                sub_blocks,
            });
            ChangeVector::new(Epoch(epoch), opened, sealed, changes.collect()).expect("sorted")
        })
    }

    /// A vector that says `count` changes and `plain_bytes` of body, sealed.
    fn sealed(count: u32, plain_bytes: u32, packed: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for number in [VERSION, 5, count, 0, 0, 0, 0, plain_bytes] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(packed);
        bytes.extend(crc32c(&bytes).to_le_bytes());
        bytes
    }

    #[test]
    fn no_length_is_believed_that_the_bytes_do_not_bear_out() {
        // 2^32 blocks in a megabyte of runs: 50 GB as changes.
        let mut body = Vec::new();
        for bitmap in [RoaringBitmap::full(), RoaringBitmap::new(), RoaringBitmap::new()] {
            bitmap.serialize_into(&mut body).expect("serialized");
        }
        body.extend([0; 2]);
        let packed = zstd::bulk::compress(&body, ZSTD_LEVEL).expect("packed");
        let bytes = sealed(3, body.len() as u32, &packed);
        assert_eq!(decode(&bytes), Err(CodecError("holds more blocks than it says")));
        let bytes = sealed(u32::MAX, body.len() as u32, &packed);
        assert_eq!(decode(&bytes), Err(CodecError("has another length than it says")));
        for wrong in [body.len() - 1, body.len() + 1] {
            assert_eq!(decode(&sealed(3, wrong as u32, &packed)), Err(CodecError("does not unpack")));
        }
    }

    #[test]
    fn large_vectors_come_back() {
        // More than a window of body, so that zstd's frame is of its general kind.
        let change = |block: u32| Change {
            block: BlockIndex(block * 3),
            kind: ChangeKind::Added,
            sub_blocks: (block % 16) as u8 + 1,
        };
        let vector =
            ChangeVector::new(Epoch(1), 0, 0, (0..6_000_000).map(change).collect()).expect("in order");
        assert_eq!(decode(&encode(&vector).expect("encoded")), Ok(vector));
    }

    proptest! {
        #[test]
        fn what_is_written_comes_back(vector in vectors()) {
            prop_assert_eq!(decode(&encode(&vector).expect("encoded")), Ok(vector));
        }

        #[test]
        fn one_changed_byte_is_found(vector in vectors(), at: prop::sample::Index, mask in 1u8..) {
            let mut bytes = encode(&vector).expect("encoded");
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn random_bytes_with_a_right_checksum_do_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut start = MAGIC.to_vec();
            start.extend(VERSION.to_le_bytes());
            start.append(&mut bytes);
            start.extend(crc32c(&start).to_le_bytes());
            let _ = decode(&start);
        }
    }
}
