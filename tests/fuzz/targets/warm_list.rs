//! A warm list.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forerun_fuzz::bounded(
    data,
    64,
    ublk_target::fuzzing::capacity_tier::warm_list
));
