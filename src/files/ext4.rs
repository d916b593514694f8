//! ext2, ext3 and ext4, after the kernel's "ext4 Data Structures and Algorithms".

mod bitmap;
mod directory;
mod groups;
mod mapping;
mod superblock;

use std::ops::{ControlFlow, Range};

use super::bytes::Bytes;
use super::error::{FilesError, Result};
use super::file_system::{Budget, FileSystem, Flow, Free, Inode, Mapped, Which};
use super::ranges::Ranges;
use super::source::Source;
use super::{Kind, Metadata};
use groups::Group;
use superblock::Superblock;

/// Inodes are read in pieces of about this many bytes.
const TABLE_READ_BYTES: usize = 64 << 10;

/// A file system of this family.
pub struct Ext4<'a> {
    source: Source<'a>,
    superblock: Superblock,
}

/// Recognises a file system; `None` where it is another one, or none.
pub fn open(source: Source<'_>) -> Result<Option<Ext4<'_>>> {
    Ok(Superblock::read(source)?.map(|superblock| Ext4 { source, superblock }))
}

/// The beginning of an inode of the good old size, in bytes.
const INODE_BYTES_MIN: usize = 128;
/// The inode's flag: its content is in the inode itself.
const INLINE_DATA: u32 = 0x1000_0000;
/// The inode that holds the list of bad blocks; the only one in use that is of no kind.
const BAD_BLOCKS: u64 = 1;

fn flags(inode: &Inode) -> Result<u32> {
    Bytes(&inode.raw).le32(32)
}

fn kind(mode: u16) -> Kind {
    match mode & 0xf000 {
        0x8000 => Kind::File,
        0x4000 => Kind::Directory,
        0xa000 => Kind::Symlink,
        _ => Kind::Other,
    }
}

fn parse(number: u64, raw: &[u8]) -> Result<Inode> {
    let bytes = Bytes(raw);
    let size_bytes = bytes.le32_halves(4, 108)?;
    Ok(Inode { number, kind: kind(bytes.le16(0)?), size_bytes, raw: raw.to_vec() })
}

impl Ext4<'_> {
    fn block(&self, block: u64) -> Result<Vec<u8>> {
        if block >= self.superblock.blocks {
            return Err(FilesError::Damaged("it points past its own end"));
        }
        self.source.read(block * self.superblock.block_bytes, self.superblock.block_bytes as usize)
    }

    /// Visits the inodes of one group that are in use.
    fn group_inodes(
        &self,
        group: &Group,
        which: Which,
        visit: &mut dyn FnMut(Result<&Inode>) -> Result<Flow>,
    ) -> Result<Flow> {
        let superblock = &self.superblock;
        if group.inodes_used == 0 || (which == Which::Directories && group.directories == 0) {
            return Ok(ControlFlow::Continue(()));
        }
        let used = self.block(group.inode_bitmap)?;
        let inode_bytes = superblock.inode_bytes;
        let at_once = TABLE_READ_BYTES / inode_bytes;
        let table = group.inode_table * superblock.block_bytes;
        let mut bytes = vec![0; at_once * inode_bytes];
        for first in (0..group.inodes_used as usize).step_by(at_once) {
            let count = at_once.min(group.inodes_used as usize - first);
            if !(first..first + count).any(|index| bitmap::is_set(&used, index)) {
                continue;
            }
            let part = bytes.get_mut(..count * inode_bytes).unwrap_or_default();
            if let Err(error) = self.source.fill(part, table + (first * inode_bytes) as u64) {
                if visit(Err(error))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                continue;
            }
            for (index, raw) in (first..).zip(part.chunks_exact(inode_bytes)) {
                let mode = Bytes(raw).le16(0)?;
                let number = u64::from(group.number) * superblock.inodes_per_group + index as u64 + 1;
                if !bitmap::is_set(&used, index)
                    || (mode == 0 && number != BAD_BLOCKS)
                    || (which == Which::Directories && kind(mode) != Kind::Directory)
                {
                    continue;
                }
                let inode = parse(number, raw);
                if visit(inode.as_ref().map_err(|_| FilesError::Damaged("an inode")))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl FileSystem for Ext4<'_> {
    fn name(&self) -> &'static str {
        self.superblock.name
    }

    fn block_bytes(&self) -> u64 {
        self.superblock.block_bytes
    }

    fn blocks(&self) -> u64 {
        self.superblock.blocks
    }

    fn root(&self) -> u64 {
        2
    }

    fn allocated_until(&self, end: u64) -> u64 {
        let first = self.superblock.first_data_block;
        first + end.saturating_sub(first).next_multiple_of(self.superblock.cluster_blocks)
    }

    fn special(&self, inode: u64) -> Option<Metadata> {
        let superblock = &self.superblock;
        let of = |what| Some(Metadata { what, group: None });
        let is = |number: u32| number != 0 && inode == u64::from(number);
        match inode {
            BAD_BLOCKS => of("list of bad blocks"),
            3 | 4 => of("quotas"),
            5 => of("boot loader"),
            7 => of("reserved group descriptors"),
            _ if is(superblock.journal_inode) => of("journal"),
            _ if superblock.quota_inodes.into_iter().any(is) => of("quotas"),
            _ if is(superblock.orphan_inode) => of("list of orphans"),
            6..=10 => of("reserved"),
            _ => None,
        }
    }

    fn structures(
        &self,
        asked: &Ranges,
        _: &mut Budget,
        found: &mut dyn FnMut(Result<(Range<u64>, Metadata)>) -> Result<()>,
    ) -> Result<()> {
        if self.superblock.block_bytes == 1024 {
            found(Ok((0..1, Metadata { what: "boot block", group: None })))?;
        }
        if let Some(block) = self.superblock.mount_protection {
            found(Ok((block..block.saturating_add(1), Metadata { what: "mount protection", group: None })))?;
        }
        self.each_group(&mut |group| {
            match group {
                Ok(group) => self.group_structures(&group, asked, found)?,
                Err(error) => found(Err(error))?,
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn free(
        &self,
        asked: &Ranges,
        _: &mut Budget,
        found: &mut dyn FnMut(Result<Free>) -> Result<()>,
    ) -> Result<()> {
        bitmap::free(self, asked, found)
    }

    fn inodes(
        &self,
        which: Which,
        _: &mut Budget,
        visit: &mut dyn FnMut(Result<&Inode>) -> Result<Flow>,
    ) -> Result<()> {
        self.each_group(&mut |group| match group.and_then(|group| self.group_inodes(&group, which, visit)) {
            Err(error) if error.is_final() => Err(error),
            Err(error) => visit(Err(error)),
            flow => flow,
        })
    }

    fn inode(&self, number: u64) -> Result<Inode> {
        let superblock = &self.superblock;
        let index = number.checked_sub(1).ok_or(FilesError::Damaged("an inode's number is 0"))?;
        let group = u32::try_from(index / superblock.inodes_per_group).unwrap_or(u32::MAX);
        let group = self.group(group)?;
        let at = index % superblock.inodes_per_group * superblock.inode_bytes as u64;
        let raw =
            self.source.read(group.inode_table * superblock.block_bytes + at, superblock.inode_bytes)?;
        parse(number, &raw)
    }

    fn mapping(
        &self,
        inode: &Inode,
        budget: &mut Budget,
        found: &mut dyn FnMut(Mapped) -> Result<()>,
    ) -> Result<()> {
        let bytes = Bytes(&inode.raw);
        let attributes = u64::from(bytes.le32(104)?) | u64::from(bytes.le16(118)?) << 32;
        if attributes != 0 {
            found(Mapped::Attributes(attributes..attributes.saturating_add(1)))?;
        }
        mapping::tell(self, inode, budget, found)
    }

    fn entries(
        &self,
        directory: &Inode,
        budget: &mut Budget,
        visit: &mut dyn FnMut(u64, &[u8]) -> Flow,
    ) -> Result<()> {
        directory::visit(self, directory, budget, visit)
    }
}
