//! Making a new volume: both tiers formatted, or nothing changed.
//!
//! The capacity tier comes first, since what it made can be taken back. A crash in between leaves a HEAD that was
//! never written to, or both tiers: creating the same volume (the same uuid) again goes on from there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use forerun::config::{CapacityAddress, FastTierConfig, VolumeConfig};
use forerun::geometry::{Geometry, Lsn};
use uuid::Uuid;

use crate::capacity_tier::{CapacityError, CapacityTier, VolumeUuid, remove_created};
use crate::fast_tier::{FastTier, check};

/// Formats the tiers of a new volume. What holds anything already is refused and left as it is.
///
/// # Errors
/// A tier that is missing, too small, in use, read-only, or holds something else.
pub fn create(config: &VolumeConfig) -> Result<()> {
    let capacity = &config.capacity.address;
    let was_there = capacity.directory().is_some_and(Path::exists);
    let volume = VolumeUuid(*config.uuid.as_bytes());
    let made = tokio_uring::start(make_capacity(capacity, volume, config.geometry))
        .with_context(|| format!("capacity tier {capacity}"))?;
    let formatted = make_fast(&config.fast, config.uuid, config.geometry, made == Made::Before);
    if formatted.is_err()
        && made == Made::Now
        && let Err(error) = tokio_uring::start(remove_created(capacity, !was_there))
    {
        tracing::warn!(%error, place = %capacity, "what was made for the capacity tier is left there");
    }
    formatted.with_context(|| format!("fast tier {}", config.fast.path.display()))
}

/// When a tier was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Made {
    Now,
    /// By an attempt that did not come to its end.
    Before,
}

/// Makes the capacity tier, or finds it as an earlier attempt at the same volume made it.
async fn make_capacity(
    address: &CapacityAddress,
    volume: VolumeUuid,
    geometry: Geometry,
) -> Result<Made, CapacityError> {
    let refused = match CapacityTier::create(address, volume, geometry).await {
        Ok(()) => return Ok(Made::Now),
        Err(error) => error,
    };
    // What was ever opened for writing has taken numbers.
    let untouched = |tier: &CapacityTier| {
        let head = tier.head();
        head.took_no_numbers() && head.geometry == geometry && head.layers().is_empty()
    };
    match CapacityTier::open_reader(address, Some(volume)).await {
        Ok(tier) if untouched(&tier) => Ok(Made::Before),
        _ => Err(refused),
    }
}

/// Makes the fast tier, or finds it as an earlier attempt at the same volume made it. `again`: there was one.
fn make_fast(fast: &FastTierConfig, volume: Uuid, geometry: Geometry, again: bool) -> Result<()> {
    if again {
        let length = fs::metadata(&fast.path).ok().filter(fs::Metadata::is_file).map(|file| file.len());
        if let (Some(length), Some(asked)) = (length, fast.size_bytes)
            && length < asked
        {
            bail!(
                "{} has {length} of {asked} bytes: an earlier attempt ended while it was made; remove the file \
                 and create the volume again",
                fast.path.display()
            );
        }
        if is_untouched(&fast.path, volume) {
            return Ok(());
        }
    }
    Ok(FastTier::format(&fast.path, fast.size_bytes, *volume.as_bytes(), geometry)?)
}

/// Whether there is a fast tier of this volume that was never opened. The second superblock may be missing:
/// opening writes it.
fn is_untouched(path: &Path, volume: Uuid) -> bool {
    check::check(path, Some(*volume.as_bytes())).is_ok_and(|report| {
        let sound = report.findings.iter().all(|finding| finding.severity == check::Severity::Minor);
        sound
            && report.volume == Some(volume)
            && report.clean
            && report.lsn == Lsn(0)
            && report.held_slots == 0
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use forerun::config::{CapacityTierConfig, HydrateOrder, SyncInterval, VolumeName};
    use forerun::prediction::{Horizon, Threshold};

    use super::*;

    const FAST_BYTES: u64 = 64 << 20;

    fn config(folder: &Path) -> VolumeConfig {
        VolumeConfig {
            name: VolumeName::new("v").unwrap(),
            uuid: Uuid::from_u128(7),
            geometry: Geometry::new(64 << 20, 4096).unwrap(),
            fast: FastTierConfig { path: folder.join("fast"), size_bytes: Some(FAST_BYTES) },
            capacity: CapacityTierConfig { address: folder.join("capacity").into() },
            sync_interval: SyncInterval::new(60).unwrap(),
            threshold: Threshold::new(0.5).unwrap(),
            horizon: Horizon::new(1).unwrap(),
            prediction: false,
            hydrate: HydrateOrder::Expected,
            created_us: 1,
        }
    }

    fn directory(config: &VolumeConfig) -> &Path {
        config.capacity.address.directory().unwrap()
    }

    fn entries(folder: &Path) -> Vec<PathBuf> {
        let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    }

    #[test]
    fn only_what_was_made_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        // Too small for a fast tier.
        fs::write(&config.fast.path, [0; 4096]).unwrap();
        create(&config).unwrap_err();
        assert!(!directory(&config).exists());

        let found = directory(&config).join("lost+found");
        fs::create_dir_all(&found).unwrap();
        fs::write(found.join("#12"), "somebody's data").unwrap();
        create(&config).unwrap_err();
        assert_eq!(entries(directory(&config)), std::slice::from_ref(&found));
        assert_eq!(fs::read(found.join("#12")).unwrap(), b"somebody's data");
    }

    #[test]
    fn what_a_crash_left_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let volume = VolumeUuid(*config.uuid.as_bytes());
        // Killed between the tiers, in the middle of the fast tier's file, and after both.
        tokio_uring::start(CapacityTier::create(&config.capacity.address, volume, config.geometry)).unwrap();
        fs::write(&config.fast.path, [0; 4096]).unwrap();
        let told = format!("{:#}", create(&config).unwrap_err());
        assert!(told.contains("4096 of 67108864 bytes") && told.contains("remove the file"), "{told}");
        assert!(directory(&config).join("HEAD").exists(), "it is not this attempt's to take back");
        fs::remove_file(&config.fast.path).unwrap();
        create(&config).unwrap();
        create(&config).unwrap();

        let other = VolumeConfig { uuid: Uuid::from_u128(8), ..config.clone() };
        let told = format!("{:#}", create(&other).unwrap_err());
        assert!(told.contains("it holds a volume (HEAD)"), "{told}");
        // Once it was opened it is a volume.
        drop(tokio_uring::start(CapacityTier::open_writer(
            &config.capacity.address,
            volume,
            config.geometry,
        )));
        create(&config).unwrap_err();
    }
}
