//! Giving memory back to the system.

/// Gives free memory back that the allocator keeps for later: after work that needed much of it once. Takes some
/// milliseconds, in which other threads may have to wait for memory; not for a hot path.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches nothing but free memory, under the allocator's own locks.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
