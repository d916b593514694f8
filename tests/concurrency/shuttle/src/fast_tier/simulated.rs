//! A fast tier on a simulated disk, whose tasks are run by whoever opens it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forerun::geometry::{Geometry, MIN_VOLUME_BYTES};
use uuid::Uuid;

use super::format::{FormatOptions, write};
use super::layout::Layout;
use super::sim::SimDisk;
use super::{FastDevice, FastTier, FastTierError, OpenOptions, Work};
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::volume::Recovered;

const VOLUME: Uuid = Uuid::from_u128(0xF0F0);
/// Pages of the ring, the fewest there may be: a commit is two pages at most, and a half of the pending log no longer.
const RING_PAGES: u64 = 16;

/// A simulated disk on which each write and each sync takes a step of the schedule.
pub struct Disk {
    /// The disk.
    pub disk: SimDisk,
    steps: AtomicU32,
}

impl Disk {
    fn new(disk: SimDisk) -> Self {
        Self { disk, steps: AtomicU32::new(0) }
    }
}

impl FastDevice for Disk {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.steps.fetch_add(1, Ordering::SeqCst);
        self.disk.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.steps.fetch_add(1, Ordering::SeqCst);
        self.disk.sync()
    }
}

/// A machine with shared memory.
pub struct Machine {
    _folder: tempfile::TempDir,
    pending: PathBuf,
}

impl Machine {
    /// A machine without any pending log.
    ///
    /// # Errors
    /// No folder can be made.
    pub fn new() -> io::Result<Self> {
        let shared_memory = std::path::Path::new("/dev/shm");
        let folder =
            if shared_memory.is_dir() { tempfile::tempdir_in(shared_memory)? } else { tempfile::tempdir()? };
        Ok(Self { pending: folder.path().join("pending"), _folder: folder })
    }

    /// Opens the tier on `disk` in the boot of this number.
    ///
    /// # Errors
    /// As [`FastTier::open`].
    pub fn open(
        &self,
        disk: SimDisk,
        boot: u128,
    ) -> Result<(FastTier<Disk>, Recovered, [Work; 2]), FastTierError> {
        let options = OpenOptions {
            boot: Some(Uuid::from_u128(boot)),
            idle_commit: Duration::from_secs(3600),
            ..OpenOptions::new(&self.pending)
        };
        let disk = Arc::new(Disk::new(disk));
        let (tier, recovered, _, work) =
            FastTier::open_without_threads(disk, "a simulated disk", VOLUME, &options)?;
        Ok((tier, recovered, work.map(|(_, work)| work)))
    }
}

/// A disk with an empty tier.
///
/// # Errors
/// Never: the disk is sound.
pub fn formatted(seed: u64) -> Result<SimDisk, FastTierError> {
    let layout = Layout::with_journal(4 << 20, RING_PAGES * 4096).ok_or(io::ErrorKind::InvalidInput);
    let layout = layout.map_err(|kind| FastTierError::tier("lay out an empty tier")(kind.into()))?;
    let disk = SimDisk::new(layout.tier_bytes, seed);
    let geometry = Geometry::new(MIN_VOLUME_BYTES, 4096).map_err(io::Error::other);
    let geometry = geometry.map_err(FastTierError::tier("shape a volume"))?;
    write(&disk, layout, &FormatOptions { volume: VOLUME, geometry, now_us: 5 })?;
    Ok(disk)
}
