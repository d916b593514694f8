//! A block's record in a segment: a header that says what it is, the stored data, padding to 512 bytes.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | mark `FRbk` |
//! | 4 | 1 | codec: 0 raw, 1 lz4, 2 zeros |
//! | 5 | 3 | 0 |
//! | 8 | 16 | volume |
//! | 24 | 8 | segment |
//! | 32 | 4 | block |
//! | 36 | 4 | epoch that wrote it |
//! | 40 | 4 | stored bytes |
//! | 44 | 4 | bytes of the block: 65536 |
//! | 48 | 4 | CRC-32C of the stored data and the padding, salted with the block |
//! | 52 | 8 | 0 |
//! | 60 | 4 | CRC-32C of bytes 0 to 59, salted with the record's offset in units |
//! | 64 | ... | stored data, then zeros up to a multiple of 512 |
//!
//! Every byte is under one of the two checksums, the padding as well. A record tells all that a
//! layer's table says about it except whether it is still wanted: a lost table can be rebuilt from segments.

use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, SegmentId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, LE, U32, U64, Unaligned};

use super::checksum::{Salt, checksum};
use super::codec::{Codec, restore};
use super::fault::Fault;
use super::names::VolumeUuid;
use super::place::{Place, UNIT_BYTES};

/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 64;

const WHAT: &str = "the block's record";
const MARK: [u8; 4] = *b"FRbk";
const SUMMED_BYTES: usize = RECORD_HEADER_BYTES - 4;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    mark: [u8; 4],
    codec: u8,
    zero_a: [u8; 3],
    volume: [u8; 16],
    segment: U64<LE>,
    block: U32<LE>,
    epoch: U32<LE>,
    stored_bytes: U32<LE>,
    block_bytes: U32<LE>,
    data_checksum: U32<LE>,
    zero_b: [u8; 8],
    header_checksum: U32<LE>,
}

const _: () = assert!(size_of::<RawHeader>() == RECORD_HEADER_BYTES);

/// A record's header, verified against itself: its checksum matches and every field is possible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// The volume it belongs to.
    pub volume: VolumeUuid,
    /// The segment it lies in.
    pub segment: SegmentId,
    /// The block it holds.
    pub block: BlockIndex,
    /// The epoch that wrote the block.
    pub epoch: Epoch,
    /// How the data is stored.
    pub codec: Codec,
    /// Bytes of stored data.
    pub stored_bytes: u32,
    data_checksum: u32,
}

impl RecordHeader {
    /// Describes a record of `stored` data, without its padding.
    #[must_use]
    pub fn new(
        volume: VolumeUuid,
        segment: SegmentId,
        block: BlockIndex,
        epoch: Epoch,
        codec: Codec,
        stored: &[u8],
    ) -> Self {
        let padding = [0; UNIT_BYTES as usize];
        let pad = record_bytes(stored.len()) - RECORD_HEADER_BYTES - stored.len();
        let pad = padding.get(..pad).unwrap_or_default();
        let data_checksum = checksum(Salt::RecordData, u64::from(block.0), &[stored, pad]);
        Self { volume, segment, block, epoch, codec, stored_bytes: stored.len() as u32, data_checksum }
    }

    /// The header of the same data in another segment.
    #[must_use]
    pub const fn moved_to(self, segment: SegmentId) -> Self {
        Self { segment, ..self }
    }

    /// The header of the same data as another volume's: a clone's, of what its origin wrote.
    #[must_use]
    pub const fn of_volume(self, volume: VolumeUuid) -> Self {
        Self { volume, ..self }
    }

