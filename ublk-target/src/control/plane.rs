//! What the API's server asks of a volume: the trait [`ControlPlane`] and the words it uses.
//!
//! The engine implements it; the server calls it from threads that may block, never from the one
//! that serves the socket. Names and ranges are checked before a call arrives here. Everything is
//! safe to call at any time and from several threads at once.
//!
//! There is no callback and no queue per client: whoever follows the change vectors asks for the
//! next one by its epoch, so that a slow or dead client costs the engine nothing.

use std::sync::Arc;

use forerun::change_vector::{Change, ChangeVector};
use forerun::config::{SnapshotName, VolumeName};
use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::{Horizon, Threshold};
use thiserror::Error;
use tokio::sync::watch;

use super::status::{OriginStatus, PrefetchStatus, TrainerReport, VolumeStatus};
use crate::background::Collected;
use crate::capacity_tier::Garbage;

/// What kind of failure an operation had; decides the gRPC code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// The snapshot or epoch is not there: NOT_FOUND.
    NotFound,
    /// A value cannot be meant: INVALID_ARGUMENT.
    Invalid,
    /// The volume's state forbids it now (attached, degraded, stopping): FAILED_PRECONDITION.
    State,
    /// A tier or a limit is full: RESOURCE_EXHAUSTED.
    Exhausted,
    /// Cannot be done at the moment; asking again may work: UNAVAILABLE.
    Unavailable,
    /// What was read back does not match its checksum: DATA_LOSS.
    Corrupt,
    /// Everything else (I/O errors): INTERNAL.
    Internal,
}

/// An operation that failed; the message says what, where, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{message}")]
pub struct ControlError {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
}

impl ControlError {
    /// A failure of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A snapshot that is not there.
    #[must_use]
    pub fn no_snapshot(volume: &VolumeName, name: &SnapshotName) -> Self {
        let message = format!(
            "volume {volume} has no snapshot {name}; `forerun snapshot list {volume}` shows those it has"
        );
        Self::new(ErrorKind::NotFound, message)
    }
}

/// A kept epoch.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: SnapshotName,
    /// The sealed epoch that it is.
    pub epoch: Epoch,
    /// When it was made, in microseconds since 1970 (UTC).
    pub created_us: u64,
    /// What the volume held, in bytes (whole blocks).
    pub data_bytes: u64,
    /// Blocks that held nothing at the snapshot before it and hold data at this one.
    pub added_blocks: u64,
    /// Blocks that held data at the snapshot before it and were written since.
    pub modified_blocks: u64,
    /// Blocks that held data at the snapshot before it and hold nothing at this one.
    pub deleted_blocks: u64,
    /// Changed bytes a second since the snapshot before it.
    pub change_bytes_per_second: f64,
    /// Whether it is wholly on the capacity tier.
    pub on_capacity_tier: bool,
}

/// A volume that shares data with this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloneInfo {
    /// Its uuid, as text.
    pub uuid: String,
    /// Its name on the machine where it was made.
    pub name: String,
    /// Where its capacity tier is.
    pub address: String,
    /// The epoch that was cloned.
    pub epoch: Epoch,
    /// When it was made, in microseconds since 1970 (UTC).
    pub created_us: u64,
}

/// What became of a request for a snapshot.
#[derive(Clone, PartialEq, Debug)]
pub struct CreatedSnapshot {
    /// The snapshot of that name.
    pub snapshot: Snapshot,
    /// False when it was there already; then nothing was done, not even the horizon set.
    pub created: bool,
    /// The horizon now in force.
    pub horizon: Horizon,
    /// Predictions at or above the threshold at the moment of the snapshot.
    pub predictions_above_threshold: u64,
}

/// How far write-back has come.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct WriteBack {
    /// The newest epoch that is wholly on the capacity tier.
    pub epoch: Epoch,
    /// Why it does not get on; empty when it does.
    pub error: String,
}

/// A volume's growth, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grown {
    /// What it had.
    pub previous_size_bytes: u64,
    /// What it has.
    pub size_bytes: u64,
}

/// How large a fast tier is to become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FastGrowth {
    /// To so many bytes.
    To(u64),
    /// By so many bytes.
    By(u64),
    /// To all of its block device.
    All,
}

/// A fast tier's growth, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FastGrown {
    /// What it had.
    pub previous_size_bytes: u64,
    /// What it has.
    pub size_bytes: u64,
    /// The blocks that it holds.
    pub block_bytes: u64,
}

/// What became of a deletion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deletion {
    /// The snapshot is gone.
    Done,
    /// The capacity tier is just getting it: to be tried again when this epoch is written back.
    After(Epoch),
}

/// One sealed epoch as the trainer gets it.
#[derive(Clone, PartialEq, Debug)]
pub struct SealedEpoch {
    /// What changed in it.
    pub vector: Arc<ChangeVector>,
    /// The name of the snapshot that it is kept as.
    pub snapshot: Option<SnapshotName>,
    /// Blocks that were read in it and not changed, ascending; `None` where that is not known (any more).
    pub reads: Option<Arc<[BlockIndex]>>,
}

