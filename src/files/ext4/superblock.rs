//! The superblock: what everything else is computed from, so that it is checked first and strictly.

use crate::files::bytes::Bytes;
use crate::files::error::{FilesError, Result};
use crate::files::source::Source;

/// Where the superblock is, in bytes.
const OFFSET_BYTES: u64 = 1024;
const MAGIC: u16 = 0xef53;

const COMPAT_HAS_JOURNAL: u32 = 0x4;
const COMPAT_RESIZE_INODE: u32 = 0x10;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const COMPAT_ORPHAN_FILE: u32 = 0x1000;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_EXTENTS: u32 = 0x40;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_MMP: u32 = 0x100;
/// What else a reader may meet: file types, recovery, flexible groups, attribute inodes, a checksum seed, large
/// directories, inline data, encryption, folded case.
const INCOMPAT_OTHERS: u32 = 0x2 | 0x4 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000;
const INCOMPAT_COMPRESSION: u32 = 0x1;
const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_GROUP_CHECKSUMS: u32 = 0x10;
const RO_COMPAT_BIGALLOC: u32 = 0x200;
const RO_COMPAT_METADATA_CHECKSUMS: u32 = 0x400;

/// What naming needs of it. All of it is possible: products do not overflow, divisors are not 0.
pub struct Superblock {
    pub name: &'static str,
    pub block_bytes: u64,
    pub blocks: u64,
    pub first_data_block: u64,
    pub blocks_per_group: u64,
    /// Blocks a bit of a block bitmap stands for.
    pub cluster_blocks: u64,
    pub inodes_per_group: u64,
    pub inode_bytes: usize,
    pub descriptor_bytes: usize,
    pub groups: u32,
    pub reserved_descriptor_blocks: u64,
    /// The first meta group that has its descriptors with itself; `None` without the feature.
    pub first_meta_group: Option<u64>,
    pub backups: Backups,
    /// Whether group descriptors say what was never written.
    pub has_group_checksums: bool,
    /// 0 for none, as the two below.
    pub journal_inode: u32,
    pub quota_inodes: [u32; 3],
    pub orphan_inode: u32,
    pub mount_protection: Option<u64>,
}

/// Which groups have a copy of the superblock.
pub enum Backups {
    All,
    PowersOf3And5And7,
    These([u32; 2]),
}

impl Superblock {
    /// Reads and checks it; `None` where there is none.
    pub fn read(source: Source<'_>) -> Result<Option<Self>> {
        if source.size_bytes() < OFFSET_BYTES + 1024 {
            return Ok(None);
        }
        let raw = source.read(OFFSET_BYTES, 1024)?;
        let bytes = Bytes(&raw);
        if bytes.le16(56)? != MAGIC {
            return Ok(None);
        }
        let superblock = Self::parse(bytes)?;
        superblock.check(source.size_bytes(), bytes.le32(0)?)?;
        Ok(Some(superblock))
    }

    fn parse(bytes: Bytes<'_>) -> Result<Self> {
        let is_dynamic = bytes.le32(76)? > 0;
        let features = |at| if is_dynamic { bytes.le32(at) } else { Ok(0) };
        let (compat, incompat, ro_compat) = (features(92)?, features(96)?, features(100)?);
        refuse_unknown(incompat)?;
        let (block_shift, cluster_shift) = (bytes.le32(24)?, bytes.le32(28)?);
        if block_shift > 6 || cluster_shift > 20 {
            return Err(FilesError::Damaged("the superblock's block size"));
        }
        let has_64_bits = incompat & INCOMPAT_64BIT != 0;
        let is_bigalloc = ro_compat & RO_COMPAT_BIGALLOC != 0;
        let high = if has_64_bits { bytes.le32(0x150)? } else { 0 };
        let backups = if compat & COMPAT_SPARSE_SUPER2 != 0 {
            Backups::These([bytes.le32(0x24c)?, bytes.le32(0x250)?])
        } else if ro_compat & RO_COMPAT_SPARSE_SUPER != 0 {
            Backups::PowersOf3And5And7
        } else {
            Backups::All
        };
        let has = |features: u32, feature: u32, at: usize| {
            if features & feature != 0 { bytes.le32(at) } else { Ok(0) }
        };
        let journal_inode = has(compat, COMPAT_HAS_JOURNAL, 0xe0)?;
        Ok(Self {
            name: match incompat & (INCOMPAT_EXTENTS | INCOMPAT_64BIT) {
                0 if journal_inode == 0 => "ext2",
                0 => "ext3",
                _ => "ext4",
            },
            block_bytes: 1024 << block_shift,
            blocks: u64::from(bytes.le32(4)?) | u64::from(high) << 32,
            first_data_block: bytes.le32(20)?.into(),
            blocks_per_group: bytes.le32(32)?.into(),
            cluster_blocks: if is_bigalloc { 1 << cluster_shift.saturating_sub(block_shift) } else { 1 },
            inodes_per_group: bytes.le32(40)?.into(),
            inode_bytes: if is_dynamic { bytes.le16(88)?.into() } else { super::INODE_BYTES_MIN },
            descriptor_bytes: if has_64_bits { bytes.le16(254)?.into() } else { 32 },
            groups: 0,
            reserved_descriptor_blocks: if compat & COMPAT_RESIZE_INODE != 0 {
                bytes.le16(0xce)?.into()
            } else {
                0
            },
            first_meta_group: if incompat & INCOMPAT_META_BG != 0 {
                Some(bytes.le32(260)?.into())
            } else {
                None
            },
            backups,
            has_group_checksums: ro_compat & (RO_COMPAT_GROUP_CHECKSUMS | RO_COMPAT_METADATA_CHECKSUMS) != 0,
            journal_inode,
            quota_inodes: if is_dynamic {
                [bytes.le32(0x240)?, bytes.le32(0x244)?, bytes.le32(0x26c)?]
            } else {
                [0; 3]
            },
            orphan_inode: has(compat, COMPAT_ORPHAN_FILE, 0x280)?,
            mount_protection: if incompat & INCOMPAT_MMP != 0 { Some(bytes.le64(360)?) } else { None },
        }
        .with_groups())
    }

