//! Where a file's blocks are: extents in the inode, or a tree of them.

use super::Xfs;
use super::btree::{Met, Tree};
use crate::files::bytes::Bytes;
use crate::files::error::{FilesError, Result};
use crate::files::file_system::{Budget, Inode, Mapped};

/// Where an inode's own map begins, in bytes.
const FORK_START: usize = 176;
/// The content is in the inode.
pub const LOCAL: u8 = 1;
const EXTENTS: u8 = 2;
const BTREE: u8 = 3;
/// The inode's flag: its content is on the realtime device.
const REALTIME: u16 = 1;
/// The inode's flag: counters of extents are wide, and elsewhere.
const WIDE_COUNTERS: u64 = 0x10;
const EXTENT_BYTES: usize = 16;

type Found<'f> = &'f mut dyn FnMut(Mapped) -> Result<()>;

/// The part of an inode that has its content or where that is, and the part for its attributes.
pub fn forks(inode: Bytes<'_>) -> Result<(Bytes<'_>, Option<Bytes<'_>>)> {
    let data = inode.from(FORK_START)?;
    match usize::from(inode.byte(82)?) * 8 {
        0 => Ok((data, None)),
        offset => Ok((Bytes(data.slice(0, offset)?), Some(data.from(offset)?))),
    }
}

/// Tells of an inode's map, content and attributes.
pub fn tell(xfs: &Xfs<'_>, inode: &Inode, budget: &mut Budget, found: Found<'_>) -> Result<()> {
    let bytes = Bytes(&inode.raw);
    let is_wide = bytes.be64(120)? & WIDE_COUNTERS != 0;
    let (data, attributes) = forks(bytes)?;
    if bytes.be16(90)? & REALTIME == 0 {
        let extents = if is_wide { bytes.be64(24)? } else { bytes.be32(76)?.into() };
        fork(xfs, data, bytes.byte(5)?, extents, budget, found)?;
    }
    let Some(attributes) = attributes else { return Ok(()) };
    let extents = if is_wide { bytes.be32(76)? } else { bytes.be16(80)?.into() };
    fork(xfs, attributes, bytes.byte(83)?, extents.into(), budget, &mut |mapped| match mapped {
        Mapped::Data { run, .. } => found(Mapped::Attributes(run)),
        Mapped::Map(block) => found(Mapped::Attributes(block..block + 1)),
        attributes => found(attributes),
    })
}

fn fork(
    xfs: &Xfs<'_>,
    fork: Bytes<'_>,
    format: u8,
    extents: u64,
    budget: &mut Budget,
    found: Found<'_>,
) -> Result<()> {
    let mut next = 0;
    match format {
        EXTENTS => {
            let most = (fork.0.len() / EXTENT_BYTES) as u64;
            if extents > most {
                return Err(FilesError::Damaged("an inode's number of extents"));
            }
            for index in 0..extents as usize {
                let record = fork.slice(index * EXTENT_BYTES, EXTENT_BYTES)?;
                extent(xfs, Bytes(record), &mut next, found)?;
            }
            Ok(())
        }
        BTREE => {
            let tree = Tree { magic: b"BMA3", key_bytes: 8, record_bytes: EXTENT_BYTES, group: None };
            let (level, records) = (fork.be16(0)?, usize::from(fork.be16(2)?));
            let most = (fork.0.len() - 4) / 16;
            if records > most {
                return Err(FilesError::Damaged("an inode's map"));
            }
            for index in 0..records {
                let child = tree.pointer(xfs, fork, 4 + most * 8, index)?;
                tree.walk(xfs, child, level.into(), budget, &mut |met| match met {
                    Met::Block(block) => found(Mapped::Map(block)),
                    Met::Record(record) => extent(xfs, record, &mut next, found),
                })?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Tells of an extent: 1 bit for what is set aside and not written, 54 for its place in the file, 52 for its block, 21 for its
/// length.
fn extent(xfs: &Xfs<'_>, record: Bytes<'_>, next: &mut u64, found: Found<'_>) -> Result<()> {
    let (high, low) = (record.be64(0)?, record.be64(8)?);
    let at = (high & (u64::MAX >> 1)) >> 9;
    let block = (high & 0x1ff) << 43 | low >> 21;
    let length = low & 0x1f_ffff;
    let start = xfs.superblock.through(block).ok_or(FilesError::Damaged("an extent past the end"))?;
    if at < *next {
        return Err(FilesError::Damaged("a map's order"));
    }
    *next = at + length;
    found(Mapped::Data { at, run: start..start + length })
}
