//! `import`: puts a stream of `export`, a raw image, or a qcow2 image onto a running volume.
//!
//! It writes to the volume's own device, as any program would, opened for itself alone. How far a stream has come is noted
//! beside the volume's configuration after each part that is durable, so that the same stream, given again, goes on there.
//! After it a snapshot of the stream's name is made, which the next stream builds on.

mod image;
mod record;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use forerun::api::v1::{CreatePredictiveSnapshotRequest, DeleteSnapshotRequest, DiffSnapshotsRequest};
use forerun::config::{Paths, VolumeName, format_size};
use forerun::geometry::{BLOCK_BYTES, BlockIndex};
use forerun::stream::{StreamReader, starts_a_stream};

use self::record::{Imported, Importing, Note as _};
use super::export::Progress;
use super::failure::Failure;
use super::output::{self, counted};
use super::volume_device::{Holders, VolumeDevice};
use super::{client, devices, snapshot};

/// Bytes after which what was written is made durable and noted.
const NOTE_EACH_BYTES: u64 = 256 << 20;
/// What a stream or an image begins with, as far as it tells what it is.
const BEGINNING_BYTES: usize = 8;

/// Options of `import`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
What it takes is told by its first bytes: a stream of `forerun export`, a qcow2 image (needs
`qemu-img` of Debian's qemu-utils), or else a raw image, if --raw says so.

A stream of all that a snapshot held makes the volume what the snapshot was, whatever was there.
One of changes needs a volume that was made by the stream before it and was not written to since.
An import that was cut off goes on where it was when the same stream is given again. When it is
done the volume gets a snapshot of the stream's name.

The volume has to be running, and neither mounted nor held by anybody.

Examples:
  ssh other forerun export data@monday | forerun import copy
  forerun import copy monday.forerun
  forerun import copy disk.img --raw
  forerun import copy disk.qcow2")]
pub struct ImportOptions {
    /// The volume
    pub volume: VolumeName,
    /// The stream or image; standard input without it
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// It is a raw image: the volume's bytes, from the first on
    #[arg(long)]
    pub raw: bool,
    /// Overwrite a volume that holds something, or that was written to since the last import
    #[arg(long)]
    pub force: bool,
}

/// Runs the command.
pub fn run(paths: &Paths, options: &ImportOptions) -> anyhow::Result<()> {
    let config = client::load_config(paths, &options.volume)?;
    let reference = devices::DeviceRef { volume: options.volume.clone(), snapshot: None };
    let record = devices::require(paths, &reference)?;
    let source = options.file.as_deref().map_or("standard input".into(), |path| path.display().to_string());
    let mut input: Box<dyn Read> = match &options.file {
        Some(path) => Box::new(File::open(path).with_context(|| format!("cannot open {source}"))?),
        None => Box::new(io::stdin().lock()),
    };
    let mut beginning = Vec::new();
    (&mut input)
        .take(BEGINNING_BYTES as u64)
        .read_to_end(&mut beginning)
        .with_context(|| format!("cannot read {source}"))?;
    let device = VolumeDevice::open(Path::new(&record.device_path()), config.geometry, Holders::None)?;
    let import = Import { paths, options, device, source };
    let whole = io::Cursor::new(beginning.clone()).chain(input);
    match &options.file {
        Some(path) if image::is_qcow2(&beginning) && !options.raw => import.qcow2(path),
        None if image::is_qcow2(&beginning) && !options.raw => Err(Failure::Refused(
            "a qcow2 image cannot be read from a pipe; give its file".to_owned(),
        )
        .into()),
        _ if starts_a_stream(&beginning) && !options.raw => import.stream(StreamReader::begin(whole)?),
        _ if options.raw => import.raw(whole),
        _ => Err(Failure::Refused(format!(
            "{} is neither a stream of `forerun export` nor a qcow2 image; if it is a raw image, say so with --raw",
            import.source
        ))
        .into()),
    }
}

struct Import<'a> {
    paths: &'a Paths,
    options: &'a ImportOptions,
    device: VolumeDevice,
    source: String,
}

