//! `clone`, and `restore` of a snapshot: a new volume that shares another one's data.
//!
//! As with `create`, a failure leaves no volume, and a crash leaves a draft by which the same command goes on with the same
//! one.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use forerun::config::{
    CapacityAddress, CapacityTierConfig, FastTierConfig, Paths, SnapshotName, VolumeConfig, VolumeName,
    VolumePaths, format_size,
};
use forerun::geometry::Geometry;
use serde::Serialize;
use uuid::Uuid;

use super::args::{CloneOptions, Settings};
use super::failure::Failure;
use super::source::{self, Seen};
use super::{client, create, output, programs, snapshot};

/// The configuration while the clone is made, in the volume's state directory.
const DRAFT: &str = "cloning.toml";

/// The volume to be made.
pub struct Wanted {
    pub volume: VolumeName,
    pub fast: PathBuf,
    pub fast_size: Option<u64>,
    pub capacity: CapacityAddress,
    pub settings: Settings,
    pub json: bool,
}

#[derive(Serialize)]
struct Cloned<'a> {
    volume: &'a str,
    uuid: String,
    size_bytes: u64,
    fast: &'a Path,
    capacity: &'a CapacityAddress,
    origin: &'a CapacityAddress,
    snapshot: &'a str,
    epoch: u32,
}

/// Runs `clone`.
pub fn run(paths: &Paths, options: CloneOptions) -> anyhow::Result<()> {
    let CloneOptions { origin, volume, fast, fast_size, capacity, settings, json } = options;
    let Some(name) = origin.snapshot else {
        let message = format!(
            "which snapshot? Give {0}@SNAPSHOT; `forerun snapshot list {0}` shows them",
            origin.volume
        );
        return Err(Failure::Refused(message).into());
    };
    let source = client::load_config(paths, &origin.volume)?.capacity.address;
    create::check_name(&volume, &paths.volume(&volume))?;
    snapshot::sync(paths, &origin.volume, &name)?;
    of(paths, &source, &name, Wanted { volume, fast, fast_size, capacity, settings, json })
}

/// Makes a volume of a snapshot on a capacity tier.
pub fn of(
    paths: &Paths,
    source: &CapacityAddress,
    name: &SnapshotName,
    wanted: Wanted,
) -> anyhow::Result<()> {
    let Wanted { volume, fast, fast_size, capacity, settings, json } = wanted;
    let files = paths.volume(&volume);
    create::check_name(&volume, &files)?;
    let source = create::absolute_address(source)?;
    let fast = FastTierConfig { path: create::absolute(&fast)?, size_bytes: fast_size };
    let capacity = CapacityTierConfig { address: create::absolute_address(&capacity)? };
    create::check_fast(&fast)?;
    create::check_capacity(&capacity)?;
    let seen = source::look(&source)?;
    if !seen.snapshots.iter().any(|there| there == name.as_str()) {
        let message = format!("there is no snapshot {name} on the capacity tier {source}");
        return Err(Failure::NotFound(message).into());
    }
    let geometry = Geometry::new(seen.size_bytes, seen.logical_block_bytes)?;
    let mut config = create::with_settings(volume, Uuid::new_v4(), geometry, (fast, capacity), &settings)?;
    let _lock = create::lock(&files)?;
    let draft = files.state_dir().join(DRAFT);
    if draft.exists() {
        create::go_on(&mut config, &draft, "clone")?;
    }
    let made = make(&config, &files, &draft, &source, name);
    if made.is_err() {
        // Only if it is empty, that is, made by this command.
        let _ = fs::remove_dir(files.state_dir());
    }
    let made = made?;
    if json {
        return Ok(output::json(&Cloned {
            volume: config.name.as_str(),
            uuid: config.uuid.to_string(),
            size_bytes: config.geometry.size_bytes(),
            fast: &config.fast.path,
            capacity: &config.capacity.address,
            origin: &source,
            snapshot: name.as_str(),
            epoch: made.epoch,
        })?);
    }
    Ok(output::text(&format!(
        "cloned volume {volume} of {size} from snapshot {name} (epoch {epoch}): fast tier {fast}, capacity tier {capacity}\n\
         what it shares stays in {source}, which has to stay where it is until the clone is promoted or gone\n\
         start it with `forerun add {volume}`\n",
        volume = config.name,
        size = format_size(config.geometry.size_bytes()),
        epoch = made.epoch,
        fast = config.fast.path.display(),
        capacity = config.capacity.address,
    ))?)
}

fn make(
    config: &VolumeConfig,
    files: &VolumePaths,
    draft: &Path,
    source: &CapacityAddress,
    name: &SnapshotName,
) -> anyhow::Result<Seen> {
    // Before anything is begun.
    programs::find(programs::TARGET)?;
    config.store_at(draft)?;
    let told = programs::ask_target([
        OsString::from("clone"),
        "--config-file".into(),
        draft.into(),
        "--origin".into(),
        source.to_string().into(),
        "--snapshot".into(),
        name.as_str().into(),
    ]);
    // A target that failed has taken back what it made; one that was killed has not.
    if told.as_ref().is_err_and(|error| error.downcast_ref::<Failure>().is_some()) {
        let _ = fs::remove_file(draft);
    }
    let seen = serde_json::from_slice(&told?)?;
    config.store(files)?;
    let _ = fs::remove_file(draft);
    Ok(seen)
}
