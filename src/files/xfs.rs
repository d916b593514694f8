//! XFS, version 5, after the "XFS Algorithms & Data Structures".
//!
//! Blocks are numbered through here; XFS itself numbers them by allocation group, with unused bits between.

mod btree;
mod directory;
mod groups;
mod inodes;
mod mapping;
mod superblock;

use std::ops::Range;

use super::Metadata;
use super::error::{FilesError, Result};
use super::file_system::{Budget, FileSystem, Flow, Free, Inode, Mapped, Which};
use super::ranges::Ranges;
use super::source::Source;
use superblock::Superblock;

/// A file system of this kind.
pub struct Xfs<'a> {
    source: Source<'a>,
    superblock: Superblock,
}

/// Recognises a file system; `None` where it is another one, or none.
pub fn open(source: Source<'_>) -> Result<Option<Xfs<'_>>> {
    Ok(Superblock::read(source)?.map(|superblock| Xfs { source, superblock }))
}

impl Xfs<'_> {
    /// Reads a block by its number counted through.
    fn block(&self, block: u64) -> Result<Vec<u8>> {
        if block >= self.superblock.blocks {
            return Err(FilesError::Damaged("it points past its own end"));
        }
        self.source.read(block * self.superblock.block_bytes, self.superblock.block_bytes as usize)
    }

    /// The groups that hold something of what is asked.
    fn groups_of(&self, asked: &Ranges) -> impl Iterator<Item = u32> {
        let superblock = &self.superblock;
        (0..superblock.groups).filter(|group| asked.meets(superblock.group_range(*group)))
    }
}

impl FileSystem for Xfs<'_> {
    fn name(&self) -> &'static str {
        "XFS"
    }

    fn block_bytes(&self) -> u64 {
        self.superblock.block_bytes
    }

    fn blocks(&self) -> u64 {
        self.superblock.blocks
    }

    fn root(&self) -> u64 {
        self.superblock.root
    }

    fn special(&self, inode: u64) -> Option<Metadata> {
        let superblock = &self.superblock;
        let what = match inode {
            _ if superblock.quota_inodes.contains(&inode) => "quotas",
            _ if superblock.realtime_inodes.contains(&inode) => "realtime bitmaps",
            _ => return None,
        };
        Some(Metadata { what, group: None })
    }

    fn structures(
        &self,
        asked: &Ranges,
        budget: &mut Budget,
        found: &mut dyn FnMut(Result<(Range<u64>, Metadata)>) -> Result<()>,
    ) -> Result<()> {
        if let Some(log) = self.superblock.log.clone() {
            found(Ok((log, Metadata { what: "log", group: None })))?;
        }
        for group in self.groups_of(asked) {
            if let Err(error) = self.group_structures(group, budget, found) {
                found(Err(error))?;
            }
        }
        Ok(())
    }

    fn free(
        &self,
        asked: &Ranges,
        budget: &mut Budget,
        found: &mut dyn FnMut(Result<Free>) -> Result<()>,
    ) -> Result<()> {
        for group in self.groups_of(asked) {
            if let Err(error) = self.group_free(group, asked, budget, found) {
                found(Err(error))?;
            }
        }
        Ok(())
    }

    fn inodes(
        &self,
        which: Which,
        budget: &mut Budget,
        visit: &mut dyn FnMut(Result<&Inode>) -> Result<Flow>,
    ) -> Result<()> {
        for group in 0..self.superblock.groups {
            let flow = match self.group_inodes(group, which, budget, visit) {
                Err(error) if error.is_final() => return Err(error),
                Err(error) => visit(Err(error))?,
                Ok(flow) => flow,
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn inode(&self, number: u64) -> Result<Inode> {
        inodes::read(self, number)
    }

    fn mapping(
        &self,
        inode: &Inode,
        budget: &mut Budget,
        found: &mut dyn FnMut(Mapped) -> Result<()>,
    ) -> Result<()> {
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
