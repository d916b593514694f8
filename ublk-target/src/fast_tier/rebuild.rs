//! Making a fast tier that holds something from the start: for repairs, at a new place.
//!
//! What a crash leaves: no superblock until all else is durable, so half a tier is no tier, and the next attempt may
//! write over it. A tier that was never opened since is written over too; anything else is refused.

use std::io;
use std::path::Path;

use forerun::geometry::{Geometry, Lsn, SlotId};
use uuid::Uuid;

use super::check::{self, Severity};
use super::checkpoint::{CheckpointWriter, Place};
use super::delta::Delta;
use super::device::{FastDevice, TierFile};
use super::error::FastTierError;
use super::format;
use super::layout::Layout;
use super::ring::JournalPoint;
use super::superblock::Superblock;
use crate::aligned::AlignedBuffer;

/// A fast tier in the making.
pub struct NewTier {
    tier: TierFile,
    layout: Layout,
    volume: Uuid,
    geometry: Geometry,
}

impl NewTier {
    /// Sees whether a tier can be begun at `path`; nothing is changed.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn look(
        path: &Path,
        file_bytes: Option<u64>,
        volume: Uuid,
        geometry: Geometry,
    ) -> Result<(), FastTierError> {
        if path.exists() && is_unused(path, volume) {
            Ok(())
        } else {
            format::check(path, file_bytes, geometry)
        }
    }

    /// Begins a tier at `path`, a block device or file that holds nothing; where nothing is, a file of `file_bytes`
    /// bytes is made.
    ///
    /// # Errors
    /// There is nothing and no size; it is in use, too small, not empty; or I/O.
    pub fn begin(
        path: &Path,
        file_bytes: Option<u64>,
        volume: Uuid,
        geometry: Geometry,
    ) -> Result<Self, FastTierError> {
        let again = path.exists() && is_unused(path, volume);
        let tier = TierFile::open_or_make(path, file_bytes)?;
        let layout = match again {
            true => Layout::for_tier(tier.size_bytes())?,
            false => format::check_open(&tier, geometry)?,
        };
        format::clear(&tier, &layout).map_err(FastTierError::tier("make an empty tier"))?;
        Ok(Self { tier, layout, volume, geometry })
    }

    /// How many slots it has.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.layout.slots
    }

    /// How many deletions it has room for.
    #[must_use]
    pub fn deletions_max(&self) -> u64 {
        self.layout.deletions_max()
    }

    /// Writes a slot's 64 KiB.
    ///
    /// # Errors
    /// I/O.
    pub fn write_slot(&self, slot: SlotId, data: &AlignedBuffer) -> io::Result<()> {
        debug_assert!(slot.0 < self.layout.slots, "slots are counted before they are written");
        self.tier.write_at(self.layout.slots_offset + slot.offset_bytes(), data)
    }

    /// Makes it a tier that holds `facts`, durably.
    ///
    /// # Errors
    /// I/O, or facts that do not fit into a checkpoint.
    pub fn finish(self, generation: u64, now_us: u64, facts: &[Delta]) -> Result<(), FastTierError> {
        let Self { tier, layout, volume, geometry } = self;
        let start = JournalPoint { lsn: Lsn(0), page: 0 };
        let write = || {
            // Both, so that the tier can do without either.
            for (area, number) in [(0, 1), (1, 2)] {
                let place = Place { area, number };
                let mut writer = CheckpointWriter::new(&tier, &layout, volume, generation, place);
                facts.iter().for_each(|fact| writer.push(fact));
                writer.finish_content()?;
                tier.sync()?;
                let (offset, header) = writer.header(start);
                tier.write_at(offset, &header)?;
            }
            tier.sync()?;
            let clean = Some(Lsn(0));
            Superblock { volume, generation, clean, created_us: now_us, geometry, layout }.write(&tier, 0)
        };
        write().map_err(FastTierError::tier("write the new tier"))
    }
}

/// Whether there is a tier of this volume that was never opened.
fn is_unused(path: &Path, volume: Uuid) -> bool {
    check::check(path, Some(*volume.as_bytes())).is_ok_and(|report| {
        let sound = report.findings.iter().all(|finding| finding.severity == Severity::Minor);
        sound && report.volume == Some(volume) && report.clean && report.lsn == Lsn(0)
    })
}
