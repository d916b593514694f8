//! `export`: what changed from one snapshot to another, or all of one, as a stream on standard output or in a file.
//!
//! Built of what the API and an attached snapshot give: the changed blocks by `DiffSnapshots`, their data from the snapshot's
//! own read-only device, which nothing changes meanwhile.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use forerun::api::v1::{ChangeKind, DiffSnapshotsRequest, Snapshot, SyncSnapshotRequest};
use forerun::config::{Paths, SnapshotName, VolumeConfig, VolumeName, format_size};
use forerun::geometry::{BLOCK_BYTES, BlockIndex};
use forerun::stream::{Header, Side, StreamWriter};

use super::args::{DelOptions, DeviceOptions, WhichToDelete};
use super::devices::{self, DeviceRef, DeviceState};
use super::failure::Failure;
use super::output::counted;
use super::{client, launch, remove, snapshot};

/// Options of `export`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
With --from only the blocks that differ between the two snapshots; without it all that the snapshot
holds. Data is compressed (zstd), every byte is under a checksum, and a stream that was cut off is
told from a whole one. `forerun import` takes it, on this machine or another.

The volume has to be running; the snapshot is attached for as long as it takes.

Examples:
  forerun export data@monday > monday.forerun
  forerun export data@tuesday --from monday | ssh other forerun import copy")]
pub struct ExportOptions {
    /// The snapshot, as VOLUME@SNAPSHOT
    #[arg(value_name = "VOLUME@SNAPSHOT")]
    pub which: DeviceRef,
    /// Only what changed since this older snapshot
    #[arg(long, value_name = "SNAPSHOT")]
    pub from: Option<SnapshotName>,
    /// Write to this file, which must not be there yet, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(paths: &Paths, options: &ExportOptions) -> anyhow::Result<()> {
    let volume = &options.which.volume;
    let Some(name) = &options.which.snapshot else {
        let message = format!("{volume} is a volume; a snapshot of it is exported, as {volume}@SNAPSHOT");
        return Err(Failure::Refused(message).into());
    };
    if options.output.is_none() && io::stdout().is_terminal() {
        let message = "the stream is no text: send it to a file or a pipe, or give --output FILE".to_owned();
        return Err(Failure::Refused(message).into());
    }
    let config = client::load_config(paths, volume)?;
    let header_of = sides(paths, volume, options.from.as_ref(), name)?;
    let blocks = changed_blocks(paths, volume, options.from.as_ref(), name)?;
    let header = header(&config, header_of, blocks.len())?;
    let device = Attached::attach(paths, &options.which)?;
    let (bytes, summary) = match &options.output {
        Some(path) => {
            let file = File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?;
            let written = write(BufWriter::new(&file), &header, &blocks, &device.path)
                .and_then(|bytes| file.sync_all().map(|()| bytes).context("the stream is not durable"));
            if written.is_err() {
                // A part of a stream is of no use to anybody who did not see the error.
                let _ = std::fs::remove_file(path);
            }
            (written?, path.display().to_string())
        }
        None => {
            (write(BufWriter::new(io::stdout().lock()), &header, &blocks, &device.path)?, "the stream".into())
        }
    };
    device.detach()?;
    eprintln!(
        "exported {}: {} in {}, {summary}",
        options.which.typed(),
        counted(blocks.len() as u64, "block"),
        format_size(bytes),
    );
    Ok(())
}

/// Both snapshots, the newer one on the capacity tier.
fn sides(
    paths: &Paths,
    volume: &VolumeName,
    from: Option<&SnapshotName>,
    to: &SnapshotName,
) -> anyhow::Result<(Option<Side>, Side)> {
    client::block_on(async {
        let mut client = client::connect(paths, volume, client::WAITING_CALL_LIMIT).await?;
        let request = SyncSnapshotRequest { volume_id: volume.to_string(), name: to.to_string() };
        client.sync_snapshot(request).await.map_err(client::failure)
    })?;
    let all = snapshot::all(paths, volume)?;
    let side = |name: &SnapshotName| -> anyhow::Result<Side> {
        let found: Option<&Snapshot> = all.iter().find(|snapshot| snapshot.name == name.as_str());
        let Some(found) = found else {
            let message = format!(
                "volume {volume} has no snapshot {name}; `forerun snapshot list {volume}` shows those"
            );
            return Err(Failure::NotFound(message).into());
        };
        Ok(Side { name: name.clone(), epoch: found.epoch, created_us: found.created_us })
    };
    let (from, to) = (from.map(side).transpose()?, side(to)?);
    if let Some(older) = from.as_ref().filter(|from| from.epoch >= to.epoch) {
        let message = format!("snapshot {} is not older than {}: exchange them", older.name, to.name);
        return Err(Failure::Refused(message).into());
    }
    Ok((from, to))
}

/// A block that differs between two snapshots.
#[derive(Clone, Copy)]
pub struct Changed {
    /// Which.
    pub block: BlockIndex,
    /// How it became what it is at the newer one.
    pub kind: ChangeKind,
}

