//! A request's data and I/O over the world's tiers in memory.

use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use forerun::geometry::{BLOCK_BYTES, BlockIndex, SlotId};
use forerun_interleavings::aligned::AlignedBuffer;
use forerun_interleavings::request::{Request, RequestIo};
use forerun_interleavings::volume::Flushes;
use forerun_interleavings::volume::handle::Services;

use crate::world::{CELL_BYTES, CELLS, Cells, World, cells, held};

/// What requests ask of other threads.
impl Services for World {
    async fn fetch(&self, block: BlockIndex, place: NonZeroU64) -> io::Result<Arc<AlignedBuffer>> {
        self.step();
        let mut whole = AlignedBuffer::zeroed(BLOCK_BYTES as usize);
        let parts = whole.chunks_mut(CELL_BYTES as usize);
        parts.zip(self.record(block, place)).for_each(|(cell, value)| set(cell, value));
        Ok(Arc::new(whole))
    }

    async fn commit(&self) -> io::Result<()> {
        self.log.make_durable();
        Ok(())
    }

    fn flushes(&self) -> &Flushes {
        &self.flushes
    }

    fn flush_failed(&self, error: &io::Error) {
        panic!("nothing fails here: {error}");
    }

    fn fast_tier_failed(&self, operation: &'static str, block: BlockIndex, error: &io::Error) {
        panic!("nothing fails here: {operation} of block {block}: {error}");
    }

    fn need_room(&self) {}
}

fn set(cell: &mut [u8], value: u64) {
    cell[..8].copy_from_slice(&value.to_le_bytes());
}

fn get(cell: &[u8]) -> u64 {
    u64::from_le_bytes(cell[..8].try_into().expect("eight bytes"))
}

/// A request's data, which begins at `start` of its block.
pub struct Data<'a> {
    world: &'a World,
    block: BlockIndex,
    start: u32,
    values: Mutex<Cells>,
}

impl<'a> Data<'a> {
    /// Data that is `value` in each cell.
    pub fn new(world: &'a World, request: Request, value: u64) -> Self {
        let block = BlockIndex((request.offset_bytes / BLOCK_BYTES) as u32);
        let start = (request.offset_bytes % BLOCK_BYTES) as u32;
        Self { world, block, start, values: Mutex::new([value; CELLS]) }
    }

    /// What it has become.
    pub fn into_cells(self) -> Cells {
        self.values.into_inner().expect("no panic is caught here")
    }
}

fn slot_at(fast_offset: u64) -> (SlotId, u32) {
    (SlotId((fast_offset / BLOCK_BYTES) as u32), (fast_offset % BLOCK_BYTES) as u32)
}

impl RequestIo for Data<'_> {
    async fn fast_to_data(&self, fast_offset: u64, at: u32, len: u32) -> io::Result<()> {
        let (slot, start) = slot_at(fast_offset);
        assert_eq!(self.start + at, start, "bytes keep their place in the block");
        let found = self.world.load(slot, self.block, (start, len));
        cells(start, len).for_each(|cell| held(&self.values)[cell] = found[cell]);
        Ok(())
    }

    async fn data_to_fast(&self, fast_offset: u64, at: u32, len: u32) -> io::Result<()> {
        let (slot, start) = slot_at(fast_offset);
        assert_eq!(self.start + at, start, "bytes keep their place in the block");
        self.world.store(slot, self.block, (start, len), |cell| held(&self.values)[cell]);
        Ok(())
    }

    async fn zero(&self, at: u32, len: u32) -> io::Result<()> {
        cells(self.start + at, len).for_each(|cell| held(&self.values)[cell] = 0);
        Ok(())
    }

    async fn put(&self, at: u32, bytes: &[u8]) -> io::Result<()> {
        let found = bytes.chunks(CELL_BYTES as usize).map(get);
        let numbers = cells(self.start + at, bytes.len() as u32);
        numbers.zip(found).for_each(|(cell, value)| held(&self.values)[cell] = value);
        Ok(())
    }

    async fn get(&self, at: u32, bytes: &mut [u8]) -> io::Result<()> {
        let numbers = cells(self.start + at, bytes.len() as u32);
        bytes
            .chunks_mut(CELL_BYTES as usize)
            .zip(numbers)
            .for_each(|(to, cell)| set(to, held(&self.values)[cell]));
        Ok(())
    }

    async fn read_fast(
        &self,
        fast_offset: u64,
        mut buffer: AlignedBuffer,
    ) -> (io::Result<()>, AlignedBuffer) {
        let (slot, start) = slot_at(fast_offset);
        let len = buffer.len() as u32;
        let found = self.world.load(slot, self.block, (start, len));
        buffer
            .chunks_mut(CELL_BYTES as usize)
            .zip(cells(start, len))
            .for_each(|(to, cell)| set(to, found[cell]));
        (Ok(()), buffer)
    }

    async fn write_fast(&self, fast_offset: u64, buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        let (slot, start) = slot_at(fast_offset);
        let first = (start / CELL_BYTES) as usize;
        let values: Vec<u64> = buffer.chunks(CELL_BYTES as usize).map(get).collect();
        self.world.store(slot, self.block, (start, buffer.len() as u32), |cell| values[cell - first]);
        (Ok(()), buffer)
    }

    async fn flush_fast(&self) -> io::Result<()> {
        Ok(())
    }
}
