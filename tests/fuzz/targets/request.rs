//! Requests of the API, their checks, and page tokens.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forerun_fuzz::bounded(
    data,
    64,
    ublk_target::fuzzing::control::request
));
