//! The I/O scheduler of a new device: none.
//!
//! Requests are put in order where they are served, by the fast tier's own queue. With the one that the kernel gives
//! a device with one queue (mq-deadline), every request is dispatched by a worker of the kernel, on Linux 7.3
//! with zero copy at a sixth of the rate (docs/benchmarks.md). Who wants another one sets it afterwards.

use std::path::PathBuf;

/// Takes the scheduler off, on a thread of its own: the kernel waits for requests under way.
pub(super) fn take_off(id: u32) {
    let file = PathBuf::from(format!("/sys/block/ublkb{id}/queue/scheduler"));
    let path = file.clone();
    let write = move || {
        if let Err(error) = std::fs::write(&path, "none") {
            tracing::warn!(%error, path = %path.display(), "the device keeps the kernel's I/O scheduler");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("scheduler".to_owned()).spawn(write) {
        tracing::warn!(%error, path = %file.display(), "the device keeps the kernel's I/O scheduler");
    }
}
