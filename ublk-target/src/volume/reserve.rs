//! Reservations: slots set aside for blocks that are expected to be written.
//!
//! This is all that a prediction can do to the map. A reservation never changes what is read.

use forerun::geometry::{BlockIndex, SlotId, SubBlockMask};

use super::Volume;
use super::slots::{Bits, CLEAN, NO_BLOCK};
use crate::sync::atomic::Ordering;

/// What became of a wish to reserve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reservation {
    /// A slot is held for the block.
    Made,
    /// The block needs none: it has one, or was written in the open epoch already.
    NotNeeded,
    /// Too few slots are free.
    NoRoom,
}

impl Volume {
    /// Holds a slot for a block's next redirect, unless no more than `keep_free` slots are free.
    pub fn reserve(&self, block: BlockIndex, keep_free: u32) -> Reservation {
        if block.0 >= self.geometry().blocks() {
            return Reservation::NotNeeded;
        }
        let mut shard = self.shard(block);
        if shard.reserved.contains_key(&block) {
            return Reservation::NotNeeded;
        }
        let open = self.layers.open();
        let written = self
            .index
            .find(&self.slots, block)
            .is_some_and(|slot| self.slots.at(slot).layer.load(Ordering::SeqCst) == open.0);
        if written {
            return Reservation::NotNeeded;
        }
        if self.allocator.free() <= keep_free {
            return Reservation::NoRoom;
        }
        let Some(slot) = self.allocator.take(&self.slots) else { return Reservation::NoRoom };
        let record = self.slots.at(slot);
        debug_assert_eq!(record.block.load(Ordering::SeqCst), NO_BLOCK);
        debug_assert_eq!(record.bits(), Bits::default());
        shard.reserved.insert(block, slot);
        self.reserved.fetch_add(1, Ordering::Relaxed);
        self.stats.reservations_made.add(1);
        Reservation::Made
    }

    /// Gives a block's reservation back; false where it has none (any more).
    pub fn give_back_reservation(&self, block: BlockIndex) -> bool {
        let Some(slot) = self.shard(block).reserved.remove(&block) else { return false };
        self.reserved.fetch_sub(1, Ordering::Relaxed);
        self.stats.reservations_wasted.add(1);
        self.give_back_slot(slot);
        true
    }

    fn give_back_slot(&self, slot: SlotId) {
        self.allocator.give(&self.slots, slot);
        self.room.wake_all();
    }
}

impl Volume {
    /// Whether a slot is held for the block.
    pub fn is_reserved(&self, block: BlockIndex) -> bool {
        self.shard(block).reserved.contains_key(&block)
    }

    /// Whether the block has data that the capacity tier alone holds: it has no slot, or a clean one with gaps.
    pub fn is_incomplete(&self, block: BlockIndex) -> bool {
        if block.0 >= self.geometry().blocks() {
            return false;
        }
        let shard = self.shard(block);
        match self.index.find(&self.slots, block) {
            Some(slot) => {
                let record = self.slots.at(slot);
                record.layer.load(Ordering::SeqCst) == CLEAN && record.bits().valid != SubBlockMask::FULL
            }
            None => !shard.deleted.contains_key(&block) && self.places.get(block).is_some(),
        }
    }
}
