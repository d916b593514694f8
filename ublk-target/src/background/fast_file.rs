//! The fast tier's slots, over the background thread's own ring.

use std::io;

use forerun::geometry::SlotId;

use super::world::Slots;
use crate::aligned::AlignedBuffer;

/// The fast tier's file. The file description is the one that holds the tier's lock.
pub(super) struct FastFile {
    file: tokio_uring::fs::File,
    slots_offset: u64,
}

impl FastFile {
    pub fn new(file: std::fs::File, slots_offset: u64) -> Self {
        Self { file: tokio_uring::fs::File::from_std(file), slots_offset }
    }

    const fn at(&self, slot: SlotId, start: u32) -> u64 {
        self.slots_offset + slot.offset_bytes() + start as u64
    }
}

impl Slots for FastFile {
    async fn read(&self, slot: SlotId, start: u32, len: u32) -> io::Result<AlignedBuffer> {
        let buffer = AlignedBuffer::zeroed(len as usize);
        let (read, buffer) = self.file.read_exact_at(buffer, self.at(slot, start)).await;
        read.map(|()| buffer)
    }

    async fn write(&self, slot: SlotId, start: u32, buffer: AlignedBuffer) -> io::Result<()> {
        self.file.write_all_at(buffer, self.at(slot, start)).await.0
    }
}
