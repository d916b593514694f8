//! Writing a stream.

use std::io::Write;

use zerocopy::IntoBytes;

use super::error::StreamError;
use super::format::{Content, Header, RawRecord};
use crate::geometry::{BLOCK_BYTES, BlockIndex};

/// zstd's level: its default, about as fast as a disk.
const LEVEL: i32 = 3;

/// Writes one stream.
pub struct StreamWriter<W: Write> {
    out: W,
    records: u32,
    wanted: u32,
    last: Option<BlockIndex>,
    written: u64,
}

impl<W: Write> StreamWriter<W> {
    /// Begins a stream.
    ///
    /// # Errors
    /// `out` fails.
    pub fn begin(out: W, header: &Header) -> Result<Self, StreamError> {
        let mut writer = Self { out, records: 0, wanted: header.records, last: None, written: 0 };
        writer.write(&header.encode())?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        let at = self.written;
        self.out.write_all(bytes).map_err(|source| StreamError::Io { action: "written", at, source })?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Adds a block with its 64 KiB of data; `None` for one that holds nothing any more. Blocks come in order.
    ///
    /// # Errors
    /// `out` fails.
    ///
    /// # Panics
    /// Data of another length, or a block that is not above the last one: that is the caller's mistake.
    pub fn put(&mut self, block: BlockIndex, data: Option<&[u8]>) -> Result<(), StreamError> {
        assert!(self.last.is_none_or(|last| last < block), "block {block} after {:?}", self.last);
        assert!(data.is_none_or(|data| data.len() as u64 == BLOCK_BYTES), "a whole block");
        let at = u64::from(self.records);
        match data {
            None => self.write(RawRecord::of_block(at, block, Content::Empty, &[]).as_bytes())?,
            Some(data) => {
                let packed =
                    zstd::bulk::compress(data, LEVEL).ok().filter(|packed| packed.len() < data.len());
                let (content, stored) =
                    packed.as_deref().map_or((Content::Raw, data), |packed| (Content::Zstd, packed));
                self.write(RawRecord::of_block(at, block, content, stored).as_bytes())?;
                self.write(stored)?;
            }
        }
        (self.last, self.records) = (Some(block), self.records + 1);
        Ok(())
    }

    /// Ends the stream; gives its length in bytes.
    ///
    /// # Errors
    /// `out` fails.
    ///
    /// # Panics
    /// Fewer or more records than the header says.
    pub fn end(mut self) -> Result<u64, StreamError> {
        assert_eq!(self.records, self.wanted, "as many records as the header says");
        self.write(RawRecord::end(self.records).as_bytes())?;
        let at = self.written;
        self.out.flush().map_err(|source| StreamError::Io { action: "written", at, source })?;
        Ok(self.written)
    }
}
