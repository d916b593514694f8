//! Why a stream cannot be read.

use std::io;

use thiserror::Error;

/// Why a stream cannot be read or written.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The stream's file or pipe.
    #[error("the stream cannot be {action} at byte {at}: {source}")]
    Io {
        /// "read" or "written".
        action: &'static str,
        /// Where, in bytes from its beginning.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// It ends before its end.
    #[error("the stream ends at byte {at}, within {what}: it was cut off; what came before is whole")]
    CutOff {
        /// Where it ends, in bytes.
        at: u64,
        /// In the midst of what.
        what: &'static str,
    },
    /// It is none, or of a version that this program does not know.
    #[error("{0}")]
    NotAStream(String),
    /// Bytes are not as they were written.
    #[error("the stream is damaged at byte {at}: {problem}")]
    Damaged {
        /// Where the damaged part begins, in bytes.
        at: u64,
        /// What is wrong.
        problem: String,
    },
}
