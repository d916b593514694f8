//! From the driver's description of a request to a [`Request`], with everything checked.
//!
//! What reaches a backend is aligned to the logical block, within the volume, no longer than the
//! request's buffer, and no write on a read-only device, whatever the driver or a fault put there.

use forerun::geometry::Geometry;
use libublk::sys;
use nix::libc;

use crate::request::{Operation, Request};

const SECTOR_BYTES: u64 = 512;

/// What requests of one device may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// As it was when the device was started.
    pub geometry: Geometry,
    pub read_only: bool,
    pub io_buffer_bytes: u32,
}

impl Limits {
    /// Reads a description; the error is an errno. What lies behind the end that the device had when it was started is
    /// compared with `now`, its present shape.
    pub fn request(
        &self,
        described: &sys::ublksrv_io_desc,
        now: impl FnOnce() -> Geometry,
    ) -> Result<Request, i32> {
        let fua = described.op_flags & sys::UBLK_IO_F_FUA != 0;
        let operation = match described.op_flags & 0xff {
            sys::UBLK_IO_OP_READ => Operation::Read,
            sys::UBLK_IO_OP_WRITE => Operation::Write { fua },
            sys::UBLK_IO_OP_FLUSH => {
                return Ok(Request { operation: Operation::Flush, offset_bytes: 0, len_bytes: 0 });
            }
            sys::UBLK_IO_OP_DISCARD => Operation::Discard,
            sys::UBLK_IO_OP_WRITE_ZEROES => {
                Operation::WriteZeroes { no_unmap: described.op_flags & sys::UBLK_IO_F_NOUNMAP != 0, fua }
            }
            _ => return Err(libc::EOPNOTSUPP),
        };
        if self.read_only && operation != Operation::Read {
            return Err(libc::EROFS);
        }
        let len = u64::from(described.nr_sectors) * SECTOR_BYTES;
        let offset = described.start_sector.checked_mul(SECTOR_BYTES).ok_or(libc::EINVAL)?;
        let end = offset.checked_add(len).ok_or(libc::EINVAL)?;
        let unit = u64::from(self.geometry.logical_block_bytes());
        let has_data = matches!(operation, Operation::Read | Operation::Write { .. });
        if len == 0
            || (end > self.geometry.size_bytes() && end > now().size_bytes())
            || !offset.is_multiple_of(unit)
            || !len.is_multiple_of(unit)
            || (has_data && len > u64::from(self.io_buffer_bytes))
            || len > i32::MAX as u64
        {
            return Err(libc::EINVAL);
        }
        Ok(Request { operation, offset_bytes: offset, len_bytes: len as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Geometry {
        Geometry::new(64 << 20, 4096).unwrap()
    }

    fn limits(read_only: bool) -> Limits {
        Limits { geometry: small(), read_only, io_buffer_bytes: 512 * 1024 }
    }

    fn described(op_flags: u32, start_sector: u64, nr_sectors: u32) -> sys::ublksrv_io_desc {
        sys::ublksrv_io_desc { op_flags, nr_sectors, start_sector, addr: 0 }
    }

    #[test]
    fn requests_are_read_with_their_flags() {
        let write = described(sys::UBLK_IO_OP_WRITE | sys::UBLK_IO_F_FUA, 8, 16);
        assert_eq!(
            limits(false).request(&write, small),
            Ok(Request { operation: Operation::Write { fua: true }, offset_bytes: 4096, len_bytes: 8192 })
        );
        let zeroes = described(sys::UBLK_IO_OP_WRITE_ZEROES | sys::UBLK_IO_F_NOUNMAP, 0, 8);
        let operation = Operation::WriteZeroes { no_unmap: true, fua: false };
        assert_eq!(limits(false).request(&zeroes, small).map(|request| request.operation), Ok(operation));
        let flush = limits(true).request(&described(sys::UBLK_IO_OP_FLUSH, 3, 3), small);
        assert_eq!(flush.map(|request| request.operation), Ok(Operation::Flush));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let sectors = (64 << 20) / 512;
        let read =
            |start, count| limits(false).request(&described(sys::UBLK_IO_OP_READ, start, count), small);
        assert!(read(sectors - 8, 8).is_ok());
        assert_eq!(read(sectors - 8, 16), Err(libc::EINVAL));
        assert_eq!(read(1, 8), Err(libc::EINVAL));
        assert_eq!(read(8, 1), Err(libc::EINVAL));
        assert_eq!(read(0, 0), Err(libc::EINVAL));
        assert_eq!(read(0, 2048), Err(libc::EINVAL), "longer than the buffer");
        assert_eq!(read(u64::MAX / 512, 8), Err(libc::EINVAL));
        assert_eq!(read(u64::MAX, 8), Err(libc::EINVAL));
        let discard = described(sys::UBLK_IO_OP_DISCARD, 0, 2048);
        assert!(limits(false).request(&discard, small).is_ok(), "a discard has no data to fit in the buffer");
        assert_eq!(limits(true).request(&discard, small), Err(libc::EROFS));
        assert_eq!(limits(false).request(&described(13, 0, 8), small), Err(libc::EOPNOTSUPP));
    }

    #[test]
    fn a_device_that_has_grown_takes_more() {
        let grown = || small().grown_to(128 << 20).unwrap();
        let read = |start| limits(false).request(&described(sys::UBLK_IO_OP_READ, start, 8), grown);
        assert!(read((64 << 20) / 512).is_ok() && read((128 << 20) / 512 - 8).is_ok());
        assert_eq!(read((128 << 20) / 512), Err(libc::EINVAL));
    }
}
