//! The bytes of a prediction table, little-endian.
//!
//! | file offset | what |
//! |---|---|
//! | 0 | [`FileHeader`], 64 bytes, padded to [`HEADER_BYTES`] |
//! | `HEADER_BYTES` | buffer 0: [`BufferHeader`], then entries of [`ENTRY_BYTES`] |
//! | `HEADER_BYTES + BUFFER_BYTES` | buffer 1, likewise |
//!
//! The file is sparse; it always has [`FILE_BYTES`]. Sequence `n` is in buffer `n % 2`, and the file
//! header's sequence says which one is active (0: nothing was published yet). Every byte that is
//! used is covered by a CRC-32C. A change of any of this is a new [`VERSION`].

use crc_fast::CrcAlgorithm;
use zerocopy::little_endian::{F32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The format's version.
pub const VERSION: u32 = 2;
/// The most predictions in a table: 2^20, 64 GiB of predicted blocks.
pub const MAX_ENTRIES: usize = 1 << 20;
/// Bytes of one entry.
pub const ENTRY_BYTES: usize = size_of::<Entry>();
/// Bytes from the file's start to the first buffer.
pub const HEADER_BYTES: u64 = 4096;
/// Bytes of a buffer: its header and room for all entries, in whole pages.
pub const BUFFER_BYTES: u64 =
    ((size_of::<BufferHeader>() + MAX_ENTRIES * ENTRY_BYTES) as u64).next_multiple_of(4096);
/// Bytes of the file.
pub const FILE_BYTES: u64 = HEADER_BYTES + 2 * BUFFER_BYTES;
/// Bytes a model's name can have.
pub const MODEL_NAME_BYTES: usize = 32;

/// How far ahead of the clock a generation may be, in microseconds: a day. Generations are times of day that only
/// grow; one beyond this was made by a clock that was wrong, or by somebody hostile.
pub const GENERATION_AHEAD_US: u64 = 24 * 3600 * 1_000_000;

pub(super) const FILE_MAGIC: [u8; 8] = *b"FRPREDTB";
pub(super) const BUFFER_MAGIC: [u8; 8] = *b"FRPREDBF";

/// The file's first bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct FileHeader {
    pub magic: [u8; 8],
    pub version: U32,
    pub entry_bytes: U32,
    pub max_entries: U32,
    pub reserved_a: U32,
    pub sequence: U64,
    pub volume: [u8; 16],
    pub reserved_b: [u8; 12],
    /// Of the 60 bytes before.
    pub crc: U32,
}

/// A buffer's first bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct BufferHeader {
    pub magic: [u8; 8],
    pub sequence: U64,
    pub generation: U64,
    pub volume: [u8; 16],
    pub model: [u8; MODEL_NAME_BYTES],
    pub epoch: U32,
    pub horizon: U32,
    pub published_us: U64,
    pub entries: U32,
    pub reserved: [u8; 28],
    /// Of all entries.
    pub entries_crc: U32,
    /// Of the 124 bytes before.
    pub crc: U32,
}

/// One prediction.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Entry {
    pub block: U32,
    pub kind: u8,
    pub reserved: [u8; 3],
    pub probability: F32,
}

/// A generation as both sides take it at the time `now_us`: one too far ahead counts for nothing, or it would
/// stand in the way of all that follow.
pub(super) const fn plausible(generation: u64, now_us: u64) -> u64 {
    if generation > now_us.saturating_add(GENERATION_AHEAD_US) { 0 } else { generation }
}

/// Where the buffer of a sequence number begins in the file, in bytes.
pub(super) const fn buffer_offset(sequence: u64) -> u64 {
    HEADER_BYTES + (sequence % 2) * BUFFER_BYTES
}

/// CRC-32C (Castagnoli), as iSCSI uses it.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The checksum of a header whose last four bytes hold it.
pub(super) fn header_crc(header: &[u8]) -> u32 {
    crc32c(header.split_last_chunk::<4>().map_or(header, |(before, _)| before))
}

/// The first number that occurs twice in a sorted list.
pub(super) fn first_twice(sorted: &[u32]) -> Option<u32> {
    sorted.iter().zip(sorted.iter().skip(1)).find(|(a, b)| a == b).map(|(a, _)| *a)
}