impl Import<'_> {
    fn volume(&self) -> &VolumeName {
        &self.options.volume
    }

    fn stream(self, mut stream: StreamReader<impl Read>) -> anyhow::Result<()> {
        let header = stream.header().clone();
        let own = self.device.geometry();
        if header.geometry.size_bytes() > own.size_bytes() {
            let (from, here) = (format_size(header.geometry.size_bytes()), format_size(own.size_bytes()));
            let message = format!(
                "the stream is of a volume of {from}, volume {} has {here}: it is too small",
                self.volume()
            );
            return Err(Failure::Refused(message).into());
        }
        let files = self.paths.volume(self.volume());
        let (importing, imported) = (Importing::path(&files), Imported::path(&files));
        let this = Importing::begin(&header);
        let begun = Importing::load(&importing)?;
        let done = match begun {
            Some(begun) if begun.is_same_stream(&this) => begun.done_blocks,
            other => {
                self.refuse_if_unfit(other.as_ref(), &imported, &header)?;
                // From here on the volume is neither what it was nor what it will be.
                this.store(&importing)?;
                Imported::forget(&imported)?;
                0
            }
        };
        if done == 0 && header.from.is_none() {
            self.device.clear(BlockIndex(0), own.blocks())?;
        }
        let (mut taken, mut unnoted, mut progress) = (0u64, 0, Progress::new(header.records as usize));
        while let Some(record) = stream.next_record()? {
            progress.one_more();
            if record.block.0 < done {
                continue;
            }
            match &record.data {
                Some(data) => self.device.write(record.block, data)?,
                None => self.device.clear(record.block, 1)?,
            }
            taken += 1;
            unnoted += BLOCK_BYTES;
            if unnoted >= NOTE_EACH_BYTES {
                self.device.sync()?;
                this.up_to(record.block).store(&importing)?;
                unnoted = 0;
            }
        }
        progress.end();
        self.device.sync()?;
        self.snapshot(header.to.name.as_str())?;
        Imported::of(&header).store(&imported)?;
        Importing::forget(&importing)?;
        self.say(&format!("{} of {}", counted(taken, "block"), self.source), Some(header.to.name.as_str()))
    }

    /// Whether the volume may be made what the stream says.
    fn refuse_if_unfit(
        &self,
        begun: Option<&Importing>,
        imported: &Path,
        header: &forerun::stream::Header,
    ) -> anyhow::Result<()> {
        if let Some(begun) = begun.filter(|_| !self.options.force) {
            let message = format!(
                "volume {} is half-way through an import of {}: give that stream again, or --force to begin another",
                self.volume(),
                begun.what()
            );
            return Err(Failure::Refused(message).into());
        }
        let Some(from) = &header.from else { return self.refuse_if_it_holds_data() };
        let last = Imported::load(imported)?;
        if !last.as_ref().is_some_and(|last| last.is(&header.volume, from)) {
            let here = last.map_or_else(|| "no stream was imported here".to_owned(), |last| last.what());
            let message = format!(
                "the stream builds on {} (epoch {}); {here}. Import a stream without --from first",
                from.name, from.epoch
            );
            return Err(Failure::Refused(message).into());
        }
        if self.options.force {
            return Ok(());
        }
        let changed = self.changed_since(from.name.as_str())?;
        if changed {
            let message = format!(
                "volume {} was written to since snapshot {} was imported; with --force the stream goes over it, and what else \
                 was written stays",
                self.volume(),
                from.name
            );
            return Err(Failure::Refused(message).into());
        }
        Ok(())
    }

    fn refuse_if_it_holds_data(&self) -> anyhow::Result<()> {
        if self.options.force || !self.device.holds_data(self.paths, self.volume())? {
            return Ok(());
        }
        let message = format!("volume {} holds data already; --force overwrites it", self.volume());
        Err(Failure::Refused(message).into())
    }

    /// Whether anything changed since a snapshot, up to this moment.
    fn changed_since(&self, snapshot: &str) -> anyhow::Result<bool> {
        const PROBE: &str = "forerun-import-probe";
        let volume_id = self.volume().to_string();
        client::block_on(async {
            let mut client = client::connect(self.paths, self.volume(), client::WAITING_CALL_LIMIT).await?;
            let named = || DeleteSnapshotRequest { volume_id: volume_id.clone(), name: PROBE.to_owned() };
            // One that a crash left behind is of another moment.
            let _ = client.delete_snapshot(named()).await;
            let request = CreatePredictiveSnapshotRequest {
                volume_id: volume_id.clone(),
                prediction_horizon: 0,
                name: PROBE.to_owned(),
            };
            client.create_predictive_snapshot(request).await.map_err(client::failure)?;
            let request = DiffSnapshotsRequest {
                volume_id: volume_id.clone(),
                from: snapshot.to_owned(),
                to: PROBE.to_owned(),
                page_size: 1,
                page_token: String::new(),
            };
            let changed = client.diff_snapshots(request).await.map_err(client::failure);
            client.delete_snapshot(named()).await.map_err(client::failure)?;
            Ok(!changed?.into_inner().changes.is_empty())
        })
    }

    fn raw(self, mut image: impl Read) -> anyhow::Result<()> {
        self.refuse_if_it_holds_data()?;
        let blocks = self.device.geometry().blocks();
        self.device.clear(BlockIndex(0), blocks)?;
        let written = image::copy_raw(&mut image, &self.device)
            .with_context(|| format!("cannot import {}", self.source))?;
        self.device.sync()?;
        self.say(&format!("{} of {}", format_size(written), self.source), None)
    }

    fn qcow2(self, path: &Path) -> anyhow::Result<()> {
        image::refuse_other_files(path)?;
        image::refuse_damaged(path)?;
        self.refuse_if_it_holds_data()?;
        // Also behind the image's end.
        self.device.clear(BlockIndex(0), self.device.geometry().blocks())?;
        let device = self.device.close()?;
        image::convert_qcow2(path, &device)?;
        Ok(output::text(&format!("imported {} into volume {}\n", path.display(), self.options.volume))?)
    }

    fn snapshot(&self, name: &str) -> anyhow::Result<()> {
        snapshot::make(self.paths, self.volume(), name, "delete it, then give the stream again")
    }

    fn say(&self, what: &str, snapshot: Option<&str>) -> anyhow::Result<()> {
        let made = snapshot.map_or_else(String::new, |name| format!("; snapshot {name} is made"));
        Ok(output::text(&format!("imported {what} into volume {}{made}\n", self.volume()))?)
    }
}
