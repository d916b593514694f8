//! A device whose unreadable pages read as zeros, so that one bad sector hides no more than itself.
//!
//! For looking at a damaged tier only. A page of zeros is no page (it has no magic), so what cannot be read is missed
//! exactly where it lies; which pages that were is remembered.

use std::io;

use nix::errno::Errno;

use super::device::FastDevice;
use super::page::PAGE_BYTES;
use crate::sync::Mutex;
use crate::volume::lock;

/// A read-only view of a device.
pub(super) struct Patient<'a> {
    device: &'a dyn FastDevice,
    unreadable: Mutex<Vec<(u64, String)>>,
}

impl<'a> Patient<'a> {
    /// Over a device.
    pub fn new(device: &'a dyn FastDevice) -> Self {
        Self { device, unreadable: Mutex::default() }
    }

    /// The pages that could not be read, each once: offset in bytes, and why.
    pub fn unreadable(&self) -> Vec<(u64, String)> {
        let mut pages = lock(&self.unreadable).clone();
        pages.sort();
        pages.dedup_by_key(|(offset, _)| *offset);
        pages
    }
}

/// Whether an error is about the medium, or the device's end, and not about the way in which it was asked.
pub(super) fn is_of_the_medium(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    error.kind() == io::ErrorKind::UnexpectedEof
        || matches!(errno, Some(Errno::EIO | Errno::ENODATA | Errno::EREMOTEIO | Errno::EILSEQ))
}

impl FastDevice for Patient<'_> {
    fn size_bytes(&self) -> u64 {
        self.device.size_bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self.device.read_at(offset, buffer) {
            Err(error) if is_of_the_medium(&error) => {}
            other => return other,
        }
        for (at, page) in (offset..).step_by(PAGE_BYTES).zip(buffer.chunks_mut(PAGE_BYTES)) {
            if let Err(error) = self.device.read_at(at, page) {
                if !is_of_the_medium(&error) {
                    return Err(error);
                }
                page.fill(0);
                lock(&self.unreadable).push((at, error.to_string()));
            }
        }
        Ok(())
    }

    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "a damaged tier is only read"))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
