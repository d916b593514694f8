//! `restore`: a volume whose machine is lost gets a configuration here and a fresh fast tier; its capacity tier stays
//! where it is.
//!
//! A failure or a crash at any point leaves no volume: the configuration gets its name last, and the same command may be
//! typed again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use forerun::config::{
    CapacityAddress, CapacityTierConfig, FastTierConfig, Paths, VolumeConfig, VolumeName, VolumePaths,
    format_size, parse_size,
};
use forerun::geometry::Geometry;
use forerun::utc::Utc;
use serde::Serialize;
use uuid::Uuid;

use super::args::Settings;
use super::failure::Failure;
use super::source::{self, Seen, SourceRef};
use super::{clone, create, output, programs};

/// Options of `restore`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
For when the machine is lost and the capacity tier is not: the volume goes on from its newest
epoch that was written back. It takes a moment whatever the volume's size: nothing is copied, and
data comes to the fast tier as it is used, and in the background, what was used most first
(--hydrate); `forerun status` shows how warm it is. What was written after that epoch is lost; the
moment is printed. Refused while another target writes to the capacity tier; a fast tier that turns
up later is refused.

On an object store no lock tells whether the machine is lost or just cannot be reached: where it
did not close the volume, `restore` watches for half a minute whether it shows that it lives.
With --fence it does not: should its target live after all, what that writes back from then on is
refused, and told there.

With PLACE@SNAPSHOT the result is another volume, as `forerun clone` makes one, with a capacity
tier of its own (--capacity).

Examples:
  forerun restore /srv/forerun/data --as data --fast /dev/nvme0n1p3
  forerun restore s3://bucket/data --as data --fast /dev/nvme0n1p3
  forerun restore s3://bucket/data --as data --fast /dev/nvme0n1p3 --fence
  forerun restore /srv/data@monday --as try --fast /fast/try.img --fast-size 4G --capacity /srv/try
  forerun restore /mnt/backup/data --as data --fast /fast/data.img --fast-size 64G
  forerun add data")]
pub struct RestoreOptions {
    /// The capacity tier of the volume (a directory or s3://BUCKET/PREFIX), or PLACE@SNAPSHOT for a new volume on that snapshot
    pub source: SourceRef,
    /// The volume's name here
    #[arg(long = "as", value_name = "VOLUME")]
    pub volume: VolumeName,
    /// The new fast tier: a block device or a file that holds nothing
    #[arg(long, value_name = "PATH")]
    pub fast: PathBuf,
    /// The size of the fast tier's file; needed when the file is not there yet
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub fast_size: Option<u64>,
    /// With a snapshot: the new volume's own capacity tier, a directory, made when it is not there, or s3://BUCKET/PREFIX (gs://, az:// likewise)
    #[arg(long, value_name = "PLACE")]
    pub capacity: Option<CapacityAddress>,
    /// Take the volume over at once from a machine that did not close it, without watching whether it lives (object stores)
    #[arg(long)]
    pub fence: bool,
    #[command(flatten)]
    pub settings: Settings,
    /// Print what the volume goes on from as JSON
    #[arg(long)]
    pub json: bool,
}

/// The configuration while the fast tier is made, in the volume's state directory.
const DRAFT: &str = "restoring.toml";

#[derive(Serialize)]
struct Restored<'a> {
    volume: &'a str,
    uuid: String,
    size_bytes: u64,
    fast: &'a Path,
    capacity: &'a CapacityAddress,
    epoch: u32,
    sealed_us: u64,
    snapshots: &'a [String],
}

