//! Memory that direct I/O accepts: zeroed on allocation, aligned to 4096 bytes.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// The alignment of every buffer, in bytes; what O_DIRECT asks for at most.
pub const ALIGNMENT_BYTES: usize = 4096;

/// A fixed number of bytes at an address that direct I/O accepts.
///
/// The bytes stay where they are when the value is moved.
pub struct AlignedBuffer {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer owns its memory alone, like a Box<[u8]>.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared access only reads, like a Box<[u8]>.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// Allocates `len` zero bytes; `len` is at least 1.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        assert!(len > 0, "an aligned buffer has at least one byte");
        let layout = Self::layout(len);
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, len }
    }

    /// Allocates `len` zero bytes rounded up to the alignment, with `bytes` at the front.
    #[must_use]
    pub fn padded(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len().max(1).next_multiple_of(ALIGNMENT_BYTES));
        buffer[..bytes.len()].copy_from_slice(bytes);
        buffer
    }

    #[allow(clippy::expect_used, reason = "isize::MAX bytes cannot be asked for by any caller")]
    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, ALIGNMENT_BYTES).expect("a buffer is smaller than the address space")
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout, and freed only here.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.len)) }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes are allocated, initialised, and borrowed through &self.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and &mut self makes the borrow the only one.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

// SAFETY: the memory is stable under moves and wholly initialised from the start.
unsafe impl tokio_uring::buf::IoBuf for AlignedBuffer {
    fn stable_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len
    }

    fn bytes_total(&self) -> usize {
        self.len
    }
}

// SAFETY: as above; all bytes are initialised already, so there is nothing to note.
unsafe impl tokio_uring::buf::IoBufMut for AlignedBuffer {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    unsafe fn set_init(&mut self, _init_len: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero() {
        let buffer = AlignedBuffer::zeroed(100);
        assert_eq!(buffer.as_ptr() as usize % ALIGNMENT_BYTES, 0);
        assert!(buffer.iter().all(|byte| *byte == 0));
        assert_eq!(AlignedBuffer::padded(b"abc").len(), ALIGNMENT_BYTES);
    }
}
