//! The superblock: what everything else is computed from, so that it is checked first and strictly.

use std::ops::Range;

use crate::files::bytes::Bytes;
use crate::files::error::{FilesError, Result};
use crate::files::source::Source;

const MAGIC: &[u8] = b"XFSB";
const VERSION_MASK: u16 = 0xf;
const RO_COMPAT_RMAP: u32 = 0x2;
const RO_COMPAT_REFLINK: u32 = 0x4;
const RO_COMPAT_FREE_INODES: u32 = 0x1;
const INCOMPAT_FILE_TYPE: u32 = 0x1;
const INCOMPAT_SPARSE_INODES: u32 = 0x2;
/// File types, sparse inodes, another identity, wide times, needed repair, wide counters of extents, exchanged ranges, parents.
const INCOMPAT_KNOWN: u32 = 0xff;

/// What naming needs of it. All of it is possible: products do not overflow, divisors are not 0.
pub struct Superblock {
    pub block_bytes: u64,
    pub blocks: u64,
    pub groups: u32,
    pub group_blocks: u64,
    /// Bits of a block's number within its group.
    pub group_block_bits: u32,
    pub sector_bytes: u64,
    pub inode_bytes: usize,
    /// Bits of an inode's number within its block.
    pub inode_bits: u32,
    pub root: u64,
    /// A log in this device.
    pub log: Option<Range<u64>>,
    /// A directory's block, in bytes.
    pub directory_block_bytes: usize,
    pub has_file_types: bool,
    pub has_sparse_inodes: bool,
    pub has_free_inode_tree: bool,
    pub has_reverse_map: bool,
    pub has_reference_counts: bool,
    pub quota_inodes: [u64; 3],
    pub realtime_inodes: [u64; 2],
}

impl Superblock {
    /// Reads and checks it; `None` where there is none.
    pub fn read(source: Source<'_>) -> Result<Option<Self>> {
        if source.size_bytes() < 512 {
            return Ok(None);
        }
        let raw = source.read(0, 512)?;
        let bytes = Bytes(&raw);
        if bytes.slice(0, 4)? != MAGIC {
            return Ok(None);
        }
        let version = bytes.be16(100)? & VERSION_MASK;
        if version != 5 {
            return Err(unsupported(format!("format version {version}")));
        }
        let incompat = bytes.be32(216)?;
        if incompat & !INCOMPAT_KNOWN != 0 {
            return Err(unsupported(format!("the unknown features {:#x}", incompat & !INCOMPAT_KNOWN)));
        }
        let mut superblock = Self::parse(bytes, incompat)?;
        superblock.check(source.size_bytes(), bytes)?;
        superblock.log = superblock.log_at(bytes.be64(48)?, bytes.be32(96)?.into());
        Ok(Some(superblock))
    }

    fn parse(bytes: Bytes<'_>, incompat: u32) -> Result<Self> {
        let ro_compat = bytes.be32(212)?;
        let shift = |at| match bytes.byte(at)? {
            bits if bits < 32 => Ok(u32::from(bits)),
            _ => Err(FilesError::Damaged("a size in the superblock")),
        };
        let block_bytes = 1u64 << shift(120)?;
        Ok(Self {
            block_bytes,
            blocks: bytes.be64(8)?,
            groups: bytes.be32(88)?,
            group_blocks: bytes.be32(84)?.into(),
            group_block_bits: shift(124)?,
            sector_bytes: 1 << shift(121)?,
            inode_bytes: 1 << shift(122)?,
            inode_bits: shift(123)?,
            root: bytes.be64(56)?,
            log: None,
            directory_block_bytes: usize::try_from(block_bytes << shift(192)?).unwrap_or(usize::MAX),
            has_file_types: incompat & INCOMPAT_FILE_TYPE != 0,
            has_sparse_inodes: incompat & INCOMPAT_SPARSE_INODES != 0,
            has_free_inode_tree: ro_compat & RO_COMPAT_FREE_INODES != 0,
            has_reverse_map: ro_compat & RO_COMPAT_RMAP != 0,
            has_reference_counts: ro_compat & RO_COMPAT_REFLINK != 0,
            quota_inodes: [bytes.be64(160)?, bytes.be64(168)?, bytes.be64(232)?],
            realtime_inodes: [bytes.be64(64)?, bytes.be64(72)?],
        })
    }

    fn check(&self, size_bytes: u64, bytes: Bytes<'_>) -> Result<()> {
        let bits = self.group_block_bits;
        let problem = if !(1 << 10..=1 << 16).contains(&self.block_bytes)
            || u64::from(bytes.be32(4)?) != self.block_bytes
        {
            "the superblock's block size"
        } else if self.blocks > size_bytes / self.block_bytes {
            "it is larger than the device"
        } else if !(1..=1 << bits).contains(&self.group_blocks)
            || self.group_blocks < 64.min(self.blocks)
            || u64::from(self.groups) != self.blocks.div_ceil(self.group_blocks)
        {
            "the superblock's allocation groups"
        } else if !(512..=1 << 15).contains(&self.sector_bytes) {
            "the superblock's sector size"
        } else if !(512..=2048).contains(&self.inode_bytes)
            || self.block_bytes != (self.inode_bytes as u64) << self.inode_bits
        {
            "the superblock's inode size"
        } else if self.directory_block_bytes > 1 << 16 {
            "the superblock's directory block size"
        } else {
            return Ok(());
        };
        Err(FilesError::Damaged(problem))
    }

    fn log_at(&self, start: u64, blocks: u64) -> Option<Range<u64>> {
        if start == 0 {
            return None;
        }
        let start = self.through(start)?;
        Some(start..start.saturating_add(blocks))
    }

    /// A block's number counted through, of its number with the group in its upper bits; `None` where there is no such block.
    pub fn through(&self, block: u64) -> Option<u64> {
        let group = block >> self.group_block_bits;
        let within = block & ((1 << self.group_block_bits) - 1);
        self.in_group(u32::try_from(group).ok()?, within)
    }

    /// A block's number counted through, of its group and its number there.
    pub fn in_group(&self, group: u32, within: u64) -> Option<u64> {
        let block = u64::from(group).checked_mul(self.group_blocks)?.checked_add(within)?;
        (within < self.group_blocks && block < self.blocks).then_some(block)
    }

    /// All blocks of a group.
    pub fn group_range(&self, group: u32) -> Range<u64> {
        let start = u64::from(group) * self.group_blocks;
        start..(start + self.group_blocks).min(self.blocks)
    }

    /// An inode's group, its block there, and its place in the block.
    pub fn inode_place(&self, number: u64) -> Option<(u32, u64, usize)> {
        let within_bits = self.group_block_bits + self.inode_bits;
        let group = u32::try_from(number >> within_bits).ok()?;
        let within = number & ((1 << within_bits) - 1);
        let index = (within & ((1 << self.inode_bits) - 1)) as usize;
        Some((group, within >> self.inode_bits, index))
    }

    /// The number of an inode by its group and its number there.
    pub fn inode_number(&self, group: u32, within: u32) -> u64 {
        u64::from(group) << (self.group_block_bits + self.inode_bits) | u64::from(within)
    }
}

fn unsupported(feature: String) -> FilesError {
    FilesError::Unsupported { file_system: "XFS", feature }
}
