//! Reading at offsets, within bounds.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::error::{FilesError, Result};

/// Something to read at offsets: a device, an image.
pub trait ReadAt {
    /// Fills `bytes` from `offset_bytes` on.
    ///
    /// # Errors
    /// The bytes are not all there, or cannot be read.
    fn read_exact_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset_bytes)
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<()> {
        let there = usize::try_from(offset_bytes)
            .ok()
            .and_then(|start| self.get(start..)?.get(..bytes.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(there);
        Ok(())
    }
}

/// The largest single read, in bytes: a bound on every buffer, whatever a structure says.
pub const READ_BYTES_MAX: usize = 256 << 10;

/// A device of a known size.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    device: &'a dyn ReadAt,
    size_bytes: u64,
}

impl<'a> Source<'a> {
    pub fn new(device: &'a dyn ReadAt, size_bytes: u64) -> Self {
        Self { device, size_bytes }
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Reads into a buffer that is there already.
    pub fn fill(&self, bytes: &mut [u8], offset_bytes: u64) -> Result<()> {
        let length_bytes = bytes.len();
        let end = offset_bytes.checked_add(length_bytes as u64);
        if length_bytes > READ_BYTES_MAX || end.is_none_or(|end| end > self.size_bytes) {
            return Err(FilesError::Damaged("it points past its own end"));
        }
        self.device.read_exact_at(bytes, offset_bytes).map_err(|source| FilesError::Read {
            offset_bytes,
            length_bytes,
            source,
        })
    }

    pub fn read(&self, offset_bytes: u64, length_bytes: usize) -> Result<Vec<u8>> {
        if length_bytes > READ_BYTES_MAX {
            return Err(FilesError::Damaged("a structure is larger than can be"));
        }
        let mut bytes = vec![0; length_bytes];
        self.fill(&mut bytes, offset_bytes)?;
        Ok(bytes)
    }
}
