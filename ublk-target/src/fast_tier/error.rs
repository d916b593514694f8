//! What can be wrong with a fast tier, in words that say what to do next.
//!
//! Every refusal leaves the tier as it was: nothing is written before a superblock has been verified.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use uuid::Uuid;

/// Why a fast tier cannot be made, opened or checked.
#[derive(Debug, Error)]
pub enum FastTierError {
    /// An operating system call failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was done, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// I/O on an open tier failed.
    #[error("fast tier: {operation}: {source}")]
    Tier {
        /// What was done.
        operation: &'static str,
        /// How it failed.
        source: io::Error,
    },
    /// There is nothing at the path.
    #[error(
        "the fast tier {} is not there: see that its device is attached or its file system mounted; \
         nothing was changed",
        .0.display()
    )]
    Missing(PathBuf),
    /// The path is a directory, a pipe or the like.
    #[error("{} is neither a block device nor a regular file, so it cannot be a fast tier", .0.display())]
    WrongKind(PathBuf),
    /// Somebody else has it open for themselves.
    #[error(
        "the fast tier {} is in use: another target uses it, or it is mounted; \
         stop that first (`forerun list` shows the running volumes), then try again; nothing was changed",
        .0.display()
    )]
    InUse(PathBuf),
    /// It takes no I/O as small as the volume's logical blocks.
    #[error(
        "the fast tier {} takes no I/O of {logical_block_bytes} bytes, which a volume with that logical block \
         size needs: use another device, or create the volume with 4096-byte logical blocks",
        path.display()
    )]
    Sector {
        /// Of which tier.
        path: PathBuf,
        /// The volume's logical block size in bytes.
        logical_block_bytes: u32,
    },
    /// There is something on it already.
    #[error(
        "{} is not empty: it holds {holds}; if nobody needs that, wipe it with \
         `dd if=/dev/zero of={} bs=64K count=2 conv=notrunc,fsync` and try again; nothing was changed",
        path.display(), path.display()
    )]
    Occupied {
        /// What was to be made a fast tier.
        path: PathBuf,
        /// What seems to be on it.
        holds: String,
    },
    /// It is too small for any volume.
    #[error("a fast tier has at least {minimum_bytes} bytes; {size_bytes} are too few")]
    TooSmall {
        /// Its size in bytes.
        size_bytes: u64,
        /// The least size in bytes.
        minimum_bytes: u64,
    },
    /// It is to grow by less than its larger checkpoint areas need.
    #[error(
        "a fast tier of {now_bytes} bytes grows to {minimum_bytes} bytes or more: {size_bytes} leave no room for more blocks; \
         nothing was changed"
    )]
    GrowsTooLittle {
        /// Its size in bytes.
        now_bytes: u64,
        /// The size asked for in bytes.
        size_bytes: u64,
        /// The least size that it grows to in bytes.
        minimum_bytes: u64,
    },
    /// It is to grow beyond its device.
    #[error(
        "{} has {device_bytes} bytes, and {size_bytes} are wanted: make the device larger first; nothing was changed",
        path.display()
    )]
    DeviceSmaller {
        /// Which device.
        path: PathBuf,
        /// Its size in bytes.
        device_bytes: u64,
        /// The size asked for in bytes.
        size_bytes: u64,
    },
    /// No superblock: something else, or nothing, is on it.
    #[error(
        "there is no forerun fast tier on {0}: see that it is the path the volume was created with; \
         nothing was changed"
    )]
    Foreign(String),
    /// Both superblocks are there, and both are broken.
    #[error(
        "both superblocks of the fast tier {0} are damaged: `forerun repair --to-fast PATH` makes a new one of what can \
         still be read; nothing was changed"
    )]
    BothDamaged(String),
    /// Made by a later version of this program.
    #[error(
        "the fast tier {tier} has format version {found}, and this program knows versions up to {known}: \
         use the newer program; nothing was changed"
    )]
    Newer {
        /// Which tier.
        tier: String,
        /// The version on it.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// It belongs to another volume.
    #[error(
        "the fast tier {tier} belongs to volume {found}, not to {wanted}: see that the paths of the two volumes \
         were not exchanged; nothing was changed"
    )]
    OtherVolume {
        /// Which tier.
        tier: String,
        /// Whose it is.
        found: Uuid,
        /// Whose it should be.
        wanted: Uuid,
    },
    /// The volume's shape is another than the tier says.
    #[error(
        "the fast tier {tier} is of a volume of {found_bytes} bytes in logical blocks of {found_logical}, and \
         the volume is said to have {wanted_bytes} bytes in logical blocks of {wanted_logical}: \
         correct the volume's configuration; nothing was changed"
    )]
    OtherGeometry {
        /// Which tier.
        tier: String,
        /// The size on the tier in bytes.
        found_bytes: u64,
        /// The logical block size on the tier in bytes.
        found_logical: u32,
        /// The size asked for in bytes.
        wanted_bytes: u64,
        /// The logical block size asked for in bytes.
        wanted_logical: u32,
    },
    /// It has shrunk since it was made.
    #[error(
        "the fast tier {tier} has {size_bytes} bytes, and was made with {stated_bytes}: part of it is missing; \
         see that it is the whole device or file; nothing was changed"
    )]
    Shrunk {
        /// Which tier.
        tier: String,
        /// Its size now in bytes.
        size_bytes: u64,
        /// Its size when made, in bytes.
        stated_bytes: u64,
    },
    /// Metadata that should be there is damaged.
    #[error(
        "the fast tier's metadata is damaged: {what}, at byte {offset}; nothing was changed; \
         `forerun check` lists all of the damage, and `forerun repair --to-fast PATH` makes a new tier of what is left"
    )]
    Damaged {
        /// What is damaged, and how.
        what: String,
        /// Where on the tier, in bytes.
        offset: u64,
    },
    /// A device waits, and what its last target had acknowledged before it died is not all there.
    #[error(
        "its device cannot be taken over: the log of what the target that died had acknowledged, {}, {why}; delete the \
         device (`forerun del`) and add it again: what was flushed is safe; nothing was changed",
        path.display()
    )]
    NothingToTakeOver {
        /// The file that should hold it.
        path: PathBuf,
        /// What is the matter with it.
        why: String,
    },
    /// The log of pending changes cannot be kept.
    #[error("the log of pending changes {}: {source}", path.display())]
    Pending {
        /// The file.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start the thread {name}: {source}")]
    Thread {
        /// The thread's name.
        name: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl From<io::Error> for FastTierError {
    fn from(source: io::Error) -> Self {
        Self::Tier { operation: "use the file", source }
    }
}

impl FastTierError {
    /// For `map_err` on I/O of an open tier.
    pub(super) fn tier(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Tier { operation, source }
    }
}
