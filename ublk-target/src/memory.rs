//! What of the process's memory is kept, and what goes back to the system.

/// From this size on an allocation is a mapping of its own, which goes back to the system when it is freed. glibc begins with
/// 128 KiB, and goes up to 32 MiB as large buffers are freed (mallopt(3), M_MMAP_THRESHOLD); segments of 8 MiB then come out
/// of the heap and leave it in holes: 27 MiB were kept so by a process that had written 340,000 blocks back.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: nix::libc::c_int = 512 << 10;

/// Sets the allocator up; to be called once, at the start.
pub fn set_up() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator and touches no memory.
    unsafe {
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}

/// Gives free memory back that the allocator keeps for later: after work that needed much of it once. Takes some
/// milliseconds, in which other threads may have to wait for memory; not for a hot path.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches nothing but free memory, under the allocator's own locks.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
