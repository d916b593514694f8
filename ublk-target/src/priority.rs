//! Which threads go first when processors are short: those that requests wait for.
//!
//! As ublksrv does for its daemons, the process gets the highest nice value that there is without real time, and threads
//! started later inherit it; the thread that works beside the requests goes back to the ordinary one. A device's users
//! wait for it, whoever they are; a flush, and a snapshot with it, waits for the journal's thread.

use std::io;

use nix::libc;

/// The nice value of threads that requests wait for.
const REQUESTS: i32 = -20;
/// The nice value of work beside them.
const BESIDE: i32 = 0;

fn set(nice: i32) -> io::Result<()> {
    // SAFETY: sets a number of the calling thread (on Linux 0 is the thread, not the process); no memory is passed.
    let status = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts the calling thread, and those it starts from now on, before others.
pub fn serve_requests() {
    if let Err(error) = set(REQUESTS) {
        tracing::warn!(%error, "requests wait for a processor as long as anything else (nice {REQUESTS})");
    }
}

/// Puts the calling thread, and those it starts, behind those that serve requests.
pub fn work_beside() {
    // SAFETY: reads a number of the calling thread; no memory is passed.
    let now = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // One that was started with a lower priority keeps it.
    if now < BESIDE
        && let Err(error) = set(BESIDE)
    {
        tracing::warn!(%error, "background work takes processors from requests (nice {BESIDE})");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_beside_requests_comes_after_them() {
        let nice = || {
            // SAFETY: as above.
            unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
        };
        let beside = std::thread::spawn(move || {
            serve_requests();
            let before = nice();
            work_beside();
            (before, nice())
        });
        let (before, after) = beside.join().expect("ended");
        // Without the right to raise it, nothing changes.
        assert!(before == REQUESTS || before >= 0, "{before}");
        assert!(after >= BESIDE && after >= before, "{before}, then {after}");
    }
}
