//! Opening a volume, and closing it.

use std::io;
use std::sync::Arc;

use forerun::config::{CapacityAddress, VolumeConfig, VolumePaths};
use forerun::geometry::Epoch;
use thiserror::Error;
use tokio::sync::mpsc;

use super::assemble::{NoMap, build_map, connect};
use super::backend::{Threads, VolumeBackend};
use crate::background::{Ask, Background, PredictionState, Settings, Shared, now_us};
use crate::capacity_tier::{AnyStore, CapacityTier, Counted, HeadNumber, Options, VolumeUuid};
use crate::fast_tier::{FastTier, OpenInfo, OpenOptions};
use crate::volume::{Recovered, Unsound, Volume};

/// Why a volume cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The fast tier.
    #[error("the fast tier of volume {volume}")]
    Fast {
        /// The volume.
        volume: String,
        /// What is wrong with it.
        source: crate::fast_tier::FastTierError,
    },
    /// The capacity tier, or the background thread that holds it.
    #[error("the capacity tier of volume {volume}")]
    Capacity {
        /// The volume.
        volume: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The process has no file handle left.
    #[error("volume {volume} cannot be opened: no handle for its fast tier")]
    Handle {
        /// The volume.
        volume: String,
        /// Why.
        source: io::Error,
    },
    /// The two tiers do not fit.
    #[error(
        "the fast tier of volume {volume} is at epoch {fast}, older than epoch {capacity} on the capacity tier: \
         it is an old copy; put the right one back, or have a new one made by `forerun repair --to-fast PATH`"
    )]
    FastTierIsOld {
        /// The volume.
        volume: String,
        /// The fast tier's open epoch.
        fast: Epoch,
        /// The capacity tier's newest epoch.
        capacity: Epoch,
    },
    /// What the fast tier remembers makes no map.
    #[error(
        "the tiers of volume {volume} do not fit each other, or the fast tier says what cannot be; nothing was changed; \
         `forerun check` says more, and `forerun repair` makes new tiers of what both have"
    )]
    Unsound {
        /// The volume.
        volume: String,
        /// What cannot be.
        source: Unsound,
    },
}

/// How to open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// For a new device.
    Fresh,
    /// To take over a device whose target has died: acknowledged writes that are not flushed have to be
    /// there still.
    TakeOver,
}

/// An open volume.
pub struct Opened {
    /// What a device serves.
    pub backend: Arc<VolumeBackend>,
    /// How the fast tier was found.
    pub info: OpenInfo,
    background: Background,
    fast: FastTier,
    name: String,
}

impl Opened {
    /// Opens a volume.
    ///
    /// # Errors
    /// Any of [`OpenError`]; nothing has changed then, but for a journal that was brought up to date.
    pub fn open(config: &VolumeConfig, paths: &VolumePaths, how: Open) -> Result<Self, OpenError> {
        let volume = || config.name.to_string();
        let uuid = *config.uuid.as_bytes();
        let Read { fast, recovered, info, map, counted, found } =
            tokio_uring::start(read(config, paths, how))?;
        let no_handle = |source| OpenError::Handle { volume: volume(), source };
        let file = fast.try_clone_file().map_err(no_handle)?;
        let background_file = fast.try_clone_file().map_err(no_handle)?;

        let capacity_error = |source| OpenError::Capacity { volume: volume(), source };
        let (address, geometry) = (config.capacity.address.clone(), config.geometry);
        let written_back = map.written_back();
        let settings = Settings::new(
            config.threshold,
            config.horizon,
            config.sync_interval.seconds(),
            config.prediction,
            config.hydrate,
        );
        let prediction = PredictionState::new(paths.predictions(), uuid);
        let shared = Arc::new(Shared::new(map, fast.committer(), settings, prediction, written_back, now_us));
        let (asks, asked) = mpsc::unbounded_channel();
        connect(&fast.committer(), &shared);
        let (slots_offset, superblock) = (fast.slots_offset(), fast.superblock());
        let open = move |pace| async move {
            let store = AnyStore::at(&address).map_err(io::Error::other)?;
            let options = Options { pace, ..Options::default() };
            let uuid = VolumeUuid(uuid);
            let tier = CapacityTier::open_writer_counted(store, uuid, geometry, options, Some(counted)).await;
            let tier = tier.map_err(io::Error::other)?;
            // The map was built before the writer's lock was ours.
            if tier.found() == found {
                return Ok(tier);
            }
            tier.close().await;
            Err(io::Error::other("another target wrote to it just now; try again"))
        };
        let background = Background::start(shared.clone(), asked, background_file, slots_offset, open)
            .map_err(capacity_error)?;
        let backend = Arc::new(VolumeBackend::new(Threads { shared, asks }, file, slots_offset, superblock));
        drop(recovered);
        // What was read to build the map is not needed any more.
        crate::memory::give_back();
        Ok(Self { backend, info, background, fast, name: config.name.to_string() })
    }

