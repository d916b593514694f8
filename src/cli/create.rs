//! `create`: check everything, have the tiers formatted, and only then note the configuration.
//!
//! A failure at any point leaves no volume: the configuration gets its name last. A crash leaves its draft, by which
//! the same command, typed again, goes on with the same volume.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use forerun::config::{
    CapacityAddress, CapacityTierConfig, FastTierConfig, Paths, SyncInterval, VolumeConfig, VolumeName,
    VolumePaths, format_size,
};
use forerun::geometry::Geometry;
use forerun::prediction::{Horizon, Threshold};
use forerun::utc::now_us;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use uuid::Uuid;

use super::args::{CreateOptions, Settings, Switch};
use super::failure::Failure;
use super::{output, programs};

/// The configuration while the tiers are made, in the volume's state directory.
const DRAFT: &str = "creating.toml";

/// A new volume as printed with `--json`.
#[derive(Serialize)]
struct Created<'a> {
    volume: &'a str,
    uuid: String,
    size_bytes: u64,
    logical_block_bytes: u32,
    fast: &'a Path,
    capacity: &'a CapacityAddress,
    sync_interval_seconds: u32,
    threshold: f64,
    prediction_horizon: u32,
    prediction: bool,
    config_file: PathBuf,
}

/// Runs the command.
pub fn run(paths: &Paths, options: CreateOptions) -> anyhow::Result<()> {
    let json = options.json;
    let mut config = config(options)?;
    let files = paths.volume(&config.name);
    let _lock = lock(&files)?;
    check_name(&config.name, &files)?;
    let draft = files.state_dir().join(DRAFT);
    if draft.exists() {
        go_on(&mut config, &draft, "create")?;
    }
    let outcome = format_tiers(&config, &files, &draft);
    if outcome.is_err() {
        // Only if it is empty, that is, made by this command.
        let _ = fs::remove_dir(files.state_dir());
    }
    outcome?;
    if json {
        return Ok(output::json(&Created {
            volume: config.name.as_str(),
            uuid: config.uuid.to_string(),
            size_bytes: config.geometry.size_bytes(),
            logical_block_bytes: config.geometry.logical_block_bytes(),
            fast: &config.fast.path,
            capacity: &config.capacity.address,
            sync_interval_seconds: config.sync_interval.seconds(),
            threshold: config.threshold.as_f64(),
            prediction_horizon: config.horizon.epochs(),
            prediction: config.prediction,
            config_file: files.config_file(),
        })?);
    }
    Ok(output::text(&format!(
        "created volume {name} of {size}: fast tier {fast}, capacity tier {capacity}\nstart it with `forerun add {name}`\n",
        name = config.name,
        size = format_size(config.geometry.size_bytes()),
        fast = config.fast.path.display(),
        capacity = config.capacity.address,
    ))?)
}

/// The configuration asked for, with all values in range and all paths absolute.
fn config(options: CreateOptions) -> anyhow::Result<VolumeConfig> {
    let refused = |error: &dyn std::fmt::Display| Failure::Refused(error.to_string());
    let logical_block_bytes = options.logical_block_size.parse().map_err(|error| refused(&error))?;
    let geometry = Geometry::new(options.size, logical_block_bytes).map_err(|error| refused(&error))?;
    let fast = FastTierConfig { path: absolute(&options.fast)?, size_bytes: options.fast_size };
    let capacity = CapacityTierConfig { address: absolute_address(&options.capacity)? };
    check_fast(&fast)?;
    check_capacity(&capacity)?;
    with_settings(options.volume, Uuid::new_v4(), geometry, (fast, capacity), &options.settings)
}

/// A configuration with these settings, all in range.
pub fn with_settings(
    name: VolumeName,
    uuid: Uuid,
    geometry: Geometry,
    (fast, capacity): (FastTierConfig, CapacityTierConfig),
    settings: &Settings,
) -> anyhow::Result<VolumeConfig> {
    let refused = |error: &dyn std::fmt::Display| Failure::Refused(error.to_string());
    Ok(VolumeConfig {
        name,
        uuid,
        geometry,
        fast,
        capacity,
        sync_interval: SyncInterval::new(settings.sync_interval).map_err(|error| refused(&error))?,
        threshold: Threshold::new(settings.threshold).map_err(|error| refused(&error))?,
        horizon: Horizon::new(settings.horizon).map_err(|error| refused(&error))?,
        prediction: settings.prediction == Switch::On,
        hydrate: settings.hydrate,
        created_us: now_us(),
    })
}

