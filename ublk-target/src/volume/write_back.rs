//! What write-back asks of the map: a sealed layer's blocks, where each one's data is, and what follows
//! once they are on the capacity tier.
//!
//! What follows is done block by block, so that the background thread can do other things in between, and a
//! checkpoint may be taken anywhere in it. Only when all are done does the map say that the epoch is written back:
//! until then a clean slot that a checkpoint tells is told as of the epoch before, and loses against the layer's own.

use std::num::NonZeroU64;

use forerun::change_vector::{Change, ChangeKind, ChangeVector, ChangeVectorError};
use forerun::geometry::{BLOCK_BYTES, BlockIndex, SUB_BLOCKS_PER_BLOCK, SlotId, SubBlockMask};

use super::layers::LayerNumber;
use super::read::ReadPlan;
use super::slots::{ADDED, Below, Bits, CLEAN, CURRENT, NO_BLOCK, TOP};
use super::write::NotYet;
use super::{Span, Volume};
use crate::sync::atomic::Ordering;

/// One block of a sealed layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerBlock {
    /// What happened to which block.
    pub change: Change,
    /// The slot with its data; `None` for a deleted block.
    pub slot: Option<SlotId>,
}

/// What a sealed and drained layer consists of.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LayerContent {
    /// Its blocks, ascending.
    pub blocks: Vec<LayerBlock>,
    /// Slots that were taken in it and never written: every write failed.
    empty: Vec<SlotId>,
}

impl Volume {
    /// What a sealed and drained layer consists of. Looks at every slot once.
    pub fn layer_content(&self, layer: LayerNumber) -> LayerContent {
        // Whether it has drained cannot be asserted: a write that found it open counts itself on it for a moment, sees that
        // it is not any more, and goes to the next one (`Layers::join`).
        debug_assert!(layer != self.layers.open(), "a layer that still changes");
        let mut content = LayerContent::default();
        for (slot, record) in self.slots.iter() {
            if record.layer.load(Ordering::SeqCst) != layer.0 {
                continue;
            }
            let block = record.block.load(Ordering::SeqCst);
            let dirty = record.bits().dirty;
            if block == NO_BLOCK {
                continue;
            }
            if dirty.is_empty() {
                content.empty.push(slot);
                continue;
            }
            let kind = if record.has(ADDED) { ChangeKind::Added } else { ChangeKind::Modified };
            let change = Change { block: BlockIndex(block), kind, sub_blocks: dirty.count() as u8 };
            content.blocks.push(LayerBlock { change, slot: Some(slot) });
        }
        let blocks = &mut content.blocks;
        blocks.sort_unstable_by_key(|entry| entry.change.block);
        let mut deleted = self.deleted_in(layer);
        deleted.retain(|block| blocks.binary_search_by_key(block, |entry| entry.change.block).is_err());
        blocks.extend(deleted.into_iter().map(|block| {
            let sub_blocks = SUB_BLOCKS_PER_BLOCK as u8;
            LayerBlock { change: Change { block, kind: ChangeKind::Deleted, sub_blocks }, slot: None }
        }));
        blocks.sort_unstable_by_key(|entry| entry.change.block);
        content
    }

    /// The change vector of a sealed and drained layer.
    ///
    /// # Errors
    /// Never for a sound map; the error says what is wrong with it.
    pub fn change_vector(
        &self,
        layer: LayerNumber,
        blocks: &[LayerBlock],
    ) -> Result<ChangeVector, ChangeVectorError> {
        let (opened_us, sealed_us) = self.layers.with_info(layer, |info| (info.opened_us, info.sealed_us));
        let changes = blocks.iter().map(|entry| entry.change).collect();
        ChangeVector::new(self.layers.epoch(layer), opened_us, sealed_us, changes)
    }

