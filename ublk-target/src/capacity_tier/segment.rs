//! A segment: a header of 512 bytes, then records one behind the other, each a whole number of units.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | mark `FRsegmnt` |
//! | 8 | 4 | format version |
//! | 12 | 4 | records in the segment |
//! | 16 | 16 | volume |
//! | 32 | 8 | segment |
//! | 40 | 8 | generation of the writer |
//! | 48 | 4 | epoch: the newest one of the layer that the segment was written for |
//! | 52 | 4 | length of the whole segment in units of 512 bytes |
//! | 56 | 452 | 0 |
//! | 508 | 4 | CRC-32C of bytes 0 to 507, salted with the segment |
//! | 512 | ... | records |
//!
//! Always true: a segment is written once, whole, before anything names it; it is referred to by one
//! layer only, the one whose epochs include the header's. A crash while it is written leaves a file nobody
//! names,
//! which the next writer removes.

use forerun::geometry::{Epoch, Generation, SegmentId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, LE, U32, U64, Unaligned};

use super::checksum::{Salt, checksum};
use super::fault::Fault;
use super::names::VolumeUuid;
use super::place::{MAX_OFFSET_UNITS, Place, UNIT_BYTES};
use super::record::{RECORD_HEADER_BYTES, RecordHeader};

/// The version of the segment format that is written and the newest that is read.
pub const SEGMENT_VERSION: u32 = 1;
/// Bytes of a segment's header: one unit.
pub const SEGMENT_HEADER_BYTES: usize = UNIT_BYTES as usize;
/// The longest segment, in bytes (32 MiB); what is longer is none.
pub const MAX_SEGMENT_BYTES: u64 = (MAX_OFFSET_UNITS as u64 + 1) * UNIT_BYTES;

const WHAT: &str = "the segment's header";
const MARK: [u8; 8] = *b"FRsegmnt";
const SUMMED_BYTES: usize = SEGMENT_HEADER_BYTES - 4;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    mark: [u8; 8],
    version: U32<LE>,
    records: U32<LE>,
    volume: [u8; 16],
    segment: U64<LE>,
    generation: U64<LE>,
    epoch: U32<LE>,
    units: U32<LE>,
    zero: [u8; 452],
    checksum: U32<LE>,
}

const _: () = assert!(size_of::<RawHeader>() == SEGMENT_HEADER_BYTES);

/// A segment's header, verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The volume it belongs to.
    pub volume: VolumeUuid,
    /// Its number.
    pub segment: SegmentId,
    /// Who wrote it.
    pub generation: Generation,
    /// The newest epoch of the layer it was written for.
    pub epoch: Epoch,
    /// How many records it holds.
    pub records: u32,
    /// The length of the whole segment, in units of 512 bytes.
    pub units: u32,
}

impl SegmentHeader {
    fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut raw = RawHeader {
            mark: MARK,
            version: U32::new(SEGMENT_VERSION),
            records: U32::new(self.records),
            volume: self.volume.0,
            segment: U64::new(self.segment.0),
            generation: U64::new(self.generation.0),
            epoch: U32::new(self.epoch.0),
            units: U32::new(self.units),
            zero: [0; 452],
            checksum: U32::new(0),
        };
        raw.checksum = U32::new(sum(raw.as_bytes(), self.segment));
        zerocopy::transmute!(raw)
    }

    /// Reads and verifies the header of what should be `segment` of `volume`.
    ///
    /// # Errors
    /// Too few bytes, a wrong mark or checksum, a newer format, another volume or segment.
    pub fn decode(bytes: &[u8], volume: VolumeUuid, segment: SegmentId) -> Result<Self, Fault> {
        let Ok((raw, _)) = RawHeader::read_from_prefix(bytes) else {
            let need = SEGMENT_HEADER_BYTES as u64;
            return Err(Fault::Short { what: WHAT, have: bytes.len() as u64, need });
        };
        if raw.mark != MARK {
            return Err(Fault::Mark { what: WHAT });
        }
        if raw.checksum.get() != sum(raw.as_bytes(), segment) {
            return Err(Fault::Checksum { what: WHAT });
        }
        let (found, supported) = (raw.version.get(), SEGMENT_VERSION);
        if found == 0 || found > supported {
            return Err(Fault::NewerFormat { what: WHAT, found, supported });
        }
        if raw.volume != volume.0 {
            return Err(Fault::OtherVolume { what: WHAT, found: VolumeUuid(raw.volume), expected: volume });
        }
        if raw.segment.get() != segment.0 {
            let (found, expected) = (raw.segment.get(), segment.0);
            return Err(Fault::Field { what: WHAT, field: "segment", found, expected });
        }
        Ok(Self {
            volume,
            segment,
            generation: Generation(raw.generation.get()),
            epoch: Epoch(raw.epoch.get()),
            records: raw.records.get(),
            units: raw.units.get(),
        })
    }
}