/// Operations on one volume, behind the API.
///
/// All methods may block (on locks, on the disk), except where they say that they do not.
pub trait ControlPlane: Send + Sync + 'static {
    /// The volume's name. Does not block.
    fn volume(&self) -> &VolumeName;

    /// The volume's uuid, as text. Does not block.
    fn uuid(&self) -> String;

    /// How many blocks the volume has. Does not block.
    fn blocks(&self) -> u32;

    /// Seals the open epoch and keeps it under this name; sets the horizon where one is given.
    ///
    /// A name that is there already is answered with that snapshot and changes nothing.
    ///
    /// # Errors
    /// A tier or a limit is full; the volume is degraded or stopping.
    fn create_snapshot(
        &self,
        name: &SnapshotName,
        horizon: Option<Horizon>,
    ) -> Result<CreatedSnapshot, ControlError>;

    /// All snapshots, in any order.
    ///
    /// # Errors
    /// The tables of snapshots cannot be read.
    fn snapshots(&self) -> Result<Vec<Snapshot>, ControlError>;

    /// The clones of the volume, in any order.
    ///
    /// # Errors
    /// The capacity tier cannot be read.
    fn clones(&self) -> Result<Vec<CloneInfo>, ControlError>;

    /// Has a clone copy what it shares, in the background; gives what that is.
    ///
    /// # Errors
    /// The capacity tier cannot be written to.
    fn promote(&self) -> Result<Vec<OriginStatus>, ControlError>;

    /// Deletes a snapshot, if it is not just on its way to the capacity tier; what only it held is freed in the
    /// background.
    ///
    /// # Errors
    /// No such snapshot; it is attached.
    fn delete_snapshot(&self, name: &SnapshotName) -> Result<Deletion, ControlError>;

    /// How far write-back has come; the receiver is told of each change. Does not block.
    fn write_back(&self) -> watch::Receiver<WriteBack>;

    /// The blocks at or after `first_block` that changed between two epochs on the capacity tier, ascending, at most
    /// `limit` (1 to 100,000). `from` is the older one; `None` is the empty volume.
    ///
    /// # Errors
    /// An epoch that is no longer kept; a layer that cannot be read.
    fn diff(
        &self,
        from: Option<Epoch>,
        to: Epoch,
        first_block: BlockIndex,
        limit: usize,
    ) -> Result<Vec<Change>, ControlError>;

    /// The newest sealed epoch, `Epoch(0)` for none yet; the receiver is told of each new one. Does not block.
    fn sealed(&self) -> watch::Receiver<Epoch>;

    /// The first sealed epoch at or after `from` whose change vector is still there; `None` when
    /// `from` is not sealed yet.
    ///
    /// # Errors
    /// A layer that cannot be read.
    fn change_vector(&self, from: Epoch) -> Result<Option<SealedEpoch>, ControlError>;

    /// The horizon that predictions are wanted for. Does not block.
    fn horizon(&self) -> Horizon;

    /// The volume, its device, its tiers and what is under way.
    ///
    /// # Errors
    /// Only when the engine has stopped.
    fn volume_status(&self) -> Result<VolumeStatus, ControlError>;

    /// How prediction does.
    ///
    /// # Errors
    /// Only when the engine has stopped.
    fn prefetch_status(&self) -> Result<PrefetchStatus, ControlError>;

    /// Sets the threshold, durably, and gives the one before.
    ///
    /// # Errors
    /// The configuration cannot be stored; the threshold is then as it was.
    fn set_threshold(&self, threshold: Threshold) -> Result<Threshold, ControlError>;

    /// What the capacity tier holds that is not needed any more.
    ///
    /// # Errors
    /// Only when the engine has stopped.
    fn garbage(&self) -> Result<Garbage, ControlError>;

    /// Gives it back at once; also what it was before.
    ///
    /// # Errors
    /// The capacity tier cannot be read or written.
    fn collect_garbage(&self) -> Result<(Garbage, Collected), ControlError>;

    /// Makes the volume larger, durably, and its device with it, while it is in use.
    ///
    /// # Errors
    /// It would shrink; no size for a volume; a driver that cannot (nothing is changed then); a tier that cannot be written to
    /// (the volume is grown when it is started again).
    fn grow(&self, size_bytes: u64) -> Result<Grown, ControlError>;

    /// Makes the fast tier larger, durably, while the volume is in use.
    ///
    /// # Errors
    /// It would shrink, or grow by less than its metadata needs; a device that is no larger; a full file system (nothing is
    /// changed then); or I/O.
    fn grow_fast(&self, growth: FastGrowth) -> Result<FastGrown, ControlError>;

    /// Takes the trainer's latest report (checked); the server keeps it for the calls that show it.
    fn report_trainer(&self, report: &Arc<TrainerReport>);
}
