//! The answer to the stock `ublk` tool: 8 bytes on a pipe.
//!
//! The device's number plus one, or [`FAILED`]; in the machine's byte order. The tool waits until it
//! has them or the pipe is closed by everybody, so the descriptor is marked at once to be closed in
//! children, and closed when the answer is given. An answer that was never given is a failure.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Says that there is no device.
pub(super) const FAILED: u64 = u64::MAX - 1;

/// The pipe to who waits for the device, if anybody does.
pub(super) struct Answer(Option<File>);

impl Answer {
    /// Takes the descriptor over.
    pub fn take(fd: Option<RawFd>) -> io::Result<Self> {
        let Some(fd) = fd else { return Ok(Self(None)) };
        if fd <= 2 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "--eventfd is above 2"));
        }
        // SAFETY: the caller's parent gave us the descriptor to own, and nothing of ours has been
        // opened under it: it is asked below whether it is open at all.
        let file = unsafe { File::from_raw_fd(fd) };
        match fcntl(&file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
            Ok(_) => Ok(Self(Some(file))),
            Err(error) => {
                // Nothing to close: it is not open.
                std::mem::forget(file);
                Err(error.into())
            }
        }
    }

    /// Whether somebody waits.
    pub fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Says that the device is there.
    pub fn there_is(&mut self, id: u32) -> io::Result<()> {
        self.say(u64::from(id) + 1)
    }

    fn say(&mut self, word: u64) -> io::Result<()> {
        match self.0.take() {
            Some(mut pipe) => pipe.write_all(&word.to_ne_bytes()),
            None => Ok(()),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Err(error) = self.say(FAILED) {
            tracing::warn!(%error, "nobody could be told that there is no device");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::IntoRawFd;

    use super::*;

    fn said(give: impl FnOnce(&mut Answer)) -> Vec<u8> {
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut answer = Answer::take(Some(write.into_raw_fd())).unwrap();
        assert!(answer.is_wanted());
        give(&mut answer);
        drop(answer);
        let mut bytes = Vec::new();
        File::from(read).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_device_is_said_once_and_a_failure_if_none() {
        assert_eq!(said(|answer| answer.there_is(0).unwrap()), 1u64.to_ne_bytes());
        assert_eq!(said(|answer| answer.there_is(41).unwrap()), 42u64.to_ne_bytes());
        assert_eq!(said(|_| ()), 0xffff_ffff_ffff_fffeu64.to_ne_bytes());
    }

    #[test]
    fn a_closed_or_a_standard_descriptor_is_refused() {
        assert!(Answer::take(Some(1)).is_err());
        assert!(Answer::take(Some(9999)).is_err());
        assert!(!Answer::take(None).unwrap().is_wanted());
    }
}