fn sum(header: &[u8], segment: SegmentId) -> u32 {
    checksum(Salt::SegmentHeader, segment.0, &[header.get(..SUMMED_BYTES).unwrap_or_default()])
}

/// A segment being filled in memory.
pub struct SegmentBuilder {
    header: SegmentHeader,
    bytes: Vec<u8>,
}

impl SegmentBuilder {
    /// Begins a segment in `bytes`, whose content is dropped and whose memory is used.
    #[must_use]
    pub fn new(
        volume: VolumeUuid,
        segment: SegmentId,
        generation: Generation,
        epoch: Epoch,
        mut bytes: Vec<u8>,
    ) -> Self {
        bytes.clear();
        bytes.resize(SEGMENT_HEADER_BYTES, 0);
        Self { header: SegmentHeader { volume, segment, generation, epoch, records: 0, units: 1 }, bytes }
    }

    /// The segment's number.
    #[must_use]
    pub const fn segment(&self) -> SegmentId {
        self.header.segment
    }

    /// Whether a record of `len_bytes` still fits into a segment of `target_bytes`; the first one always does.
    #[must_use]
    pub const fn fits(&self, len_bytes: usize, target_bytes: usize) -> bool {
        self.header.records == 0 || self.bytes.len() + len_bytes <= target_bytes
    }

    /// Appends a record and tells its place; `None` where it does not fit into the place's bits.
    ///
    /// `header` is of this volume and segment and describes `stored`.
    pub fn append(&mut self, header: &RecordHeader, stored: &[u8]) -> Option<Place> {
        debug_assert_eq!(header.segment, self.header.segment, "a record names the segment it lies in");
        debug_assert_eq!(header.stored_bytes as usize, stored.len(), "a header describes its own data");
        let offset = u32::try_from(self.bytes.len() / UNIT_BYTES as usize).ok()?;
        let units = u32::try_from(header.record_bytes() / UNIT_BYTES as usize).ok()?;
        let place = Place::new(self.header.segment, offset, units)?;
        self.bytes.extend_from_slice(&header.encode(offset));
        self.bytes.extend_from_slice(stored);
        self.bytes.resize(self.bytes.len().next_multiple_of(UNIT_BYTES as usize), 0);
        self.header.records += 1;
        self.header.units += units;
        debug_assert!(self.header.units <= MAX_OFFSET_UNITS);
        Some(place)
    }

    /// Closes the segment: its header and its bytes as they go to the store.
    #[must_use]
    pub fn finish(mut self) -> (SegmentHeader, Vec<u8>) {
        let encoded = self.header.encode();
        if let Some(front) = self.bytes.get_mut(..SEGMENT_HEADER_BYTES) {
            front.copy_from_slice(&encoded);
        }
        (self.header, self.bytes)
    }
}

/// Walks a segment's records in order, from the first.
pub struct RecordWalk {
    at_units: u32,
    records: u32,
    header: SegmentHeader,
}

impl RecordWalk {
    /// Begins behind the header.
    #[must_use]
    pub const fn new(header: SegmentHeader) -> Self {
        Self { at_units: 1, records: 0, header }
    }

    /// Where the next record begins, in units; `None` when the walk has come to the segment's end.
    #[must_use]
    pub const fn next_at(&self) -> Option<u32> {
        if self.at_units < self.header.units { Some(self.at_units) } else { None }
    }

