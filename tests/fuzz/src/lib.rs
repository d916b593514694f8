//! What every fuzz target stands on: memory and time are bounded by the input's length.
//!
//! The allocator counts what Rust code holds. An input under which more is held than its length allows ends the
//! process, which libFuzzer takes for a crash and keeps the input. The same for CPU time; libFuzzer's own
//! time limit is there for what never comes back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::time::{ClockId, clock_gettime};

/// What any input may take, in bytes: buffers that have one size whatever is in them.
const BASE_BYTES: usize = 8 << 20;
/// What any input may take, in CPU milliseconds; thousands of times what the median one takes.
const CPU_LIMIT_MS: i64 = 2_000;

static HELD: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn taken(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
    if held > LIMIT.load(Ordering::Relaxed) {
        LIMIT.store(usize::MAX, Ordering::Relaxed);
        let _ = writeln!(
            std::io::stderr(),
            "an allocation of {bytes} bytes, {held} in all: more than the input allows"
        );
        std::process::abort();
    }
}

// SAFETY: everything is handed on to the system's allocator unchanged; beside it there are only counters.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promise is what the system's allocator asks for.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: as above. Zeroed memory is asked of the system, which may not have to touch it.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    // SAFETY: as above.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn cpu_ms() -> i64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(0, |now| now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000)
}

/// Runs a target on an input; it may hold [`BASE_BYTES`] and `factor` bytes for each of the input's.
pub fn bounded(input: &[u8], factor: usize, target: impl FnOnce(&[u8])) {
    let started_ms = cpu_ms();
    LIMIT.store(HELD.load(Ordering::Relaxed) + BASE_BYTES + factor * input.len(), Ordering::Relaxed);
    target(input);
    LIMIT.store(usize::MAX, Ordering::Relaxed);
    let took_ms = cpu_ms() - started_ms;
    assert!(took_ms <= CPU_LIMIT_MS, "{took_ms} ms of CPU time for {} bytes", input.len());
}

/// A file of this process on tmpfs, for parsers that read a path.
pub fn scratch(name: &str) -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    let folder = if shared.is_dir() { shared } else { std::env::temp_dir() };
    folder.join(format!("forerun-fuzz-{}-{name}", std::process::id()))
}
