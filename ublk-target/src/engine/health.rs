//! What the status says of the volume's health, and of the process.

use std::time::Duration;

use crate::background::{Progress, Shared};
use crate::fast_tier::Health;

/// I/O that failed for a request is part of the volume's health for so long.
const ERROR_SHOWN: Duration = Duration::from_secs(3600);

/// "healthy", or what is wrong and what follows from it, the gravest first.
pub(super) fn health(shared: &Shared, write_back_error: &str, progress: &Progress) -> String {
    let mut modes = Vec::new();
    match shared.committer.status().health {
        Health::Good => {}
        Health::Degraded(why) => modes.push(format!("degraded: the fast tier's journal: {why}")),
        Health::Failed(why) => {
            modes.push(format!("failed: the fast tier cannot make anything durable: {why}"));
        }
    }
    if let Some(error) = &progress.fast_error
        && error.at.elapsed() < ERROR_SHOWN
    {
        let (words, ago) = (&error.words, error.at.elapsed().as_secs());
        modes.push(format!("degraded: the fast tier failed a request {ago} s ago: {words}"));
    }
    if !write_back_error.is_empty() {
        modes.push(format!(
            "degraded: write-back does not get on, new data stays on the fast tier: {write_back_error}"
        ));
    }
    if let Some((at, error)) = &progress.read_error
        && at.elapsed() < ERROR_SHOWN
    {
        modes.push(format!("degraded: a block could not be read from the capacity tier: {error}"));
    }
    if shared.volume.room().has_waiters() {
        modes.push("throttled: writes wait for write-back to free slots".to_owned());
    }
    if modes.is_empty() { "healthy".to_owned() } else { modes.join("; also ") }
}

/// The memory that the process has in RAM, in bytes; 0 where /proc does not tell.
pub(super) fn resident_bytes() -> u64 {
    let Ok(statm) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    pages * u64::try_from(page).unwrap_or(4096)
}
