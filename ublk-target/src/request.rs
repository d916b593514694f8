//! What the device hands to a volume: a request, and the means to move its data.
//!
//! `device` implements [`RequestIo`] over a ublk queue's ring, tests over memory; `volume` and
//! `snapshot` implement [`Backend`]. Neither knows the other, so the whole engine runs without ublk.
//!
//! With zero copy a request's data has no address here: it can only be moved to and from the
//! fast tier, or copied through [`RequestIo::put`] and [`RequestIo::get`]. Offsets into the data are
//! in bytes from the request's first byte.

use std::io;
use std::os::fd::BorrowedFd;

use forerun::geometry::Geometry;

use crate::aligned::AlignedBuffer;

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Fill the data from the volume.
    Read,
    /// Store the data; with `fua` it is durable when the request completes.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// Make every write that completed before durable.
    Flush,
    /// Forget the range; what is read from whole blocks of it afterwards is zeros.
    Discard,
    /// Make the whole range read as zeros; with `no_unmap` the room is kept where there is any.
    WriteZeroes {
        /// Keep the room.
        no_unmap: bool,
        /// Force unit access.
        fua: bool,
    },
}

/// A request: what, where, how much. Aligned to the logical block and within the volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// What is asked for.
    pub operation: Operation,
    /// Where it begins in the volume, in bytes.
    pub offset_bytes: u64,
    /// How long it is, in bytes; 0 for a flush.
    pub len_bytes: u32,
}

/// One request's data, and the ring on which its I/O runs. Lives as long as the request.
#[allow(async_fn_in_trait, reason = "queue threads are single-threaded: the futures need not be Send")]
pub trait RequestIo {
    /// Reads `len` bytes of the fast tier at `fast_offset` into the data at `at`. Short reads are retried.
    async fn fast_to_data(&self, fast_offset: u64, at: u32, len: u32) -> io::Result<()>;
    /// Writes `len` bytes of the data at `at` to the fast tier at `fast_offset`. Short writes are retried.
    async fn data_to_fast(&self, fast_offset: u64, at: u32, len: u32) -> io::Result<()>;
    /// Zeroes `len` bytes of the data at `at`.
    async fn zero(&self, at: u32, len: u32) -> io::Result<()>;
    /// Copies `bytes` into the data at `at`.
    async fn put(&self, at: u32, bytes: &[u8]) -> io::Result<()>;
    /// Copies the data at `at` into `bytes`.
    async fn get(&self, at: u32, bytes: &mut [u8]) -> io::Result<()>;
    /// Reads the whole of `buffer` from the fast tier at `fast_offset`; gives the buffer back.
    async fn read_fast(&self, fast_offset: u64, buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer);
    /// Writes the whole of `buffer` to the fast tier at `fast_offset`; gives the buffer back.
    async fn write_fast(&self, fast_offset: u64, buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer);
    /// Makes everything written to the fast tier so far durable (fdatasync).
    async fn flush_fast(&self) -> io::Result<()>;
}

/// What stands behind a device: a volume, or a snapshot shown read-only.
///
/// `handle` is called on queue threads, many requests at a time on each. It may await futures that
/// are woken from other threads; whoever drives it has to see to it that such a wake-up is noticed
/// while the thread waits in its ring.
#[allow(async_fn_in_trait, reason = "queue threads are single-threaded: the futures need not be Send")]
pub trait Backend: Send + Sync + 'static {
    /// The volume's size and logical block size.
    fn geometry(&self) -> Geometry;
    /// Whether writes are refused.
    fn read_only(&self) -> bool;
    /// The fast tier's file, to be registered with each ring; `None` where there is none.
    fn fast_tier(&self) -> Option<BorrowedFd<'_>>;
    /// Does a request. An error becomes the request's negative errno (`raw_os_error`, else EIO).
    async fn handle<I: RequestIo>(&self, request: Request, io: &I) -> io::Result<()>;
}
