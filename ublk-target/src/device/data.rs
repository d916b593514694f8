//! What the two ways of moving a request's data have in common.

use std::cell::Cell;
use std::io;

use libublk::BufDesc;
use nix::libc;

use super::options::DataPath;
use crate::request::{Operation, Request, RequestIo};

/// The data of one tag, for one request after the other.
pub(super) trait TagData: RequestIo {
    /// Takes the next request.
    fn begin(&self, request: &Request);
    /// Tells the driver where the tag's data goes.
    fn descriptor(&self) -> BufDesc<'_>;
    /// Which way this is.
    const PATH: DataPath;
}

/// How much data the request at hand has, and which way it goes.
#[derive(Default)]
pub(super) struct Extent {
    len: Cell<u32>,
    fills: Cell<bool>,
}

impl Extent {
    /// Takes the next request.
    pub fn begin(&self, request: &Request) {
        let has_data = matches!(request.operation, Operation::Read | Operation::Write { .. });
        self.len.set(if has_data { request.len_bytes } else { 0 });
        self.fills.set(request.operation == Operation::Read);
    }

    /// Refuses what goes beyond the data.
    fn within(&self, at: u32, len: usize) -> io::Result<()> {
        let end = u64::from(at) + len as u64;
        if end <= u64::from(self.len.get()) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        }
    }

    /// Refuses what goes beyond the data, or would change the data of a write.
    pub fn may_fill(&self, at: u32, len: usize) -> io::Result<()> {
        if !self.fills.get() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.within(at, len)
    }

    /// Refuses what goes beyond the data, or would take data that a read has yet to fill.
    pub fn may_take(&self, at: u32, len: usize) -> io::Result<()> {
        if self.fills.get() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.within(at, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_ends_where_the_request_does_and_goes_one_way() {
        let extent = Extent::default();
        extent.begin(&Request { operation: Operation::Read, offset_bytes: 0, len_bytes: 8192 });
        assert!(extent.may_fill(4096, 4096).is_ok());
        assert!(extent.may_fill(4096, 4097).is_err());
        assert!(extent.may_fill(u32::MAX, usize::MAX / 2).is_err());
        assert!(extent.may_take(0, 512).is_err());
        extent.begin(&Request {
            operation: Operation::Write { fua: false },
            offset_bytes: 0,
            len_bytes: 4096,
        });
        assert!(extent.may_take(0, 4096).is_ok());
        assert!(extent.may_fill(0, 512).is_err());
        extent.begin(&Request { operation: Operation::Discard, offset_bytes: 0, len_bytes: 65536 });
        assert!(extent.may_take(0, 1).is_err());
    }
}
