//! What can go wrong with a device, in words that say what to do next.

use std::io;

use nix::libc;
use thiserror::Error;

/// Why a device could not be made, taken over, shown or removed.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The kernel has no ublk driver, or it is not loaded.
    #[error(
        "there is no /dev/ublk-control: the kernel's ublk driver is not loaded (run `modprobe ublk_drv`; \
         it needs Linux 6.0 or newer with CONFIG_BLK_DEV_UBLK). Nothing was changed"
    )]
    NoDriver,
    /// This user may not control ublk devices.
    #[error("/dev/ublk-control may not be opened by this user: run as root. Nothing was changed")]
    NotPermitted,
    /// `/dev/ublk-control` cannot be used for another reason.
    #[error("/dev/ublk-control cannot be used: {0}. Nothing was changed")]
    ControlDevice(io::Error),
    /// The device id is taken.
    #[error(
        "device id {0} is in use: leave out -n to get a free one, or see `list` and remove it with `del -n {0}`"
    )]
    IdInUse(u32),
    /// No device has the id.
    #[error("there is no device with id {0}: `list` shows those there are")]
    NotFound(u32),
    /// The device is mounted or held open exclusively.
    #[error(
        "/dev/ublkb{0} is in use (mounted, or held by another device), and nothing was changed: release it first, or \
         use --force, and what its users still write fails"
    )]
    InUse(u32),
    /// The driver refused or failed a control command.
    #[error("the driver answered {command} for device {id} with: {source}; `dmesg` may say more")]
    Command {
        /// The command's name in the kernel's documentation.
        command: &'static str,
        /// The device's id; `u32::MAX` where it was not yet known.
        id: u32,
        /// The driver's answer.
        source: io::Error,
    },
    /// A control command did not come back in time.
    #[error(
        "{command} for device {id} has not come back within {seconds} s: the driver hangs, or something still \
         holds the device; look at `dmesg`, close what uses /dev/ublkb{id}, then `del -n {id}`"
    )]
    Deadline {
        /// The command's name in the kernel's documentation.
        command: &'static str,
        /// The device's id.
        id: u32,
        /// The limit, in seconds.
        seconds: u64,
    },
    /// The start took too long.
    #[error(
        "device {id} did not start within {seconds} s: the volume did not answer the first reads, or the driver \
         hangs (`dmesg` says so then); see that the volume's tiers respond, and try again"
    )]
    StartLate {
        /// The device's id.
        id: u32,
        /// The limit, in seconds.
        seconds: u64,
    },
    /// A queue could not be set up or failed.
    #[error("queue {queue} of device {id}: {what}: {source}")]
    Queue {
        /// The device's id.
        id: u32,
        /// The queue's number.
        queue: u16,
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// An option is out of its range.
    #[error("{0}")]
    Option(String),
    /// Zero copy was required and the kernel does not have it.
    #[error(
        "zero copy was asked for and this kernel does not grant it (AUTO_BUF_REG needs Linux 6.16 or newer): leave \
         out --zero-copy to copy pages instead"
    )]
    NoZeroCopy,
    /// The device to take over is not what the volume is.
    #[error("device {id} cannot be taken over: {why}")]
    NotRecoverable {
        /// The device's id.
        id: u32,
        /// What is in the way.
        why: String,
    },
    /// The device was asked to stop while it started.
    #[error("device {0} was asked to stop before it had started")]
    StoppedEarly(u32),
    /// What the caller does once the device is there failed; the device was removed again, or waits again.
    #[error(
        "device {id} was {}, because {source}",
        if *recovered { "taken over and left waiting again" } else { "started and removed again" }
    )]
    Ready {
        /// The device's id.
        id: u32,
        /// Whether it had been taken over.
        recovered: bool,
        /// What the caller's part said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something about the process failed: a thread, memory, a file.
    #[error("{what}: {source}")]
    Process {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl DeviceError {
    /// The same, or that there is no such device if that is what the driver's answer means: it may go between
    /// two commands.
    pub(super) fn if_gone(self, id: u32) -> Self {
        match self {
            Self::Command { source, .. } if source.raw_os_error() == Some(libc::ENODEV) => Self::NotFound(id),
            other => other,
        }
    }

    pub(super) fn process(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Process { what, source }
    }
}

/// libublk's errors carry an errno in several shapes; this is the one of the standard library.
pub(super) fn io_error(error: libublk::UblkError) -> io::Error {
    match error {
        libublk::UblkError::UringIOError(code) | libublk::UblkError::OtherError(code) => {
            io::Error::from_raw_os_error(code.abs())
        }
        libublk::UblkError::IOError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_went_between_two_commands_is_not_found() {
        let answer = |errno| DeviceError::Command {
            command: "GET_PARAMS",
            id: 3,
            source: io::Error::from_raw_os_error(errno),
        };
        assert!(matches!(answer(libc::ENODEV).if_gone(3), DeviceError::NotFound(3)));
        assert!(matches!(answer(libc::EIO).if_gone(3), DeviceError::Command { .. }));
    }
}
