//! The warm list: which blocks are wanted first when the fast tier is empty, after a restore. The format.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | mark `FRwm` |
//! | 4 | 4 | CRC-32C of all that follows, salted with the object's number |
//! | 8 | 4 | format version |
//! | 12 | 4 | epoch that was open when it was made |
//! | 16 | 16 | volume |
//! | 32 | 8 | when it was made, in microseconds since 1970 |
//! | 40 | 8 | mean time of a request then, in nanoseconds; 0 where not known |
//! | 48 | 4 | parts in a million of the blocks read that came from the fast tier then |
//! | 52 | 4 | bands |
//! | 56 | 4 | of those, how many tell what was read first after a start |
//! | 60 | 4 | blocks in all bands |
//! | 64 | | the bands, those wanted first in front |
//!
//! A band: the number of its blocks, the first of them, then for each other one how far it is from the one before, all as
//! LEB128 (7 bits a byte, low ones first, the high bit set in all but the last byte). Within a band blocks ascend.
//!
//! It is a hint: what it says changes in which order blocks are fetched, and nothing else.

use forerun::geometry::{BlockIndex, Epoch, Geometry};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, LE, U32, U64, Unaligned};

use super::checksum::{Salt, checksum};
use super::fault::Fault;
use super::names::VolumeUuid;

/// The version that is written and the newest that is read.
pub const WARM_LIST_VERSION: u32 = 1;
/// The most blocks in a list (256 GiB of them): it is read as a whole.
pub const MAX_WARM_BLOCKS: usize = 4 << 20;
/// The longest object that is read at all, in bytes: five for each block and each band.
pub const MAX_WARM_BYTES: u64 = HEADER_BYTES as u64 + 5 * (MAX_WARM_BLOCKS + MAX_BANDS) as u64;

const MAX_BANDS: usize = 1 << 16;
const HEADER_BYTES: usize = 64;
const MARK: [u8; 4] = *b"FRwm";
const WHAT: &str = "the warm list";

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    mark: [u8; 4],
    checksum: U32<LE>,
    version: U32<LE>,
    epoch: U32<LE>,
    volume: [u8; 16],
    made_us: U64<LE>,
    request_ns: U64<LE>,
    read_hits_ppm: U32<LE>,
    bands: U32<LE>,
    first_bands: U32<LE>,
    blocks: U32<LE>,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);

/// Blocks in the order in which they are expected to be wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WarmList {
    /// The epoch that was open.
    pub epoch: Epoch,
    /// When it was made, in microseconds since 1970 (UTC).
    pub made_us: u64,
    /// Mean time of a request then, in nanoseconds; 0 where not known.
    pub request_ns: u64,
    /// Parts in a million of the blocks read that came from the fast tier then.
    pub read_hits_ppm: u32,
    /// How many of the first bands tell what was read first after a start.
    pub first_bands: usize,
    /// Those wanted first in front; ascending within a band.
    pub bands: Vec<Vec<BlockIndex>>,
}

impl WarmList {
    /// The blocks in all bands.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bands.iter().map(Vec::len).sum()
    }

    /// Whether it names no block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The blocks in order.
    pub fn blocks(&self) -> impl Iterator<Item = BlockIndex> + '_ {
        self.bands.iter().flatten().copied()
    }

    /// The object's bytes. Blocks beyond [`MAX_WARM_BLOCKS`] are left out, the last ones first.
    #[must_use]
    pub fn encode(&self, volume: VolumeUuid, number: u64) -> Vec<u8> {
        let mut body = Vec::new();
        let (mut bands, mut blocks) = (0, 0);
        for band in self.bands.iter().take(MAX_BANDS) {
            let band = band.get(..band.len().min(MAX_WARM_BLOCKS - blocks)).unwrap_or_default();
            put_number(&mut body, band.len() as u32);
            let mut last = 0;
            for block in band {
                debug_assert!(block.0 >= last, "a band's blocks ascend");
                put_number(&mut body, block.0 - last);
                last = block.0;
            }
            bands += 1;
            blocks += band.len();
        }
        let mut raw = RawHeader {
            mark: MARK,
            checksum: U32::new(0),
            version: U32::new(WARM_LIST_VERSION),
            epoch: U32::new(self.epoch.0),
            volume: volume.0,
            made_us: U64::new(self.made_us),
            request_ns: U64::new(self.request_ns),
            read_hits_ppm: U32::new(self.read_hits_ppm),
            bands: U32::new(bands),
            first_bands: U32::new(self.first_bands as u32),
            blocks: U32::new(blocks as u32),
        };
        raw.checksum = U32::new(sum(number, raw.as_bytes(), &body));
        let mut bytes = raw.as_bytes().to_vec();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads an object's bytes and verifies all of them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(
        bytes: &[u8],
        volume: VolumeUuid,
        number: u64,
        geometry: Geometry,
    ) -> std::result::Result<Self, Fault> {
        let short = Fault::Short { what: WHAT, have: bytes.len() as u64, need: HEADER_BYTES as u64 };
        let (raw, mut body) = RawHeader::read_from_prefix(bytes).map_err(|_| short)?;
        if raw.mark != MARK {
            return Err(Fault::Mark { what: WHAT });
        }
        if raw.version.get() > WARM_LIST_VERSION {
            let (found, supported) = (raw.version.get(), WARM_LIST_VERSION);
            return Err(Fault::NewerFormat { what: WHAT, found, supported });
        }
        if raw.checksum.get() != sum(number, raw.as_bytes(), body) {
            return Err(Fault::Checksum { what: WHAT });
        }
        let found = VolumeUuid(raw.volume);
        if found != volume {
            return Err(Fault::OtherVolume { what: WHAT, found, expected: volume });
        }
        let range = |field, found: usize| Fault::Range { what: WHAT, field, found: found as u64 };
        let (count, blocks) = (raw.bands.get() as usize, raw.blocks.get() as usize);
        if count > MAX_BANDS {
            return Err(range("the number of bands", count));
        }
        if blocks > MAX_WARM_BLOCKS {
            return Err(range("the number of blocks", blocks));
        }
        let mut bands = Vec::new();
        let mut left = blocks;
        for _ in 0..count {
            let len = take_number(&mut body)? as usize;
            left = left.checked_sub(len).ok_or_else(|| range("the length of a band", len))?;
            let mut band = Vec::with_capacity(len.min(body.len()));
            let mut last: Option<u32> = None;
            for _ in 0..len {
                let step = take_number(&mut body)?;
                let block = last.unwrap_or(0).checked_add(step).filter(|block| *block < geometry.blocks());
                let block = block.filter(|_| last.is_none() || step > 0);
                let block = block.ok_or_else(|| range("a block", step as usize))?;
                band.push(BlockIndex(block));
                last = Some(block);
            }
            bands.push(band);
        }
        if left > 0 || !body.is_empty() {
            return Err(range("what is left behind the bands", left.max(body.len())));
        }
        Ok(Self {
            epoch: Epoch(raw.epoch.get()),
            made_us: raw.made_us.get(),
            request_ns: raw.request_ns.get(),
            read_hits_ppm: raw.read_hits_ppm.get().min(1_000_000),
            first_bands: (raw.first_bands.get() as usize).min(count),
            bands,
        })
    }
}

