//! Which device shows a volume or a snapshot, and in what state it is.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context;
use forerun::config::{DeviceRecord, NameError, Paths, SnapshotName, VolumeName};

use super::failure::Failure;

/// A volume, or one of its snapshots: `VOLUME` or `VOLUME@SNAPSHOT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceRef {
    /// The volume.
    pub volume: VolumeName,
    /// The snapshot, where it is one.
    pub snapshot: Option<SnapshotName>,
}

impl FromStr for DeviceRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (volume, snapshot) = match text.split_once('@') {
            Some((volume, snapshot)) => (volume, Some(snapshot)),
            None => (text, None),
        };
        Ok(Self { volume: volume.parse()?, snapshot: snapshot.map(str::parse).transpose()? })
    }
}

impl std::fmt::Display for DeviceRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.snapshot {
            None => write!(f, "volume {}", self.volume),
            Some(snapshot) => write!(f, "snapshot {snapshot} of volume {}", self.volume),
        }
    }
}

/// What a device record stands for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceState {
    /// A target serves the device.
    Running,
    /// The target died and the device waits for another one.
    WaitsForRecovery,
    /// The device is gone; the record was left over.
    Gone,
}

/// The state of a recorded device.
pub fn state(record: &DeviceRecord) -> DeviceState {
    if record.process_exists() && is_target(record.pid) {
        DeviceState::Running
    } else if Path::new(&format!("/dev/ublkc{}", record.dev_id)).exists() {
        DeviceState::WaitsForRecovery
    } else {
        DeviceState::Gone
    }
}

/// Whether a process is a target, and not another one that got a dead target's number.
fn is_target(pid: u32) -> bool {
    // Installed as ublk-target and as ublk.forerun.
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("ublk"))
}

/// The record of a device; `None` where there is none.
///
/// # Errors
/// A record that cannot be read.
pub fn record(paths: &Paths, device: &DeviceRef) -> anyhow::Result<Option<DeviceRecord>> {
    let file = paths.volume(&device.volume).device_file(device.snapshot.as_ref());
    DeviceRecord::load(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// The record of a device that must have one.
///
/// # Errors
/// None is there, or it cannot be read.
pub fn require(paths: &Paths, device: &DeviceRef) -> anyhow::Result<DeviceRecord> {
    record(paths, device)?.ok_or_else(|| {
        Failure::NotFound(format!("{device} has no device; `forerun list` shows those that have")).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_or_a_snapshot_of_it() {
        let volume: DeviceRef = "data".parse().expect("a volume");
        assert_eq!(volume.to_string(), "volume data");
        let snapshot: DeviceRef = "data@mon".parse().expect("a snapshot");
        assert_eq!(snapshot.to_string(), "snapshot mon of volume data");
        for bad in ["", "@", "data@", "@mon", "data@mon@tue", "../x@y"] {
            assert!(bad.parse::<DeviceRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_process_that_is_no_target_serves_no_device() {
        let record = DeviceRecord { dev_id: 987_654, pid: std::process::id(), snapshot: None };
        assert_eq!(state(&record), DeviceState::Gone);
    }
}
