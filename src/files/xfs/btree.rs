//! B+trees, of an allocation group with short pointers, of a file with long ones.

use super::Xfs;
use crate::files::bytes::Bytes;
use crate::files::error::{FilesError, Result};
use crate::files::file_system::Budget;

/// No tree is higher.
const LEVELS_MAX: u32 = 12;
/// The header of a block with short pointers, in bytes.
const SHORT_HEADER_BYTES: usize = 56;
/// The header of a block with long pointers, in bytes.
const LONG_HEADER_BYTES: usize = 72;

/// A kind of tree.
#[derive(Clone, Copy)]
pub struct Tree {
    pub magic: &'static [u8; 4],
    pub key_bytes: usize,
    pub record_bytes: usize,
    /// The group whose tree it is, which its pointers are within; `None` for a file's, whose pointers are long.
    pub group: Option<u32>,
}

/// What is met in a tree.
pub enum Met<'m> {
    /// A block of the tree, counted through.
    Block(u64),
    /// A record.
    Record(Bytes<'m>),
}

impl Tree {
    const fn header_bytes(self) -> usize {
        if self.group.is_some() { SHORT_HEADER_BYTES } else { LONG_HEADER_BYTES }
    }

    const fn pointer_bytes(self) -> usize {
        if self.group.is_some() { 4 } else { 8 }
    }

    /// The `index`th of the pointers that begin at `start`, as a block counted through.
    pub fn pointer(self, xfs: &Xfs<'_>, node: Bytes<'_>, start: usize, index: usize) -> Result<u64> {
        let at = start + index * self.pointer_bytes();
        let block = match self.group {
            Some(group) => xfs.superblock.in_group(group, node.be32(at)?.into()),
            None => xfs.superblock.through(node.be64(at)?),
        };
        block.ok_or(FilesError::Damaged("a tree points past the end"))
    }

    /// Visits all of a tree: each block before what is in it, records in order. `levels` counts blocks from root to leaf.
    pub fn walk(
        self,
        xfs: &Xfs<'_>,
        root: u64,
        levels: u32,
        budget: &mut Budget,
        met: &mut dyn FnMut(Met<'_>) -> Result<()>,
    ) -> Result<()> {
        if !(1..=LEVELS_MAX).contains(&levels) {
            return Err(FilesError::Damaged("a tree's height"));
        }
        budget.take()?;
        met(Met::Block(root))?;
        let raw = xfs.block(root)?;
        let node = Bytes(&raw);
        let (level, records) = (node.be16(4)?, usize::from(node.be16(6)?));
        if node.slice(0, 4)? != self.magic || u32::from(level) + 1 != levels {
            return Err(FilesError::Damaged("a tree's block is of another one"));
        }
        let header = self.header_bytes();
        if level == 0 {
            for index in 0..records {
                let record = node.slice(header + index * self.record_bytes, self.record_bytes)?;
                met(Met::Record(Bytes(record)))?;
            }
            return Ok(());
        }
        let most = (raw.len() - header) / (self.key_bytes + self.pointer_bytes());
        if records > most {
            return Err(FilesError::Damaged("a tree's block is too full"));
        }
        for index in 0..records {
            let child = self.pointer(xfs, node, header + most * self.key_bytes, index)?;
            self.walk(xfs, child, levels - 1, budget, met)?;
        }
        Ok(())
    }
}
