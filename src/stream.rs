//! The stream that `forerun export` writes and `forerun import` takes: what changed from one snapshot to another, or all of
//! a snapshot, with the data.
//!
//! ```text
//! header | record, record, ... in the blocks' order | end
//! ```
//! Every byte is under a checksum, and the end says how many records there were, so that a stream that was cut off anywhere
//! is told from a whole one. A record stands for itself: what came before a cut is good, and a reader that knows the last
//! block it has can leave out what comes up to it. docs/format-stream.md has the layout.

mod error;
mod format;
mod reader;
mod writer;

pub use error::StreamError;
pub use format::{Content, Header, Side};
pub use reader::{Record, StreamReader, starts_a_stream};
pub use writer::StreamWriter;
