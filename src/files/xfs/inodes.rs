//! Inodes: found by their group's tree, in chunks of 64.

use std::ops::{ControlFlow, Range};

use super::Xfs;
use super::btree::Met;
use crate::files::Kind;
use crate::files::bytes::Bytes;
use crate::files::error::{FilesError, Result};
use crate::files::file_system::{Budget, Flow, Inode, Which};

/// Inodes in a chunk.
const CHUNK_INODES: u32 = 64;
/// Inodes that a bit of the mask of holes stands for.
const HOLE_INODES: u32 = 4;

/// A chunk of inodes.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    group: u32,
    /// The number within the group of its first inode.
    first: u32,
    /// Bit by bit, four inodes that are not there.
    holes: u16,
    /// Bit by bit, inodes that are not in use.
    free: u64,
}

impl Chunk {
    fn is_there(self, index: u32) -> bool {
        self.holes >> (index / HOLE_INODES) & 1 == 0
    }

    /// The blocks in which its inodes are.
    pub fn runs(self, xfs: &Xfs<'_>) -> impl Iterator<Item = Range<u64>> {
        let bits = xfs.superblock.inode_bits;
        let blocks = (CHUNK_INODES >> bits).max(1);
        let per_block = CHUNK_INODES / blocks;
        let start = xfs.superblock.in_group(self.group, u64::from(self.first >> bits));
        (0..blocks).filter(move |block| self.is_there(block * per_block)).filter_map(move |block| {
            let block = start? + u64::from(block);
            Some(block..block + 1)
        })
    }
}

impl Xfs<'_> {
    /// Reads a record of the tree of inodes.
    pub fn chunk(&self, group: u32, record: Bytes<'_>) -> Result<Chunk> {
        let holes = if self.superblock.has_sparse_inodes { record.be16(4)? } else { 0 };
        Ok(Chunk { group, first: record.be32(0)?, holes, free: record.be64(8)? })
    }

    /// Visits a group's inodes that are in use.
    pub fn group_inodes(
        &self,
        group: u32,
        which: Which,
        budget: &mut Budget,
        visit: &mut dyn FnMut(Result<&Inode>) -> Result<Flow>,
    ) -> Result<Flow> {
        let mut flow = ControlFlow::Continue(());
        self.walk_inodes(group, budget, &mut |met| {
            let Met::Record(record) = met else { return Ok(()) };
            let chunk = self.chunk(group, record)?;
            // The tree is walked to its end also after a break: without its errors that takes little.
            if flow.is_continue() {
                flow = self.chunk_inodes(chunk, which, visit)?;
            }
            Ok(())
        })?;
        Ok(flow)
    }

    fn chunk_inodes(
        &self,
        chunk: Chunk,
        which: Which,
        visit: &mut dyn FnMut(Result<&Inode>) -> Result<Flow>,
    ) -> Result<Flow> {
        // A whole chunk is read at once; in one with holes, others' blocks may lie between.
        let whole = if chunk.holes == 0 { self.read_chunk(chunk) } else { None };
        for index in 0..CHUNK_INODES {
            if !chunk.is_there(index) || chunk.free >> index & 1 == 1 {
                continue;
            }
            let number = self.superblock.inode_number(chunk.group, chunk.first.saturating_add(index));
            let from = index as usize * self.superblock.inode_bytes;
            let inode = match &whole {
                Some(bytes) => {
                    Bytes(bytes).slice(from, self.superblock.inode_bytes).and_then(|raw| parse(number, raw))
                }
                None => read(self, number),
            };
            if inode.as_ref().is_ok_and(|inode| which == Which::Directories && inode.kind != Kind::Directory)
            {
                continue;
            }
            if visit(inode.as_ref().map_err(|_| FilesError::Damaged("an inode")))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// All inodes of a chunk; `None` where they are not in a row or cannot be read, to be looked at one by one.
    fn read_chunk(&self, chunk: Chunk) -> Option<Vec<u8>> {
        let superblock = &self.superblock;
        let block = superblock.in_group(chunk.group, u64::from(chunk.first >> superblock.inode_bits))?;
        let within = (chunk.first & ((1 << superblock.inode_bits) - 1)) as usize * superblock.inode_bytes;
        let at = block * superblock.block_bytes + within as u64;
        self.source.read(at, CHUNK_INODES as usize * superblock.inode_bytes).ok()
    }
}

/// Reads an inode.
pub fn read(xfs: &Xfs<'_>, number: u64) -> Result<Inode> {
    let superblock = &xfs.superblock;
    let place = superblock.inode_place(number);
    let place = place.and_then(|(group, block, index)| Some((superblock.in_group(group, block)?, index)));
    let (block, index) = place.ok_or(FilesError::Damaged("an inode's number"))?;
    let at = block * superblock.block_bytes + (index * superblock.inode_bytes) as u64;
    parse(number, &xfs.source.read(at, superblock.inode_bytes)?)
}

fn parse(number: u64, raw: &[u8]) -> Result<Inode> {
    let bytes = Bytes(raw);
    if bytes.slice(0, 2)? != b"IN" || bytes.byte(4)? != 3 || bytes.be64(152)? != number {
        return Err(FilesError::Damaged("an inode"));
    }
    let kind = match bytes.be16(2)? & 0xf000 {
        0x8000 => Kind::File,
        0x4000 => Kind::Directory,
        0xa000 => Kind::Symlink,
        _ => Kind::Other,
    };
    Ok(Inode { number, kind, size_bytes: bytes.be64(56)?, raw: raw.to_vec() })
}
