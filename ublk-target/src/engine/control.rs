//! The volume behind the API.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use forerun::change_vector::Change;
use forerun::config::{Paths, SnapshotName, VolumeConfig, VolumeName};
use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch};
use forerun::prediction::{Horizon, Threshold};
use tokio::sync::{oneshot, watch};

use super::backend::VolumeBackend;
use crate::background::{Ask, CapacityError, CapacityReply, Collected, KeptLayer, Shared};
use crate::capacity_tier::{Garbage, MAX_SNAPSHOTS, Pin, SharedData};
use crate::control::status::{OriginStatus, PrefetchStatus, TierStatus, TrainerReport, VolumeStatus};
use crate::control::{
    CloneInfo, ControlError, ControlPlane, CreatedSnapshot, Deletion, ErrorKind, FastGrown, FastGrowth,
    Grown, SealedEpoch, Snapshot, WriteBack,
};
use crate::volume::{SealError, lock};

/// What the device says of itself, once it is there.
#[derive(Clone, Default, Debug)]
pub struct DeviceFacts {
    /// `/dev/ublkbN`.
    pub device: String,
    /// Its queues.
    pub queues: u32,
    /// Requests under way in each at most.
    pub queue_depth: u32,
    /// "zero copy" or "copy".
    pub transfer_mode: String,
    /// What was asked for and not granted.
    pub not_granted: String,
}

/// Makes the volume's device show so many bytes; gives its failure in words.
pub type Resize = Box<dyn Fn(u64) -> Result<(), String> + Send + Sync>;

/// The API's side of an open volume.
pub struct VolumeControl {
    config: Mutex<VolumeConfig>,
    name: VolumeName,
    paths: Paths,
    backend: Arc<VolumeBackend>,
    device: Mutex<DeviceFacts>,
    /// Where the kernel can do it.
    resize: Mutex<Option<Resize>>,
    started_us: u64,
    /// One snapshot is made or deleted at a time.
    naming: Mutex<()>,
}

impl VolumeControl {
    /// The control of an open volume.
    pub fn new(config: VolumeConfig, paths: Paths, backend: Arc<VolumeBackend>) -> Self {
        let name = config.name.clone();
        Self {
            config: Mutex::new(config),
            name,
            paths,
            backend,
            device: Mutex::default(),
            resize: Mutex::default(),
            started_us: crate::background::now_us(),
            naming: Mutex::default(),
        }
    }

    /// Takes note of the device that shows the volume, and of how its size is changed, where it can be.
    pub fn set_device(&self, facts: DeviceFacts, resize: Option<Resize>) {
        *lock(&self.device) = facts;
        *lock(&self.resize) = resize;
    }

    fn shared(&self) -> &Shared {
        &self.backend.threads.shared
    }

    /// Asks the background thread, and waits.
    fn ask<T>(&self, make: impl FnOnce(CapacityReply<T>) -> Ask) -> Result<T, ControlError> {
        let stopped = || ControlError::new(ErrorKind::State, format!("volume {} is being closed", self.name));
        let (reply, answer) = oneshot::channel();
        self.backend.threads.asks.send(make(reply)).map_err(|_| stopped())?;
        answer.blocking_recv().map_err(|_| stopped())?.map_err(|error| self.capacity_error(&error))
    }

    fn capacity_error(&self, error: &CapacityError) -> ControlError {
        let kind = match error {
            CapacityError::NoSuchSnapshot { .. } | CapacityError::NoSuchEpoch { .. } => ErrorKind::NotFound,
            CapacityError::SnapshotInUse { .. } => ErrorKind::State,
            CapacityError::Corrupt { .. } => ErrorKind::Corrupt,
            error if error.is_no_space() => ErrorKind::Exhausted,
            _ => ErrorKind::Internal,
        };
        ControlError::new(kind, format!("volume {}: {error}", self.name))
    }

