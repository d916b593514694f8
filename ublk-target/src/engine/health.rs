//! What the status says of the volume's health, and of the process.

use std::time::{Duration, Instant};

use crate::background::Shared;
use crate::fast_tier::Health;

/// A block that could not be read is part of the volume's health for so long.
const READ_ERROR_SHOWN: Duration = Duration::from_secs(3600);

/// "healthy", or what is wrong and what follows from it.
pub(super) fn health(
    shared: &Shared,
    write_back_error: &str,
    read_error: Option<&(Instant, String)>,
) -> String {
    match shared.committer.status().health {
        Health::Good => {}
        Health::Degraded(why) => return format!("degraded: the fast tier's journal: {why}"),
        Health::Failed(why) => return format!("failed: the fast tier cannot make anything durable: {why}"),
    }
    if !write_back_error.is_empty() {
        return format!(
            "degraded: write-back does not get on, new data stays on the fast tier: {write_back_error}"
        );
    }
    if let Some((at, error)) = read_error
        && at.elapsed() < READ_ERROR_SHOWN
    {
        return format!("degraded: a block could not be read from the capacity tier: {error}");
    }
    if shared.volume.room().has_waiters() {
        return "throttled: writes wait for write-back to free slots".to_owned();
    }
    "healthy".to_owned()
}

/// The memory that the process has in RAM, in bytes; 0 where /proc does not tell.
pub(super) fn resident_bytes() -> u64 {
    let Ok(statm) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    pages * u64::try_from(page).unwrap_or(4096)
}
