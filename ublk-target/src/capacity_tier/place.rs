//! Where a block's record lies in the capacity tier, in one word.
//!
//! ```text
//! bit 63                    24 23            8 7             0
//!     | segment, 40 bits      | offset, 16 bits | length, 8 bits |
//! ```
//! Offset and length count units of 512 bytes. A segment's number is never 0, so neither is a place; a map can
//! use 0 for 'none'. The length makes a read of one block one range request, without an index.

use std::fmt;
use std::num::NonZeroU64;

use forerun::geometry::SegmentId;

/// The unit in which records are placed, in bytes.
pub const UNIT_BYTES: u64 = 512;
/// The largest segment number, 2^40 - 1.
pub const MAX_SEGMENT: u64 = (1 << 40) - 1;
/// The largest offset of a record, in units (32 MiB - 512 bytes).
pub const MAX_OFFSET_UNITS: u32 = u16::MAX as u32;
/// The longest record, in units.
pub const MAX_RECORD_UNITS: u32 = u8::MAX as u32;

/// A record's place: segment, offset and length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(NonZeroU64);

impl Place {
    /// Packs a place; `None` where a part is 0 that cannot be, or too large for its bits.
    #[must_use]
    pub fn new(segment: SegmentId, offset_units: u32, len_units: u32) -> Option<Self> {
        let fits = (1..=MAX_SEGMENT).contains(&segment.0)
            && (1..=MAX_OFFSET_UNITS).contains(&offset_units)
            && (1..=MAX_RECORD_UNITS).contains(&len_units);
        if !fits {
            return None;
        }
        NonZeroU64::new(segment.0 << 24 | u64::from(offset_units) << 8 | u64::from(len_units)).map(Self)
    }

    /// Takes a packed place as found in a map or on disk; `None` where a part of it cannot be.
    #[must_use]
    pub fn from_word(word: u64) -> Option<Self> {
        Self::new(
            SegmentId(word >> 24),
            (word >> 8) as u32 & MAX_OFFSET_UNITS,
            word as u32 & MAX_RECORD_UNITS,
        )
    }

    /// The packed place.
    #[must_use]
    pub const fn word(self) -> NonZeroU64 {
        self.0
    }

    /// The segment that holds the record.
    #[must_use]
    pub const fn segment(self) -> SegmentId {
        SegmentId(self.0.get() >> 24)
    }

    /// Where the record begins in its segment, in units of 512 bytes; never 0, where the header is.
    #[must_use]
    pub const fn offset_units(self) -> u32 {
        (self.0.get() >> 8) as u32 & MAX_OFFSET_UNITS
    }

    /// How long the record is, in units of 512 bytes.
    #[must_use]
    pub const fn len_units(self) -> u32 {
        self.0.get() as u32 & MAX_RECORD_UNITS
    }

    /// Where the record begins in its segment, in bytes.
    #[must_use]
    pub const fn offset_bytes(self) -> u64 {
        self.offset_units() as u64 * UNIT_BYTES
    }

    /// How long the record is with header and padding, in bytes.
    #[must_use]
    pub const fn len_bytes(self) -> usize {
        self.len_units() as usize * UNIT_BYTES as usize
    }
}

impl TryFrom<NonZeroU64> for Place {
    type Error = NonZeroU64;

    fn try_from(word: NonZeroU64) -> Result<Self, NonZeroU64> {
        Self::from_word(word.get()).ok_or(word)
    }
}

impl From<Place> for NonZeroU64 {
    fn from(place: Place) -> Self {
        place.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (offset, len) = (self.offset_bytes(), self.len_bytes());
        write!(f, "segments/{:016x} at {offset}, {len} bytes", self.segment().0)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_read_back(segment in 1..=MAX_SEGMENT, offset in 1..=MAX_OFFSET_UNITS, len in 1..=MAX_RECORD_UNITS) {
            let place = Place::new(SegmentId(segment), offset, len).unwrap();
            prop_assert_eq!((place.segment().0, place.offset_units(), place.len_units()), (segment, offset, len));
            prop_assert_eq!(Place::from_word(place.word().get()), Some(place));
        }

        #[test]
        fn any_word_is_a_place_or_none(word: u64) {
            if let Some(place) = Place::from_word(word) {
                prop_assert_eq!(place.word().get(), word);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(Place::new(SegmentId(0), 1, 1), None);
        assert_eq!(Place::new(SegmentId(1 << 40), 1, 1), None);
        assert_eq!(Place::new(SegmentId(1), 0, 1), None);
        assert_eq!(Place::new(SegmentId(1), 1 << 16, 1), None);
        assert_eq!(Place::new(SegmentId(1), 1, 0), None);
        assert_eq!(Place::new(SegmentId(1), 1, 256), None);
    }
}