/// The blocks that differ, ascending. Both snapshots are on the capacity tier.
///
/// # Errors
/// Those of the calls.
pub fn changed_blocks(
    paths: &Paths,
    volume: &VolumeName,
    from: Option<&SnapshotName>,
    to: &SnapshotName,
) -> anyhow::Result<Vec<Changed>> {
    let mut request = DiffSnapshotsRequest {
        volume_id: volume.to_string(),
        from: from.map(ToString::to_string).unwrap_or_default(),
        to: to.to_string(),
        page_size: 0,
        page_token: String::new(),
    };
    client::block_on(async {
        let mut client = client::connect(paths, volume, client::CALL_LIMIT).await?;
        let mut blocks = Vec::new();
        loop {
            let page = client.diff_snapshots(request.clone()).await.map_err(client::failure)?.into_inner();
            blocks.extend(
                page.changes
                    .iter()
                    .map(|change| Changed { block: BlockIndex(change.block), kind: change.kind() }),
            );
            if page.next_page_token.is_empty() {
                return Ok(blocks);
            }
            request.page_token = page.next_page_token;
        }
    })
}

fn header(config: &VolumeConfig, (from, to): (Option<Side>, Side), records: usize) -> anyhow::Result<Header> {
    Ok(Header {
        volume: *config.uuid.as_bytes(),
        geometry: config.geometry,
        records: u32::try_from(records).context("more changes than a volume has blocks")?,
        from,
        to,
    })
}

fn write(out: impl Write, header: &Header, blocks: &[Changed], device: &Path) -> anyhow::Result<u64> {
    let file = File::open(device).with_context(|| format!("cannot open {}", device.display()))?;
    let mut stream = StreamWriter::begin(out, header)?;
    let mut data = vec![0; BLOCK_BYTES as usize];
    let mut progress = Progress::new(blocks.len());
    for Changed { block, kind } in blocks {
        let holds_data = *kind != ChangeKind::Deleted;
        if holds_data {
            file.read_exact_at(&mut data, block.offset_bytes())
                .with_context(|| format!("cannot read block {block} from {}", device.display()))?;
        }
        stream.put(*block, holds_data.then_some(data.as_slice()))?;
        progress.one_more();
    }
    progress.end();
    Ok(stream.end()?)
}

/// A line on standard error, where a person reads it.
pub struct Progress {
    done: usize,
    all: usize,
    shows: bool,
}

impl Progress {
    const EACH: usize = 256;

    /// Of so many blocks.
    pub fn new(all: usize) -> Self {
        Self { done: 0, all, shows: io::stderr().is_terminal() }
    }

    /// Another block is done.
    pub fn one_more(&mut self) {
        self.done += 1;
        if self.shows && self.done.is_multiple_of(Self::EACH) {
            eprint!("\r{} of {} blocks", self.done, self.all);
        }
    }

    /// Clears the line.
    pub fn end(&self) {
        if self.shows {
            eprint!("\r{:40}\r", "");
        }
    }
}

/// A snapshot's device, which goes again unless it was there before.
pub struct Attached<'a> {
    paths: &'a Paths,
    reference: &'a DeviceRef,
    /// The device.
    pub path: PathBuf,
    ours: bool,
}

impl<'a> Attached<'a> {
    /// Attaches the snapshot, where it is not attached already.
    ///
    /// # Errors
    /// Its target does not start, or has died.
    pub fn attach(paths: &'a Paths, reference: &'a DeviceRef) -> anyhow::Result<Self> {
        let there = devices::record(paths, reference)?;
        let (path, ours) = match there {
            Some(record) if devices::state(&record, reference) == DeviceState::Running => {
                (record.device_path(), false)
            }
            Some(record) if devices::state(&record, reference) == DeviceState::WaitsForRecovery => bail!(
                "{reference} is attached as {}, and its target died; `forerun recover {}` first",
                record.device_path(),
                reference.typed()
            ),
            _ => {
                let words = super::add::arguments(
                    &reference.volume,
                    reference.snapshot.as_ref(),
                    &DeviceOptions::default(),
                );
                let log = paths.volume(&reference.volume).target_log();
                (launch::start_target(&words, &log)?.device().to_owned(), true)
            }
        };
        Ok(Self { paths, reference, path: path.into(), ours })
    }

    /// Detaches it, unless it was attached before.
    ///
    /// # Errors
    /// It is in use.
    pub fn detach(mut self) -> anyhow::Result<()> {
        self.go()
    }

    fn go(&mut self) -> anyhow::Result<()> {
        if !std::mem::take(&mut self.ours) {
            return Ok(());
        }
        let which = WhichToDelete { volume: Some(self.reference.clone()), number: None, all: false };
        remove::run(self.paths, &DelOptions { which, force: false, wait: Some(10) })
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.go() {
            let why = forerun::told(&error);
            eprintln!("warning: {} stays as {}: {why}", self.reference, self.path.display());
        }
    }
}
