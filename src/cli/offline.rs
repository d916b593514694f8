//! What `check`, `dump` and `repair` share: the volume is there, and it is stopped.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use forerun::config::{Paths, VolumeName};

use super::args::WhichTiers;
use super::client;
use super::devices::{self, DeviceRef, DeviceState};

/// Sees that a volume is configured here and has no device.
pub fn stopped(paths: &Paths, volume: &VolumeName) -> anyhow::Result<()> {
    client::load_config(paths, volume)?;
    let device = DeviceRef { volume: volume.clone(), snapshot: None };
    if let Some(record) = devices::record(paths, &device)?
        && devices::state(&record, &device) != DeviceState::Gone
    {
        let path = record.device_path();
        bail!("volume {volume} has a device, {path}, and changes; stop it with `forerun del {volume}`");
    }
    Ok(())
}

/// The target's arguments for the tiers that are meant.
pub fn tiers(paths: &Paths, which: &WhichTiers) -> anyhow::Result<Vec<OsString>> {
    let mut arguments = Vec::new();
    if let Some(volume) = &which.volume {
        stopped(paths, volume)?;
        arguments.extend(["--volume".into(), volume.as_str().into()]);
    }
    if let Some(path) = &which.fast {
        arguments.extend(["--fast".into(), path.into()]);
    }
    if let Some(address) = &which.capacity {
        arguments.extend(["--capacity".into(), address.to_string().into()]);
    }
    Ok(arguments)
}

/// A path as the configuration keeps it.
pub fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot make {} absolute", path.display()))
}
