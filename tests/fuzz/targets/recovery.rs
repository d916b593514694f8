//! Checkpoints, the journal after them, and the state that comes of both.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forerun_fuzz::bounded(
    data,
    64,
    ublk_target::fuzzing::fast_tier::recovery
));