    /// Snapshots whose epochs are not written back yet.
    fn live_snapshots(&self) -> Vec<Snapshot> {
        let volume = &self.shared().volume;
        let layers = volume.layers();
        let mut found = Vec::new();
        for layer in layers.live() {
            let (epoch, info) = (layers.epoch(layer), layers.with_info(layer, |info| info.clone()));
            let Some(name) = info.snapshot.and_then(|name| SnapshotName::new(name).ok()) else { continue };
            let counts = self.shared().vector(epoch).filter(|sealed| sealed.vector.epoch == epoch);
            let count = |kind| counts.as_ref().map_or(0, |sealed| sealed.vector.count(kind) as u64);
            let (added, modified, deleted) = {
                use forerun::change_vector::ChangeKind::{Added, Deleted, Modified};
                (count(Added), count(Modified), count(Deleted))
            };
            found.push(Snapshot {
                name,
                epoch,
                created_us: info.sealed_us,
                data_bytes: u64::from(info.mapped_blocks) * BLOCK_BYTES,
                added_blocks: added,
                modified_blocks: modified,
                deleted_blocks: deleted,
                change_bytes_per_second: rate(added + modified + deleted, info.opened_us, info.sealed_us),
                on_capacity_tier: false,
            });
        }
        found
    }

    fn find(&self, name: &SnapshotName) -> Result<Option<Snapshot>, ControlError> {
        Ok(self.snapshots()?.into_iter().find(|snapshot| snapshot.name == *name))
    }

    fn store(&self, change: impl FnOnce(&mut VolumeConfig)) -> Result<(), ControlError> {
        let mut config = lock(&self.config);
        let mut changed = config.clone();
        change(&mut changed);
        changed.store(&self.paths.volume(&self.name)).map_err(|error| {
            ControlError::new(ErrorKind::Internal, format!("the setting cannot be kept: {error}"))
        })?;
        *config = changed;
        Ok(())
    }
}

fn rate(blocks: u64, since_us: u64, until_us: u64) -> f64 {
    let seconds = until_us.saturating_sub(since_us) as f64 / 1e6;
    if seconds > 0.0 { blocks as f64 * BLOCK_BYTES as f64 / seconds } else { 0.0 }
}

fn from_kept(kept: &KeptLayer) -> Snapshot {
    Snapshot {
        change_bytes_per_second: rate(
            kept.added + kept.modified + kept.deleted,
            kept.since_us,
            kept.sealed_us,
        ),
        name: kept.name.clone(),
        epoch: kept.epoch,
        created_us: kept.sealed_us,
        data_bytes: kept.data_bytes,
        added_blocks: kept.added,
        modified_blocks: kept.modified,
        deleted_blocks: kept.deleted,
        on_capacity_tier: true,
    }
}

impl ControlPlane for VolumeControl {
    fn volume(&self) -> &VolumeName {
        &self.name
    }

    fn uuid(&self) -> String {
        lock(&self.config).uuid.to_string()
    }

    fn blocks(&self) -> u32 {
        self.shared().volume.geometry().blocks()
    }

