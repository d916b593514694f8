//! What write-back asks of the map: a sealed layer's blocks, where each one's data is, and what follows
//! once they are on the capacity tier.

use std::num::NonZeroU64;
use std::sync::atomic::Ordering;

use forerun::change_vector::{Change, ChangeKind, ChangeVector};
use forerun::geometry::{BLOCK_BYTES, BlockIndex, SUB_BLOCKS_PER_BLOCK, SlotId, SubBlockMask};

use super::layers::LayerNumber;
use super::read::ReadPlan;
use super::slots::{ADDED, Below, Bits, CLEAN, CURRENT, NO_BLOCK, TOP};
use super::{Span, Volume};

/// One block of a sealed layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerBlock {
    /// What happened to which block.
    pub change: Change,
    /// The slot with its data; `None` for a deleted block.
    pub slot: Option<SlotId>,
}

impl Volume {
    /// The blocks of a sealed and drained layer, ascending. Looks at every slot once.
    pub fn layer_blocks(&self, layer: LayerNumber) -> Vec<LayerBlock> {
        let mut blocks: Vec<LayerBlock> = Vec::new();
        for (slot, record) in self.slots.iter() {
            if record.layer.load(Ordering::SeqCst) != layer.0 {
                continue;
            }
            let block = record.block.load(Ordering::SeqCst);
            let dirty = record.bits().dirty;
            // A slot whose every write failed changed nothing.
            if block == NO_BLOCK || dirty.is_empty() {
                continue;
            }
            let kind = if record.has(ADDED) { ChangeKind::Added } else { ChangeKind::Modified };
            let change = Change { block: BlockIndex(block), kind, sub_blocks: dirty.count() as u8 };
            blocks.push(LayerBlock { change, slot: Some(slot) });
        }
        blocks.sort_unstable_by_key(|entry| entry.change.block);
        let deleted: Vec<LayerBlock> = self
            .deleted_in(layer)
            .into_iter()
            .filter(|block| blocks.binary_search_by_key(block, |entry| entry.change.block).is_err())
            .map(|block| {
                let sub_blocks = SUB_BLOCKS_PER_BLOCK as u8;
                LayerBlock { change: Change { block, kind: ChangeKind::Deleted, sub_blocks }, slot: None }
            })
            .collect();
        blocks.extend(deleted);
        blocks.sort_unstable_by_key(|entry| entry.change.block);
        blocks
    }

    /// The change vector of a sealed and drained layer.
    ///
    /// # Errors
    /// Never for a sound map; the error says what is wrong with it.
    pub fn change_vector(
        &self,
        layer: LayerNumber,
        blocks: &[LayerBlock],
    ) -> Result<ChangeVector, forerun::change_vector::ChangeVectorError> {
        let (opened_us, sealed_us) = self.layers.with_info(layer, |info| (info.opened_us, info.sealed_us));
        let changes = blocks.iter().map(|entry| entry.change).collect();
        ChangeVector::new(self.layers.epoch(layer), opened_us, sealed_us, changes)
    }

    /// Where the whole of a block, as it was at the end of its layer's epoch, is to be read from.
    pub fn plan_layer_block(&self, block: BlockIndex, slot: SlotId) -> ReadPlan<'_> {
        let _shard = self.shard(block);
        self.plan_from(Below::Slot(slot), Span { block, start: 0, len: BLOCK_BYTES as u32 })
    }

    /// Takes note that a layer is on the capacity tier, durably: its slots are clean and what lies below
    /// them is not needed any more. `placed` are all its blocks with their places (`None`: deleted).
    ///
    /// The layer has to be the oldest live one.
    pub fn written_back_layer(
        &self,
        layer: LayerNumber,
        blocks: &[LayerBlock],
        placed: &[(BlockIndex, Option<NonZeroU64>)],
    ) {
        debug_assert_eq!(blocks.len(), placed.len(), "every block of the layer is placed or deleted");
        let epoch = self.layers.epoch(layer);
        self.written_back.store(epoch.0, Ordering::SeqCst);
        for (entry, (block, place)) in blocks.iter().zip(placed) {
            debug_assert_eq!(entry.change.block, *block);
            self.wait_for_the_log();
            let mut shard = self.shard(*block);
            self.places.set(*block, *place);
            if shard.deleted.get(block) == Some(&layer) {
                shard.deleted.remove(block);
            }
            if let Some(slot) = entry.slot {
                self.slot_became_clean(*block, slot);
            }
        }
        // Slots that were taken in the layer but never written.
        for (slot, record) in self.slots.iter() {
            if record.layer.load(Ordering::SeqCst) == layer.0 {
                let block = BlockIndex(record.block.load(Ordering::SeqCst));
                let _shard = self.shard(block);
                if record.block.load(Ordering::SeqCst) == block.0 {
                    self.drop_empty(block, slot);
                }
            }
        }
        self.forget_deleted(layer);
        let deletions = self.layers.with_info(layer, |info| info.deleted.len() as u64);
        self.deletions.fetch_sub(deletions, Ordering::Relaxed);
        self.layers.retire(layer);
    }

    /// Lets the journal catch up before a lock is taken under which deltas are appended: a checkpoint, which
    /// the journal may be waiting for, takes the same locks.
    fn wait_for_the_log(&self) {
        // Bounded: a journal that has failed for good never has room again, and then takes what it is given.
        for _ in 0..10_000 {
            if self.log.has_room() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
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
        }
    }
}