/// Runs the command.
pub fn run(paths: &Paths, options: RestoreOptions) -> anyhow::Result<()> {
    let RestoreOptions { source, volume, fast, fast_size, capacity, fence, settings, json } = options;
    let options = match (source.snapshot, capacity) {
        (Some(_), _) if fence => {
            let message = "--fence is for a volume that is taken over; a new one on PLACE@SNAPSHOT takes nothing from anybody";
            return Err(Failure::Refused(message.to_owned()).into());
        }
        (Some(snapshot), Some(capacity)) => {
            let wanted = clone::Wanted { volume, fast, fast_size, capacity, settings, json };
            return clone::of(paths, &source.capacity, &snapshot, wanted);
        }
        (Some(_), None) => {
            let message =
                "a snapshot becomes a volume with a capacity tier of its own: give --capacity PLACE";
            return Err(Failure::Refused(message.to_owned()).into());
        }
        (None, Some(_)) => {
            let message = "--capacity is for a new volume on PLACE@SNAPSHOT; a restored one keeps its own";
            return Err(Failure::Refused(message.to_owned()).into());
        }
        (None, None) => RestoreOptions {
            source: SourceRef { capacity: source.capacity, snapshot: None },
            volume,
            fast,
            fast_size,
            capacity: None,
            fence,
            settings,
            json,
        },
    };
    let files = paths.volume(&options.volume);
    create::check_name(&options.volume, &files)?;
    let fast = FastTierConfig { path: create::absolute(&options.fast)?, size_bytes: options.fast_size };
    create::check_fast(&fast)?;
    let capacity = CapacityTierConfig { address: create::absolute_address(&options.source.capacity)? };
    let seen = source::look(&capacity.address)?;
    let uuid = Uuid::parse_str(&seen.uuid)?;
    if let Some(other) = source::configured(paths, &uuid)? {
        bail!(
            "volume {other} of this machine has this capacity tier. If its fast tier is lost, \
             `forerun repair {other} --to-fast PATH --without-fast` makes a new one"
        );
    }
    let geometry = Geometry::new(seen.size_bytes, seen.logical_block_bytes)?;
    let name = options.volume.clone();
    let config = create::with_settings(name, uuid, geometry, (fast, capacity), &options.settings)?;
    let _lock = create::lock(&files)?;
    let restored = make(&config, &files, options.fence);
    if restored.is_err() {
        // Only if it is empty, that is, made by this command.
        let _ = fs::remove_dir(files.state_dir());
    }
    let restored = restored?;
    if options.json {
        return Ok(output::json(&Restored {
            volume: config.name.as_str(),
            uuid: config.uuid.to_string(),
            size_bytes: config.geometry.size_bytes(),
            fast: &config.fast.path,
            capacity: &config.capacity.address,
            epoch: restored.epoch,
            sealed_us: restored.sealed_us,
            snapshots: &restored.snapshots,
        })?);
    }
    Ok(output::text(&text(&config, &restored))?)
}

fn make(config: &VolumeConfig, files: &VolumePaths, fence: bool) -> anyhow::Result<Seen> {
    let draft = files.state_dir().join(DRAFT);
    config.store_at(&draft)?;
    let mut arguments = vec!["restore".as_ref(), "--config-file".as_ref(), draft.as_os_str()];
    if fence {
        arguments.push("--fence".as_ref());
    }
    let told = programs::ask_target(arguments);
    let made = told.and_then(|told| {
        let seen = serde_json::from_slice(&told)?;
        config.store(files)?;
        Ok(seen)
    });
    let _ = fs::remove_file(&draft);
    made
}

fn text(config: &VolumeConfig, restored: &Seen) -> String {
    let name = &config.name;
    let from = match restored.epoch {
        0 => "it was never written back, and is empty".to_owned(),
        epoch => format!(
            "it goes on from the end of epoch {epoch}, {} (UTC)\nLOST: what was written after that and had not been \
             written back to the capacity tier",
            Utc::from_us(restored.sealed_us)
        ),
    };
    format!(
        "restored volume {name} of {}: fast tier {}, capacity tier {} with {}\n{from}\nstart it with `forerun add {name}`\n",
        format_size(config.geometry.size_bytes()),
        config.fast.path.display(),
        config.capacity.address,
        output::counted(restored.snapshots.len() as u64, "snapshot"),
    )
}