    /// Takes the next record's header, read at [`Self::next_at`], and gives its place.
    ///
    /// # Errors
    /// A damaged header, one of another volume or segment, or a record beyond the segment's end.
    pub fn step(&mut self, bytes: &[u8]) -> Result<(RecordHeader, Place), Fault> {
        let what = "the block's record";
        let header = RecordHeader::decode(bytes.get(..RECORD_HEADER_BYTES).unwrap_or(bytes), self.at_units)?;
        if header.volume != self.header.volume {
            return Err(Fault::OtherVolume { what, found: header.volume, expected: self.header.volume });
        }
        if header.segment != self.header.segment {
            let (found, expected) = (header.segment.0, self.header.segment.0);
            return Err(Fault::Field { what, field: "segment", found, expected });
        }
        let units = (header.record_bytes() / UNIT_BYTES as usize) as u32;
        let place = Place::new(header.segment, self.at_units, units);
        let beyond = Fault::Range { what, field: "length", found: u64::from(units) };
        let place = place.filter(|_| self.at_units + units <= self.header.units).ok_or(beyond)?;
        self.at_units += units;
        self.records += 1;
        Ok((header, place))
    }

    /// Checks at the end that as many records were met as the header tells.
    ///
    /// # Errors
    /// Another number of records.
    pub fn finish(&self) -> Result<(), Fault> {
        if self.records == self.header.records {
            return Ok(());
        }
        let (found, expected) = (self.records.into(), self.header.records.into());
        Err(Fault::Field { what: "the segment", field: "number of records", found, expected })
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::Codec;
    use super::*;
    use forerun::geometry::BlockIndex;
    use proptest::prelude::*;

    const VOLUME: VolumeUuid = VolumeUuid([7; 16]);

    fn sample() -> (SegmentHeader, Vec<u8>, Vec<Place>) {
        let mut builder = SegmentBuilder::new(VOLUME, SegmentId(5), Generation(2), Epoch(3), vec![9; 99]);
        let mut places = Vec::new();
        for (block, stored) in [(1, vec![1; 10]), (2, vec![2; 5000]), (3, vec![3; 448])] {
            let (segment, epoch) = (SegmentId(5), Epoch(3));
            let header = RecordHeader::new(VOLUME, segment, BlockIndex(block), epoch, Codec::Lz4, &stored);
            places.push(builder.append(&header, &stored).unwrap());
        }
        let (header, bytes) = builder.finish();
        (header, bytes, places)
    }

    #[test]
    fn a_segment_reads_back_record_by_record() {
        let (header, bytes, places) = sample();
        assert_eq!(bytes.len() as u64, u64::from(header.units) * UNIT_BYTES);
        assert_eq!(SegmentHeader::decode(&bytes, VOLUME, SegmentId(5)), Ok(header));
        let mut walk = RecordWalk::new(header);
        let mut met = Vec::new();
        while let Some(at) = walk.next_at() {
            let (record, place) = walk.step(&bytes[at as usize * 512..]).unwrap();
            record.verify_data(&bytes[at as usize * 512..][..place.len_bytes()]).unwrap();
            met.push(place);
        }
        walk.finish().unwrap();
        assert_eq!(met, places);
        assert_eq!(places[2].len_units(), 1, "448 bytes and the header fill one unit exactly");
    }

    #[test]
    fn headers_of_others_are_refused() {
        let (_, bytes, _) = sample();
        let other = SegmentHeader::decode(&bytes, VolumeUuid([1; 16]), SegmentId(5));
        assert!(matches!(other, Err(Fault::OtherVolume { .. })));
        assert!(SegmentHeader::decode(&bytes, VOLUME, SegmentId(6)).is_err());
        assert!(SegmentHeader::decode(&bytes[..511], VOLUME, SegmentId(5)).is_err());
    }

    #[test]
    fn every_flipped_byte_of_the_header_is_found() {
        let (_, mut bytes, _) = sample();
        for at in 0..SEGMENT_HEADER_BYTES {
            bytes[at] ^= 0x10;
            assert!(SegmentHeader::decode(&bytes, VOLUME, SegmentId(5)).is_err(), "byte {at}");
            bytes[at] ^= 0x10;
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let _ = SegmentHeader::decode(&bytes, VOLUME, SegmentId(5));
            let (header, ..) = sample();
            let _ = RecordWalk::new(header).step(&bytes);
        }
    }
}
