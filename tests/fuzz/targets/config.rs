//! What an operator writes: `volume.toml`, a device's record, sizes, names.
#![no_main]

use forerun::config::{DeviceRecord, SnapshotName, VolumeConfig, VolumeName, format_size, parse_size};

fn read(data: &[u8]) {
    let Some((how, bytes)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match how % 3 {
        0 => {
            let config = match VolumeConfig::from_toml(text) {
                Ok(config) => config,
                Err(problem) => {
                    return assert!(problem.len() < 2_000 + 16 * text.len(), "a message has an end");
                }
            };
            assert!(config.fast.path.is_absolute());
            assert!(config.capacity.address.directory().is_none_or(std::path::Path::is_absolute));
            let Ok(again) = config.to_toml() else { panic!("what was read is written: {config:?}") };
            assert_eq!(VolumeConfig::from_toml(&again), Ok(config));
        }
        1 => {
            let path = forerun_fuzz::scratch("device.json");
            assert!(std::fs::write(&path, bytes).is_ok());
            let read = DeviceRecord::load(&path);
            if let Ok(record) = read {
                let Some(record) = record else { panic!("it is there") };
                assert!(record.store(&path).is_ok());
                assert_eq!(DeviceRecord::load(&path).ok().flatten(), Some(record));
            }
            assert!(std::fs::remove_file(&path).is_ok());
        }
        _ => {
            if let Ok(bytes) = parse_size(text) {
                assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
                assert!(format_size(bytes).len() < 20);
            }
            if let Ok(name) = VolumeName::new(text) {
                let parts: Vec<_> = std::path::Path::new(name.as_str()).components().collect();
                assert!(matches!(parts.as_slice(), [std::path::Component::Normal(part)] if **part == *text));
                assert!(SnapshotName::new(text).is_ok(), "one rule for both");
            }
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| forerun_fuzz::bounded(data, 512, read));
