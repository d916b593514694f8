//! The address spaces of a volume: blocks, sub-blocks, slots, epochs, segments.
//!
//! Each space has its own type, so that a slot number cannot be used as a block number. All
//! sizes are in bytes and all conversions are checked where they can lose something.

use std::fmt;

use thiserror::Error;

/// Bytes in a block, the unit of mapping, of prediction and of change vectors (64 KiB).
pub const BLOCK_BYTES: u64 = 64 * 1024;
/// Bytes in a sub-block, the unit of validity and dirtiness (4 KiB).
pub const SUB_BLOCK_BYTES: u64 = 4 * 1024;
/// Sub-blocks in a block; one bit each in a [`SubBlockMask`].
pub const SUB_BLOCKS_PER_BLOCK: u32 = (BLOCK_BYTES / SUB_BLOCK_BYTES) as u32;
/// The smallest volume (64 MiB).
pub const MIN_VOLUME_BYTES: u64 = 64 << 20;
/// The largest volume (64 TiB): block numbers fit in 30 bits.
pub const MAX_VOLUME_BYTES: u64 = 64 << 40;
/// The logical block sizes a volume can have, in bytes.
pub const LOGICAL_BLOCK_BYTES: [u32; 2] = [512, 4096];

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A block of a volume, numbered from 0 (`offset / 64 KiB`).
    BlockIndex(u32)
}
number! {
    /// A 64 KiB place on the fast tier, numbered from 0.
    SlotId(u32)
}
number! {
    /// The time between two consistency points of a volume, numbered from 1.
    Epoch(u32)
}
number! {
    /// An immutable object of the capacity tier, numbered from 1 and never used twice.
    SegmentId(u64)
}
number! {
    /// Which writer of a volume made something; each opening of the volume counts one up.
    Generation(u64)
}
number! {
    /// A record's place in the sequence of a journal, numbered from 1 and never used twice.
    Lsn(u64)
}

impl Epoch {
    /// The first epoch of every volume.
    pub const FIRST: Self = Self(1);

    /// The epoch that opens when this one is sealed.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl BlockIndex {
    /// The block that holds the byte at `offset_bytes`; `None` past the largest volume.
    #[must_use]
    pub fn containing(offset_bytes: u64) -> Option<Self> {
        if offset_bytes >= MAX_VOLUME_BYTES {
            return None;
        }
        u32::try_from(offset_bytes / BLOCK_BYTES).ok().map(Self)
    }

    /// Where the block begins in its volume, in bytes.
    #[must_use]
    pub const fn offset_bytes(self) -> u64 {
        self.0 as u64 * BLOCK_BYTES
    }
}

impl SlotId {
    /// Where the slot begins in the slot area of its fast tier, in bytes.
    #[must_use]
    pub const fn offset_bytes(self) -> u64 {
        self.0 as u64 * BLOCK_BYTES
    }
}

/// A set of the sub-blocks of one block; bit `i` stands for bytes `i * 4096 ..` of the block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SubBlockMask(pub u16);

impl SubBlockMask {
    /// No sub-block.
    pub const EMPTY: Self = Self(0);
    /// Every sub-block of a block.
    pub const FULL: Self = Self(u16::MAX);

    /// The sub-blocks that `len` bytes from `start` (both within one block) touch, whole or in part.
    ///
    /// An empty range touches nothing; what lies past the block's end is left out.
    #[must_use]
    pub fn touched(start: u64, len: u64) -> Self {
        Self::between(start / SUB_BLOCK_BYTES, (start + len).div_ceil(SUB_BLOCK_BYTES), len)
    }

    /// The sub-blocks that `len` bytes from `start` (both within one block) cover wholly.
    #[must_use]
    pub fn covered(start: u64, len: u64) -> Self {
        Self::between(start.div_ceil(SUB_BLOCK_BYTES), (start + len) / SUB_BLOCK_BYTES, len)
    }

    fn between(first: u64, end: u64, len: u64) -> Self {
        let end = end.min(u64::from(SUB_BLOCKS_PER_BLOCK));
        if len == 0 || first >= end {
            return Self::EMPTY;
        }
        let bits = ((1u32 << (end - first)) - 1) << first;
        Self(bits as u16)
    }

    /// How many sub-blocks are in the set, 0 to 16.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether every sub-block of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the two sets share a sub-block.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The sub-blocks in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The sub-blocks in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The sub-blocks of this set that are not in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The set's maximal runs as (first sub-block, count), in order.
    pub fn runs(self) -> impl Iterator<Item = (u32, u32)> {
        let mut rest = u32::from(self.0);
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let first = rest.trailing_zeros();
            let count = (rest >> first).trailing_ones();
            rest &= !(((1u32 << count) - 1) << first);
            Some((first, count))
        })
    }
}

/// A volume size that was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GeometryError {
    /// The size is outside of 64 MiB to 64 TiB.
    #[error("a volume has 64 MiB to 64 TiB, not {0} bytes")]
    Size(u64),
    /// The size is not a multiple of the block.
    #[error("a volume's size is a multiple of 64 KiB; {0} bytes is not")]
    Unaligned(u64),
    /// The logical block size is neither 512 nor 4096.
    #[error("the logical block size is 512 or 4096 bytes, not {0}")]
    LogicalBlock(u32),
    /// A volume was to become smaller.
    #[error("a volume does not shrink: it has {now} bytes, and {wanted} would be less")]
    Smaller {
        /// What it has, in bytes.
        now: u64,
        /// What was asked for, in bytes.
        wanted: u64,
    },
}