/// Sees that no volume has this name here.
pub fn check_name(name: &VolumeName, files: &VolumePaths) -> anyhow::Result<()> {
    let file = files.config_file();
    if file.exists() {
        bail!("volume {name} is there already ({}); choose another name", file.display());
    }
    Ok(())
}

/// A path as the configuration keeps it.
pub fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} has no absolute path", path.display()))
}

/// The address, as an absolute path if it is one of a directory.
///
/// # Errors
/// The path has no absolute form.
pub fn absolute_address(address: &CapacityAddress) -> anyhow::Result<CapacityAddress> {
    match address {
        CapacityAddress::Directory(path) => Ok(CapacityAddress::Directory(absolute(path)?)),
        objects @ CapacityAddress::Objects(_) => Ok(objects.clone()),
    }
}

pub fn check_fast(fast: &FastTierConfig) -> anyhow::Result<()> {
    let path = fast.path.display();
    match fs::metadata(&fast.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if fast.path.starts_with("/dev") {
                return Err(Failure::NotFound(format!("the fast tier's device {path} is not there")).into());
            }
            if fast.size_bytes.is_none() {
                let message =
                    format!("the fast tier's file {path} is not there; give --fast-size to have it made");
                return Err(Failure::Refused(message).into());
            }
            Ok(())
        }
        Err(error) => Err(anyhow!(error).context(format!("cannot look at the fast tier {path}"))),
        Ok(metadata) if metadata.file_type().is_block_device() && fast.size_bytes.is_some() => {
            let message = format!("--fast-size is for files; {path} is a device and is used whole");
            Err(Failure::Refused(message).into())
        }
        Ok(metadata) if metadata.is_file() || metadata.file_type().is_block_device() => Ok(()),
        Ok(_) => {
            Err(Failure::Refused(format!("the fast tier {path} is neither a block device nor a file")).into())
        }
    }
}

pub fn check_capacity(capacity: &CapacityTierConfig) -> anyhow::Result<()> {
    // An object store is looked at by the target, which has the client.
    let Some(directory) = capacity.address.directory() else { return Ok(()) };
    let path = directory.display();
    match fs::metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(anyhow!(error).context(format!("cannot look at the capacity tier {path}"))),
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Failure::Refused(format!("the capacity tier {path} is not a directory")).into()),
    }
}

/// Keeps two creations of the same volume apart; the kernel lets go when this process ends.
pub fn lock(files: &VolumePaths) -> anyhow::Result<Flock<File>> {
    let directory = files.state_dir();
    let context = || format!("cannot make the state directory {}", directory.display());
    DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(context)?;
    let opened = File::open(directory).with_context(context)?;
    Flock::lock(opened, FlockArg::LockExclusiveNonblock)
        .map_err(|_| anyhow!("another `forerun create` of the same volume is under way"))
}

/// Makes it the volume that an interrupted command had begun with: its tiers may know it by now.
///
/// # Errors
/// The draft cannot be read, or has other options.
pub fn go_on(config: &mut VolumeConfig, draft: &Path, command: &str) -> anyhow::Result<()> {
    let begun = VolumeConfig::load_file(draft).with_context(|| {
        format!("an earlier `forerun {command}` of volume {} was interrupted; remove its draft", config.name)
    })?;
    let same = VolumeConfig { uuid: begun.uuid, created_us: begun.created_us, ..config.clone() };
    if same != begun {
        let message = format!(
            "an earlier `forerun {command}` of volume {name} with other options was interrupted. Repeat it as it was ({draft} holds \
             its options), or remove what it may have made, {fast} and {capacity}, and then {draft}",
            name = config.name,
            draft = draft.display(),
            fast = begun.fast.path.display(),
            capacity = begun.capacity.address,
        );
        return Err(Failure::Refused(message).into());
    }
    *config = begun;
    Ok(())
}

fn format_tiers(config: &VolumeConfig, files: &VolumePaths, draft: &Path) -> anyhow::Result<()> {
    // Before anything is begun.
    programs::find(programs::TARGET)?;
    // The target reads the configuration from a file; it gets its real name when the tiers are ready.
    config.store_at(draft)?;
    let formatted = programs::run_target(["create".as_ref(), "--config-file".as_ref(), draft.as_os_str()]);
    // A target that failed has taken back what it made; one that was killed has not.
    let failed = formatted.as_ref().is_err_and(|error| error.downcast_ref::<Failure>().is_some());
    if failed {
        let _ = fs::remove_file(draft);
    }
    formatted?;
    config.store(files)?;
    let _ = fs::remove_file(draft);
    Ok(())
}
