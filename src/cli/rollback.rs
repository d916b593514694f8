//! `rollback`: a volume is set back to one of its snapshots.
//!
//! What differs is copied back from the snapshot's own read-only device, by the API's diff, so that it takes as long as what
//! changed since is large. The state before is a snapshot first: whatever happens on the way, nothing is lost, and the
//! same command may be given again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, anyhow};
use clap::Args;
use forerun::api::v1::ChangeKind;
use forerun::config::{Paths, SnapshotName, format_size};
use forerun::geometry::{BLOCK_BYTES, BlockIndex};
use forerun::utc::now_us;
use serde::Serialize;

use super::devices::{self, DeviceRef};
use super::export::{Attached, Changed, Progress, changed_blocks};
use super::failure::Failure;
use super::output::{self, counted};
use super::volume_device::{Holders, VolumeDevice};
use super::{client, snapshot};

/// Blocks copied side by side: a block of the capacity tier may take some time, and many do not take longer.
const COPIES_AT_ONCE: usize = 16;

/// Options of `rollback`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
The volume becomes what it was at the snapshot. The state before is kept as a snapshot, by which
this can be undone. Only what differs is copied, so it takes as long as what was changed since is
large: --dry-run says how much that is.

The volume has to be running, and neither mounted nor held by anybody: a file system that is mounted
does not notice that its device is another one, and writes nonsense. --force does it all the same.
Interrupted, the volume is half of each; the same command goes on.

Examples:
  umount /data && forerun rollback data@monday
  forerun rollback data@monday --dry-run
  forerun rollback data@before-rollback-20261127-001500      # undoes it")]
pub struct RollbackOptions {
    /// The snapshot, as VOLUME@SNAPSHOT
    #[arg(value_name = "VOLUME@SNAPSHOT")]
    pub which: DeviceRef,
    /// The name of the snapshot that keeps the state before; without it one with the date and time
    #[arg(long, value_name = "SNAPSHOT")]
    pub keep: Option<SnapshotName>,
    /// Say what would be copied, and change nothing (the snapshot of the state before is made and deleted)
    #[arg(long)]
    pub dry_run: bool,
    /// Even if the volume is mounted or held by another device
    #[arg(long)]
    pub force: bool,
    /// Print what was done as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct RolledBack<'a> {
    volume: &'a str,
    snapshot: &'a str,
    /// The state before; missing with `--dry-run`.
    kept: Option<&'a str>,
    copied_blocks: usize,
    cleared_blocks: usize,
}

