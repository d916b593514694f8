//! The record of a device: which `/dev/ublkbN` shows a volume or a snapshot, and which process serves it.
//!
//! The target writes it before it says that the device is there, and removes it when the device
//! is deleted. After a kill it stays: it says which device waits to be recovered.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{read_small_file, replace_file};

/// The largest record that is read at all, in bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// One device, as stored in `device.json` or `device@SNAP.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// The number N of `/dev/ublkbN`.
    pub dev_id: u32,
    /// The target's process id.
    pub pid: u32,
    /// The snapshot that the device shows; `None` for the volume itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

impl DeviceRecord {
    /// The device's path, `/dev/ublkbN`.
    #[must_use]
    pub fn device_path(&self) -> String {
        format!("/dev/ublkb{}", self.dev_id)
    }

    /// Whether a process of the recorded id exists. It may be another one if the target died long ago. One
    /// that has died and was not waited for yet does not count: it serves nothing any more.
    #[must_use]
    pub fn process_exists(&self) -> bool {
        if self.pid == 0 {
            return false;
        }
        // "PID (NAME) STATE ...", where the name may hold anything.
        match fs::read_to_string(format!("/proc/{}/stat", self.pid)) {
            Ok(stat) => {
                !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
            }
            Err(_) => false,
        }
    }

    /// Reads a record; `None` where there is none.
    ///
    /// # Errors
    /// The file cannot be read or holds no record.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        let text = match read_small_file(path, FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} holds no device record: {error}", path.display()),
            )
        })
    }

    /// Removes the record at `path` if it is of process `pid`: another may have shown the same since.
    ///
    /// # Errors
    /// The file cannot be read or removed.
    pub fn remove(path: &Path, pid: u32) -> io::Result<()> {
        match Self::load(path)? {
            Some(record) if record.pid == pid => fs::remove_file(path),
            _ => Ok(()),
        }
    }

    /// Stores the record; its directory must be there.
    ///
    /// # Errors
    /// The directory is missing, full or not writable.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        replace_file(path, &serde_json::to_vec(self)?, 0o644)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("device.json");
        assert_eq!(DeviceRecord::load(&path).expect("read"), None);
        for snapshot in [None, Some("mon".to_owned())] {
            let record = DeviceRecord { dev_id: 3, pid: std::process::id(), snapshot };
            record.store(&path).expect("stored");
            assert_eq!(DeviceRecord::load(&path).expect("read"), Some(record.clone()));
            assert!(record.process_exists());
            assert_eq!(record.device_path(), "/dev/ublkb3");
        }
        DeviceRecord::remove(&path, std::process::id() + 1).expect("of another process");
        assert!(path.exists());
        DeviceRecord::remove(&path, std::process::id()).expect("removed");
        assert!(!path.exists());
        DeviceRecord::remove(&path, std::process::id()).expect("there is none");
        let mut dead = std::process::Command::new("true").spawn().expect("started");
        let record = DeviceRecord { dev_id: 0, pid: dead.id(), snapshot: None };
        while record.process_exists() {
            std::thread::yield_now();
        }
        dead.wait().expect("it was there until now");
        fs::write(&path, "{\"dev_id\": -1}").expect("written");
        assert!(DeviceRecord::load(&path).is_err());
    }
}
