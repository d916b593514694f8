//! What the background works with: the real tiers, or simulated ones.

use std::io;

use forerun::geometry::SlotId;

use super::fast_file::FastFile;
use crate::aligned::AlignedBuffer;
use crate::capacity_tier::{AnyStore, Store};

/// The two tiers.
pub(crate) trait World: 'static {
    /// Where the capacity tier's objects are.
    type Store: Store;
    /// The fast tier's slots.
    type Slots: Slots;
}

/// The fast tier's slots, as one thread reads and writes them.
pub(crate) trait Slots: 'static {
    /// Reads `len` bytes at `start` of a slot.
    async fn read(&self, slot: SlotId, start: u32, len: u32) -> io::Result<AlignedBuffer>;
    /// Writes a buffer at `start` of a slot.
    async fn write(&self, slot: SlotId, start: u32, buffer: AlignedBuffer) -> io::Result<()>;
}

/// What the configuration names, and a file, over tokio-uring.
pub(super) enum Real {}

impl World for Real {
    type Store = AnyStore;
    type Slots = FastFile;
}
