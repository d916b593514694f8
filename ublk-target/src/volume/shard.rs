//! What the lock of a shard guards beside the index's chains: blocks in some special state.
//!
//! Each table holds an entry only while the state lasts, so an idle shard holds nothing.

use std::collections::HashMap;

use forerun::geometry::{BlockIndex, SlotId, SubBlockMask};

use super::layers::LayerNumber;

#[derive(Default)]
pub(super) struct Shard {
    /// Sub-blocks that writes in flight will make valid. Others that touch them wait.
    pub writing: HashMap<BlockIndex, SubBlockMask>,
    /// Blocks that were deleted in a live layer, with the newest such layer. Says nothing while the
    /// block has a slot; without one, the block reads as zeros whatever its place.
    pub deleted: HashMap<BlockIndex, LayerNumber>,
    /// Slots held for blocks that are expected to be written.
    pub reserved: HashMap<BlockIndex, SlotId>,
}
