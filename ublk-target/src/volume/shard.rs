//! What the lock of a shard guards beside the index's chains: blocks in some special state.
//!
//! Each table holds an entry only while the state lasts, so an idle shard holds nothing.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use forerun::geometry::{BlockIndex, SlotId, SubBlockMask};

use super::layers::LayerNumber;

/// A table keyed by block.
type BlockTable<V> = HashMap<BlockIndex, V, BuildHasherDefault<BlockHasher>>;

/// Hashes a block's number by one multiplication.
///
/// The default hasher, which withstands chosen keys, costs more than the rest of planning a write; the one who
/// chooses the keys here is the volume's own user. The constant is not the index's: all blocks of a
/// shard have the same high bits there.
#[derive(Default)]
pub(super) struct BlockHasher(u64);

impl Hasher for BlockHasher {
    fn write_u32(&mut self, number: u32) {
        let product = (self.0 ^ u64::from(number)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        self.0 = product ^ product >> 32;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Default)]
pub(super) struct Shard {
    /// Sub-blocks that writes in flight will make valid. Others that touch them wait.
    pub writing: BlockTable<SubBlockMask>,
    /// Blocks that were deleted in a live layer, with the newest such layer. Says nothing while the
    /// block has a slot; without one, the block reads as zeros whatever its place.
    pub deleted: BlockTable<LayerNumber>,
    /// Slots held for blocks that are expected to be written.
    pub reserved: BlockTable<SlotId>,
}