    /// The header's bytes at `offset_units` of its segment.
    #[must_use]
    pub fn encode(&self, offset_units: u32) -> [u8; RECORD_HEADER_BYTES] {
        let mut raw = RawHeader {
            mark: MARK,
            codec: self.codec as u8,
            zero_a: [0; 3],
            volume: self.volume.0,
            segment: U64::new(self.segment.0),
            block: U32::new(self.block.0),
            epoch: U32::new(self.epoch.0),
            stored_bytes: U32::new(self.stored_bytes),
            block_bytes: U32::new(BLOCK_BYTES as u32),
            data_checksum: U32::new(self.data_checksum),
            zero_b: [0; 8],
            header_checksum: U32::new(0),
        };
        let bytes = raw.as_bytes();
        let summed = bytes.get(..SUMMED_BYTES).unwrap_or_default();
        raw.header_checksum = U32::new(checksum(Salt::RecordHeader, u64::from(offset_units), &[summed]));
        zerocopy::transmute!(raw)
    }

    /// Reads and verifies the header at the front of `bytes`, which were read at `offset_units`.
    ///
    /// # Errors
    /// Too few bytes, a wrong mark or checksum, a field that cannot be.
    pub fn decode(bytes: &[u8], offset_units: u32) -> Result<Self, Fault> {
        let have = bytes.len() as u64;
        let Ok((raw, _)) = RawHeader::read_from_prefix(bytes) else {
            return Err(Fault::Short { what: WHAT, have, need: RECORD_HEADER_BYTES as u64 });
        };
        if raw.mark != MARK {
            return Err(Fault::Mark { what: WHAT });
        }
        let summed = raw.as_bytes();
        let sum = checksum(
            Salt::RecordHeader,
            u64::from(offset_units),
            &[summed.get(..SUMMED_BYTES).unwrap_or_default()],
        );
        if raw.header_checksum.get() != sum {
            return Err(Fault::Checksum { what: WHAT });
        }
        let range = |field, found: u64| Fault::Range { what: WHAT, field, found };
        let codec = Codec::from_number(raw.codec).ok_or_else(|| range("codec", raw.codec.into()))?;
        let stored_bytes = raw.stored_bytes.get();
        let possible = match codec {
            Codec::Raw => stored_bytes == BLOCK_BYTES as u32,
            Codec::Lz4 => (1..BLOCK_BYTES as u32).contains(&stored_bytes),
            Codec::Zero => stored_bytes == 0,
        };
        if !possible {
            return Err(range("stored bytes", stored_bytes.into()));
        }
        if raw.block_bytes.get() != BLOCK_BYTES as u32 {
            return Err(range("block bytes", raw.block_bytes.get().into()));
        }
        Ok(Self {
            volume: VolumeUuid(raw.volume),
            segment: SegmentId(raw.segment.get()),
            block: BlockIndex(raw.block.get()),
            epoch: Epoch(raw.epoch.get()),
            codec,
            stored_bytes,
            data_checksum: raw.data_checksum.get(),
        })
    }

    /// Bytes of the whole record with header and padding.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        record_bytes(self.stored_bytes as usize)
    }

    /// Verifies the data behind the header in `record`, which has the record's whole length.
    ///
    /// # Errors
    /// Another length, or a checksum that does not match.
    pub fn verify_data<'a>(&self, record: &'a [u8]) -> Result<&'a [u8], Fault> {
        let (have, need) = (record.len() as u64, self.record_bytes() as u64);
        if have != need {
            return Err(Fault::Field { what: WHAT, field: "length", found: need, expected: have });
        }
        let short = || Fault::Short { what: WHAT, have, need };
        let data = record.get(RECORD_HEADER_BYTES..).ok_or_else(short)?;
        if checksum(Salt::RecordData, u64::from(self.block.0), &[data]) != self.data_checksum {
            return Err(Fault::Checksum { what: "the block's stored data" });
        }
        data.get(..self.stored_bytes as usize).ok_or_else(short)
    }
}

/// Bytes of a record of `stored` bytes with its header and padding.
#[must_use]
pub const fn record_bytes(stored: usize) -> usize {
    (RECORD_HEADER_BYTES + stored).next_multiple_of(UNIT_BYTES as usize)
}

