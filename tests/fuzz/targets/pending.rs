//! The pending log in shared memory.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| forerun_fuzz::scratch("pending"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    forerun_fuzz::bounded(data, 64, |data| ublk_target::fuzzing::fast_tier::pending(data, &FILE));
});
