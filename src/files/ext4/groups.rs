//! Block groups: where their descriptors are, and what each holds besides files.

use std::ops::Range;

use super::Ext4;
use crate::files::Metadata;
use crate::files::bytes::Bytes;
use crate::files::error::{FilesError, Result};
use crate::files::file_system::Flow;
use crate::files::ranges::Ranges;

const INODES_NEVER_WRITTEN: u16 = 1;
const BLOCKS_NEVER_WRITTEN: u16 = 2;

/// A group's descriptor.
#[derive(Clone, Debug)]
pub struct Group {
    pub number: u32,
    pub block_bitmap: u64,
    pub inode_bitmap: u64,
    pub inode_table: u64,
    /// Inodes from the table's first that may be in use.
    pub inodes_used: u32,
    pub directories: u32,
    /// Whether the block bitmap was never written: all is free but the structures.
    pub is_blank: bool,
}

impl Ext4<'_> {
    /// The block that has a group's descriptor.
    fn descriptor_block(&self, index: u64) -> u64 {
        let superblock = &self.superblock;
        if superblock.first_meta_group.is_none_or(|first| index < first) {
            return self.classic_start(0) + index;
        }
        let group = u32::try_from(index * superblock.descriptors_per_block()).unwrap_or(u32::MAX);
        superblock.group_start(group) + u64::from(superblock.has_superblock(group))
    }

    /// Where the descriptors begin in a group that has a copy of all.
    fn classic_start(&self, group: u32) -> u64 {
        let start = self.superblock.group_start(group);
        // The superblock is at 1,024 bytes: in blocks of that size it is never the first.
        let at_least = if group == 0 && self.superblock.block_bytes == 1024 { 1 } else { 0 };
        start.max(at_least) + 1
    }

    /// Visits all groups, in order.
    pub fn each_group(&self, visit: &mut dyn FnMut(Result<Group>) -> Result<Flow>) -> Result<()> {
        let per_block = self.superblock.descriptors_per_block();
        for index in 0..u64::from(self.superblock.groups).div_ceil(per_block) {
            let first = (index * per_block) as u32;
            let count = per_block.min(u64::from(self.superblock.groups - first)) as u32;
            let block = match self.block(self.descriptor_block(index)) {
                Ok(block) => block,
                Err(error) => {
                    if visit(Err(error))?.is_break() {
                        return Ok(());
                    }
                    continue;
                }
            };
            for number in first..first + count {
                if visit(self.parse_group(number, &block))?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One group.
    pub fn group(&self, number: u32) -> Result<Group> {
        if number >= self.superblock.groups {
            return Err(FilesError::Damaged("a group's number"));
        }
        let index = u64::from(number) / self.superblock.descriptors_per_block();
        self.parse_group(number, &self.block(self.descriptor_block(index))?)
    }

    fn parse_group(&self, number: u32, block: &[u8]) -> Result<Group> {
        let superblock = &self.superblock;
        let at = u64::from(number) % superblock.descriptors_per_block() * superblock.descriptor_bytes as u64;
        let bytes = Bytes(Bytes(block).slice(at as usize, superblock.descriptor_bytes)?);
        let is_long = superblock.descriptor_bytes >= 64;
        let wide = |low: usize, high: usize| {
            if is_long { bytes.le32_halves(low, high) } else { bytes.le32(low).map(u64::from) }
        };
        let narrow = |low: usize, high: usize| -> Result<u32> {
            let high = if is_long { bytes.le16(high)? } else { 0 };
            Ok(u32::from(bytes.le16(low)?) | u32::from(high) << 16)
        };
        let flags = if superblock.has_group_checksums { bytes.le16(18)? } else { 0 };
        let inodes = superblock.inodes_per_group as u32;
        let unused = if superblock.has_group_checksums { narrow(28, 50)? } else { 0 };
        let group = Group {
            number,
            block_bitmap: wide(0, 32)?,
            inode_bitmap: wide(4, 36)?,
            inode_table: wide(8, 40)?,
            inodes_used: if flags & INODES_NEVER_WRITTEN != 0 { 0 } else { inodes.saturating_sub(unused) },
            directories: narrow(16, 48)?,
            is_blank: flags & BLOCKS_NEVER_WRITTEN != 0,
        };
        let last = group.inode_table.max(group.inode_bitmap).max(group.block_bitmap);
        if last >= superblock.blocks {
            return Err(FilesError::Damaged("a group descriptor points past the end"));
        }
        Ok(group)
    }

    /// Tells of what a group has besides files.
    pub fn group_structures(
        &self,
        group: &Group,
        asked: &Ranges,
        found: &mut dyn FnMut(Result<(Range<u64>, Metadata)>) -> Result<()>,
    ) -> Result<()> {
        let superblock = &self.superblock;
        let mut tell = |run: Range<u64>, what| {
            if asked.meets(run.clone()) {
                let metadata = Metadata { what, group: Some(group.number) };
                found(Ok((run, metadata)))
            } else {
                Ok(())
            }
        };
        let start = superblock.group_start(group.number);
        let per_block = superblock.descriptors_per_block();
        let classic = u64::from(superblock.groups).div_ceil(per_block);
        let classic = superblock.first_meta_group.map_or(classic, |first| first.min(classic));
        if superblock.has_superblock(group.number) {
            let descriptors = self.classic_start(group.number);
            tell(descriptors - 1..descriptors, "superblock")?;
            tell(descriptors..descriptors + classic, "group descriptors")?;
            let reserved = descriptors + classic;
            tell(reserved..reserved + superblock.reserved_descriptor_blocks, "reserved group descriptors")?;
        }
        let in_meta_group = u64::from(group.number) % per_block;
        if superblock.first_meta_group.is_some_and(|first| u64::from(group.number) / per_block >= first)
            && (in_meta_group <= 1 || in_meta_group == per_block - 1)
        {
            let block = start + u64::from(superblock.has_superblock(group.number));
            tell(block..block + 1, "group descriptors")?;
        }
        tell(group.block_bitmap..group.block_bitmap + 1, "block bitmap")?;
        tell(group.inode_bitmap..group.inode_bitmap + 1, "inode bitmap")?;
        let table_bytes = superblock.inodes_per_group * superblock.inode_bytes as u64;
        let table_blocks = table_bytes.div_ceil(superblock.block_bytes);
        tell(group.inode_table..group.inode_table + table_blocks, "inode table")
    }
}
