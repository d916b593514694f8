//! What can go wrong on the capacity tier. A message says what, where, in what state things are now, and what
//! to do.

use std::io;

use forerun::geometry::{Epoch, Generation};
use nix::errno::Errno;
use thiserror::Error;

use super::fault::Fault;
use super::names::{SnapshotName, VolumeUuid};

/// A result of the capacity tier.
pub type Result<T, E = CapacityError> = std::result::Result<T, E>;

/// An error of the capacity tier. `place` is the path or address of what it is about.
#[derive(Debug, Error)]
pub enum CapacityError {
    /// The store refused an operation.
    #[error("cannot {operation} {place}: {source}{}", advice(source))]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        place: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Something that was read is not what was written there.
    #[error(
        "{place} is damaged: {fault}. Nothing was changed; run 'forerun check' for all that is damaged, \
         and restore this object from a copy of the capacity tier, or run 'forerun repair'"
    )]
    Corrupt {
        /// The object.
        place: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// Written by a newer forerun.
    #[error(
        "{place} has format version {found}; this forerun reads up to {supported}. Nothing was changed; \
         use the newer forerun that wrote it"
    )]
    NewerFormat {
        /// The object.
        place: String,
        /// The version it states.
        found: u32,
        /// The newest version that is understood here.
        supported: u32,
    },
    /// There is no volume where one was expected.
    #[error("{place} holds no volume: it has no HEAD. Check the path, and that its file system is mounted")]
    NoVolume {
        /// The capacity tier.
        place: String,
    },
    /// The capacity tier holds another volume.
    #[error("{place} belongs to volume {found}, not to {expected}. Nothing was changed; check the path")]
    OtherVolume {
        /// The capacity tier.
        place: String,
        /// The volume there.
        found: VolumeUuid,
        /// The volume that was asked for.
        expected: VolumeUuid,
    },
    /// The volume there has another size or logical block size than was asked for.
    #[error(
        "{place}: the volume has {found}, not {expected}. Nothing was changed; correct the volume's configuration"
    )]
    OtherGeometry {
        /// The capacity tier.
        place: String,
        /// What the volume has.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// A volume was to be created where something else is.
    #[error("{place} is not empty: it holds {found}. Nothing was changed; give an empty or a new directory")]
    NotEmpty {
        /// The directory.
        place: String,
        /// What is in it.
        found: String,
    },
    /// Another process writes to this volume.
    #[error(
        "{place} is in use by {holder}. Stop that one first; two writers on one volume are never allowed"
    )]
    InUse {
        /// The capacity tier.
        place: String,
        /// What the lock says about its holder.
        holder: String,
    },
    /// Another writer took over.
    #[error(
        "{place} was taken over by writer generation {theirs}; this one is {ours} and may not write any more. \
         Stop this target; the volume is complete with the other one"
    )]
    Fenced {
        /// The capacity tier.
        place: String,
        /// This writer's generation.
        ours: Generation,
        /// The generation in HEAD.
        theirs: Generation,
    },
    /// A change was asked of a reader.
    #[error("{place} is open for reading only")]
    ReadOnly {
        /// The capacity tier.
        place: String,
    },
    /// A layer does not come after the newest one.
    #[error("epoch {epoch} cannot be written back after epoch {newest}: layers come in order, each once")]
    EpochOrder {
        /// The layer's epoch.
        epoch: Epoch,
        /// The newest epoch that is there.
        newest: Epoch,
    },
    /// An epoch at which no layer ends, because it is not written back yet or merged into a later one.
    #[error(
        "the capacity tier has no consistency point at epoch {epoch}: not yet written back, or merged away. \
         'forerun snapshot list' shows those that are kept"
    )]
    NoSuchEpoch {
        /// The epoch.
        epoch: Epoch,
    },
    /// An unknown snapshot.
    #[error("there is no snapshot '{name}'; 'forerun snapshot list' shows those that are there")]
    NoSuchSnapshot {
        /// The name.
        name: SnapshotName,
    },
    /// A name that another snapshot has, or an epoch that has another name.
    #[error("snapshot '{name}' is of epoch {epoch} already; delete it first or choose another name")]
    SnapshotExists {
        /// The name.
        name: SnapshotName,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A snapshot that is attached somewhere.
    #[error("snapshot '{name}' is attached; detach it first ('forerun list' shows where)")]
    SnapshotInUse {
        /// The name.
        name: SnapshotName,
    },
    /// A clone of whom the volume knows nothing.
    #[error(
        "{place} keeps nothing for a clone {clone}; 'forerun check' names the clones it keeps something for"
    )]
    NoSuchClone {
        /// The capacity tier.
        place: String,
        /// The clone.
        clone: VolumeUuid,
    },
    /// A clone that may need what is kept for it.
    #[error(
        "clone {clone} at {place}: {why}. Nothing was changed; delete it or promote it first, or give --force \
         if it is gone for good"
    )]
    CloneInUse {
        /// The clone.
        clone: VolumeUuid,
        /// Where it is.
        place: String,
        /// Why it counts as in use.
        why: String,
    },
    /// A clone whose origin does not know that it is needed.
    #[error(
        "the volume at {place} is a clone of the one at {origin}, which keeps nothing for it any more: a part of its data may \
         be gone. Nothing was changed; 'forerun check' says what can be read, and 'forerun repair --to-capacity' copies it"
    )]
    NotPinned {
        /// The clone's capacity tier.
        place: String,
        /// The origin's.
        origin: String,
    },
    /// Two consistency points in the wrong order.
    #[error("epoch {from} comes after epoch {to}; a diff goes from the older to the newer one")]
    EpochRange {
        /// Where the diff was to begin.
        from: Epoch,
        /// Where it was to end.
        to: Epoch,
    },
    /// Layers were changed by somebody else while they were being merged or compacted. Nothing was changed.
    #[error("layers changed while they were being merged; nothing was lost, the next step tries again")]
    Overtaken,
    /// A limit of the format.
    #[error("{what} are limited to {limit}; {advice}")]
    Limit {
        /// What there would be too many of.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// What to do.
        advice: &'static str,
    },
    /// The caller broke a rule of the interface: a defect of forerun.
    #[error("defect in forerun: {0}. Nothing was changed; please report it")]
    Misuse(String),
}

