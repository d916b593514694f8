//! Allocation groups: headers, free space, and the trees that tell of them.

use std::ops::Range;

use super::Xfs;
use super::btree::{Met, Tree};
use crate::files::Metadata;
use crate::files::bytes::Bytes;
use crate::files::error::{FilesError, Result};
use crate::files::file_system::{Budget, Free, GROWTH_BYTES};
use crate::files::ranges::Ranges;

/// A tree's root and height, as a header has them.
pub struct Root {
    pub block: u64,
    pub levels: u32,
}

fn inode_tree(group: u32) -> Tree {
    Tree { magic: b"IAB3", key_bytes: 4, record_bytes: 16, group: Some(group) }
}

fn free_space_tree(group: u32) -> Tree {
    Tree { magic: b"AB3B", key_bytes: 8, record_bytes: 8, group: Some(group) }
}

impl Xfs<'_> {
    /// A group's header: the sector with this number, of this kind.
    fn header(&self, group: u32, sector: u64, magic: &[u8; 4]) -> Result<Vec<u8>> {
        let superblock = &self.superblock;
        let start = superblock.group_range(group).start * superblock.block_bytes;
        let raw =
            self.source.read(start + sector * superblock.sector_bytes, superblock.sector_bytes as usize)?;
        if Bytes(&raw).slice(0, 4)? != magic || Bytes(&raw).be32(8)? != group {
            return Err(FilesError::Damaged("a header of an allocation group"));
        }
        Ok(raw)
    }

    fn root(&self, group: u32, header: &[u8], root: usize, levels: usize) -> Result<Root> {
        let header = Bytes(header);
        let block = self.superblock.in_group(group, header.be32(root)?.into());
        let block = block.ok_or(FilesError::Damaged("a tree's root is past the end"))?;
        Ok(Root { block, levels: header.be32(levels)? })
    }

    /// Tells of what a group has besides files.
    pub fn group_structures(
        &self,
        group: u32,
        budget: &mut Budget,
        found: &mut dyn FnMut(Result<(Range<u64>, Metadata)>) -> Result<()>,
    ) -> Result<()> {
        let superblock = &self.superblock;
        let mut tell = |run: Range<u64>, what| found(Ok((run, Metadata { what, group: Some(group) })));
        let start = superblock.group_range(group).start;
        let headers = (4 * superblock.sector_bytes).div_ceil(superblock.block_bytes);
        tell(start..start + headers, "headers")?;

        let space = self.header(group, 1, b"XAGF")?;
        let inodes = self.header(group, 2, b"XAGI")?;
        let mut trees = vec![
            (free_space_tree(group), self.root(group, &space, 16, 28)?, "free space tree"),
            (
                Tree { magic: b"AB3C", ..free_space_tree(group) },
                self.root(group, &space, 20, 32)?,
                "free space tree",
            ),
        ];
        if superblock.has_reverse_map {
            let tree = Tree { magic: b"RMB3", key_bytes: 40, record_bytes: 24, group: Some(group) };
            trees.push((tree, self.root(group, &space, 24, 36)?, "reverse map"));
        }
        if superblock.has_reference_counts {
            let tree = Tree { magic: b"R3FC", key_bytes: 4, record_bytes: 12, group: Some(group) };
            trees.push((tree, self.root(group, &space, 88, 92)?, "reference counts"));
        }
        if superblock.has_free_inode_tree {
            let tree = Tree { magic: b"FIB3", ..inode_tree(group) };
            trees.push((tree, self.root(group, &inodes, 328, 332)?, "free inode tree"));
        }
        trees.push((inode_tree(group), self.inode_root(group)?, "inode tree"));
        for (tree, root, what) in trees {
            tree.walk(self, root.block, root.levels, budget, &mut |met| match met {
                Met::Block(block) => tell(block..block + 1, what),
                Met::Record(record) if tree.magic == b"IAB3" => {
                    for run in self.chunk(group, record)?.runs(self) {
                        tell(run, "inodes")?;
                    }
                    Ok(())
                }
                Met::Record(_) => Ok(()),
            })?;
        }
        self.reserve(group, &space, &mut |block| tell(block..block + 1, "reserve of blocks"))
    }

    /// The blocks that a group keeps for its trees to grow.
    fn reserve(&self, group: u32, space: &[u8], tell: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let space = Bytes(space);
        let (first, count) = (space.be32(40)?, space.be32(48)?);
        let list = self.header_of_reserve(group)?;
        let slots = (list.len() - 36) / 4;
        if count as usize > slots || first as usize >= slots {
            return Err(FilesError::Damaged("a group's reserve of blocks"));
        }
        for index in 0..count as usize {
            let slot = (first as usize + index) % slots;
            let within = Bytes(&list).be32(36 + slot * 4)?;
            if let Some(block) = self.superblock.in_group(group, within.into()) {
                tell(block)?;
            }
        }
        Ok(())
    }

    fn header_of_reserve(&self, group: u32) -> Result<Vec<u8>> {
        let superblock = &self.superblock;
        let start = superblock.group_range(group).start * superblock.block_bytes;
        self.source.read(start + 3 * superblock.sector_bytes, superblock.sector_bytes as usize)
    }

    /// The root of a group's tree of inodes.
    pub fn inode_root(&self, group: u32) -> Result<Root> {
        let inodes = self.header(group, 2, b"XAGI")?;
        self.root(group, &inodes, 20, 24)
    }

    /// The tree of inodes of a group.
    pub fn walk_inodes(
        &self,
        group: u32,
        budget: &mut Budget,
        met: &mut dyn FnMut(Met<'_>) -> Result<()>,
    ) -> Result<()> {
        let root = self.inode_root(group)?;
        inode_tree(group).walk(self, root.block, root.levels, budget, met)
    }

    /// Tells of the free space of a group that is asked for.
    pub fn group_free(
        &self,
        group: u32,
        asked: &Ranges,
        budget: &mut Budget,
        found: &mut dyn FnMut(Result<Free>) -> Result<()>,
    ) -> Result<()> {
        let space = self.header(group, 1, b"XAGF")?;
        let root = self.root(group, &space, 16, 28)?;
        let look_back = GROWTH_BYTES / self.superblock.block_bytes;
        free_space_tree(group).walk(self, root.block, root.levels, budget, &mut |met| {
            let Met::Record(record) = met else { return Ok(()) };
            let begins = self.superblock.in_group(group, record.be32(0)?.into());
            let begins = begins.ok_or(FilesError::Damaged("free space past the end"))?;
            for run in asked.parts_of(begins..begins + u64::from(record.be32(4)?)) {
                let begins = begins.max(run.start.saturating_sub(look_back));
                found(Ok(Free { run, begins }))?;
            }
            Ok(())
        })
    }
}
