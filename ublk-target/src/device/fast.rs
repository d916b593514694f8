//! Reads and writes of the fast tier on a queue's ring, to the end or to an error.

use std::io;

use io_uring::{opcode, squeue, types};
use nix::libc;

use super::ops::Ops;
use crate::aligned::AlignedBuffer;

/// The fast tier's place in the ring's table of files; the device itself is 0.
pub(super) const FAST_TIER: types::Fixed = types::Fixed(1);
/// How often an operation that was interrupted or told to come again does so.
const TRIES: u32 = 64;

/// The ring of one request: its queue's operations, its task, and whether there is a fast tier.
#[derive(Clone, Copy)]
pub(super) struct FastTier<'q> {
    pub ops: &'q Ops,
    pub task: usize,
    pub present: bool,
}

impl FastTier<'_> {
    /// Repeats `entry(done, left)` until `len` bytes were moved.
    ///
    /// # Safety
    /// As for [`Ops::submit`], for each entry.
    pub async unsafe fn transfer(
        &self,
        len: u32,
        mut entry: impl FnMut(u32, u32) -> squeue::Entry,
    ) -> io::Result<()> {
        self.check()?;
        let mut progress = Progress::new(len);
        while let Some((done, left)) = progress.next() {
            // SAFETY: the caller vouches for the entry.
            let (result, _) = unsafe { self.ops.submit(self.task, entry(done, left), None) }.await;
            progress.note(result)?;
        }
        Ok(())
    }

    /// Reads the whole of `buffer`, which is the operation's own meanwhile.
    pub async fn read(&self, offset: u64, buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        self.whole(buffer, |start, done, left| {
            opcode::Read::new(FAST_TIER, start.wrapping_add(done as usize), left)
                .offset(offset + u64::from(done))
                .build()
        })
        .await
    }

    /// Writes the whole of `buffer`, which is the operation's own meanwhile.
    pub async fn write(&self, offset: u64, buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        self.whole(buffer, |start, done, left| {
            opcode::Write::new(FAST_TIER, start.wrapping_add(done as usize), left)
                .offset(offset + u64::from(done))
                .build()
        })
        .await
    }

    async fn whole(
        &self,
        mut buffer: AlignedBuffer,
        entry: impl Fn(*mut u8, u32, u32) -> squeue::Entry,
    ) -> (io::Result<()>, AlignedBuffer) {
        let Ok(len) = u32::try_from(buffer.len()) else {
            return (Err(io::Error::from_raw_os_error(libc::EINVAL)), buffer);
        };
        if let Err(error) = self.check() {
            return (Err(error), buffer);
        }
        let mut progress = Progress::new(len);
        while let Some((done, left)) = progress.next() {
            let entry = entry(buffer.as_mut_ptr(), done, left);
            // SAFETY: the buffer goes with the operation; its bytes do not move with it.
            let (result, back) = unsafe { self.ops.submit(self.task, entry, Some(buffer)) }.await;
            let Some(back) = back else {
                // The table gives back what it was given: this does not happen.
                return (Err(io::Error::from_raw_os_error(libc::EIO)), AlignedBuffer::zeroed(len as usize));
            };
            buffer = back;
            if let Err(error) = progress.note(result) {
                return (Err(error), buffer);
            }
        }
        (Ok(()), buffer)
    }

    /// fdatasync of the fast tier; nothing to do where there is none.
    pub async fn flush(&self) -> io::Result<()> {
        if !self.present {
            return Ok(());
        }
        let mut progress = Progress::new(1);
        while progress.next().is_some() {
            let entry = opcode::Fsync::new(FAST_TIER).flags(types::FsyncFlags::DATASYNC).build();
            // SAFETY: the entry names no memory, and a file that is registered with the ring.
            let (result, _) = unsafe { self.ops.submit(self.task, entry, None) }.await;
            progress.note(if result == 0 { 1 } else { result })?;
        }
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        if self.present { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENXIO)) }
    }
}

/// How far a transfer has come, and how often it may be tried again.
struct Progress {
    done: u32,
    len: u32,
    tries: u32,
}

impl Progress {
    fn new(len: u32) -> Self {
        Self { done: 0, len, tries: 0 }
    }

    /// What was done and what is left; `None` at the end.
    fn next(&self) -> Option<(u32, u32)> {
        (self.done < self.len).then(|| (self.done, self.len - self.done))
    }

    /// Takes an operation's result.
    fn note(&mut self, result: i32) -> io::Result<()> {
        match result {
            1.. => {
                self.done += result as u32;
                self.tries = 0;
                Ok(())
            }
            // The file ends before its stated size.
            0 => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => {
                self.tries += 1;
                let again = matches!(-result, libc::EAGAIN | libc::EINTR) && self.tries < TRIES;
                if again { Ok(()) } else { Err(io::Error::from_raw_os_error(-result)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_transfers_go_on_and_interrupted_ones_again() {
        let mut progress = Progress::new(8192);
        assert_eq!(progress.next(), Some((0, 8192)));
        progress.note(-libc::EINTR).unwrap();
        progress.note(4096).unwrap();
        assert_eq!(progress.next(), Some((4096, 4096)));
        progress.note(-libc::EAGAIN).unwrap();
        progress.note(4096).unwrap();
        assert_eq!(progress.next(), None);
    }

    #[test]
    fn errors_ends_and_endless_retries_end_it() {
        let errno = |result: io::Result<()>| result.err().and_then(|error| error.raw_os_error());
        assert_eq!(errno(Progress::new(1).note(-libc::ENOSPC)), Some(libc::ENOSPC));
        assert_eq!(errno(Progress::new(1).note(0)), Some(libc::EIO));
        let mut progress = Progress::new(1);
        let tries = (0..1000).take_while(|_| progress.note(-libc::EAGAIN).is_ok()).count();
        assert_eq!(tries, TRIES as usize - 1);
    }
}