    fn create_snapshot(
        &self,
        name: &SnapshotName,
        horizon: Option<Horizon>,
    ) -> Result<CreatedSnapshot, ControlError> {
        let _one = lock(&self.naming);
        let shared = self.shared();
        let above = || shared.prediction.acted(shared).above_threshold;
        if let Some(snapshot) = self.find(name)? {
            return Ok(CreatedSnapshot {
                snapshot,
                created: false,
                horizon: shared.settings.horizon(),
                predictions_above_threshold: above(),
            });
        }
        if self.snapshots()?.len() >= MAX_SNAPSHOTS {
            let text = format!(
                "volume {} has {MAX_SNAPSHOTS} snapshots, as many as there may be: delete some, then try again",
                self.name
            );
            return Err(ControlError::new(ErrorKind::Exhausted, text));
        }
        // First what may fail without harm: a snapshot that is there answers the next call.
        if let Some(horizon) = horizon {
            self.store(|config| config.horizon = horizon)?;
            shared.settings.set_horizon(horizon);
        }
        let predictions_above_threshold = above();
        let epoch = shared.sealer.seal(shared, Some(name.as_str())).map_err(|error| {
            let (SealError::TooManyLayers(_) | SealError::NoRoom { .. }) = error;
            ControlError::new(ErrorKind::Exhausted, format!("volume {}: no snapshot: {error}", self.name))
        })?;
        // From here on the snapshot is there; it is durable with the journal.
        shared.committer.commit_blocking().map_err(|error| {
            let text = format!("volume {}: snapshot {name} is not durable: {error}", self.name);
            ControlError::new(ErrorKind::Internal, text)
        })?;
        let missing = || {
            ControlError::new(ErrorKind::Internal, format!("snapshot {name} of epoch {epoch} has vanished"))
        };
        Ok(CreatedSnapshot {
            snapshot: self.find(name)?.ok_or_else(missing)?,
            created: true,
            horizon: shared.settings.horizon(),
            predictions_above_threshold,
        })
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, ControlError> {
        // Live ones first: one that is written back in between is then in both, not in neither.
        let mut by_name: HashMap<SnapshotName, Snapshot> =
            self.live_snapshots().into_iter().map(|snapshot| (snapshot.name.clone(), snapshot)).collect();
        for kept in lock(&self.shared().kept).iter() {
            by_name.insert(kept.name.clone(), from_kept(kept));
        }
        Ok(by_name.into_values().collect())
    }

    fn clones(&self) -> Result<Vec<CloneInfo>, ControlError> {
        let pins = self.ask(|reply| Ask::Clones { reply })?;
        let clone = |pin: Pin| CloneInfo {
            uuid: pin.clone.to_string(),
            name: pin.name,
            address: pin.address,
            epoch: pin.epoch,
            created_us: pin.created_us,
        };
        Ok(pins.into_iter().map(clone).collect())
    }

    fn promote(&self) -> Result<Vec<OriginStatus>, ControlError> {
        self.ask(|reply| Ask::Promote { reply }).map(origins)
    }

    fn delete_snapshot(&self, name: &SnapshotName) -> Result<Deletion, ControlError> {
        let _one = lock(&self.naming);
        let shared = self.shared();
        let snapshot = self.find(name)?.ok_or_else(|| ControlError::no_snapshot(&self.name, name))?;
        if snapshot.on_capacity_tier {
            return self.ask(|reply| Ask::Delete { name: name.clone(), reply }).map(|()| Deletion::Done);
        }
        if !shared.volume.unname(snapshot.epoch, name.as_str()) {
            return Ok(Deletion::After(snapshot.epoch));
        }
        shared.committer.commit_blocking().map(|()| Deletion::Done).map_err(|error| {
            ControlError::new(ErrorKind::Internal, format!("the deletion is not durable: {error}"))
        })
    }

    fn write_back(&self) -> watch::Receiver<WriteBack> {
        self.shared().write_back()
    }

    fn diff(
        &self,
        from: Option<Epoch>,
        to: Epoch,
        first_block: BlockIndex,
        limit: usize,
    ) -> Result<Vec<Change>, ControlError> {
        let after = first_block.0.checked_sub(1).map(BlockIndex);
        self.ask(|reply| Ask::Diff { from, to, after, limit, reply })
    }

    fn sealed(&self) -> watch::Receiver<Epoch> {
        self.shared().sealed()
    }

    fn change_vector(&self, from: Epoch) -> Result<Option<SealedEpoch>, ControlError> {
        if let Some(sealed) = self.shared().vector(from) {
            return Ok(Some(sealed));
        }
        if from > *self.shared().sealed().borrow() {
            return Ok(None);
        }
        let stored = self.ask(|reply| Ask::Vector { from, reply })?;
        let sealed = |(vector, snapshot)| SealedEpoch { vector: Arc::new(vector), snapshot, reads: None };
        Ok(stored.map(sealed))
    }

    fn horizon(&self) -> Horizon {
        self.shared().settings.horizon()
    }

    fn volume_status(&self) -> Result<VolumeStatus, ControlError> {
        let shared = self.shared();
        let (volume, stats) = (&shared.volume, shared.volume.stats());
        let config = lock(&self.config).clone();
        let device = lock(&self.device).clone();
        let progress = lock(&shared.progress).clone();
        let write_back = shared.write_back().borrow().clone();
        let layers = volume.layers();
        let (open, live) = (layers.open(), layers.live_count());
        let counts = volume.slot_counts();
        let slot_bytes = |slots: u64| slots * BLOCK_BYTES;
        let remaining = slot_bytes(counts.sealed).saturating_sub(progress.layer_blocks_done * BLOCK_BYTES);
        let eta = if remaining > 0 && progress.bytes_per_second > 0.0 {
            remaining as f64 / progress.bytes_per_second
        } else {
            0.0
        };
        Ok(VolumeStatus {
            device: device.device,
            size_bytes: config.geometry.size_bytes(),
            logical_block_bytes: config.geometry.logical_block_bytes(),
            queues: device.queues,
            queue_depth: device.queue_depth,
            transfer_mode: device.transfer_mode,
            not_granted: device.not_granted,
            started_us: self.started_us,
            health: super::health::health(shared, &write_back.error, &progress),
            open_epoch: layers.epoch(open).0,
            open_epoch_since_us: layers.with_info(open, |info| info.opened_us),
            sync_interval_seconds: config.sync_interval.seconds(),
            epochs_not_written_back: live.saturating_sub(1) as u32,
            written_back_epoch: volume.written_back().0,
            write_back_remaining_bytes: remaining,
            write_back_eta_seconds: eta,
            written_back_bytes: stats.written_back_bytes.get(),
            write_back_error: write_back.error,
            mapped_bytes: volume.mapped_blocks() * BLOCK_BYTES,
            dirty_bytes: counts.dirty_sub_blocks * forerun::geometry::SUB_BLOCK_BYTES,
            fast_tier: TierStatus {
                path: text(&config.fast.path),
                total_bytes: slot_bytes(u64::from(volume.slot_count())),
                used_bytes: slot_bytes(counts.clean + counts.sealed + counts.open),
                clean_bytes: slot_bytes(counts.clean),
                conditional_writes: String::new(),
            },
            capacity_tier: TierStatus {
                path: config.capacity.address.to_string(),
                // Without a limit there is nothing to be full of.
                total_bytes: progress.used_bytes.checked_add(progress.free_bytes).unwrap_or(0),
                used_bytes: progress.used_bytes,
                clean_bytes: 0,
                conditional_writes: progress.conditional_writes.clone(),
            },
            memory_bytes: super::health::resident_bytes(),
            read_requests: stats.read_requests.get(),
            read_bytes: stats.read_bytes.get(),
            write_requests: stats.write_requests.get(),
            write_bytes: stats.write_bytes.get(),
            discard_requests: stats.discard_requests.get(),
            flush_requests: stats.flush_requests.get(),
            failed_requests: stats.failed_requests.get(),
            read_hits: stats.read_hits.get(),
            read_misses: stats.read_misses.get(),
            promotions: stats.promotions.get(),
            evictions: stats.evictions.get(),
            waits_for_room: stats.waits_for_room.get(),
            fast_tier_errors: stats.fast_tier_errors.get(),
            journal_failures: stats.journal_failures.get(),
            write_back_failures: stats.write_back_failures.get(),
            capacity_read_errors: stats.capacity_read_errors.get(),
            origins: origins(progress.shared),
            hydration: shared.warmth.hydration(),
        })
    }

    fn prefetch_status(&self) -> Result<PrefetchStatus, ControlError> {
        let shared = self.shared();
        let (stats, acted) = (shared.volume.stats(), shared.prediction.acted(shared));
        Ok(PrefetchStatus {
            threshold: shared.settings.threshold(),
            horizon: shared.settings.horizon(),
            state: shared.prediction.state(shared),
            predictions_published: acted.published,
            predictions_above_threshold: acted.above_threshold,
            tables_accepted: acted.tables_accepted,
            tables_refused: acted.tables_refused,
            last_refusal: acted.last_refusal,
            queue_length: acted.queue_length,
            reservations_held: u64::from(shared.volume.reserved_slots()),
            reservations_made: stats.reservations_made.get(),
            reservations_used: stats.reservations_used.get(),
            reservations_wasted: stats.reservations_wasted.get(),
            redirects: stats.redirects.get(),
            prefetched_bytes: stats.prefetched_bytes.get(),
            prefetched_used_bytes: stats.prefetched_used_bytes.get(),
            precision: acted.precision,
            recall: acted.recall,
            score_window_epochs: acted.scored_epochs,
            read_precision: acted.read_precision,
            read_recall: acted.read_recall,
            table_epoch: acted.table_epoch,
            table_published_us: acted.table_published_us,
            acts_from: acted.acts_from,
            missed_after_eviction: acted.missed_after_eviction,
            acted_blocks: acted.acted.blocks,
            acted_missed: acted.acted.missed,
            control_blocks: acted.control.blocks,
            control_missed: acted.control.missed,
            capacity_read_seconds: acted.capacity_read.as_secs_f64(),
            growth_blocks: acted.growth_blocks,
            growth_slots: acted.growth_slots,
        })
    }

    fn set_threshold(&self, threshold: Threshold) -> Result<Threshold, ControlError> {
        let before = self.shared().settings.threshold();
        self.store(|config| config.threshold = threshold)?;
        self.shared().settings.set_threshold(threshold);
        Ok(before)
    }

    fn garbage(&self) -> Result<Garbage, ControlError> {
        self.ask(|reply| Ask::Garbage { reply })
    }

    fn collect_garbage(&self) -> Result<(Garbage, Collected), ControlError> {
        self.ask(|reply| Ask::Collect { reply })
    }

    /// What is durable first is what the next opening goes by: a crash on the way leaves a volume that is grown then.
    fn grow(&self, size_bytes: u64) -> Result<Grown, ControlError> {
        let resize = lock(&self.resize);
        let before = self.shared().volume.geometry();
        let geometry = before.grown_to(size_bytes).map_err(|error| {
            ControlError::new(ErrorKind::Invalid, format!("volume {}: {error}", self.name))
        })?;
        let Some(resize) = resize.as_ref() else {
            let text = format!(
                "volume {name} cannot grow while its device is there: this kernel's ublk driver cannot change a device's \
                 size (UPDATE_SIZE, from Linux 6.16 on); nothing was changed: run `forerun del {name}`, then \
                 `forerun grow` again, then `forerun add {name}`",
                name = self.name
            );
            return Err(ControlError::new(ErrorKind::State, text));
        };
        let later = |what: &str, error: &dyn std::fmt::Display| {
            let text = format!(
                "volume {}: {what}: {error}; the new size is noted, and is there when the volume is started again",
                self.name
            );
            ControlError::new(ErrorKind::Internal, text)
        };
        self.store(|config| config.geometry = geometry)?;
        self.backend
            .superblock
            .grow(geometry)
            .map_err(|error| later("the fast tier's superblock cannot be written", &error))?;
        self.ask(|reply| Ask::Grow { geometry, reply })?;
        self.shared().volume.grow(geometry);
        resize(size_bytes).map_err(|error| later("the device does not show its new size", &error))?;
        tracing::info!(from = before.size_bytes(), to = size_bytes, "the volume has grown");
        Ok(Grown { previous_size_bytes: before.size_bytes(), size_bytes })
    }

    fn grow_fast(&self, growth: FastGrowth) -> Result<FastGrown, ControlError> {
        // The volume's growth writes the same superblocks.
        let _one = lock(&self.resize);
        let path = lock(&self.config).fast.path.clone();
        let grown = super::grow_fast::grow(&self.backend, &path, growth)?;
        // Only for who makes a new one after it: the tier knows its own size.
        let stored = self.store(|config| {
            if let Some(size_bytes) = &mut config.fast.size_bytes {
                *size_bytes = grown.size_bytes;
            }
        });
        if let Err(error) = stored {
            tracing::warn!(
                "the fast tier has grown, but its new size is not in the volume's configuration: {}",
                error.message
            );
        }
        Ok(grown)
    }

    fn report_trainer(&self, report: &Arc<TrainerReport>) {
        self.shared().prediction.advise(report.pays, &report.serving_reason);
    }
}

fn origins(shared: Vec<SharedData>) -> Vec<OriginStatus> {
    let origin = |shared: SharedData| OriginStatus {
        uuid: shared.volume.to_string(),
        address: shared.address,
        shared_bytes: shared.bytes,
        promoting: shared.promoting,
    };
    shared.into_iter().filter(|shared| !shared.left).map(origin).collect()
}

fn text(path: &std::path::Path) -> String {
    PathBuf::from(path).display().to_string()
}
