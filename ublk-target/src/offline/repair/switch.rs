//! New places, and how they enter the volume's configuration: last, in one step, with the old ones kept and named.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use forerun::config::{
    CapacityAddress, CapacityTierConfig, FastTierConfig, VolumeConfig, VolumePaths, replace_file,
};
use forerun::utc::Utc;
use nix::fcntl::{Flock, FlockArg};
use uuid::Uuid;

use super::{RepairOptions, Report};
use crate::capacity_tier::{AnyStore, VolumeUuid, prepare_directory};

/// The mark of a capacity directory that a repair has begun; it holds the volume's uuid.
const MARK: &str = "REPAIR";

/// Sees that what is to be made is not what is there.
pub(super) fn check_places(config: &VolumeConfig, options: &RepairOptions) -> anyhow::Result<()> {
    let RepairOptions { to_fast, to_capacity, without_fast, without_capacity, .. } = options;
    if to_fast.is_none() && to_capacity.is_none() {
        bail!("nothing is to be made: give --to-fast PATH, --to-capacity PLACE, or both");
    }
    if *without_fast && *without_capacity {
        bail!("without both tiers there is nothing to repair from");
    }
    if *without_fast && to_fast.is_none() {
        bail!("--without-fast needs --to-fast PATH for the new fast tier");
    }
    if *without_capacity && (to_capacity.is_none() || to_fast.is_none()) {
        bail!("--without-capacity needs both --to-capacity PLACE and --to-fast PATH");
    }
    let new_directory = to_capacity.as_ref().and_then(CapacityAddress::directory);
    for path in to_fast.iter().map(PathBuf::as_path).chain(new_directory) {
        if !path.is_absolute() {
            bail!("{} is not an absolute path", path.display());
        }
    }
    if let Some(new) = to_fast
        && is_same(new, &config.fast.path)?
    {
        bail!(
            "{} is the volume's fast tier: a repair never writes over the only copy; give another",
            new.display()
        );
    }
    let Some(new) = to_capacity else { return Ok(()) };
    let old = &config.capacity.address;
    let overlap = match (new, old) {
        (CapacityAddress::Objects(new), CapacityAddress::Objects(old)) if new.overlaps(old) => true,
        _ => match (new.local_path(), old.local_path()) {
            (Some(new), Some(old)) => {
                let (new, old) = (resolved(&new), resolved(&old));
                new.starts_with(&old) || old.starts_with(&new)
            }
            _ => false,
        },
    };
    if overlap {
        bail!(
            "{new} and the volume's capacity tier {old} are the same place, or one is in the other: a repair never \
             writes over the only copy; give another"
        );
    }
    Ok(())
}

/// Whether two paths lead to the same file or device.
fn is_same(a: &Path, b: &Path) -> io::Result<bool> {
    let look = |path: &Path| match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let (Some(a_data), Some(b_data)) = (look(a)?, look(b)?) else { return Ok(a == b) };
    let devices = a_data.file_type().is_block_device() && b_data.file_type().is_block_device();
    Ok(if devices {
        a_data.rdev() == b_data.rdev()
    } else {
        (a_data.dev(), a_data.ino()) == (b_data.dev(), b_data.ino())
    })
}

/// The path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut at = path;
    loop {
        if let Ok(real) = at.canonicalize() {
            return missing.iter().rev().fold(real, |path, name| path.join(name));
        }
        match (at.parent(), at.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name);
                at = parent;
            }
            _ => return path.to_owned(),
        }
    }
}

/// Keeps two repairs of one volume apart; the kernel lets go when this process ends.
pub(super) fn lock(paths: &VolumePaths) -> anyhow::Result<Flock<File>> {
    let directory = paths.state_dir();
    let opened = File::open(directory).with_context(|| format!("open {}", directory.display()))?;
    Flock::lock(opened, FlockArg::LockExclusiveNonblock)
        .map_err(|_| anyhow!("another repair or creation of the same volume is under way"))
}

