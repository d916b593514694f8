//! Making a new volume: both tiers formatted, the capacity tier first.
//!
//! A failure or a crash in between leaves a capacity tier without data or nothing; the command can be
//! given again once what it names is put right.

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
    let uuid = *config.uuid.as_bytes();
    let (fast, capacity) = (&config.fast.path, &config.capacity.path);
    FastTier::check_before_format(fast, config.fast.size_bytes, config.geometry)
        .with_context(|| format!("fast tier {}", fast.display()))?;
    create_capacity(capacity, uuid, config)?;
    FastTier::format(fast, config.fast.size_bytes, uuid, config.geometry).with_context(|| {
        format!(
            "fast tier {} (the capacity tier in {} has been made; remove that folder before another try)",
            fast.display(),
            capacity.display()
        )
    })
}

fn create_capacity(directory: &Path, uuid: [u8; 16], config: &VolumeConfig) -> Result<()> {
    tokio_uring::start(CapacityTier::create(directory, VolumeUuid(uuid), config.geometry))
        .with_context(|| format!("capacity tier {}", directory.display()))
}
