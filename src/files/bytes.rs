//! Numbers in bytes that may be too few.

use super::error::{FilesError, Result};

/// A structure as it lies on the device.
#[derive(Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

macro_rules! number {
    ($($name:ident: $kind:ty, $from:ident;)*) => {
        $(pub fn $name(self, at: usize) -> Result<$kind> {
            let bytes = self.slice(at, size_of::<$kind>())?;
            bytes.try_into().map(<$kind>::$from).map_err(|_| SHORT)
        })*
    };
}

const SHORT: FilesError = FilesError::Damaged("a structure is cut short");

impl<'a> Bytes<'a> {
    number! {
        byte: u8, from_le_bytes;
        le16: u16, from_le_bytes;
        le32: u32, from_le_bytes;
        le64: u64, from_le_bytes;
        be16: u16, from_be_bytes;
        be32: u32, from_be_bytes;
        be64: u64, from_be_bytes;
    }

    /// A number whose halves lie apart.
    pub fn le32_halves(self, low: usize, high: usize) -> Result<u64> {
        Ok(u64::from(self.le32(low)?) | u64::from(self.le32(high)?) << 32)
    }

    pub fn slice(self, at: usize, length: usize) -> Result<&'a [u8]> {
        let end = at.checked_add(length).ok_or(SHORT)?;
        self.0.get(at..end).ok_or(SHORT)
    }

    /// All from `at` on.
    pub fn from(self, at: usize) -> Result<Bytes<'a>> {
        self.0.get(at..).map(Bytes).ok_or(SHORT)
    }
}
