//! The layout, little-endian.
//!
//! Header, 256 bytes:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | mark `FRstrm01` |
//! | 8 | 4 | format version |
//! | 12 | 4 | CRC-32C of bytes 0 to 11 and 16 to 255 |
//! | 16 | 16 | volume |
//! | 32 | 8 | bytes the volume shows |
//! | 40 | 4 | logical block size in bytes |
//! | 44 | 4 | number of records |
//! | 48 | 4 | epoch of the older snapshot; 0 for none: the stream has all of the newer one |
//! | 52 | 4 | epoch of the newer snapshot |
//! | 56 | 8 | when the older one was made, in microseconds since 1970 |
//! | 64 | 8 | when the newer one was made |
//! | 72 | 1 | length of the older one's name |
//! | 73 | 1 | length of the newer one's name |
//! | 74 | 63 | the older one's name |
//! | 137 | 63 | the newer one's name |
//! | 200 | 56 | 0 |
//!
//! Record, 32 bytes and the stored data:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | mark `FRsb`; `FRse` for the end |
//! | 4 | 4 | block; for the end the number of records |
//! | 8 | 1 | content: 0 empty (deleted), 1 raw, 2 zstd; for the end 0 |
//! | 9 | 3 | 0 |
//! | 12 | 4 | bytes stored |
//! | 16 | 4 | CRC-32C of the stored data |
//! | 20 | 8 | 0 |
//! | 28 | 4 | CRC-32C of bytes 0 to 27, after the number of the record in the stream (8 bytes) |
//!
//! The record's number is in its checksum, so that a record that is missing, twice there or in another's place is found.

use crc_fast::{CrcAlgorithm, Digest};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, LE, U32, U64, Unaligned};

use crate::config::SnapshotName;
use crate::geometry::{BLOCK_BYTES, BlockIndex, Geometry};

/// The version that is written and the newest that is read.
pub const STREAM_VERSION: u32 = 1;
pub(super) const MARK: [u8; 8] = *b"FRstrm01";
pub(super) const RECORD_MARK: [u8; 4] = *b"FRsb";
pub(super) const END_MARK: [u8; 4] = *b"FRse";
/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 256;
/// Bytes of a record without its data.
pub(super) const RECORD_BYTES: usize = 32;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    mark: [u8; 8],
    version: U32<LE>,
    checksum: U32<LE>,
    volume: [u8; 16],
    size_bytes: U64<LE>,
    logical_block_bytes: U32<LE>,
    records: U32<LE>,
    from_epoch: U32<LE>,
    to_epoch: U32<LE>,
    from_us: U64<LE>,
    to_us: U64<LE>,
    from_len: u8,
    to_len: u8,
    from_name: [u8; 63],
    to_name: [u8; 63],
    zero: [u8; 56],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RawRecord {
    pub mark: [u8; 4],
    pub number: U32<LE>,
    pub content: u8,
    pub zero_a: [u8; 3],
    pub stored_bytes: U32<LE>,
    pub data_checksum: U32<LE>,
    pub zero_b: [u8; 8],
    pub checksum: U32<LE>,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES && size_of::<RawRecord>() == RECORD_BYTES);

/// A snapshot that a stream begins or ends at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Side {
    /// Its name.
    pub name: SnapshotName,
    /// Its epoch, above 0.
    pub epoch: u32,
    /// When it was made, in microseconds since 1970 (UTC).
    pub created_us: u64,
}

/// What a stream is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The uuid of the volume that it was exported from.
    pub volume: [u8; 16],
    /// Its size and logical block size.
    pub geometry: Geometry,
    /// How many records follow.
    pub records: u32,
    /// What the stream builds on; `None`: it has all of `to`.
    pub from: Option<Side>,
    /// What the volume is after it.
    pub to: Side,
}

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Nothing: it was deleted, and reads as zeros.
    Empty,
    /// Data, as it is.
    Raw,
    /// Data, compressed by zstd.
    Zstd,
}