/// Begins a new capacity tier; what an attempt that did not come to its end left is removed.
pub(super) async fn begin_capacity(address: &CapacityAddress, volume: Uuid) -> anyhow::Result<AnyStore> {
    let store = AnyStore::at(address)?;
    match address.directory() {
        Some(directory) => begin_directory(directory, volume)?,
        None => store.begin_repair(address, VolumeUuid(*volume.as_bytes())).await?,
    }
    Ok(store)
}

/// The mark is only for attempts: a tier that counts must not be taken for one.
fn end_capacity(address: &CapacityAddress, volume: Uuid) -> anyhow::Result<()> {
    match address.directory() {
        Some(directory) => fs::remove_file(directory.join(MARK))?,
        None => tokio_uring::start(async {
            AnyStore::at(address)?
                .end_repair(VolumeUuid(*volume.as_bytes()))
                .await
                .map_err(anyhow::Error::new)
        })?,
    }
    Ok(())
}

/// Makes the folders.
fn begin_directory(directory: &Path, volume: Uuid) -> anyhow::Result<()> {
    let context = || format!("capacity tier {}", directory.display());
    let mark = directory.join(MARK);
    // No link, and nothing that is waited for: others may write to the folder.
    let is_file = fs::symlink_metadata(&mark).is_ok_and(|found| found.is_file() && found.len() < 100);
    let begun = is_file && fs::read_to_string(&mark).is_ok_and(|text| text.trim() == volume.to_string());
    if begun {
        clear(directory).with_context(context)?;
    }
    prepare_directory(directory)?;
    let write = || -> io::Result<()> {
        let mut file = File::create_new(&mark)?;
        writeln!(file, "{volume}")?;
        file.sync_all()?;
        File::open(directory)?.sync_all()
    };
    write().with_context(context)
}

fn clear(directory: &Path) -> io::Result<()> {
    // First what makes it a volume, last the mark.
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("HEAD") {
            fs::remove_file(entry.path())?;
        }
    }
    for folder in ["segments", "layers", "warm", "leases"] {
        match fs::remove_dir_all(directory.join(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    File::open(directory)?.sync_all()?;
    fs::remove_file(directory.join(MARK))
}

/// The configuration with the new places.
pub(super) fn repaired(config: &VolumeConfig, options: &RepairOptions) -> VolumeConfig {
    let mut repaired = config.clone();
    if let Some(path) = &options.to_fast {
        let file = fs::metadata(path).ok().filter(fs::Metadata::is_file);
        repaired.fast = FastTierConfig { path: path.clone(), size_bytes: file.map(|file| file.len()) };
    }
    if let Some(address) = &options.to_capacity {
        repaired.capacity = CapacityTierConfig { address: address.clone() };
    }
    repaired
}

/// Where the old configuration and the report are kept: names that no earlier repair has.
fn kept(directory: &Path, now: &str) -> (PathBuf, PathBuf) {
    let mut number = 1;
    loop {
        let mark = if number == 1 { now.to_owned() } else { format!("{now}-{number}") };
        let config = directory.join(format!("volume.toml.before-repair-{mark}"));
        let report = directory.join(format!("repair-{mark}.json"));
        if !config.exists() && !report.exists() {
            return (config, report);
        }
        number += 1;
    }
}

/// Keeps the old configuration and the report, then puts the new configuration in the old one's place.
pub(super) fn switch(
    old: &VolumeConfig,
    new: &VolumeConfig,
    paths: &VolumePaths,
    options: &RepairOptions,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (directory, now) = (paths.state_dir(), Utc::from_us(crate::background::now_us()).compact());
    let (kept_config, kept_report) = kept(directory, &now);
    old.store_at(&kept_config)?;
    report.kept = vec![kept_config, kept_report.clone()];
    report.switched = true;
    let text = serde_json::to_vec_pretty(&report)?;
    replace_file(&kept_report, &text, 0o600).with_context(|| format!("write {}", kept_report.display()))?;
    new.store(paths)?;
    if let Some(address) = &options.to_capacity
        && let Err(error) = end_capacity(address, new.uuid)
    {
        tracing::warn!(error = format!("{error:#}"), place = %address, "the mark of a repair is left there; it does no harm");
    }
    Ok(())
}
