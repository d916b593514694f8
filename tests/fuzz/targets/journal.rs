//! The journal's ring: records, commits, where it ends.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forerun_fuzz::bounded(
    data,
    64,
    ublk_target::fuzzing::fast_tier::journal
));