/// Verifies that `record` is the record of `block` that `place` means, and gives its header and stored data.
///
/// # Errors
/// Any byte that is not as it was written, or a record of another volume, segment, block or place.
pub fn open_record(
    record: &[u8],
    volume: VolumeUuid,
    place: Place,
    block: BlockIndex,
) -> Result<(RecordHeader, &[u8]), Fault> {
    let header = RecordHeader::decode(record, place.offset_units())?;
    if header.volume != volume {
        return Err(Fault::OtherVolume { what: WHAT, found: header.volume, expected: volume });
    }
    let same = |field, found: u64, expected: u64| {
        if found == expected { Ok(()) } else { Err(Fault::Field { what: WHAT, field, found, expected }) }
    };
    same("segment", header.segment.0, place.segment().0)?;
    same("block", header.block.0.into(), block.0.into())?;
    same("length", header.record_bytes() as u64, place.len_bytes() as u64)?;
    let stored = header.verify_data(record)?;
    Ok((header, stored))
}

/// Verifies a record and restores its block into `out`.
///
/// # Errors
/// As [`open_record`], or data that does not decompress to `out.len()` bytes.
pub fn read_record(
    record: &[u8],
    volume: VolumeUuid,
    place: Place,
    block: BlockIndex,
    out: &mut [u8],
) -> Result<RecordHeader, Fault> {
    let (header, stored) = open_record(record, volume, place, block)?;
    restore(header.codec, stored, out)?;
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::super::codec::Compressor;
    use super::*;
    use proptest::prelude::*;

    const VOLUME: VolumeUuid = VolumeUuid([7; 16]);
    const BLOCK: usize = BLOCK_BYTES as usize;

    fn record(data: &[u8]) -> (Vec<u8>, Place) {
        let mut compressor = Compressor::default();
        let (codec, stored) = compressor.compress(data);
        let header = RecordHeader::new(VOLUME, SegmentId(3), BlockIndex(9), Epoch(4), codec, stored);
        let mut bytes = header.encode(1).to_vec();
        bytes.extend_from_slice(stored);
        bytes.resize(header.record_bytes(), 0);
        let units = (bytes.len() / UNIT_BYTES as usize) as u32;
        (bytes, Place::new(SegmentId(3), 1, units).unwrap())
    }

    fn samples() -> Vec<Vec<u8>> {
        let text = b"forerun ".iter().copied().cycle().take(BLOCK).collect();
        let noise = (0..BLOCK as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect();
        vec![vec![0; BLOCK], text, noise]
    }

    #[test]
    fn every_flipped_bit_of_every_byte_is_found() {
        for data in samples() {
            let (mut bytes, place) = record(&data);
            let mut out = vec![1; BLOCK];
            read_record(&bytes, VOLUME, place, BlockIndex(9), &mut out).unwrap();
            assert!(out == data);
            let step = if bytes.len() > 10_000 { 37 } else { 1 };
            for at in (0..bytes.len()).step_by(step) {
                bytes[at] ^= 1 << (at % 8);
                assert!(read_record(&bytes, VOLUME, place, BlockIndex(9), &mut out).is_err(), "byte {at}");
                bytes[at] ^= 1 << (at % 8);
            }
        }
    }

    #[test]
    fn a_record_in_the_wrong_place_is_found() {
        let (bytes, place) = record(&samples()[1]);
        let mut out = vec![0; BLOCK];
        let mut read = |volume, place, block| read_record(&bytes, volume, place, block, &mut out);
        let units = place.len_units();
        assert!(matches!(read(VolumeUuid([8; 16]), place, BlockIndex(9)), Err(Fault::OtherVolume { .. })));
        assert!(read(VOLUME, place, BlockIndex(8)).is_err());
        assert!(read(VOLUME, Place::new(SegmentId(4), 1, units).unwrap(), BlockIndex(9)).is_err());
        assert!(read(VOLUME, Place::new(SegmentId(3), 2, units).unwrap(), BlockIndex(9)).is_err());
        assert!(read(VOLUME, Place::new(SegmentId(3), 1, units + 1).unwrap(), BlockIndex(9)).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..1100), units in 1u32..200) {
            let place = Place::new(SegmentId(3), 1, units).unwrap();
            let _ = read_record(&bytes, VOLUME, place, BlockIndex(9), &mut vec![0; BLOCK]);
        }
    }
}
