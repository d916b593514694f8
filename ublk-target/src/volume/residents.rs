//! What lies where, for whoever fills the fast tier or remembers what was on it. No request waits for any of this, and
//! what it tells may be over a moment later.

use std::ops::Range;

use forerun::geometry::{BlockIndex, SlotId};

use super::Volume;
use super::slots::{CURRENT, FREQUENCY, FREQUENCY_ONE, NO_BLOCK, PREFETCHED};
use crate::sync::atomic::Ordering;

impl Volume {
    /// The blocks in a range of slots that somebody has asked for, with how often of late: 0 to 3.
    pub fn residents(&self, slots: Range<u32>) -> impl Iterator<Item = (BlockIndex, u8)> + '_ {
        (slots.start..slots.end.min(self.slot_count())).filter_map(|slot| {
            let record = self.slots.at(SlotId(slot));
            let flags = record.flags.load(Ordering::SeqCst);
            let block = record.block.load(Ordering::SeqCst);
            let asked_for = flags & CURRENT != 0 && flags & PREFETCHED == 0 && block != NO_BLOCK;
            asked_for.then_some((BlockIndex(block), (flags & FREQUENCY) / FREQUENCY_ONE))
        })
    }

    /// How many blocks have a place on the capacity tier.
    pub fn placed_blocks(&self) -> u64 {
        self.places.len()
    }

    /// The blocks of a region of the volume that have a place on the capacity tier, ascending; `None` beyond the last
    /// region, of 256 MiB each.
    pub fn placed_in(&self, region: usize) -> Option<Vec<BlockIndex>> {
        self.places.in_region(region)
    }
}
