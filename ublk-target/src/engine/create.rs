//! Making a new volume: both tiers formatted, or nothing changed.
//!
//! The capacity tier comes first, since what it made can be taken back; a crash in between leaves a folder
//! with a HEAD and no data, which the command then refuses and names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use forerun::config::VolumeConfig;

use crate::capacity_tier::{CapacityTier, VolumeUuid};
use crate::fast_tier::FastTier;

/// Formats the tiers of a new volume. What holds anything already is refused and left as it is.
///
/// # Errors
/// A tier that is missing, too small, in use, read-only, or holds something else.
pub fn create(config: &VolumeConfig) -> Result<()> {
    let (fast, capacity) = (&config.fast.path, &config.capacity.path);
    let was_there = capacity.exists();
    let volume = VolumeUuid(*config.uuid.as_bytes());
    tokio_uring::start(CapacityTier::create(capacity, volume, config.geometry))
        .with_context(|| format!("capacity tier {}", capacity.display()))?;
    let formatted = FastTier::format(fast, config.fast.size_bytes, volume.0, config.geometry);
    if formatted.is_err() {
        take_back(capacity, was_there);
    }
    formatted.with_context(|| format!("fast tier {}", fast.display()))
}

/// Removes what was made in a capacity directory that was empty or not there a moment ago.
fn take_back(directory: &Path, was_there: bool) {
    let removed = if was_there {
        fs::read_dir(directory).and_then(|entries| {
            entries.into_iter().try_for_each(|entry| {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())
                } else {
                    fs::remove_file(entry.path())
                }
            })
        })
    } else {
        fs::remove_dir_all(directory)
    };
    if let Err(error) = removed {
        tracing::warn!(%error, directory = %directory.display(), "what was made for the capacity tier is left there");
    }
}
