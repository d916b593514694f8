//! Whose bytes lie where: the files, directories and structures of the file system on a volume.
//!
//! [`name_ranges`] answers for a set of byte ranges of a device that holds ext2, ext3, ext4 or XFS (version 5): which
//! file at which of its offsets, which structure of the file system, or free space, and for free space
//! right behind a file's last byte which file would grow into it. It reads metadata only, and writes nothing.
//!
//! What always holds: nothing on the device is trusted. All lengths are checked, depths have limits, and no more blocks
//! of maps and directories are read than the file system has, so that loops end. Memory follows what is asked, not the
//! file system's size. What is damaged stays unnamed and is counted.
//!
//! What it is not: a consistent view. A mounted file system changes while it is read, keeps the newest of it in memory, and
//! its journal or log is not replayed. The answer is the best that the device's bytes give.

mod bytes;
mod claims;
mod error;
mod ext4;
mod file_system;
mod finder;
mod names;
mod ranges;
mod source;
mod xfs;

use std::collections::BTreeMap;
use std::fmt;

pub use error::FilesError;
pub use finder::{PIECES_MAX, name_ranges};
pub use source::ReadAt;

/// A range of a device, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteRange {
    /// Where it begins.
    pub offset_bytes: u64,
    /// How long it is.
    pub length_bytes: u64,
}

/// The answer to one call of [`name_ranges`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// "ext2", "ext3", "ext4" or "XFS".
    pub file_system: &'static str,
    /// The asked ranges in pieces, by offset, without gap or overlap within a range.
    pub pieces: Vec<Piece>,
    /// Every inode that a piece belongs to, by its number.
    pub owners: BTreeMap<u64, Owner>,
    /// How many structures were damaged or could not be read; what they hold is unnamed.
    pub damaged: u64,
}

impl Named {
    /// The pieces that lie in a range, cut to it, in order.
    pub fn within(&self, range: ByteRange) -> impl Iterator<Item = Piece> {
        let end = range.offset_bytes.saturating_add(range.length_bytes);
        let first = self.pieces.partition_point(|piece| piece.end_bytes() <= range.offset_bytes);
        let rest = self.pieces.iter().skip(first).take_while(move |piece| piece.range.offset_bytes < end);
        rest.map(move |piece| piece.cut(range.offset_bytes, end))
    }
}

/// A part of an asked range that is of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where it lies on the device.
    pub range: ByteRange,
    /// What lies there.
    pub what: What,
}

impl Piece {
    /// Where it ends, in bytes.
    #[must_use]
    pub const fn end_bytes(&self) -> u64 {
        self.range.offset_bytes.saturating_add(self.range.length_bytes)
    }

    fn cut(&self, start: u64, end: u64) -> Self {
        let from = self.range.offset_bytes.max(start);
        let length_bytes = self.end_bytes().min(end).saturating_sub(from);
        let what = self.what.advanced(from - self.range.offset_bytes);
        Self { range: ByteRange { offset_bytes: from, length_bytes }, what }
    }
}

/// What lies somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Something of a file or directory.
    Inode {
        /// Its number; see [`Named::owners`].
        inode: u64,
        /// What of it.
        part: Part,
        /// For [`Part::Data`] and [`Part::End`], the place in the file, in bytes; else 0.
        offset_bytes: u64,
    },
    /// A structure of the file system itself.
    Metadata(Metadata),
    /// Free space that no file's end leads up to.
    Free,
    /// In use by what is not found or not known, or past the file system's end.
    Unknown,
}

impl What {
    /// The same, `bytes` further on.
    fn advanced(self, bytes: u64) -> Self {
        match self {
            Self::Inode { inode, part: part @ (Part::Data | Part::End), offset_bytes } => {
                Self::Inode { inode, part, offset_bytes: offset_bytes.saturating_add(bytes) }
            }
            other => other,
        }
    }
}

/// A part of a file or directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Its content.
    Data,
    /// Space past its last byte into which it would grow: free and right behind it, or set aside for it.
    End,
    /// What says where its content is: extent tree, indirect blocks.
    Map,
    /// Its extended attributes.
    Attributes,
}

/// A structure of the file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// Its name: "superblock", "inode table".
    pub what: &'static str,
    /// The group it is of: a block group of ext4, an allocation group of XFS.
    pub group: Option<u32>,
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            Some(group) => write!(f, "{} of group {group}", self.what),
            None => f.write_str(self.what),
        }
    }
}

/// What an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Other,
}

/// A file or directory that pieces belong to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Its path from the file system's root, the first one found where it has several; without one it is deleted and still
    /// open, or its directory is damaged. Bytes that are no printable text, and the backslash, are written as `\xNN`.
    pub path: Option<String>,
}

#[cfg(test)]
mod tests;