pub(super) fn checksum(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

impl Header {
    /// The header's bytes.
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let name = |side: Option<&Side>| {
            let mut bytes = [0; 63];
            let name = side.map_or("", |side| side.name.as_str()).as_bytes();
            if let Some(target) = bytes.get_mut(..name.len()) {
                target.copy_from_slice(name);
            }
            (name.len() as u8, bytes)
        };
        let ((from_len, from_name), (to_len, to_name)) = (name(self.from.as_ref()), name(Some(&self.to)));
        let mut raw = RawHeader {
            mark: MARK,
            version: STREAM_VERSION.into(),
            checksum: 0.into(),
            volume: self.volume,
            size_bytes: self.geometry.size_bytes().into(),
            logical_block_bytes: self.geometry.logical_block_bytes().into(),
            records: self.records.into(),
            from_epoch: self.from.as_ref().map_or(0, |side| side.epoch).into(),
            to_epoch: self.to.epoch.into(),
            from_us: self.from.as_ref().map_or(0, |side| side.created_us).into(),
            to_us: self.to.created_us.into(),
            from_len,
            to_len,
            from_name,
            to_name,
            zero: [0; 56],
        };
        raw.checksum = header_checksum(raw.as_bytes()).into();
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// The header in these bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, String> {
        let raw = RawHeader::read_from_bytes(bytes).map_err(|error| error.to_string())?;
        if raw.mark != MARK {
            return Err("it is no stream of `forerun export` (its first bytes are others)".to_owned());
        }
        if raw.checksum.get() != header_checksum(bytes) {
            return Err("the stream's header is damaged: its checksum does not match".to_owned());
        }
        if raw.version.get() != STREAM_VERSION {
            let version = raw.version.get();
            return Err(format!(
                "the stream has version {version}; this program reads version {STREAM_VERSION}"
            ));
        }
        let geometry = Geometry::new(raw.size_bytes.get(), raw.logical_block_bytes.get())
            .map_err(|error| format!("the stream's header: {error}"))?;
        let side = |epoch: u32, created_us: u64, len: u8, name: &[u8; 63]| {
            let name = name.get(..usize::from(len)).ok_or("a name is too long")?;
            let name = std::str::from_utf8(name).map_err(|_| "a name is no text")?;
            let name = SnapshotName::new(name).map_err(|_| "a name cannot be a snapshot's")?;
            Ok(Side { name, epoch, created_us })
        };
        let wrong = |what: &str| format!("the stream's header: {what}");
        let to = side(raw.to_epoch.get(), raw.to_us.get(), raw.to_len, &raw.to_name).map_err(wrong)?;
        let from = match raw.from_epoch.get() {
            0 => None,
            epoch => Some(side(epoch, raw.from_us.get(), raw.from_len, &raw.from_name).map_err(wrong)?),
        };
        if to.epoch == 0 || from.as_ref().is_some_and(|from| from.epoch >= to.epoch) {
            return Err(wrong("its epochs are not in order"));
        }
        if raw.records.get() > geometry.blocks() {
            return Err(wrong("it has more records than the volume has blocks"));
        }
        Ok(Self { volume: raw.volume, geometry, records: raw.records.get(), from, to })
    }
}

fn header_checksum(bytes: &[u8]) -> u32 {
    let (before, after) = bytes.split_at(12);
    checksum(&[before, after.get(4..).unwrap_or_default()])
}

impl RawRecord {
    /// A block's record, the `at`th of the stream.
    pub fn of_block(at: u64, block: BlockIndex, content: Content, data: &[u8]) -> Self {
        Self::new(at, RECORD_MARK, block.0, content, data)
    }

    /// What follows the last record.
    pub fn end(records: u32) -> Self {
        Self::new(records.into(), END_MARK, records, Content::Empty, &[])
    }

    fn new(at: u64, mark: [u8; 4], number: u32, content: Content, data: &[u8]) -> Self {
        let content = match content {
            Content::Empty => 0,
            Content::Raw => 1,
            Content::Zstd => 2,
        };
        let mut raw = Self {
            mark,
            number: number.into(),
            content,
            zero_a: [0; 3],
            // A block's data, 64 KiB at most.
            stored_bytes: (data.len() as u32).into(),
            data_checksum: checksum(&[data]).into(),
            zero_b: [0; 8],
            checksum: 0.into(),
        };
        raw.checksum = raw.own_checksum(at).into();
        raw
    }

    fn own_checksum(&self, at: u64) -> u32 {
        let bytes = self.as_bytes();
        checksum(&[&at.to_le_bytes(), bytes.get(..RECORD_BYTES - 4).unwrap_or_default()])
    }

    /// What the record holds, if it is the `at`th of its stream, sound, and its length can be.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, at: u64) -> Result<Content, String> {
        if self.mark != RECORD_MARK && self.mark != END_MARK {
            return Err("it is neither a record nor the end".to_owned());
        }
        if self.checksum.get() != self.own_checksum(at) {
            return Err(format!("record {at} does not match its checksum"));
        }
        let stored = u64::from(self.stored_bytes.get());
        match (self.content, stored) {
            (0, 0) => Ok(Content::Empty),
            (1, BLOCK_BYTES) => Ok(Content::Raw),
            (2, 1..=BLOCK_BYTES) => Ok(Content::Zstd),
            (content, stored) => Err(format!("record {at} has content {content} of {stored} bytes")),
        }
    }
}
