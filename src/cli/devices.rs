//! Which device shows a volume or a snapshot, and in what state it is.
//!
//! A volume's record says which device was made for it. The number of a device that is gone may be another's by
//! now, so the record alone is not believed: the targets' notes by number (`/run/ublksrvd/N.pid`, which the
//! stock `ublk` tool reads too) say what a device shows.

use std::fs;
use std::path::PathBuf;
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

impl DeviceRef {
    /// As it is typed: `VOLUME` or `VOLUME@SNAPSHOT`.
    pub fn typed(&self) -> String {
        match &self.snapshot {
            None => self.volume.to_string(),
            Some(snapshot) => format!("{}@{snapshot}", self.volume),
        }
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

/// The state of the device that is recorded for a volume or snapshot.
pub fn state(record: &DeviceRecord, device: &DeviceRef) -> DeviceState {
    Machine::this().state(record, device)
}

/// What the device with this number shows, as its target noted; `None` where it is none of forerun's.
pub fn shown_by(dev_id: u32) -> Option<DeviceRef> {
    Machine::this().shown_by(dev_id)
}

/// Where a machine's devices are, and the notes about them.
struct Machine {
    devices: PathBuf,
    notes: PathBuf,
}

impl Machine {
    fn this() -> Self {
        Self { devices: "/dev".into(), notes: "/run/ublksrvd".into() }
    }

    fn state(&self, record: &DeviceRecord, device: &DeviceRef) -> DeviceState {
        let shown = self.shown_by(record.dev_id);
        let is_others = shown.as_ref().is_some_and(|shown| shown != device);
        if record.process_exists() && is_target(record.pid) && !is_others {
            DeviceState::Running
        } else if self.devices.join(format!("ublkc{}", record.dev_id)).exists()
            && shown.is_some()
            && !is_others
        {
            DeviceState::WaitsForRecovery
        } else {
            DeviceState::Gone
        }
    }

    fn shown_by(&self, dev_id: u32) -> Option<DeviceRef> {
        // 32 bytes for the process's number, then JSON and a zero byte.
        let bytes = fs::read(self.notes.join(format!("{dev_id}.pid"))).ok()?;
        let json = bytes.get(32..)?.split(|byte| *byte == 0).next()?;
        let note: serde_json::Value = serde_json::from_slice(json).ok()?;
        let target = note.get("target")?;
        if target.get("name")?.as_str()? != "forerun" {
            return None;
        }
        target.get("volume")?.as_str()?.parse().ok()
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

/// Every volume or snapshot that has a record, with it; what cannot be read is left out.
///
/// # Errors
/// The state directory cannot be read.
pub fn all_records(paths: &Paths) -> anyhow::Result<Vec<(DeviceRef, DeviceRecord)>> {
    let mut all = Vec::new();
    for volume in paths.volumes()? {
        for file in paths.volume(&volume).device_files().unwrap_or_default() {
            let Ok(Some(record)) = DeviceRecord::load(&file) else { continue };
            let Ok(snapshot) = record.snapshot.as_deref().map(str::parse).transpose() else { continue };
            all.push((DeviceRef { volume: volume.clone(), snapshot }, record));
        }
    }
    Ok(all)
}

/// Removes the record of a device that is gone.
pub fn forget(paths: &Paths, device: &DeviceRef) {
    // Its target may have done so by now; a record that stays is found to be stale again.
    let _ = fs::remove_file(paths.volume(&device.volume).device_file(device.snapshot.as_ref()));
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
        assert_eq!((volume.typed(), snapshot.typed()), ("data".into(), "data@mon".into()));
        assert_eq!(snapshot.to_string(), "snapshot mon of volume data");
        for bad in ["", "@", "data@", "@mon", "data@mon@tue", "../x@y"] {
            assert!(bad.parse::<DeviceRef>().is_err(), "{bad}");
        }
    }

    fn record(dev_id: u32) -> DeviceRecord {
        DeviceRecord { dev_id, pid: std::process::id(), snapshot: None }
    }

    #[test]
    fn a_process_that_is_no_target_serves_no_device() {
        assert_eq!(state(&record(987_654), &"data".parse().expect("a volume")), DeviceState::Gone);
    }

    #[test]
    fn a_device_waits_only_for_the_volume_that_it_shows() {
        let dir = tempfile::tempdir().expect("a directory");
        let machine = Machine { devices: dir.path().join("dev"), notes: dir.path().join("notes") };
        fs::create_dir(&machine.devices).expect("made");
        fs::create_dir(&machine.notes).expect("made");
        let note = |name: &str, volume: &str| {
            let mut bytes = b"140\n".to_vec();
            bytes.resize(32, 0);
            let json = serde_json::json!({"target": {"name": name, "volume": volume}});
            bytes.extend(format!("{json}\0").bytes());
            fs::write(machine.notes.join("3.pid"), bytes).expect("written");
        };
        let state = |device: &str| machine.state(&record(3), &device.parse().expect("a device"));
        note("forerun", "data");
        assert_eq!(state("data"), DeviceState::Gone, "there is no such device");
        fs::write(machine.devices.join("ublkc3"), "").expect("written");
        assert_eq!(state("data"), DeviceState::WaitsForRecovery);
        assert_eq!(state("other"), DeviceState::Gone, "the number is of another volume's device by now");
        assert_eq!(state("data@mon"), DeviceState::Gone);
        note("forerun", "data@mon");
        assert_eq!((state("data"), state("data@mon")), (DeviceState::Gone, DeviceState::WaitsForRecovery));
        note("loop", "data");
        assert_eq!(state("data"), DeviceState::Gone, "the number is of another target's device by now");
        for broken in [&b""[..], b"140\n", &[b' '; 40], &[0; 40]] {
            fs::write(machine.notes.join("3.pid"), broken).expect("written");
            assert_eq!(machine.shown_by(3), None);
        }
    }
}