fn advice(source: &io::Error) -> &'static str {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT) => {
            ". Nothing that was there before is lost; free space there or delete snapshots, and it goes on by itself"
        }
        Some(Errno::EROFS) => ". The file system is read-only; remount it writable",
        Some(Errno::ENOENT) => ". Check the path, and that its file system is mounted",
        Some(Errno::EACCES | Errno::EPERM) => ". Check owner and mode of the directory",
        _ => "",
    }
}

impl CapacityError {
    /// What a parser found, with the place where it was read.
    pub(super) fn faulty(place: String, fault: Fault) -> Self {
        match fault {
            Fault::NewerFormat { found, supported, .. } => Self::NewerFormat { place, found, supported },
            fault => Self::Corrupt { place, fault },
        }
    }

    fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } => source.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }

    /// Whether the store is full: it goes on once there is room again.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENOSPC | Errno::EDQUOT))
    }

    /// Whether the store is mounted read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::ReadOnly { .. }) || self.errno() == Some(Errno::EROFS)
    }

    /// Whether something is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NoVolume { .. })
            || matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether damage was found: a checksum or a field that does not match.
    #[must_use]
    pub const fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// Whether another writer took over; nothing may be written by this one any more.
    #[must_use]
    pub const fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced { .. })
    }

    /// The error number that a request on the volume ends with; EIO for everything without one of its own.
    #[must_use]
    pub fn raw_os_error(&self) -> i32 {
        self.errno().unwrap_or(Errno::EIO) as i32
    }
}

impl From<CapacityError> for io::Error {
    fn from(error: CapacityError) -> Self {
        Self::from_raw_os_error(error.raw_os_error())
    }
}