/// Runs the command.
pub fn run(paths: &Paths, options: &RollbackOptions) -> anyhow::Result<()> {
    let volume = &options.which.volume;
    let Some(name) = &options.which.snapshot else {
        let message = format!(
            "back to which snapshot? Give {volume}@SNAPSHOT; `forerun snapshot list {volume}` shows them"
        );
        return Err(Failure::Refused(message).into());
    };
    let config = client::load_config(paths, volume)?;
    let record = devices::require(paths, &DeviceRef { volume: volume.clone(), snapshot: None })?;
    if !snapshot::all(paths, volume)?.iter().any(|there| there.name == name.as_str()) {
        let message =
            format!("volume {volume} has no snapshot {name}; `forerun snapshot list {volume}` shows those");
        return Err(Failure::NotFound(message).into());
    }
    // Nobody else writes from here on, but for --force.
    let holders = if options.force || options.dry_run { Holders::Any } else { Holders::None };
    let device = VolumeDevice::open(Path::new(&record.device_path()), config.geometry, holders)?;
    let kept = match &options.keep {
        Some(kept) => kept.clone(),
        None => SnapshotName::new(format!("before-rollback-{}", stamp()))?,
    };
    snapshot::make(paths, volume, kept.as_str(), "give --keep another name")?;
    let differs = || {
        snapshot::sync(paths, volume, name)?;
        snapshot::sync(paths, volume, &kept)?;
        changed_blocks(paths, volume, Some(name), &kept)
    };
    let mut changed = differs();
    if options.dry_run
        && let Err(left) = snapshot::delete_one(paths, volume, &kept)
    {
        changed = match changed {
            Ok(_) => Err(left),
            Err(why) => {
                Err(why.context(format!("the dry run failed, and its snapshot {kept} is left ({left:#})")))
            }
        };
    }
    let changed = changed?;
    let cleared_blocks = changed.iter().filter(|change| change.kind == ChangeKind::Added).count();
    let copied_blocks = changed.len() - cleared_blocks;
    if !options.dry_run {
        let source = Attached::attach(paths, &options.which)?;
        set_back(&device, &source.path, &changed).with_context(|| {
            format!("volume {volume} is half-way: give the same command again. The state before is its snapshot {kept}")
        })?;
        source.detach()?;
    }
    let done = RolledBack {
        volume: volume.as_str(),
        snapshot: name.as_str(),
        kept: (!options.dry_run).then_some(kept.as_str()),
        copied_blocks,
        cleared_blocks,
    };
    if options.json {
        return Ok(output::json(&done)?);
    }
    let what = format!(
        "{} copied ({}), {} emptied",
        counted(copied_blocks as u64, "block"),
        format_size(copied_blocks as u64 * BLOCK_BYTES),
        counted(cleared_blocks as u64, "block"),
    );
    Ok(output::text(&if options.dry_run {
        format!("volume {volume} would be set back to snapshot {name}: {what}; nothing was changed\n")
    } else {
        format!(
            "volume {volume} is set back to snapshot {name}: {what}\nthe state before is snapshot {kept}\n"
        )
    })?)
}

/// The time as a part of a snapshot's name.
fn stamp() -> String {
    forerun::utc::Utc::from_us(now_us())
        .to_string()
        .chars()
        .filter_map(|letter| match letter {
            '0'..='9' => Some(letter),
            ' ' | 'T' => Some('-'),
            _ => None,
        })
        .collect()
}

/// Makes each changed block what it is on the snapshot's device, durably.
fn set_back(device: &VolumeDevice, snapshot: &Path, changed: &[Changed]) -> anyhow::Result<()> {
    let source = File::open(snapshot).with_context(|| format!("cannot open {}", snapshot.display()))?;
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (progress, error) = (Mutex::new(Progress::new(changed.len())), Mutex::new(None));
    let one = |change: &Changed, data: &mut [u8]| -> anyhow::Result<()> {
        let Changed { block, kind } = *change;
        if kind == ChangeKind::Added {
            // It held nothing at the snapshot.
            return device.clear(block, 1);
        }
        read(&source, block, data)
            .with_context(|| format!("cannot read block {block} from {}", snapshot.display()))?;
        device.write(block, data)
    };
    let work = || {
        let mut data = vec![0; BLOCK_BYTES as usize];
        while !failed.load(Ordering::Relaxed) {
            let Some(change) = changed.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            if let Err(why) = one(change, &mut data) {
                failed.store(true, Ordering::Relaxed);
                if let Ok(mut error) = error.lock() {
                    error.get_or_insert(why);
                }
                break;
            }
            if let Ok(mut progress) = progress.lock() {
                progress.one_more();
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..COPIES_AT_ONCE).map(|_| scope.spawn(work)).collect();
        // A thread that panicked has copied less than it seems.
        threads.into_iter().all(|thread| thread.join().is_ok())
    })
    .then_some(())
    .ok_or_else(|| anyhow!("a copying thread ended by a panic"))?;
    if let Ok(progress) = progress.lock() {
        progress.end();
    }
    match error.into_inner() {
        Ok(Some(error)) => Err(error),
        _ => device.sync(),
    }
}

fn read(source: &File, block: BlockIndex, data: &mut [u8]) -> std::io::Result<()> {
    source.read_exact_at(data, block.offset_bytes())
}
