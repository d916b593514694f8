//! Requests' data by copy: the driver copies it to and from a buffer of this process.
//!
//! A queue has one mapping with room for each tag. The kernel gives pages to what is touched, so a
//! queue of small requests costs little of it.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use io_uring::opcode;
use libublk::BufDesc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::data::{Extent, TagData};
use super::fast::{FAST_TIER, FastTier};
use super::options::DataPath;
use crate::aligned::AlignedBuffer;
use crate::request::{Request, RequestIo};

/// The buffers of one queue's tags.
pub(super) struct QueueBuffers {
    start: NonNull<u8>,
    len: NonZeroUsize,
    each: usize,
}

impl QueueBuffers {
    /// Maps `tags` buffers of `each` bytes, a multiple of the page.
    pub fn map(tags: usize, each: usize) -> io::Result<Self> {
        let len = NonZeroUsize::new(tags * each).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping, of which nobody else knows.
        let start = unsafe { mmap_anonymous(None, len, protection, flags) }?.cast();
        Ok(Self { start, len, each })
    }

    /// Where a tag's buffer begins.
    fn of(&self, tag: usize) -> NonNull<u8> {
        assert!((tag + 1) * self.each <= self.len.get(), "tag {tag} has no buffer");
        // SAFETY: the result is within the mapping, by the line above.
        unsafe { self.start.add(tag * self.each) }
    }
}

impl Drop for QueueBuffers {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length; no operation is in flight any more, since the
        // queue's loop has ended.
        let unmapped = unsafe { munmap(self.start.cast(), self.len.get()) };
        if let Err(error) = unmapped {
            tracing::warn!(%error, "request buffers could not be unmapped");
        }
    }
}

/// The data of one tag, in its buffer.
pub(super) struct CopyData<'q> {
    fast: FastTier<'q>,
    buffers: &'q QueueBuffers,
    start: NonNull<u8>,
    extent: Extent,
}

impl<'q> CopyData<'q> {
    /// The data of the tag that `fast` serves.
    pub fn new(fast: FastTier<'q>, buffers: &'q QueueBuffers) -> Self {
        Self { fast, buffers, start: buffers.of(fast.task), extent: Extent::default() }
    }

    /// The address of the data at `at`; the caller has checked the range against the extent.
    fn address(&self, at: u32) -> *mut u8 {
        debug_assert!(at as usize <= self.buffers.each, "{at} is beyond the buffer");
        self.start.as_ptr().wrapping_add(at as usize)
    }
}

impl TagData for CopyData<'_> {
    const PATH: DataPath = DataPath::Copy;

    fn begin(&self, request: &Request) {
        self.extent.begin(request);
    }

    fn descriptor(&self) -> BufDesc<'_> {
        BufDesc::RawAddress(self.start.as_ptr())
    }
}

impl RequestIo for CopyData<'_> {
    async fn fast_to_data(&self, fast_offset: u64, at: u32, len: u32) -> io::Result<()> {
        self.extent.may_fill(at, len as usize)?;
        let entry = |done: u32, left| {
            opcode::Read::new(FAST_TIER, self.address(at + done), left)
                .offset(fast_offset + u64::from(done))
                .build()
        };
        // SAFETY: within the tag's buffer, which outlives the queue's loop; a request is not answered
        // before its operations have come back.
        unsafe { self.fast.transfer(len, entry) }.await
    }

    async fn data_to_fast(&self, fast_offset: u64, at: u32, len: u32) -> io::Result<()> {
        self.extent.may_take(at, len as usize)?;
        let entry = |done: u32, left| {
            opcode::Write::new(FAST_TIER, self.address(at + done), left)
                .offset(fast_offset + u64::from(done))
                .build()
        };
        // SAFETY: as above.
        unsafe { self.fast.transfer(len, entry) }.await
    }

    async fn zero(&self, at: u32, len: u32) -> io::Result<()> {
        self.extent.may_fill(at, len as usize)?;
        // SAFETY: within the tag's buffer; by address and not by reference, since the kernel may
        // be writing to another part of it.
        unsafe { self.address(at).write_bytes(0, len as usize) };
        Ok(())
    }

    async fn put(&self, at: u32, bytes: &[u8]) -> io::Result<()> {
        self.extent.may_fill(at, bytes.len())?;
        // SAFETY: as above, and `bytes` is no part of the buffer, to which no reference exists.
        unsafe { self.address(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    async fn get(&self, at: u32, bytes: &mut [u8]) -> io::Result<()> {
        self.extent.may_take(at, bytes.len())?;
        // SAFETY: as for `put`; anonymous memory is initialised from the start.
        unsafe { self.address(at).copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    async fn read_fast(&self, fast_offset: u64, buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        self.fast.read(fast_offset, buffer).await
    }

    async fn write_fast(&self, fast_offset: u64, buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        self.fast.write(fast_offset, buffer).await
    }

    async fn flush_fast(&self) -> io::Result<()> {
        self.fast.flush().await
    }
}
