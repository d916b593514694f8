//! What comes from the stock `ublk` tool: the words of the command line, and the files in /run/ublksrvd.
#![no_main]

use clap::Parser;
use ublk_target::daemon::{Args, Command, PidFile};

fn read(data: &[u8]) {
    let Some((how, bytes)) = data.split_first() else { return };
    if how.is_multiple_of(2) {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let words = std::iter::once("ublk.forerun").chain(text.split('\n'));
        match Args::try_parse_from(words) {
            Ok(args) => {
                if let Command::Add(add) = args.command {
                    let options = add.device_options();
                    assert!(options.id.is_none_or(|id| id <= i32::MAX as u32) && add.id >= -1);
                    assert!(add.eventfd.is_none_or(|fd| fd >= 0));
                    assert!(add.shown().starts_with(&add.volume));
                }
            }
            Err(error) => drop(error.to_string()),
        }
    } else if let Ok(file) = PidFile::parse(bytes) {
        drop(file.not_granted());
        let Ok(again) = PidFile::parse(&file.to_bytes()) else { panic!("what was read is written") };
        assert_eq!((again.pid, &again.volume), (file.pid, &file.volume));
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| forerun_fuzz::bounded(data, 512, read));
