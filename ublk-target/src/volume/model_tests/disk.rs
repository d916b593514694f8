//! The fast tier's device, and a request's data over it.

use std::cell::{Cell, RefCell};
use std::io;
use std::task::Poll;

use super::SECTOR;
use crate::aligned::AlignedBuffer;
use crate::request::RequestIo;

/// What the device would return, and the writes it may still lose.
pub struct Disk {
    pub live: Vec<u8>,
    durable: Vec<u8>,
    unflushed: Vec<(usize, usize)>,
}

impl Disk {
    /// Full of what was never written to the volume, and must never show.
    pub fn new(bytes: usize) -> Self {
        Self { live: vec![0xEE; bytes], durable: vec![0xEE; bytes], unflushed: Vec::new() }
    }

    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.live[at..at + bytes.len()].copy_from_slice(bytes);
        self.unflushed.push((at, bytes.len()));
    }

    pub fn flush(&mut self) {
        for (at, len) in std::mem::take(&mut self.unflushed) {
            self.durable[at..at + len].copy_from_slice(&self.live[at..at + len]);
        }
    }

    /// Loses what was not flushed, but for the sectors that the bits say.
    pub fn lose(&mut self, bits: u64) {
        let mut number = 0u32;
        for (at, len) in std::mem::take(&mut self.unflushed) {
            for from in (at..at + len).step_by(SECTOR) {
                number = number.wrapping_mul(31).wrapping_add(17);
                if bits.rotate_left(number % 64) & 1 == 1 {
                    self.durable[from..from + SECTOR].copy_from_slice(&self.live[from..from + SECTOR]);
                }
            }
        }
        self.live.clone_from(&self.durable);
    }
}

/// A request's data in memory, over the disk. Each I/O takes `turns` turns of the executor, and half of a write is on
/// the disk before the last one.
pub struct TestIo<'a> {
    pub disk: &'a RefCell<Disk>,
    pub data: RefCell<Vec<u8>>,
    pub turns: u8,
    /// Its writes to the disk fail, in the middle, and its flushes.
    pub fails: bool,
}

/// Gives everything else a turn.
pub async fn turn() {
    let first = Cell::new(true);
    std::future::poll_fn(|_| if first.replace(false) { Poll::Pending } else { Poll::Ready(()) }).await;
}

impl TestIo<'_> {
    async fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let half = bytes.len() / 2 / SECTOR * SECTOR;
        for _ in 1..self.turns {
            turn().await;
        }
        self.disk.borrow_mut().write(at, &bytes[..half]);
        turn().await;
        if self.fails {
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        self.disk.borrow_mut().write(at + half, &bytes[half..]);
        Ok(())
    }

    async fn wait(&self) {
        for _ in 0..self.turns {
            turn().await;
        }
    }
}

impl RequestIo for TestIo<'_> {
    async fn fast_to_data(&self, fast: u64, at: u32, len: u32) -> io::Result<()> {
        self.wait().await;
        let disk = self.disk.borrow();
        self.data.borrow_mut()[at as usize..(at + len) as usize]
            .copy_from_slice(&disk.live[fast as usize..fast as usize + len as usize]);
        Ok(())
    }

    async fn data_to_fast(&self, fast: u64, at: u32, len: u32) -> io::Result<()> {
        let bytes = self.data.borrow()[at as usize..(at + len) as usize].to_vec();
        self.write(fast as usize, &bytes).await
    }

    async fn zero(&self, at: u32, len: u32) -> io::Result<()> {
        self.data.borrow_mut()[at as usize..(at + len) as usize].fill(0);
        Ok(())
    }

    async fn put(&self, at: u32, bytes: &[u8]) -> io::Result<()> {
        self.data.borrow_mut()[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    async fn get(&self, at: u32, bytes: &mut [u8]) -> io::Result<()> {
        let len = bytes.len();
        bytes.copy_from_slice(&self.data.borrow()[at as usize..at as usize + len]);
        Ok(())
    }

    async fn read_fast(&self, fast: u64, mut buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        self.wait().await;
        let len = buffer.len();
        buffer.copy_from_slice(&self.disk.borrow().live[fast as usize..fast as usize + len]);
        (Ok(()), buffer)
    }

    async fn write_fast(&self, fast: u64, buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        (self.write(fast as usize, &buffer).await, buffer)
    }

    async fn flush_fast(&self) -> io::Result<()> {
        self.wait().await;
        if self.fails {
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        self.disk.borrow_mut().flush();
        Ok(())
    }
}
