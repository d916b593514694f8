//! Where everything is on a fast tier.
//!
//! ```text
//! 0         4 KiB                                              64 KiB aligned
//! | superblock A | journal ring | checkpoint A | checkpoint B | slot 0 | slot 1 | ... | superblock B |
//!                                                                                      last 4 KiB
//! ```
//!
//! A tier that has grown keeps its slots where they are, and has larger checkpoint areas behind them:
//!
//! ```text
//! | superblock A | journal ring | (unused) | slot 0 | ... | slot n | ... | checkpoint A | checkpoint B | superblock B |
//! ```
//!
//! Each checkpoint area has room for the worst case: every slot in use, [`Layout::deletions_max`]
//! deletions and [`LAYERS_MAX`] sealed and named epochs. The areas' sizes are written in the
//! superblock, so a later version may size them otherwise.

use forerun::geometry::BLOCK_BYTES;

use super::delta::DELTA_BYTES_MAX;
use super::error::FastTierError;
use super::page::{PAGE_BYTES, PAYLOAD_BYTES};

/// The smallest journal, in bytes, of a tier of 64 MiB.
pub const JOURNAL_BYTES_MIN: u64 = 4 << 20;
/// The largest journal, in bytes.
pub const JOURNAL_BYTES_MAX: u64 = 256 << 20;
/// The journal is at least this unless that were more than a sixteenth of the tier, in bytes.
const JOURNAL_BYTES_USUAL: u64 = 16 << 20;
/// Journal bytes for each slot.
const JOURNAL_BYTES_A_SLOT: u64 = 64;
/// The smallest fast tier, in bytes.
pub const TIER_BYTES_MIN: u64 = 64 << 20;
/// Slots of a tier, at most: slot numbers have 30 bits.
pub const SLOTS_MAX: u64 = 1 << 30;
/// Sealed epochs in a checkpoint, at most; the engine has fewer live layers.
pub const LAYERS_MAX: u64 = 128;
/// Deletions that a checkpoint has room for even on a small tier.
pub const DELETIONS_MIN: u64 = 16 * 1024;
/// Bytes of one commit's deltas, at most; less where the journal is small.
pub const BATCH_BYTES_MAX: u64 = 8 << 20;

/// Bytes of a delta that says what a slot holds.
pub(super) const HOLDS_BYTES: u64 = 18;
/// Bytes of a delta that says that a block was deleted.
const DELETED_BYTES: u64 = 9;
/// Bytes of a sealed epoch and its name.
const LAYER_BYTES: u64 = 25 + DELTA_BYTES_MAX as u64;

const PAGE: u64 = PAGE_BYTES as u64;

/// The areas of a fast tier; offsets and sizes in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The whole tier.
    pub tier_bytes: u64,
    /// Where the journal ring begins.
    pub journal_offset: u64,
    /// The journal ring's size.
    pub journal_bytes: u64,
    /// Where the two checkpoint areas begin.
    pub checkpoint_offsets: [u64; 2],
    /// The size of each checkpoint area, its header page included.
    pub checkpoint_bytes: u64,
    /// Where slot 0 begins; a multiple of 64 KiB.
    pub slots_offset: u64,
    /// How many slots there are.
    pub slots: u32,
}

impl Layout {
    /// Lays out a tier of `tier_bytes` bytes with as many slots as fit.
    ///
    /// # Errors
    /// The tier is too small.
    pub fn for_tier(tier_bytes: u64) -> Result<Self, FastTierError> {
        let too_small = FastTierError::TooSmall { size_bytes: tier_bytes, minimum_bytes: TIER_BYTES_MIN };
        if tier_bytes < TIER_BYTES_MIN {
            return Err(too_small);
        }
        let slots = tier_bytes / BLOCK_BYTES;
        let least = JOURNAL_BYTES_USUAL.min(tier_bytes / 16).max(JOURNAL_BYTES_MIN);
        let journal = (slots * JOURNAL_BYTES_A_SLOT).clamp(least, JOURNAL_BYTES_MAX);
        Self::with_journal(tier_bytes, journal).ok_or(too_small)
    }

    /// Lays out a tier with a journal of `journal_bytes` bytes; `None` where not one slot fits.
    #[must_use]
    pub fn with_journal(tier_bytes: u64, journal_bytes: u64) -> Option<Self> {
        let tier_bytes = tier_bytes / PAGE * PAGE;
        let journal_bytes = journal_bytes / PAGE * PAGE;
        // More slots make larger checkpoints; a few rounds find the most that fit.
        let mut slots = (tier_bytes / BLOCK_BYTES).min(SLOTS_MAX);
        while slots > 0 {
            let layout = Self::with_slots(tier_bytes, journal_bytes, slots);
            let room = tier_bytes.checked_sub(PAGE + layout.slots_offset)? / BLOCK_BYTES;
            if room >= slots {
                return Some(layout);
            }
            slots = room.max(slots.saturating_sub(64)).min(slots - 1);
        }
        None
    }

