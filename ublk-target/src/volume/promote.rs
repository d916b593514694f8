//! Bringing data up: whole blocks that have no slot from the capacity tier, and what is missing in a clean
//! slot or in one of a sealed layer from what lies below it.
//!
//! Begin under the lock, copy without it, finish under it. Nobody else writes to the slot meanwhile: a new slot is
//! not in the index yet, and one that is not of the open layer is only written by a fill, one at a time a block.

use std::num::NonZeroU64;

use forerun::geometry::{BlockIndex, SlotId, SubBlockMask};

use super::Volume;
use super::layers::LayerNumber;
use super::slots::{Below, Bits, CLEAN, CURRENT, FREQUENCY, FREQUENCY_ONE, NO_BLOCK, PREFETCHED, Pin};
use crate::sync::atomic::Ordering;

/// A slot set aside for a block that is being fetched. Dropping it gives the slot back.
pub struct PromoteTicket<'a> {
    volume: &'a Volume,
    block: BlockIndex,
    place: NonZeroU64,
    slot: Option<SlotId>,
}

impl PromoteTicket<'_> {
    /// The slot to copy the whole block to.
    #[must_use]
    #[allow(clippy::expect_used, reason = "the slot is only taken out by `finish` and `drop`")]
    pub const fn slot(&self) -> SlotId {
        self.slot.expect("a ticket has its slot until it is finished")
    }

    /// Shows the copied block on the fast tier, if it still is what was copied; returns whether it is.
    pub fn finish(mut self, prefetched: bool) -> bool {
        let volume = self.volume;
        let block = self.block;
        let shard = volume.shard(block);
        let unchanged = volume.index.find(&volume.slots, block).is_none()
            && !shard.deleted.contains_key(&block)
            && volume.places.get(block) == Some(self.place);
        if !unchanged {
            return false;
        }
        let Some(slot) = self.slot.take() else { return false };
        let record = volume.slots.at(slot);
        record.set_bits(Bits { valid: SubBlockMask::FULL, dirty: SubBlockMask::EMPTY });
        record.set_below(Below::Place);
        record.layer.store(CLEAN, Ordering::SeqCst);
        record.block.store(block.0, Ordering::SeqCst);
        let ahead = if prefetched { PREFETCHED } else { 0 };
        record.flags.store(CURRENT | ahead | FREQUENCY_ONE, Ordering::SeqCst);
        volume.index.insert(&volume.slots, block, slot);
        volume.log_holds(slot, block, volume.written_back());
        volume.queue_clean(slot);
        drop(shard);
        true
    }
}

impl Drop for PromoteTicket<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            // Nothing ever pointed at it: it can be used again at once.
            self.volume.allocator.give(&self.volume.slots, slot);
            self.volume.room.wake_all();
        }
    }
}

/// A slot whose missing sub-blocks are being fetched.
pub struct FillTicket<'a> {
    volume: &'a Volume,
    block: BlockIndex,
    pin: Pin<'a>,
    layer: u8,
    missing: SubBlockMask,
}

impl FillTicket<'_> {
    /// The slot to complete.
    #[must_use]
    pub const fn slot(&self) -> SlotId {
        self.pin.slot()
    }

    /// The sub-blocks to copy to it.
    #[must_use]
    pub const fn missing(&self) -> SubBlockMask {
        self.missing
    }

    /// Makes what was copied readable, if the slot still holds the block's data of the same layer.
    pub fn finish(self) -> bool {
        let volume = self.volume;
        let _shard = volume.shard(self.block);
        let record = volume.slots.at(self.slot());
        let unchanged = record.block.load(Ordering::SeqCst) == self.block.0
            && record.layer.load(Ordering::SeqCst) == self.layer;
        if unchanged {
            let bits = record.bits();
            record.set_bits(Bits { valid: bits.valid.union(self.missing), dirty: bits.dirty });
            let epoch = match self.layer {
                CLEAN => volume.written_back(),
                layer => volume.layers.epoch(LayerNumber(layer)),
            };
            volume.log_holds(self.slot(), self.block, epoch);
        }
        unchanged
    }
}

impl Volume {
    /// Takes a slot for a block that lies on the capacity tier only, at `place`, where it was read. `None`
    /// where the block has a slot or has moved on, or where no more than `keep_free` slots are free.
    pub fn begin_promote(
        &self,
        block: BlockIndex,
        place: NonZeroU64,
        keep_free: u32,
    ) -> Option<PromoteTicket<'_>> {
        if self.allocator.free() <= keep_free || !self.log_has_room() {
            return None;
        }
        let shard = self.shard(block);
        if shard.deleted.contains_key(&block) || self.index.find(&self.slots, block).is_some() {
            return None;
        }
        if self.places.get(block) != Some(place) {
            return None;
        }
        let slot = self.allocator.take(&self.slots)?;
        debug_assert_eq!(self.slots.at(slot).block.load(Ordering::SeqCst), NO_BLOCK);
        Some(PromoteTicket { volume: self, block, place, slot: Some(slot) })
    }

    /// Begins to complete the block's newest slot, if that is clean and not complete, with what was read at
    /// `place`. Only the background thread fills.
    pub fn begin_fill(&self, block: BlockIndex, place: NonZeroU64) -> Option<FillTicket<'_>> {
        if !self.log_has_room() {
            return None;
        }
        let _shard = self.shard(block);
        let slot = self.index.find(&self.slots, block)?;
        let record = self.slots.at(slot);
        let missing = SubBlockMask::FULL.minus(record.bits().valid);
        let clean = record.layer.load(Ordering::SeqCst) == CLEAN;
        if !clean || missing.is_empty() || self.places.get(block) != Some(place) {
            return None;
        }
        Some(FillTicket { volume: self, block, pin: self.slots.pin(slot), layer: CLEAN, missing })
    }

    /// Begins to complete a slot of a sealed and drained layer with what lies below it, which write-back has just read.
    ///
    /// `None` where that would not pay: the block has moved on, or nothing of it but this write was on the fast tier or
    /// asked for again. (What was there must stay there: a block of which a part is overwritten in each epoch would
    /// otherwise lose all the rest of it to the capacity tier.)
    pub fn begin_fill_sealed(&self, block: BlockIndex, slot: SlotId) -> Option<FillTicket<'_>> {
        if !self.log_has_room() {
            return None;
        }
        let _shard = self.shard(block);
        let record = self.slots.at(slot);
        let missing = SubBlockMask::FULL.minus(record.bits().valid);
        let layer = record.layer.load(Ordering::SeqCst);
        if !record.is_current(block) || missing.is_empty() || layer == CLEAN || layer == self.layers.open().0
        {
            return None;
        }
        let was_here = matches!(record.below(), Below::Slot(_));
        let asked_for_again = record.flags.load(Ordering::SeqCst) & FREQUENCY > FREQUENCY_ONE;
        let ticket = FillTicket { volume: self, block, pin: self.slots.pin(slot), layer, missing };
        (was_here || asked_for_again).then_some(ticket)
    }
}
