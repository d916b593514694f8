//! The I/O scheduler of a new device: none.
//!
//! Requests are put in order where they are served, by the fast tier's own queue. With the one that the kernel gives
//! a device with one queue (mq-deadline), every request is dispatched by a worker of the kernel, on Linux 7.3
//! with zero copy at a sixth of the rate (docs/benchmarks.md). Who wants another one sets it afterwards.
//!
//! The kernel waits for the requests under way before it changes the scheduler, and nothing ends that wait but their
//! answers. So the change is made by another process: a thread of this one would outlive a kill, keep the fast tier's
//! lock, and with it keep the next target from answering those requests.

use std::process::{Command, Stdio};

/// Takes the scheduler off, beside everything else.
pub(super) fn take_off(id: u32) {
    let path = format!("/sys/block/ublkb{id}/queue/scheduler");
    let told = path.clone();
    let write = move || {
        let child =
            Command::new("sh").args(["-c", "echo none >\"$1\"", "sh", &path]).stdin(Stdio::null()).output();
        let error = match child {
            Ok(ended) if ended.status.success() => return,
            Ok(ended) => String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(error, path, "the device keeps the kernel's I/O scheduler");
    };
    if let Err(error) = std::thread::Builder::new().name("scheduler".to_owned()).spawn(write) {
        tracing::warn!(%error, path = told, "the device keeps the kernel's I/O scheduler");
    }
}