fn sum(number: u64, header: &[u8], body: &[u8]) -> u32 {
    checksum(Salt::WarmList, number, &[header.get(8..).unwrap_or_default(), body])
}

fn put_number(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> std::result::Result<u32, Fault> {
    let mut number = 0u64;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Fault::Short { what: WHAT, have: 0, need: 1 })?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return u32::try_from(number).map_err(|_| Fault::Range {
                what: WHAT,
                field: "a number",
                found: number,
            });
        }
    }
    Err(Fault::Range { what: WHAT, field: "a number", found: number })
}

#[cfg(test)]
mod tests {
    use forerun::geometry::MIN_VOLUME_BYTES;
    use proptest::prelude::*;

    use super::*;

    const VOLUME: VolumeUuid = VolumeUuid([7; 16]);

    fn geometry() -> Geometry {
        Geometry::new(MIN_VOLUME_BYTES * 16, 4096).expect("a sound geometry")
    }

    fn list(bands: Vec<Vec<u32>>) -> WarmList {
        let bands = bands.into_iter().map(|mut band| {
            band.sort_unstable();
            band.dedup();
            band.into_iter().map(BlockIndex).collect()
        });
        WarmList {
            epoch: Epoch(9),
            made_us: 3,
            request_ns: 77,
            read_hits_ppm: 990_000,
            first_bands: 1,
            bands: bands.collect(),
        }
    }

    proptest! {
        #[test]
        fn reads_back_and_no_other_bytes_do(
            bands in proptest::collection::vec(proptest::collection::vec(0..geometry().blocks(), 0..40), 1..12),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
        ) {
            let list = list(bands);
            let bytes = list.encode(VOLUME, 5);
            prop_assert_eq!(WarmList::decode(&bytes, VOLUME, 5, geometry()), Ok(list.clone()));
            prop_assert!(WarmList::decode(&bytes, VOLUME, 6, geometry()).is_err());
            prop_assert!(WarmList::decode(&bytes, VolumeUuid([8; 16]), 5, geometry()).is_err());
            let mut damaged = bytes.clone();
            damaged[at.index(bytes.len())] ^= flip;
            prop_assert!(WarmList::decode(&damaged, VOLUME, 5, geometry()).is_err());
            prop_assert!(WarmList::decode(&bytes[..at.index(bytes.len())], VOLUME, 5, geometry()).is_err());
        }

        /// Whoever can write to the tier can make a checksum.
        #[test]
        fn a_forged_list_names_no_block_outside_of_the_volume(body in proptest::collection::vec(any::<u8>(), 0..64), bands in 0u32..5, blocks in 0u32..40) {
            let mut bytes = list(vec![]).encode(VOLUME, 5);
            bytes[52..56].copy_from_slice(&bands.to_le_bytes());
            bytes[60..64].copy_from_slice(&blocks.to_le_bytes());
            bytes.extend_from_slice(&body);
            let (header, body) = bytes.split_at(HEADER_BYTES);
            let sum = sum(5, header, body);
            bytes[4..8].copy_from_slice(&sum.to_le_bytes());
            if let Ok(list) = WarmList::decode(&bytes, VOLUME, 5, geometry()) {
                prop_assert_eq!(list.len(), blocks as usize);
                prop_assert!(list.blocks().all(|block| block.0 < geometry().blocks()));
            }
        }
    }

    #[test]
    fn a_block_costs_a_byte_or_two_where_they_lie_together() {
        let list = list(vec![(0..1000).collect()]);
        assert!(list.encode(VOLUME, 1).len() < HEADER_BYTES + 1010);
    }

    /// Computed by another program from the table at the top.
    #[test]
    fn the_bytes_are_these() {
        const GOLDEN: [&str; 3] = [
            "4652776d615846800100000004000000f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0",
            "070000000000000009000000000000000b000000020000000100000008000000",
            "060301010101010201bb05",
        ];
        let bands = vec![(3..9).map(BlockIndex).collect(), vec![BlockIndex(1), BlockIndex(700)]];
        let list =
            WarmList { epoch: Epoch(4), made_us: 7, request_ns: 9, read_hits_ppm: 11, first_bands: 1, bands };
        let hex: String =
            list.encode(VolumeUuid([0xf0; 16]), 5).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN.concat());
    }
}
