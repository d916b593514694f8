//! How a device's life in this process ended, and what the caller may do then.

use std::io;
use std::sync::Arc;

use libublk::io::UblkDev;
use nix::libc;

use super::control::Control;
use super::error::DeviceError;
use super::options::DELETE_LIMIT;

/// What is left of a device that was not served to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Nothing: what is behind the backend may be closed.
    Nothing,
    /// A device that waits to be taken over, or queue threads that may still serve it. What is behind the
    /// backend must stay as it is: end the process without closing it, as a kill would. Then nothing that
    /// was acknowledged is lost.
    InUse,
}

/// A device that was not served to its end.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: DeviceError,
    /// What is left of it.
    pub left: Left,
}

impl Failed {
    /// With something left that is in use.
    pub(super) fn in_use(error: DeviceError) -> Self {
        Self { error, left: Left::InUse }
    }
}

/// Before there is a device, nothing is left.
impl From<DeviceError> for Failed {
    fn from(error: DeviceError) -> Self {
        Self { error, left: Left::Nothing }
    }
}

/// A device that takes no more requests, and is still held by this process.
#[must_use = "the device is held until it is released"]
pub struct Stopped {
    pub(super) id: u32,
    pub(super) delete: bool,
    pub(super) control: Control,
    pub(super) device: Option<Arc<UblkDev>>,
}

impl Stopped {
    /// The device's number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Lets go of the device. One that we were asked to stop is deleted; where somebody else stopped it,
    /// they are waiting for this to delete it.
    ///
    /// # Errors
    /// The delete was refused, or something has the device open; it goes when that closes it.
    pub fn release(mut self) -> Result<(), DeviceError> {
        self.device = None;
        if !self.delete {
            return Ok(());
        }
        match self.control.delete(self.id, DELETE_LIMIT) {
            // Somebody else was faster.
            Err(DeviceError::Command { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(DeviceError::Command { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }
}
