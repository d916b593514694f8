//! The ublk device: the only module that knows libublk.
//!
//! [`run`] makes `/dev/ublkbN` and serves its requests with a [`Backend`](crate::request::Backend); [`recover`] takes over a device whose
//! process has died. One thread and one ring a queue; one task a tag, which fetches a request, lets
//! the backend do it on the same ring, answers it and fetches the next. No lock and no allocation
//! on the way of a request.
//!
//! What always holds here:
//! - a request is answered only when none of its operations is in flight any more;
//! - an operation's memory outlives it, whatever is dropped (`ops`);
//! - a wake-up from another thread reaches a queue that sleeps in its ring (`wake`);
//! - every control command and the start as a whole have a deadline (`control`, `run`);
//! - a start that fails leaves no device; a crash leaves one that can be recovered.
//!
//! It knows nothing of volumes, names, pid files or signals: those are `daemon`'s.

mod abi;
mod admin;
mod control;
mod copy;
mod data;
mod descriptor;
mod dma;
mod error;
mod events;
mod fast;
mod features;
mod ops;
mod options;
mod outcome;
mod overdue;
mod params;
mod queue;
mod run;
mod scheduler;
mod state_file;
mod tag;
mod tasks;
mod wake;
mod zero_copy;

pub use admin::{DeviceEntry, DeviceState, Users, can_resize, delete, list, list_one, resize};
pub use error::DeviceError;
pub use events::Stop;
pub use features::names as feature_names;
pub use options::{
    DELETE_LIMIT, DataPath, DeviceInfo, DeviceOptions, IO_BUFFER_BYTES, MAX_DEPTH, MAX_QUEUES, QueueInfo,
    START_LIMIT, STOP_LIMIT, ZeroCopy,
};
pub use outcome::{Failed, Left, Stopped};
pub use run::{ReadyResult, recover, run};

/// Sees whether a device could be made as it is wanted, before anything is changed.
///
/// # Errors
/// An option is out of its range or its number in use, the driver is not loaded, this process may not use it, or
/// it has no zero copy where that is required.
pub fn check(options: &DeviceOptions) -> Result<(), DeviceError> {
    options.check()?;
    let features = control::Control::open()?.features()?;
    if !features::has_required(options.zero_copy, features) {
        return Err(DeviceError::NoZeroCopy);
    }
    match options.id {
        // The driver would say so too, but later.
        Some(id) if exists(id) => Err(DeviceError::IdInUse(id)),
        _ => Ok(()),
    }
}

/// Whether there is a device with this number, in whatever state.
#[must_use]
pub fn exists(id: u32) -> bool {
    std::path::Path::new(&format!("/dev/ublkc{id}")).exists()
}