    /// The same tier on a device that has become larger: slots and journal stay where they are. The checkpoint areas lie behind
    /// all that is in use now, so that a crash while they are written leaves the tier as it was.
    ///
    /// # Errors
    /// Not one more slot fits behind it; the message says how large it has to be.
    pub fn grown_to(&self, tier_bytes: u64) -> Result<Self, FastTierError> {
        let tier_bytes = tier_bytes / PAGE * PAGE;
        // The rounds of `with_journal`, but for where the areas are.
        let mut slots = (tier_bytes.saturating_sub(self.slots_offset) / BLOCK_BYTES).min(SLOTS_MAX);
        while slots > u64::from(self.slots) {
            let grown = self.with_areas_behind(tier_bytes, slots);
            let [first, _] = grown.checkpoint_offsets;
            let room = first.saturating_sub(self.slots_offset) / BLOCK_BYTES;
            if room >= slots && first >= self.tier_bytes {
                return Ok(grown);
            }
            slots = room.max(slots.saturating_sub(64)).min(slots - 1);
        }
        let least = u64::from(self.slots) + 1;
        let areas = 2 * Self::checkpoint_bytes_for(least) + PAGE;
        // Also of as many slots as then fit the areas lie behind the old end.
        let minimum_bytes = (self.tier_bytes + areas + 8 * BLOCK_BYTES).next_multiple_of(BLOCK_BYTES);
        Err(FastTierError::GrowsTooLittle {
            now_bytes: self.tier_bytes,
            size_bytes: tier_bytes,
            minimum_bytes,
        })
    }

    fn with_areas_behind(&self, tier_bytes: u64, slots: u64) -> Self {
        let checkpoint_bytes = Self::checkpoint_bytes_for(slots);
        let second = tier_bytes.saturating_sub(PAGE + checkpoint_bytes);
        let first = second.saturating_sub(checkpoint_bytes);
        Self {
            tier_bytes,
            checkpoint_offsets: [first, second],
            checkpoint_bytes,
            slots: slots as u32,
            ..*self
        }
    }

    /// Whether the tier has grown since it was made.
    #[must_use]
    pub const fn has_grown(&self) -> bool {
        let [first, _] = self.checkpoint_offsets;
        first > self.slots_offset
    }

    fn checkpoint_bytes_for(slots: u64) -> u64 {
        let content =
            slots * HOLDS_BYTES + slots.max(DELETIONS_MIN) * DELETED_BYTES + LAYERS_MAX * LAYER_BYTES;
        // A delta does not span pages: the end of each page may stay empty.
        let pages = content.div_ceil((PAYLOAD_BYTES - DELTA_BYTES_MAX) as u64);
        (1 + pages) * PAGE
    }

    fn with_slots(tier_bytes: u64, journal_bytes: u64, slots: u64) -> Self {
        let checkpoint_bytes = Self::checkpoint_bytes_for(slots);
        let journal_offset = PAGE;
        let first = journal_offset + journal_bytes;
        let second = first + checkpoint_bytes;
        Self {
            tier_bytes,
            journal_offset,
            journal_bytes,
            checkpoint_offsets: [first, second],
            checkpoint_bytes,
            slots_offset: (second + checkpoint_bytes).next_multiple_of(BLOCK_BYTES),
            slots: slots as u32,
        }
    }

