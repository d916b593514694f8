//! SIGINT and SIGTERM, taken by a thread of their own: they stop the device.
//!
//! They are blocked before any other thread starts, so that none is interrupted by them in its ring.
//! A second one while the device stops changes nothing.

use std::thread;

use nix::sys::signal::{SigSet, Signal};

use crate::device::Stop;

const TAKEN: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Blocks the signals in this thread and those that it starts.
pub(super) fn block(daemon: bool) -> nix::Result<SigSet> {
    let mut set = SigSet::empty();
    for signal in TAKEN {
        set.add(signal);
    }
    set.thread_block()?;
    if daemon {
        // A terminal that closes is none of a daemon's business: blocked, and never taken.
        set.remove(Signal::SIGHUP);
    }
    Ok(set)
}

/// Starts the thread that takes them.
pub(super) fn take(set: SigSet, stop: Stop) -> std::io::Result<()> {
    let take = move || {
        loop {
            match set.wait() {
                Ok(signal) => {
                    tracing::info!(%signal, "stopping");
                    stop.request();
                }
                Err(error) => {
                    tracing::error!(%error, "signals cannot be taken any more");
                    return;
                }
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(take).map(drop)
}
