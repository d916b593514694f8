//! The prediction table in shared memory: how the trainer tells the target what it expects.
//!
//! A file on tmpfs (by default `/run/forerun/VOLUME/predictions`) that the trainer creates and fills
//! ([`TableWriter`]) and the target reads ([`TableReader`]). It has a header, and two buffers of
//! which one is active; a publication fills the other one and then flips.
//!
//! Both sides use `pread` and `pwrite`. On tmpfs these are copies from and to the same pages that a
//! mapping would show, so it is shared memory all the same; but a file that is cut short gives an
//! error where a mapping gives SIGBUS, nobody can change bytes between the check and the use, and no
//! `unsafe` is needed. A table is read a few times a second at most, so that the copy costs nothing.
//!
//! What always holds: the reader hands out a table only after it has checked all of it (magic,
//! version, volume, lengths, checksums, order, kinds, probabilities, bounds, duplicates, and that the
//! writer did not overtake it), and never one that is older than what it handed out before, unless that was from
//! further ahead of the clock than can be. A
//! writer killed at any moment leaves the last table or the new one. It does not say whether the
//! predictions are any good: they are advice, whoever wrote them.

mod layout;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use layout::{
    BUFFER_BYTES, ENTRY_BYTES, FILE_BYTES, GENERATION_AHEAD_US, HEADER_BYTES, MAX_ENTRIES, MODEL_NAME_BYTES,
    VERSION,
};
pub use reader::TableReader;
pub use writer::TableWriter;

use crate::geometry::{BlockIndex, Epoch};
use crate::prediction::{Horizon, Prediction};

/// What a table says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableInfo {
    /// Which publication this is; grows with each, across restarts of the trainer too.
    pub generation: u64,
    /// Which predictor made it; at most 32 bytes of UTF-8.
    pub model: String,
    /// The last epoch that was known when it was made: predictions are for those after it.
    pub epoch: Epoch,
    /// How many epochs from there on the predictions are for.
    pub horizon: Horizon,
    /// When it was published, in microseconds since 1970 (UTC).
    pub published_us: u64,
}

/// A table that was checked in full.
#[derive(Clone, PartialEq, Debug)]
pub struct Table {
    /// What it says about itself.
    pub info: TableInfo,
    /// The predictions, the most probable first; no block occurs twice.
    pub predictions: Vec<Prediction>,
}

/// Why a table was refused, or could not be written.
#[derive(Debug, Error)]
pub enum TableError {
    /// Opening, reading or writing failed.
    #[error("cannot {action} the prediction table {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path leads to something that is no regular file.
    #[error("{} is not a regular file, so it is no prediction table", .0.display())]
    NotAFile(PathBuf),
    /// The file has another length than every table of this version.
    #[error("the prediction table has {actual} bytes; every table of this version has {expected}")]
    Length {
        /// The file's length in bytes.
        actual: u64,
        /// The length of a table in bytes.
        expected: u64,
    },
    /// The file does not begin like a prediction table.
    #[error("the file is no prediction table: its {0} begins with other bytes")]
    Magic(&'static str),
    /// A version this build does not know.
    #[error("the prediction table has format version {0}; this build reads version {VERSION}")]
    Version(u32),
    /// A checksum does not match.
    #[error("the checksum of the prediction table's {0} does not match")]
    Checksum(&'static str),
    /// The table is another volume's.
    #[error("the prediction table is another volume's")]
    Volume,
    /// The writer published again while the table was read, several times in a row.
    #[error("the prediction table changed while it was read, {0} times in a row")]
    Torn(u32),
    /// The table is older than one that was taken before.
    #[error("the prediction table is stale: generation {found} after {taken}")]
    Stale {
        /// Its generation.
        found: u64,
        /// The generation taken before.
        taken: u64,
    },
    /// The table's generation is a time that is still far off.
    #[error(
        "the prediction table is of generation {found}, more than a day ahead of the clock (in microseconds since \
         1970): its writer is broken, or the clock was"
    )]
    Ahead {
        /// Its generation.
        found: u64,
    },
    /// A field of the header is outside of its range.
    #[error("the prediction table's {0} is outside of its range")]
    Field(&'static str),
    /// An entry is not what an entry can be.
    #[error("entry {index} of the prediction table {problem}")]
    Entry {
        /// Its position, from 0.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A block is predicted twice.
    #[error("block {} occurs twice in the prediction table", .0.0)]
    Duplicate(BlockIndex),
}
