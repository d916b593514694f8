//! Forgetting a block: a tombstone in the open layer, and its slot given back.
//!
//! A whole block only. What the block held before this epoch stays where it is until its layer is
//! written back, since snapshots may keep it.

use forerun::geometry::{BlockIndex, SlotId};

use super::Volume;
use super::layers::LayerNumber;
use super::slots::{ADDED, Below, CLEAN, CURRENT, NO_BLOCK, QUEUED, TOP};
use super::write::NotYet;
use crate::fast_tier::delta::Delta;
use crate::sync::atomic::Ordering;

impl Volume {
    /// Makes a whole block read as zeros, and notes it as deleted if it held something when the epoch began.
    ///
    /// # Errors
    /// [`NotYet`] where it has to wait; nothing has changed then. With [`NotYet::LogFailed`] it may have changed, and
    /// must not be acknowledged.
    pub fn discard(&self, lane: usize, block: BlockIndex) -> Result<(), NotYet> {
        let mut shard = self.shard(block);
        if shard.writing.contains_key(&block) {
            return Err(NotYet::Busy);
        }
        self.check_log()?;
        if self.live_deletions() >= u64::from(self.slots.len()) {
            return Err(NotYet::NoRoom);
        }
        let joined = self.join(lane);
        let layer = joined.layer();
        let newest = self.index.find(&self.slots, block);
        let was_there = match newest {
            Some(slot) => {
                let record = self.slots.at(slot);
                !(record.layer.load(Ordering::SeqCst) == layer.0 && record.has(ADDED))
            }
            None if shard.deleted.contains_key(&block) => return Ok(()),
            None if self.places.get(block).is_none() => return Ok(()),
            None => true,
        };
        // The tombstone goes first: if a crash keeps it alone, the slot of the same epoch still wins over it, where
        // the slot's end alone would bring back what the block held before this epoch.
        if was_there {
            shard.deleted.insert(block, layer);
            self.deletions.fetch_add(1, Ordering::Relaxed);
            self.layers.with_info(layer, |info| info.deleted.push(block));
            self.log.append(&Delta::Deleted { block, epoch: self.layers.epoch(layer) });
        }
        if let Some(slot) = newest {
            self.leave_to_its_layer(block, slot, layer);
        }
        self.mapped.fetch_sub(1, Ordering::Relaxed);
        if self.log.has_failed() { Err(NotYet::LogFailed) } else { Ok(()) }
    }

    /// Takes a deleted block's newest slot out of sight; the caller holds the shard's lock.
    fn leave_to_its_layer(&self, block: BlockIndex, slot: SlotId, open: LayerNumber) {
        let record = self.slots.at(slot);
        record.clear(CURRENT);
        self.index.remove(&self.slots, block, slot);
        let of = record.layer.load(Ordering::SeqCst);
        if of == open.0 || of == CLEAN {
            let below = record.below();
            self.free(slot);
            self.free_clean(below);
        } else {
            // It stays, with what is below it, until its layer is written back.
            record.set(TOP);
        }
    }

    /// Gives up a slot that nothing points at any more; the caller holds the shard's lock.
    pub(super) fn free(&self, slot: SlotId) {
        let record = self.slots.at(slot);
        debug_assert!(!record.has(CURRENT), "a slot leaves the index before it is freed");
        // The block's number goes last: eviction takes its absence as 'freed, and in the log'.
        let queued = record.flags.fetch_and(QUEUED, Ordering::SeqCst) & QUEUED != 0;
        record.layer.store(CLEAN, Ordering::SeqCst);
        record.set_bits(super::slots::Bits::default());
        record.set_below(Below::Place);
        let freed = self.log.append(&Delta::Free(slot));
        record.block.store(NO_BLOCK, Ordering::SeqCst);
        // A slot in an eviction queue is linked there; eviction finds it empty and gives it back.
        if !queued {
            self.allocator.retire(slot, freed);
        }
    }

    /// Frees the clean slots from `below` down: what is under a clean slot is clean. A slot of a sealed
    /// layer stays for its write-back, with nothing above it.
    fn free_clean(&self, below: Below) {
        let mut from = below;
        while let Below::Slot(slot) = from {
            let record = self.slots.at(slot);
            if record.layer.load(Ordering::SeqCst) != CLEAN {
                record.set(TOP);
                break;
            }
            from = record.below();
            self.free(slot);
        }
    }
}
