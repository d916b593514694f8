//! Making a fast tier: on a device or file that holds nothing.
//!
//! What a crash leaves: no superblock until all else is durable, so half a tier is no tier. Nothing that
//! was there is overwritten unasked: what is not empty is refused.

use std::io;
use std::path::Path;

use forerun::geometry::{Geometry, Lsn};
use uuid::Uuid;

use super::checkpoint::{CheckpointWriter, Place};
use super::device::{FastDevice, Lock, TierFile};
use super::error::FastTierError;
use super::layout::Layout;
use super::page::{Kind, PAGE_BYTES, open_any};
use super::ring::JournalPoint;
use super::superblock::Superblock;
use crate::aligned::AlignedBuffer;

/// Where signatures of file systems, partition tables and the like are looked for, in bytes from the start.
const SIGNATURES_BYTES: usize = 128 * 1024;
const CHUNK_BYTES: u64 = 1 << 20;

/// What a fast tier is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FormatOptions {
    /// The volume.
    pub volume: Uuid,
    /// Its shape.
    pub geometry: Geometry,
    /// Now, in microseconds since 1970.
    pub now_us: u64,
}

/// Sees whether `path` can be made a tier.
pub(super) fn check(path: &Path, file_bytes: Option<u64>, geometry: Geometry) -> Result<(), FastTierError> {
    if let Some(bytes) = file_bytes.filter(|_| !path.exists()) {
        return Layout::for_tier(bytes).map(drop);
    }
    let tier = TierFile::open(path, Lock::Now)?;
    check_open(&tier, geometry).map(drop)
}

pub(super) fn check_open(tier: &TierFile, geometry: Geometry) -> Result<Layout, FastTierError> {
    let layout = Layout::for_tier(tier.size_bytes())?;
    tier.takes(geometry.logical_block_bytes())?;
    refuse_occupied(tier, tier.path())?;
    Ok(layout)
}

/// Makes the tier at `path`; see [`super::FastTier::format`].
pub(super) fn format(
    path: &Path,
    file_bytes: Option<u64>,
    options: &FormatOptions,
) -> Result<Superblock, FastTierError> {
    let was_there = path.exists();
    let tier = TierFile::open_or_make(path, file_bytes)?;
    let made = check_open(&tier, options.geometry).and_then(|layout| write(&tier, layout, options));
    if made.is_err() && !was_there {
        drop(std::fs::remove_file(path));
    }
    made
}

fn refuse_occupied(device: &dyn FastDevice, path: &Path) -> Result<(), FastTierError> {
    let bytes = SIGNATURES_BYTES.min(device.size_bytes() as usize / PAGE_BYTES * PAGE_BYTES);
    let mut start = AlignedBuffer::zeroed(bytes.max(PAGE_BYTES));
    device.read_at(0, &mut start).map_err(FastTierError::tier("read"))?;
    if start.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    let first_page = start.get(..PAGE_BYTES).unwrap_or_default();
    let holds = match open_any(first_page, Kind::Superblock, 0) {
        Ok((volume, ..)) => format!("the fast tier of the forerun volume {volume}"),
        Err(_) => "data that is not forerun's (a file system, a partition table, ...)".to_owned(),
    };
    Err(FastTierError::Occupied { path: path.to_owned(), holds })
}

/// Writes an empty tier: ring, two checkpoints, and last the superblocks.
pub(crate) fn write(
    device: &dyn FastDevice,
    layout: Layout,
    options: &FormatOptions,
) -> Result<Superblock, FastTierError> {
    let FormatOptions { volume, geometry, now_us } = *options;
    let superblock =
        Superblock { volume, generation: 1, clean: Some(Lsn(0)), created_us: now_us, geometry, layout };
    write_all(device, &superblock).map_err(FastTierError::tier("make an empty tier"))?;
    Ok(superblock)
}

fn write_all(device: &dyn FastDevice, superblock: &Superblock) -> io::Result<()> {
    let Superblock { volume, generation, layout, .. } = superblock;
    clear(device, layout)?;
    let start = JournalPoint { lsn: Lsn(0), page: 0 };
    for (area, number) in [(0, 1), (1, 2)] {
        let writer = CheckpointWriter::new(device, layout, *volume, *generation, Place { area, number });
        let (offset, header) = writer.header(start);
        device.write_at(offset, &header)?;
    }
    device.sync()?;
    superblock.write(device, 0)
}

/// Zeros in the ring, so that nothing of an earlier tier can be taken for a record; where the superblocks will be, the
/// far one of an earlier tier included; and over the headers of both checkpoints.
pub(super) fn clear(device: &dyn FastDevice, layout: &Layout) -> io::Result<()> {
    let zeros = AlignedBuffer::zeroed(CHUNK_BYTES as usize);
    let page = zeros.get(..PAGE_BYTES).unwrap_or_default();
    for offset in layout.superblock_offsets().into_iter().chain(layout.checkpoint_offsets) {
        device.write_at(offset, page)?;
    }
    // Without its superblocks it is no tier any more, before anything else of it is touched.
    device.sync()?;
    let mut at = 0;
    while at < layout.journal_bytes {
        let len = CHUNK_BYTES.min(layout.journal_bytes - at);
        device.write_at(layout.journal_offset + at, zeros.get(..len as usize).unwrap_or_default())?;
        at += len;
    }
    Ok(())
}
