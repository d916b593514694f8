//! The index: from a block to the slot that holds its newest data.
//!
//! A hash table of chains through the slot table: 4 bytes a slot for the heads, fixed at start. It is
//! changed only under the lock of the block's shard; it is read without any lock, and then may miss
//! a slot that is just being moved or name one that no longer is the block's. A reader without the
//! lock therefore pins what it found and looks again, and takes a miss to the lock.

use forerun::geometry::{BlockIndex, SlotId};

use super::slots::{NO_SLOT, SlotTable};
use crate::sync::atomic::{AtomicU32, Ordering};

/// A chain longer than this is left to the locked path: a reader without the lock may have strayed
/// into a chain that is being changed.
const CHAIN_MAX_UNLOCKED: u32 = 64;

pub(super) struct Index {
    heads: Box<[AtomicU32]>,
    shards: u32,
}

impl Index {
    /// An empty index for `slots` slots whose changes are guarded by `shards` locks.
    pub fn new(slots: u32, shards: u32) -> Self {
        assert!(slots > 0 && shards > 0, "a fast tier has slots");
        Self { heads: (0..slots).map(|_| AtomicU32::new(NO_SLOT)).collect(), shards }
    }

    fn head(&self, block: BlockIndex) -> usize {
        // Fibonacci hashing (Knuth, TAOCP 3, 6.4), then scaled to the number of heads.
        let hash = u64::from(block.0.wrapping_mul(0x9E37_79B1));
        ((hash * self.heads.len() as u64) >> 32) as usize
    }

    /// The shard whose lock guards the block and everything in its chain.
    pub fn shard(&self, block: BlockIndex) -> usize {
        (self.head(block) as u64 * u64::from(self.shards) / self.heads.len() as u64) as usize
    }

    #[allow(clippy::indexing_slicing, reason = "`head` is below the number of heads by construction")]
    fn head_word(&self, block: BlockIndex) -> &AtomicU32 {
        &self.heads[self.head(block)]
    }

    /// Finds the block's slot without a lock; to be verified, and `None` proves nothing.
    pub fn find_unlocked(&self, slots: &SlotTable, block: BlockIndex) -> Option<SlotId> {
        let mut slot = self.head_word(block).load(Ordering::Acquire);
        for _ in 0..CHAIN_MAX_UNLOCKED {
            if slot == NO_SLOT {
                return None;
            }
            let record = slots.at(SlotId(slot));
            if record.block.load(Ordering::Acquire) == block.0 {
                return Some(SlotId(slot));
            }
            slot = record.next.load(Ordering::Acquire);
        }
        None
    }

    /// Finds the block's slot; the caller holds the shard's lock.
    pub fn find(&self, slots: &SlotTable, block: BlockIndex) -> Option<SlotId> {
        let mut slot = self.head_word(block).load(Ordering::SeqCst);
        while slot != NO_SLOT {
            let record = slots.at(SlotId(slot));
            if record.block.load(Ordering::SeqCst) == block.0 {
                return Some(SlotId(slot));
            }
            slot = record.next.load(Ordering::SeqCst);
        }
        None
    }

    /// Puts a slot, whose block is set, at the front of its chain; the caller holds the shard's lock.
    pub fn insert(&self, slots: &SlotTable, block: BlockIndex, slot: SlotId) {
        let head = self.head_word(block);
        debug_assert_eq!(slots.at(slot).block.load(Ordering::SeqCst), block.0);
        slots.at(slot).next.store(head.load(Ordering::SeqCst), Ordering::SeqCst);
        head.store(slot.0, Ordering::SeqCst);
    }

    /// Takes a slot out of its chain; the caller holds the shard's lock.
    pub fn remove(&self, slots: &SlotTable, block: BlockIndex, slot: SlotId) {
        let mut word = self.head_word(block);
        loop {
            let at = word.load(Ordering::SeqCst);
            assert_ne!(at, NO_SLOT, "slot {slot} is not in the chain of block {block}");
            let record = slots.at(SlotId(at));
            if at == slot.0 {
                word.store(record.next.load(Ordering::SeqCst), Ordering::SeqCst);
                return;
            }
            word = &record.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_inserted_and_not_what_was_removed() {
        let slots = SlotTable::new(100);
        let index = Index::new(100, 8);
        for n in 0..100 {
            slots.at(SlotId(n)).block.store(n * 977, Ordering::SeqCst);
            index.insert(&slots, BlockIndex(n * 977), SlotId(n));
        }
        for n in (0..100).step_by(3) {
            index.remove(&slots, BlockIndex(n * 977), SlotId(n));
        }
        for n in 0..100 {
            let expected = (n % 3 != 0).then_some(SlotId(n));
            assert_eq!(index.find(&slots, BlockIndex(n * 977)), expected);
            assert_eq!(index.find_unlocked(&slots, BlockIndex(n * 977)), expected);
        }
    }

    #[test]
    fn blocks_of_one_chain_share_a_shard() {
        let index = Index::new(64, 8);
        let mut shard_of_head = std::collections::HashMap::new();
        for n in 0..10_000 {
            let block = BlockIndex(n);
            let shard = index.shard(block);
            assert!(shard < 8);
            assert_eq!(*shard_of_head.entry(index.head(block)).or_insert(shard), shard);
        }
    }
}
