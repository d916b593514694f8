//! Reading and writing runs of pages in large pieces.

use std::io;

use super::device::FastDevice;
use super::page::PAGE_BYTES;
use crate::aligned::AlignedBuffer;

/// Pages in one read or write, at most (1 MiB).
pub(super) const CHUNK_PAGES: u64 = 256;

const PAGE: u64 = PAGE_BYTES as u64;

/// Reads an area's pages, a chunk at a time.
pub(super) struct PageReader<'a> {
    device: &'a dyn FastDevice,
    offset: u64,
    pages: u64,
    buffer: AlignedBuffer,
    /// The pages in the buffer: the first, and how many.
    held: (u64, u64),
}

impl<'a> PageReader<'a> {
    /// For the `pages` pages from byte `offset` on.
    pub fn new(device: &'a dyn FastDevice, offset: u64, pages: u64) -> Self {
        let buffer = AlignedBuffer::zeroed((CHUNK_PAGES.min(pages).max(1) * PAGE) as usize);
        Self { device, offset, pages, buffer, held: (0, 0) }
    }

    /// Where a page is on the device, in bytes.
    pub const fn offset_of(&self, index: u64) -> u64 {
        self.offset + index * PAGE
    }

    /// The page at `index`, which is below the area's pages.
    pub fn page(&mut self, index: u64) -> io::Result<&[u8]> {
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, "a page outside of its area");
        if index >= self.pages {
            return Err(outside());
        }
        let (first, count) = self.held;
        if !(first..first + count).contains(&index) {
            let count = (self.pages - index).min(self.buffer.len() as u64 / PAGE);
            let (target, _) =
                self.buffer.split_at_mut_checked((count * PAGE) as usize).ok_or_else(outside)?;
            self.held = (0, 0);
            self.device.read_at(self.offset + index * PAGE, target)?;
            self.held = (index, count);
        }
        let at = ((index - self.held.0) * PAGE) as usize;
        self.buffer.get(at..at + PAGE_BYTES).ok_or_else(outside)
    }
}

/// Gathers pages that lie one after the other and writes them a chunk at a time.
pub(super) struct PageWriter {
    buffer: AlignedBuffer,
    filled: u64,
}

impl PageWriter {
    /// With an empty chunk.
    pub fn new() -> Self {
        Self { buffer: AlignedBuffer::zeroed((CHUNK_PAGES * PAGE) as usize), filled: 0 }
    }

    /// Whether the chunk has to be written before the next page.
    pub const fn is_full(&self) -> bool {
        self.filled == CHUNK_PAGES
    }

    /// Pages in the chunk.
    pub const fn filled(&self) -> u64 {
        self.filled
    }

    /// The next page, to be filled by the caller. The chunk is not full.
    pub fn next(&mut self) -> &mut [u8] {
        debug_assert!(!self.is_full(), "a full chunk is written first");
        let at = ((self.filled % CHUNK_PAGES) * PAGE) as usize;
        self.filled += 1;
        self.buffer.get_mut(at..at + PAGE_BYTES).unwrap_or_default()
    }

    /// Writes the chunk's pages at byte `offset`, and empties it.
    pub fn write(&mut self, device: &dyn FastDevice, offset: u64) -> io::Result<()> {
        let bytes = (self.filled * PAGE) as usize;
        self.filled = 0;
        match self.buffer.get(..bytes) {
            Some(pages) if bytes > 0 => device.write_at(offset, pages),
            _ => Ok(()),
        }
    }
}