/// A volume's shape: how many bytes it shows, which only ever become more, and in what units it can be addressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    size_bytes: u64,
    logical_block_bytes: u32,
}

impl Geometry {
    /// Checks and takes a volume's size and logical block size, both in bytes.
    ///
    /// # Errors
    /// A size outside of 64 MiB to 64 TiB or no multiple of 64 KiB, or a logical block size
    /// that is neither 512 nor 4096.
    pub fn new(size_bytes: u64, logical_block_bytes: u32) -> Result<Self, GeometryError> {
        if !(MIN_VOLUME_BYTES..=MAX_VOLUME_BYTES).contains(&size_bytes) {
            return Err(GeometryError::Size(size_bytes));
        }
        if !size_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(GeometryError::Unaligned(size_bytes));
        }
        if !LOGICAL_BLOCK_BYTES.contains(&logical_block_bytes) {
            return Err(GeometryError::LogicalBlock(logical_block_bytes));
        }
        Ok(Self { size_bytes, logical_block_bytes })
    }

    /// The shape after growth to `size_bytes` bytes; its own size is no growth, and no error.
    ///
    /// # Errors
    /// A size that is smaller, or that [`Geometry::new`] refuses.
    pub fn grown_to(self, size_bytes: u64) -> Result<Self, GeometryError> {
        if size_bytes < self.size_bytes {
            return Err(GeometryError::Smaller { now: self.size_bytes, wanted: size_bytes });
        }
        Self::new(size_bytes, self.logical_block_bytes)
    }

    /// Whether a volume of this shape may have grown into `other`: of two places that tell a volume's shape one may not have
    /// heard of its growth yet.
    #[must_use]
    pub const fn grows_into(self, other: Self) -> bool {
        self.size_bytes <= other.size_bytes && self.logical_block_bytes == other.logical_block_bytes
    }

    /// The bytes the volume shows.
    #[must_use]
    pub const fn size_bytes(self) -> u64 {
        self.size_bytes
    }

    /// The unit in which requests are aligned: 512 or 4096 bytes.
    #[must_use]
    pub const fn logical_block_bytes(self) -> u32 {
        self.logical_block_bytes
    }

    /// How many blocks the volume has, 1,024 to 2^30.
    #[must_use]
    pub const fn blocks(self) -> u32 {
        (self.size_bytes / BLOCK_BYTES) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_ranges() {
        assert_eq!(SubBlockMask::touched(0, BLOCK_BYTES), SubBlockMask::FULL);
        assert_eq!(SubBlockMask::touched(4096, 4096), SubBlockMask(0b10));
        assert_eq!(SubBlockMask::touched(4095, 2), SubBlockMask(0b11));
        assert_eq!(SubBlockMask::covered(4095, 2), SubBlockMask::EMPTY);
        assert_eq!(SubBlockMask::covered(1, 8191), SubBlockMask(0b10));
        assert_eq!(SubBlockMask::touched(8192, 0), SubBlockMask::EMPTY);
    }

    #[test]
    fn runs_come_in_order_and_cover_the_mask() {
        for bits in 0..=u16::MAX {
            let mut seen = 0u32;
            for (first, count) in SubBlockMask(bits).runs() {
                assert!(seen >> first == 0, "runs of {bits:#b} overlap or go back");
                seen |= ((1u32 << count) - 1) << first;
            }
            assert_eq!(seen, u32::from(bits));
        }
    }

    #[test]
    fn a_volume_is_64_mib_to_64_tib() {
        assert!(Geometry::new(MIN_VOLUME_BYTES, 4096).is_ok());
        assert!(Geometry::new(MAX_VOLUME_BYTES, 512).is_ok());
        assert_eq!(Geometry::new(1 << 20, 4096), Err(GeometryError::Size(1 << 20)));
        assert_eq!(Geometry::new((64 << 20) + 4096, 4096), Err(GeometryError::Unaligned((64 << 20) + 4096)));
        assert_eq!(Geometry::new(64 << 20, 1024), Err(GeometryError::LogicalBlock(1024)));
    }

    #[test]
    fn a_volume_grows_and_does_not_shrink() {
        let small = Geometry::new(64 << 20, 4096).unwrap();
        let large = small.grown_to(128 << 20).unwrap();
        assert_eq!((large.size_bytes(), large.logical_block_bytes()), (128 << 20, 4096));
        assert_eq!(small.grown_to(64 << 20), Ok(small));
        assert_eq!(
            large.grown_to(64 << 20),
            Err(GeometryError::Smaller { now: 128 << 20, wanted: 64 << 20 })
        );
        assert_eq!(small.grown_to((64 << 20) + 1), Err(GeometryError::Unaligned((64 << 20) + 1)));
        assert!(small.grows_into(large) && small.grows_into(small) && !large.grows_into(small));
        assert!(!small.grows_into(Geometry::new(128 << 20, 512).unwrap()));
    }
}