    /// What the volume's threads share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.backend.threads.shared
    }

    /// Closes the volume: all data durable, a checkpoint, the mark of a clean stop. The device has to be
    /// stopped before.
    ///
    /// # Errors
    /// The fast tier's last writes failed; the next opening recovers from the journal.
    pub fn close(self) -> Result<(), OpenError> {
        // A closed channel means that the thread has ended already.
        let _ = self.backend.threads.asks.send(Ask::Stop);
        self.background.join();
        let shared = self.backend.threads.shared.clone();
        smol::block_on(self.fast.close_clean(&*shared))
            .map_err(|source| OpenError::Fast { volume: self.name.clone(), source })
    }
}

/// What both tiers say.
struct Read {
    fast: FastTier,
    recovered: Recovered,
    info: OpenInfo,
    map: Volume,
    counted: Counted,
    /// The HEAD that it is from.
    found: HeadNumber,
}

/// Reads both tiers, and builds the map. The capacity tier is only read; it is opened for writing afterwards.
async fn read(config: &VolumeConfig, paths: &VolumePaths, how: Open) -> Result<Read, OpenError> {
    let volume = || config.name.to_string();
    let capacity_error = |source| OpenError::Capacity { volume: volume(), source };
    // The capacity tier is looked at first, since opening the fast tier changes it.
    let look = || async {
        let (address, uuid) = (&config.capacity.address, VolumeUuid(*config.uuid.as_bytes()));
        let tier = CapacityTier::open_for_recovery(address, uuid).await;
        tier.map_err(|error| capacity_error(io::Error::other(error)))
    };
    let tier = look().await?;
    may_write(&config.capacity.address).map_err(capacity_error)?;
    let options = OpenOptions {
        geometry: Some(config.geometry),
        take_over: how == Open::TakeOver,
        written_back: tier.head().written_back_epoch(),
        ..OpenOptions::new(paths.pending())
    };
    let (fast, recovered, info) = FastTier::open(&config.fast.path, config.uuid, &options)
        .map_err(|source| OpenError::Fast { volume: volume(), source })?;
    // The process that it was taken over from may have replaced HEAD at the very end.
    let tier = if how == Open::TakeOver { look().await? } else { tier };
    let (slots, log) = (fast.slot_count(), fast.committer());
    let built = build_map(&tier, config.geometry, slots, log, &recovered, now_us()).await;
    let (map, counted) = built.map_err(|error| match error {
        NoMap::Capacity(error) => capacity_error(io::Error::other(error)),
        NoMap::FastTierIsOld { fast, capacity } => {
            OpenError::FastTierIsOld { volume: volume(), fast, capacity }
        }
        NoMap::Unsound(source) => OpenError::Unsound { volume: volume(), source },
    })?;
    Ok(Read { fast, recovered, info, map, counted, found: tier.found() })
}

/// Sees whether a directory can be written to; an object store tells when it is opened for writing.
fn may_write(address: &CapacityAddress) -> io::Result<()> {
    let Some(directory) = address.directory() else { return Ok(()) };
    nix::unistd::access(directory, nix::unistd::AccessFlags::W_OK).map_err(|error| {
        let why = io::Error::from(error);
        io::Error::new(
            why.kind(),
            format!("{} cannot be written to: {why}; nothing was changed", directory.display()),
        )
    })
}
