//! What a file asks of the memory that is read and written directly.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// The alignment in bytes that direct I/O on `file` needs of memory; `None` where nothing says so.
pub(super) fn memory_alignment(file: BorrowedFd<'_>) -> Option<u32> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty string, and the kernel fills the structure or says that it did not.
    let status = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            found.as_mut_ptr(),
        )
    };
    // SAFETY: all zeros is a valid value, whatever the kernel filled in.
    let found = unsafe { found.assume_init() };
    (status == 0 && found.stx_mask & libc::STATX_DIOALIGN != 0 && found.stx_dio_mem_align > 0)
        .then_some(found.stx_dio_mem_align)
}