    /// Where the whole of a block, as it was at the end of its layer's epoch, is to be read from.
    pub fn plan_layer_block(&self, block: BlockIndex, slot: SlotId) -> ReadPlan<'_> {
        let _shard = self.shard(block);
        self.plan_from(Below::Slot(slot), Span { block, start: 0, len: BLOCK_BYTES as u32 })
    }

    /// Takes note that a block of a layer, which the capacity tier holds durably, is at `place` there (`None`: deleted):
    /// its slot is clean, and what lies below it is not needed any more.
    ///
    /// # Errors
    /// The log has to catch up first; nothing has changed then. A log that has failed is not waited for: what it
    /// does not take, a recovery finds out from the capacity tier.
    pub fn block_written_back(
        &self,
        layer: LayerNumber,
        entry: &LayerBlock,
        place: Option<NonZeroU64>,
    ) -> Result<(), NotYet> {
        self.check_log_or_failed()?;
        let block = entry.change.block;
        debug_assert_eq!(place.is_some(), entry.slot.is_some(), "what is not deleted has a place");
        let mut shard = self.shard(block);
        self.places.set(block, place);
        if shard.deleted.get(&block) == Some(&layer) {
            shard.deleted.remove(&block);
        }
        if let Some(slot) = entry.slot {
            self.slot_became_clean(block, slot);
        }
        Ok(())
    }

    /// Takes note that the layer, the oldest live one, is written back, after all its blocks are.
    ///
    /// # Errors
    /// The log has to catch up first; to be called again then.
    pub fn layer_written_back(&self, layer: LayerNumber, content: &LayerContent) -> Result<(), NotYet> {
        for slot in &content.empty {
            let record = self.slots.at(*slot);
            let block = BlockIndex(record.block.load(Ordering::SeqCst));
            if record.layer.load(Ordering::SeqCst) != layer.0 || block.0 == NO_BLOCK {
                continue;
            }
            self.check_log_or_failed()?;
            let _shard = self.shard(block);
            self.drop_empty(block, *slot);
        }
        self.forget_deleted(layer);
        let deletions = self.layers.with_info(layer, |info| info.deleted.len() as u64);
        self.deletions.fetch_sub(deletions, Ordering::Relaxed);
        self.written_back.store(self.layers.epoch(layer).0, Ordering::SeqCst);
        self.layers.retire(layer);
        Ok(())
    }

    /// A checkpoint, which the journal may be waiting for, takes the locks under which deltas are appended: so the log
    /// is looked at before such a lock is taken.
    fn check_log_or_failed(&self) -> Result<(), NotYet> {
        match self.check_log() {
            Err(NotYet::LogFailed) => Ok(()),
            other => other,
        }
    }

    /// A deletion may have been followed by a write in the same epoch; its mark goes with its layer.
    fn forget_deleted(&self, layer: LayerNumber) {
        for block in self.deleted_in(layer) {
            let mut shard = self.shard(block);
            if shard.deleted.get(&block) == Some(&layer) {
                shard.deleted.remove(&block);
            }
        }
    }

    /// The caller holds the shard's lock.
    fn slot_became_clean(&self, block: BlockIndex, slot: SlotId) {
        let record = self.slots.at(slot);
        debug_assert_eq!(record.block.load(Ordering::SeqCst), block.0);
        let below = record.below();
        record.set_below(Below::Place);
        self.free_below(below);
        record.set_bits(Bits { valid: record.bits().valid, dirty: SubBlockMask::EMPTY });
        record.layer.store(CLEAN, Ordering::SeqCst);
        if record.has(CURRENT) || self.slot_above(block, slot).is_some() {
            self.queue_clean(slot);
        } else if record.has(TOP) {
            self.free(slot);
        }
        // Else it lies below a slot of a later layer that the index does not lead to any more, and goes
        // when that layer is written back.
    }

    /// Frees everything from `below` down: it is older than what has just been written back.
    fn free_below(&self, below: Below) {
        let mut from = below;
        while let Below::Slot(slot) = from {
            let record = self.slots.at(slot);
            debug_assert_eq!(
                record.layer.load(Ordering::SeqCst),
                CLEAN,
                "older layers were written back before"
            );
            from = record.below();
            self.free(slot);
        }
    }

    /// Takes a slot without any valid sub-block out of its chain; the caller holds the shard's lock.
    fn drop_empty(&self, block: BlockIndex, slot: SlotId) {
        let record = self.slots.at(slot);
        let below = record.below();
        if record.has(CURRENT) {
            record.clear(CURRENT);
            self.index.remove(&self.slots, block, slot);
            match below {
                Below::Slot(older) => {
                    self.slots.at(older).set(CURRENT);
                    self.index.insert(&self.slots, block, older);
                }
                Below::Place if self.places.get(block).is_some() => {}
                Below::Place | Below::Zero => {
                    self.mapped.fetch_sub(1, Ordering::Relaxed);
                }
            }
        } else if let Some(above) = self.slot_above(block, slot) {
            self.slots.at(above).set_below(below);
        } else {
            // Not reachable from the index: all older layers are written back, so it is a clean slot
            // like others, only with nothing in it.
            self.slot_became_clean(block, slot);
            return;
        }
        self.free(slot);
    }
}

impl Volume {
    /// Follows a block's record to its new place, if the block's place still is the old one.
    pub fn relocated(&self, block: BlockIndex, from: NonZeroU64, to: NonZeroU64) {
        let _shard = self.shard(block);
        if self.places.get(block) == Some(from) {
            self.places.set(block, Some(to));
            self.stats.followed.add(1);
        }
    }
}
