//! Requests' data without copying: the ring reads and writes the request's own pages.
//!
//! The driver registers a request's pages with the ring before it delivers the request
//! (AUTO_BUF_REG), at the tag's place in the table of buffers, and takes them out when the request is
//! answered. They have no address in this process: offsets into them count from 0, and what has to come
//! from or go to our own memory is copied by the driver, with pread and pwrite on the character device
//! at the request's place (USER_COPY).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use io_uring::opcode;
use libublk::BufDesc;
use libublk::io::UblkIOCtx;
use libublk::sys::ublk_auto_buf_reg;

use super::data::{Extent, TagData};
use super::fast::{FAST_TIER, FastTier};
use super::options::DataPath;
use crate::aligned::AlignedBuffer;
use crate::request::{Request, RequestIo};

/// What is copied from where zeros are read.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The data of one tag, in the request's own pages.
pub(super) struct PageData<'q> {
    fast: FastTier<'q>,
    /// `/dev/ublkcN`.
    device: &'q File,
    queue: u16,
    extent: Extent,
}

impl<'q> PageData<'q> {
    /// The data of the tag that `fast` serves, on queue `queue` of the device.
    pub fn new(fast: FastTier<'q>, device: &'q File, queue: u16) -> Self {
        Self { fast, device, queue, extent: Extent::default() }
    }

    fn tag(&self) -> u16 {
        self.fast.task as u16
    }

    /// The place of the data at `at` in the character device.
    fn place(&self, at: u32) -> u64 {
        UblkIOCtx::ublk_user_copy_pos(self.queue, self.tag(), at)
    }
}

impl TagData for PageData<'_> {
    const PATH: DataPath = DataPath::ZeroCopy;

    fn begin(&self, request: &Request) {
        self.extent.begin(request);
    }

    fn descriptor(&self) -> BufDesc<'_> {
        BufDesc::AutoReg(ublk_auto_buf_reg { index: self.tag(), ..Default::default() })
    }
}

impl RequestIo for PageData<'_> {
    async fn fast_to_data(&self, fast_offset: u64, at: u32, len: u32) -> io::Result<()> {
        self.extent.may_fill(at, len as usize)?;
        let entry = |done: u32, left| {
            let offset_in_pages = (at + done) as usize as *mut u8;
            opcode::ReadFixed::new(FAST_TIER, offset_in_pages, left, self.tag())
                .offset(fast_offset + u64::from(done))
                .build()
        };
        // SAFETY: the entry names no memory of this process, but the pages that the driver has
        // registered for the request, and they stay until the request is answered.
        unsafe { self.fast.transfer(len, entry) }.await
    }

    async fn data_to_fast(&self, fast_offset: u64, at: u32, len: u32) -> io::Result<()> {
        self.extent.may_take(at, len as usize)?;
        let entry = |done: u32, left| {
            let offset_in_pages = (at + done) as usize as *const u8;
            opcode::WriteFixed::new(FAST_TIER, offset_in_pages, left, self.tag())
                .offset(fast_offset + u64::from(done))
                .build()
        };
        // SAFETY: as above.
        unsafe { self.fast.transfer(len, entry) }.await
    }

    async fn zero(&self, at: u32, len: u32) -> io::Result<()> {
        self.extent.may_fill(at, len as usize)?;
        let mut done = 0;
        while done < len {
            let step = (len - done).min(ZEROS.len() as u32);
            self.device.write_all_at(&ZEROS[..step as usize], self.place(at + done))?;
            done += step;
        }
        Ok(())
    }

    async fn put(&self, at: u32, bytes: &[u8]) -> io::Result<()> {
        self.extent.may_fill(at, bytes.len())?;
        self.device.write_all_at(bytes, self.place(at))
    }

    async fn get(&self, at: u32, bytes: &mut [u8]) -> io::Result<()> {
        self.extent.may_take(at, bytes.len())?;
        self.device.read_exact_at(bytes, self.place(at))
    }

    async fn read_fast(&self, fast_offset: u64, buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        self.fast.read(fast_offset, buffer).await
    }

    async fn write_fast(&self, fast_offset: u64, buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        self.fast.write(fast_offset, buffer).await
    }

    async fn flush_fast(&self) -> io::Result<()> {
        self.fast.flush().await
    }
}