    /// Whether the areas lie in order, aligned, within the tier, and are of a usable size.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let [first, second] = self.checkpoint_offsets;
        let checkpoints = [(first, self.checkpoint_bytes), (second, self.checkpoint_bytes)];
        let slots = (self.slots_offset, u64::from(self.slots) * BLOCK_BYTES);
        let [third, fourth, fifth] = match (self.has_grown(), checkpoints) {
            (false, [a, b]) => [a, b, slots],
            (true, [a, b]) => [slots, a, b],
        };
        let journal = (self.journal_offset, self.journal_bytes);
        let areas = [(0, PAGE), journal, third, fourth, fifth, (self.superblock_offsets()[1], PAGE)];
        let mut end = 0;
        for (offset, bytes) in areas {
            let Some(after) = offset.checked_add(bytes) else { return false };
            if offset < end || offset % PAGE != 0 || bytes % PAGE != 0 || bytes == 0 {
                return false;
            }
            end = after;
        }
        end == self.tier_bytes
            && self.slots_offset.is_multiple_of(BLOCK_BYTES)
            && u64::from(self.slots) <= SLOTS_MAX
            && self.journal_bytes / PAGE >= 16
            && self.journal_bytes <= JOURNAL_BYTES_MAX
            && self.checkpoint_bytes / PAGE <= u64::from(u32::MAX)
    }

    /// Where the two superblocks are.
    #[must_use]
    pub const fn superblock_offsets(&self) -> [u64; 2] {
        [0, self.tier_bytes.saturating_sub(PAGE)]
    }

    /// Pages in the journal ring.
    #[must_use]
    pub const fn journal_pages(&self) -> u64 {
        self.journal_bytes / PAGE
    }

    /// Pages of content in a checkpoint area, its header left out.
    #[must_use]
    pub const fn checkpoint_pages(&self) -> u64 {
        (self.checkpoint_bytes / PAGE).saturating_sub(1)
    }

    /// The deletions that may be live (not yet on the capacity tier) at once; a checkpoint with more does
    /// not fit, so the engine seals and writes back before there are that many.
    #[must_use]
    pub fn deletions_max(&self) -> u64 {
        u64::from(self.slots).max(DELETIONS_MIN)
    }

    /// Bytes of deltas in one commit, at most: a commit takes no more than an eighth of the ring.
    #[must_use]
    pub fn batch_bytes(&self) -> u64 {
        let page = (PAYLOAD_BYTES - DELTA_BYTES_MAX) as u64;
        ((self.journal_pages() / 8) * page).min(BATCH_BYTES_MAX)
    }

    /// Pages of the longest commit.
    #[must_use]
    pub fn batch_pages(&self) -> u64 {
        self.batch_bytes().div_ceil((PAYLOAD_BYTES - DELTA_BYTES_MAX) as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn most_of_a_tier_is_slots() {
        for (tier, least) in [(64 << 20, 0.90), (256 << 20, 0.92), (1 << 30, 0.97), (1 << 40, 0.995)] {
            let layout = Layout::for_tier(tier).expect("large enough");
            assert!(layout.is_sound());
            let share = (f64::from(layout.slots) * BLOCK_BYTES as f64) / tier as f64;
            assert!(share > least, "{share} of {tier}");
        }
        assert!(Layout::for_tier(1 << 20).is_err());
    }

    #[test]
    fn a_tier_grows_by_little_as_well() {
        let layout = Layout::for_tier(64 << 20).expect("large enough");
        let refused = layout.grown_to((64 << 20) + 65536);
        let Err(FastTierError::GrowsTooLittle { minimum_bytes, .. }) = refused else {
            panic!("no room for larger areas: {refused:?}")
        };
        assert!(minimum_bytes < 66 << 20, "{minimum_bytes}");
        let grown = layout.grown_to(minimum_bytes).expect("as it was said");
        assert!(grown.is_sound() && grown.slots > layout.slots, "{grown:?}");
        assert!(layout.grown_to(64 << 20).is_err() && layout.grown_to(0).is_err());
    }

    proptest! {
        #[test]
        fn a_grown_tier_is_sound(
            tier in TIER_BYTES_MIN..(1u64 << 40),
            more in proptest::collection::vec(0u64..(1 << 40), 1..4),
        ) {
            let mut layout = Layout::for_tier(tier).expect("large enough");
            for more in more {
                let size = layout.tier_bytes + more;
                let grown = match layout.grown_to(size) {
                    Ok(grown) => grown,
                    Err(FastTierError::GrowsTooLittle { minimum_bytes, .. }) => {
                        prop_assert!(size < minimum_bytes);
                        let grown = layout.grown_to(minimum_bytes);
                        prop_assert!(grown.is_ok() || layout.slots == SLOTS_MAX as u32, "{grown:?}");
                        continue;
                    }
                    Err(other) => panic!("{other}"),
                };
                prop_assert!(grown.is_sound() && grown.has_grown(), "{grown:?}");
                prop_assert!(grown.checkpoint_offsets[0] >= layout.tier_bytes, "it would overwrite what is in use");
                prop_assert!(grown.slots > layout.slots && grown.slots_offset == layout.slots_offset);
                prop_assert_eq!(grown.journal_bytes, layout.journal_bytes);
                layout = grown;
            }
        }

        #[test]
        fn areas_never_overlap(tier in TIER_BYTES_MIN..(1u64 << 46)) {
            let layout = Layout::for_tier(tier).expect("large enough");
            prop_assert!(layout.is_sound(), "{layout:?}");
            prop_assert!(layout.batch_pages() * 8 <= layout.journal_pages());
            // Not one more slot would have fitted, but for what the rounds skip.
            let used = layout.slots_offset + u64::from(layout.slots) * BLOCK_BYTES;
            prop_assert!(u64::from(layout.slots) == SLOTS_MAX || layout.tier_bytes - used < 65 * BLOCK_BYTES);
        }
    }
}