    fn with_groups(mut self) -> Self {
        let blocks = self.blocks.saturating_sub(self.first_data_block);
        self.groups = u32::try_from(blocks.div_ceil(self.blocks_per_group.max(1))).unwrap_or(u32::MAX);
        self
    }

    fn check(&self, size_bytes: u64, inodes: u32) -> Result<()> {
        let bits = self.block_bytes * 8;
        let problem = if self.blocks > size_bytes / self.block_bytes {
            "it is larger than the device"
        } else if self.first_data_block > 1 || self.blocks <= self.first_data_block {
            "the superblock's number of blocks"
        } else if self.cluster_blocks == 0
            || !(256..=bits * self.cluster_blocks).contains(&self.blocks_per_group)
            || !self.blocks_per_group.is_multiple_of(self.cluster_blocks)
        {
            "the superblock's blocks of a group"
        } else if !(1..=bits).contains(&self.inodes_per_group)
            || u64::from(self.groups) * self.inodes_per_group != u64::from(inodes)
        {
            "the superblock's number of inodes"
        } else if !self.inode_bytes.is_power_of_two()
            || !(super::INODE_BYTES_MIN..=self.block_bytes as usize).contains(&self.inode_bytes)
        {
            "the superblock's inode size"
        } else if !self.descriptor_bytes.is_power_of_two() || !(32..=1024).contains(&self.descriptor_bytes) {
            "the superblock's descriptor size"
        } else {
            return Ok(());
        };
        Err(FilesError::Damaged(problem))
    }

    /// The first block of a group.
    pub fn group_start(&self, group: u32) -> u64 {
        self.first_data_block + u64::from(group) * self.blocks_per_group
    }

    /// Group descriptors in a block.
    pub fn descriptors_per_block(&self) -> u64 {
        self.block_bytes / self.descriptor_bytes as u64
    }

    /// Whether a group begins with a copy of the superblock.
    pub fn has_superblock(&self, group: u32) -> bool {
        match &self.backups {
            _ if group == 0 => true,
            Backups::All => true,
            Backups::PowersOf3And5And7 => group == 1 || [3, 5, 7].iter().any(|base| is_power(group, *base)),
            Backups::These(groups) => groups.contains(&group),
        }
    }
}

fn is_power(mut number: u32, base: u32) -> bool {
    while number > 1 && number.is_multiple_of(base) {
        number /= base;
    }
    number == 1
}

fn refuse_unknown(incompat: u32) -> Result<()> {
    let known = INCOMPAT_META_BG | INCOMPAT_EXTENTS | INCOMPAT_64BIT | INCOMPAT_MMP | INCOMPAT_OTHERS;
    let feature = match incompat & !known {
        0 => return Ok(()),
        bits if bits & INCOMPAT_JOURNAL_DEV != 0 => "nothing but a journal on it".into(),
        bits if bits & INCOMPAT_COMPRESSION != 0 => "compression".into(),
        bits => format!("the unknown features {bits:#x}"),
    };
    Err(FilesError::Unsupported { file_system: "ext4", feature })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers() {
        let powers: Vec<u32> =
            (1..100).filter(|n| [3, 5, 7].iter().any(|base| is_power(*n, *base))).collect();
        assert_eq!(powers, [1, 3, 5, 7, 9, 25, 27, 49, 81]);
    }
}
