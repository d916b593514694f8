//! What a process that serves a block device has to see to for the machine's sake.

use std::fs;

use nix::libc;

/// Never the one to be killed when memory runs out: its device is where memory is freed to.
const OOM_SCORE_ADJ: &str = "-1000";

/// `include/uapi/linux/prctl.h`; not in the libc crate.
const PR_SET_IO_FLUSHER: i32 = 57;

/// Leaves the caller's session, so that its end is not ours.
pub(super) fn leave_session() {
    // The leader of a process group cannot; the stock tool has done it before it forked.
    if let Err(error) = nix::unistd::setsid() {
        tracing::debug!(%error, "the session stays");
    }
}

/// Protects the process from being killed for memory, and from waiting for itself to free some.
///
/// Each queue thread marks itself too (libublk does), threads started from here on inherit it.
pub(super) fn protect() {
    crate::priority::serve_requests();
    if let Err(error) = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ) {
        tracing::warn!(%error, "the process may be killed when memory runs out (oom_score_adj)");
    }
    // SAFETY: sets a flag of this thread; no memory is passed.
    let status = unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) };
    if status != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "memory reclaim may wait for this process (PR_SET_IO_FLUSHER)");
    }
}
