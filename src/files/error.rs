//! Why nothing could be named.

use std::io;

use thiserror::Error;

/// Why a device's ranges could not be named, as a whole or in part.
#[derive(Debug, Error)]
pub enum FilesError {
    /// Reading failed.
    #[error("cannot read {length_bytes} bytes at {offset_bytes}: {source}")]
    Read {
        /// Where.
        offset_bytes: u64,
        /// How much.
        length_bytes: usize,
        /// What the system said.
        source: io::Error,
    },
    /// No superblock of a file system that is known here.
    #[error("no ext2, ext3, ext4 or XFS file system begins at the device's first byte")]
    Unrecognised,
    /// A file system of a form that is not known here.
    #[error("{file_system} with {feature} is not supported")]
    Unsupported {
        /// "ext4" or "XFS".
        file_system: &'static str,
        /// What is not supported.
        feature: String,
    },
    /// A structure that cannot be.
    #[error("the file system is damaged, or changed while it was read: {0}")]
    Damaged(&'static str),
    /// More blocks of maps or directories were met than the file system has.
    #[error("the file system is damaged: its maps or directories lead in circles")]
    Loops,
}

impl FilesError {
    /// Whether looking further makes no sense, where other errors are of one structure.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self, Self::Loops)
    }
}

/// The result of reading a structure.
pub(super) type Result<T> = std::result::Result<T, FilesError>;
