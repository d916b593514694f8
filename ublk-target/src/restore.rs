//! `look`, `restore`, `clone` and `forget`: print, as JSON, what a capacity tier holds and from where its volume goes on.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use forerun::config::{CapacityAddress, Paths, SnapshotName, VolumeConfig};
use serde::Serialize;
use ublk_target::offline::{clone, restore};
use uuid::Uuid;

/// Tells which volume is on a capacity tier.
pub fn look(capacity: &CapacityAddress) -> anyhow::Result<ExitCode> {
    print(&restore::look(capacity)?)
}

/// Makes the fast tier of the volume that the file configures.
pub fn run(config_file: &Path, fence: bool) -> anyhow::Result<ExitCode> {
    let config = VolumeConfig::load_file(config_file)?;
    let paths = Paths::from_env().volume(&config.name);
    print(&restore::restore(&config, &paths, fence)?)
}

/// Makes the volume that the file configures of a snapshot of the one in `origin`.
pub fn clone(config_file: &Path, origin: &CapacityAddress, snapshot: &str) -> anyhow::Result<ExitCode> {
    let config = VolumeConfig::load_file(config_file)?;
    let paths = Paths::from_env().volume(&config.name);
    print(&clone::clone(&config, &paths, origin, &SnapshotName::new(snapshot)?)?)
}

/// Lets go of what the volume in `capacity` keeps for a clone.
pub fn forget(capacity: &CapacityAddress, clone: Uuid, force: bool) -> anyhow::Result<ExitCode> {
    let address = clone::forget_at(capacity, clone, force)?;
    print(&serde_json::json!({"clone": clone.to_string(), "address": address}))
}

fn print(value: &impl Serialize) -> anyhow::Result<ExitCode> {
    writeln!(io::stdout().lock(), "{}", serde_json::to_string(value)?)?;
    Ok(ExitCode::SUCCESS)
}
