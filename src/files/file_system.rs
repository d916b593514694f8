//! What ext4 and XFS have in common, as far as naming ranges needs it. Blocks are numbered through from the device's first.

use std::ops::{ControlFlow, Range};

use super::error::{FilesError, Result};
use super::ranges::Ranges;
use super::{Kind, Metadata};

/// An inode as read.
#[derive(Clone, Debug)]
pub struct Inode {
    pub number: u64,
    pub kind: Kind,
    pub size_bytes: u64,
    /// The inode's own bytes.
    pub raw: Vec<u8>,
}

/// Blocks of an inode.
#[derive(Clone, Debug)]
pub enum Mapped {
    /// Its content from the file's block `at` on; told in the order of `at`.
    Data { at: u64, run: Range<u64> },
    /// A block of its map.
    Map(u64),
    /// Its extended attributes.
    Attributes(Range<u64>),
}

/// Free blocks among those asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Free {
    /// The asked part.
    pub run: Range<u64>,
    /// Where the free space that `run` is part of begins; it may be before what was asked for. Not looked for further back than
    /// [`GROWTH_BYTES`].
    pub begins: u64,
}

/// Which inodes to visit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    All,
    Directories,
}

/// How many more blocks of maps and directories may be read: a file system has each block once.
pub struct Budget(u64);

impl Budget {
    pub fn new(blocks: u64) -> Self {
        Self(blocks)
    }

    pub fn take(&mut self) -> Result<()> {
        self.0 = self.0.checked_sub(1).ok_or(FilesError::Loops)?;
        Ok(())
    }
}

/// How far behind a file's end free space counts as what it would grow into, in bytes.
pub const GROWTH_BYTES: u64 = 16 << 20;

/// Whether to go on.
pub type Flow = ControlFlow<()>;

/// A file system that was recognised.
pub trait FileSystem {
    fn name(&self) -> &'static str;
    fn block_bytes(&self) -> u64;
    /// How many blocks it has.
    fn blocks(&self) -> u64;
    fn root(&self) -> u64;
    /// Where the space ends that is given out together with the block before `end`.
    fn allocated_until(&self, end: u64) -> u64 {
        end
    }
    /// What an inode is that has no name but a purpose.
    fn special(&self, inode: u64) -> Option<Metadata>;
    /// Tells of the structures that lie outside of files, as far as they are asked for. Damage is handed on.
    fn structures(
        &self,
        asked: &Ranges,
        budget: &mut Budget,
        found: &mut dyn FnMut(Result<(Range<u64>, Metadata)>) -> Result<()>,
    ) -> Result<()>;
    /// Tells of the free space that is asked for, in order. Damage is handed on.
    fn free(
        &self,
        asked: &Ranges,
        budget: &mut Budget,
        found: &mut dyn FnMut(Result<Free>) -> Result<()>,
    ) -> Result<()>;
    /// Visits inodes that are in use, by number. Damage is handed on.
    fn inodes(
        &self,
        which: Which,
        budget: &mut Budget,
        visit: &mut dyn FnMut(Result<&Inode>) -> Result<Flow>,
    ) -> Result<()>;
    fn inode(&self, number: u64) -> Result<Inode>;
    /// Tells of an inode's blocks.
    fn mapping(
        &self,
        inode: &Inode,
        budget: &mut Budget,
        found: &mut dyn FnMut(Mapped) -> Result<()>,
    ) -> Result<()>;
    /// Visits a directory's entries, `..` among them.
    fn entries(
        &self,
        directory: &Inode,
        budget: &mut Budget,
        visit: &mut dyn FnMut(u64, &[u8]) -> Flow,
    ) -> Result<()>;
}
