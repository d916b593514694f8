//! From a name on the command line to what stands behind a device: `VOLUME`, or `VOLUME@SNAPSHOT`.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use forerun::config::{
    CapacityAddress, DeviceRecord, Paths, SnapshotName, VolumeConfig, VolumeName, make_private_dir,
};
use forerun::geometry::Geometry;
use ublk_target::capacity_tier;
use ublk_target::control::{ControlServer, Limits};
use ublk_target::daemon::{PidFile, RUN_DIR};
use ublk_target::device::{self, DeviceInfo};
use ublk_target::engine::{DeviceFacts, Open, Opened, Resize, SnapshotBackend, VolumeBackend, VolumeControl};
use ublk_target::request::{Backend, Request, RequestIo};

/// What a device shows.
enum Shown {
    Volume(Arc<VolumeBackend>),
    Snapshot(SnapshotBackend),
}

/// What is open for one device.
pub struct Served {
    shown: Shown,
    volume: VolumeName,
    snapshot: Option<SnapshotName>,
    paths: Paths,
    /// Taken out when it is closed.
    open: Mutex<Option<OpenVolume>>,
}

struct OpenVolume {
    opened: Opened,
    control: Arc<VolumeControl>,
    server: Option<ControlServer>,
}

fn names(shown: &str) -> anyhow::Result<(VolumeName, Option<SnapshotName>)> {
    let (volume, snapshot) = match shown.split_once('@') {
        None => (shown, None),
        Some((volume, snapshot)) => (volume, Some(SnapshotName::new(snapshot)?)),
    };
    Ok((VolumeName::new(volume)?, snapshot))
}

/// The folders and files of a volume, whose mounts the process keeps.
pub fn paths(shown: &str) -> Vec<PathBuf> {
    let paths = Paths::from_env();
    let mut all = vec![paths.state_dir().to_owned(), paths.run_dir().to_owned()];
    if let Ok((volume, _)) = names(shown)
        && let Ok(config) = VolumeConfig::load(&volume, &paths.volume(&volume))
    {
        all.push(config.fast.path);
        if let Some(directory) = config.capacity.address.directory() {
            let origins = capacity_tier::origin_addresses(directory);
            let origins = origins.into_iter().filter_map(|address| address.parse::<CapacityAddress>().ok());
            all.extend(origins.filter_map(|address| address.directory().map(Path::to_owned)));
            all.push(directory.to_owned());
        }
    }
    all
}

/// Opens a volume or a snapshot.
pub fn open(shown: &str, take_over: bool) -> anyhow::Result<Served> {
    let (volume, snapshot) = names(shown)?;
    let paths = Paths::from_env();
    let files = paths.volume(&volume);
    let config = VolumeConfig::load(&volume, &files)?;
    make_private_dir(files.run_dir()).with_context(|| format!("making {}", files.run_dir().display()))?;
    if let Some(snapshot) = snapshot {
        let name = capacity_tier::SnapshotName::new(snapshot.as_str())?;
        let backend = SnapshotBackend::open(&config.capacity.address, *config.uuid.as_bytes(), &name)
            .with_context(|| format!("snapshot {snapshot} of volume {volume}"))?;
        let (shown, open) = (Shown::Snapshot(backend), Mutex::default());
        return Ok(Served { shown, volume, snapshot: Some(snapshot), paths, open });
    }
    let how = if take_over { Open::TakeOver } else { Open::Fresh };
    let opened = Opened::open(&config, &files, how)?;
    let info = &opened.info;
    tracing::info!(
        %volume, end = ?info.end, lsn = info.lsn.0, pending = info.pending_deltas, commits = info.replayed_commits,
        "the volume is open"
    );
    let backend = opened.backend.clone();
    let control = Arc::new(VolumeControl::new(config, paths.clone(), backend.clone()));
    let open = OpenVolume { opened, control, server: None };
    Ok(Served { shown: Shown::Volume(backend), volume, snapshot: None, paths, open: Mutex::new(Some(open)) })
}

/// Formats the tiers of a new volume.
pub fn create(config_file: &Path) -> anyhow::Result<()> {
    ublk_target::engine::create(&VolumeConfig::load_file(config_file)?)
}

/// How the size of a device is changed.
fn resize(id: u32) -> Resize {
    Box::new(move |size_bytes| {
        device::resize(id, size_bytes).map_err(|error| error.to_string())?;
        // Only tools that list devices go by it.
        if let Err(error) = PidFile::resize(Path::new(RUN_DIR), id, size_bytes) {
            tracing::warn!(id, "the pid file goes on to say the old size: {}", forerun::told(&error));
        }
        Ok(())
    })
}

impl Served {
    /// Starts the API and notes the device, for the CLI.
    pub fn ready(&self, info: &DeviceInfo) -> anyhow::Result<()> {
        let files = self.paths.volume(&self.volume);
        tracing::info!(
            device = %format_args!("/dev/ublkb{}", info.id), data_path = %info.data_path,
            not_granted = %info.not_granted.join(", "), "the device is there"
        );
        if let Some(open) = self.open.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let facts = DeviceFacts {
                device: format!("/dev/ublkb{}", info.id),
                queues: info.queues.len() as u32,
                queue_depth: info.depth.into(),
                transfer_mode: info.data_path.to_string(),
                not_granted: info.not_granted.join(", "),
            };
            open.control.set_device(facts, device::can_resize()?.then(|| resize(info.id)));
            let plane = open.control.clone();
            open.server = Some(ControlServer::start(plane, &files.api_socket(), Limits::default())?);
        }
        let pid = u32::try_from(info.pid).unwrap_or_default();
        let snapshot = self.snapshot.as_ref().map(ToString::to_string);
        DeviceRecord { dev_id: info.id, pid, snapshot }
            .store(&files.device_file(self.snapshot.as_ref()))
            .context("noting the device")?;
        // Without a service manager there is nobody to tell, and that is no failure.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        Ok(())
    }

    /// Ends the API, closes the volume in order, and forgets the device.
    pub fn close(&self) -> anyhow::Result<()> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(OpenVolume { opened, server, .. }) = open {
            drop(server);
            opened.close()?;
        }
        if let Shown::Snapshot(snapshot) = &self.shown {
            snapshot.close();
        }
        let file = self.paths.volume(&self.volume).device_file(self.snapshot.as_ref());
        // A snapshot may be shown by another process by now.
        DeviceRecord::remove(&file, std::process::id())
            .with_context(|| format!("removing {}", file.display()))
    }
}

impl Backend for Served {
    fn geometry(&self) -> Geometry {
        match &self.shown {
            Shown::Volume(volume) => volume.geometry(),
            Shown::Snapshot(snapshot) => snapshot.geometry(),
        }
    }

    fn read_only(&self) -> bool {
        matches!(self.shown, Shown::Snapshot(_))
    }

    fn fast_tier(&self) -> Option<BorrowedFd<'_>> {
        match &self.shown {
            Shown::Volume(volume) => volume.fast_tier(),
            Shown::Snapshot(_) => None,
        }
    }

    async fn handle<I: RequestIo>(&self, request: Request, io: &I) -> io::Result<()> {
        match &self.shown {
            Shown::Volume(volume) => volume.handle(request, io).await,
            Shown::Snapshot(snapshot) => snapshot.handle(request, io).await,
        }
    }
}
