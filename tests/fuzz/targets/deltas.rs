//! Deltas: the payload of journal records and checkpoints, and what the pending log holds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forerun_fuzz::bounded(
    data,
    64,
    ublk_target::fuzzing::fast_tier::deltas
));
