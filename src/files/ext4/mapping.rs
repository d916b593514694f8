//! Where a file's blocks are: extent trees, and the indirect blocks of ext2 and ext3.

use std::ops::Range;

use super::{BAD_BLOCKS, Ext4, INLINE_DATA, flags};
use crate::files::Kind;
use crate::files::bytes::Bytes;
use crate::files::error::{FilesError, Result};
use crate::files::file_system::{Budget, Inode, Mapped};

const EXTENTS: u32 = 0x8_0000;
const EXTENT_MAGIC: u16 = 0xf30a;
/// No extent tree is deeper.
const DEPTH_MAX: u16 = 5;
/// An extent's length above which it is set aside and not written yet; the rest is its length.
const LENGTH_WRITTEN_MAX: u16 = 1 << 15;
/// Where an inode has its map, and how long that is, in bytes.
const MAP: Range<usize> = 40..100;
/// Blocks that the inode names itself.
const DIRECT: usize = 12;

type Found<'f> = &'f mut dyn FnMut(Mapped) -> Result<()>;

/// Tells of an inode's map and content.
pub fn tell(file_system: &Ext4<'_>, inode: &Inode, budget: &mut Budget, found: Found<'_>) -> Result<()> {
    let flags = flags(inode)?;
    let map = Bytes(Bytes(&inode.raw).slice(MAP.start, MAP.len())?);
    if (inode.kind == Kind::Other && inode.number != BAD_BLOCKS) || flags & INLINE_DATA != 0 {
        return Ok(());
    }
    let mut walk = Walk { file_system, budget, found, next: 0 };
    if flags & EXTENTS != 0 {
        return walk.extents(map, None);
    }
    // A short link's target is in the inode itself.
    if inode.kind == Kind::Symlink && inode.size_bytes < MAP.len() as u64 {
        return Ok(());
    }
    for index in 0..DIRECT {
        walk.block(map.le32(index * 4)?.into())?;
    }
    for level in 1..=3 {
        walk.indirect(map.le32((DIRECT + level as usize - 1) * 4)?.into(), level)?;
    }
    Ok(())
}

struct Walk<'w, 'b> {
    file_system: &'w Ext4<'b>,
    budget: &'w mut Budget,
    found: Found<'w>,
    /// The file's first block that was not told of; they come in order.
    next: u64,
}

impl Walk<'_, '_> {
    fn read(&mut self, block: u64) -> Result<Vec<u8>> {
        self.budget.take()?;
        (self.found)(Mapped::Map(block))?;
        self.file_system.block(block)
    }

    /// A node of an extent tree; the one above says which depth it has.
    fn extents(&mut self, node: Bytes<'_>, expected: Option<u16>) -> Result<()> {
        let (entries, depth) = (usize::from(node.le16(2)?), node.le16(6)?);
        if node.le16(0)? != EXTENT_MAGIC
            || depth > DEPTH_MAX
            || expected.is_some_and(|expected| expected != depth)
        {
            return Err(FilesError::Damaged("a node of an extent tree"));
        }
        for entry in 0..entries {
            let at = 12 + entry * 12;
            let first = u64::from(node.le32(at)?);
            if first < self.next {
                return Err(FilesError::Damaged("an extent tree's order"));
            }
            if depth == 0 {
                let length = node.le16(at + 4)?;
                let length =
                    u64::from(if length > LENGTH_WRITTEN_MAX { length - LENGTH_WRITTEN_MAX } else { length });
                let start = u64::from(node.le32(at + 8)?) | u64::from(node.le16(at + 6)?) << 32;
                self.next = first + length;
                (self.found)(Mapped::Data { at: first, run: start..start + length })?;
            } else {
                let block = u64::from(node.le32(at + 4)?) | u64::from(node.le16(at + 8)?) << 32;
                let child = self.read(block)?;
                self.extents(Bytes(&child), Some(depth - 1))?;
            }
        }
        Ok(())
    }

    /// The file's next block is this one; 0 is a hole.
    fn block(&mut self, block: u64) -> Result<()> {
        let at = self.next;
        self.next += 1;
        if block == 0 { Ok(()) } else { (self.found)(Mapped::Data { at, run: block..block + 1 }) }
    }

    /// A block full of pointers, `level` steps above the content.
    fn indirect(&mut self, block: u64, level: u32) -> Result<()> {
        let pointers = self.file_system.superblock.block_bytes / 4;
        if block == 0 {
            self.next += pointers.pow(level);
            return Ok(());
        }
        let bytes = self.read(block)?;
        for pointer in bytes.chunks_exact(4) {
            let pointer = u64::from(Bytes(pointer).le32(0)?);
            if level == 1 { self.block(pointer)? } else { self.indirect(pointer, level - 1)? }
        }
        Ok(())
    }
}
