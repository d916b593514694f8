//! Directories. An indexed one (htree) reads as a plain one: the index is in entries that name no inode.

use std::ops::ControlFlow;

use super::{Ext4, INLINE_DATA, flags};
use crate::files::bytes::Bytes;
use crate::files::error::{FilesError, Result};
use crate::files::file_system::{Budget, FileSystem, Flow, Inode, Mapped};

/// The most runs of blocks that a directory may lie in: a bound on memory.
const RUNS_MAX: usize = 1 << 20;

type Visit<'v> = &'v mut dyn FnMut(u64, &[u8]) -> Flow;

/// Visits the entries of a directory.
pub fn visit(file_system: &Ext4<'_>, directory: &Inode, budget: &mut Budget, visit: Visit<'_>) -> Result<()> {
    if flags(directory)? & INLINE_DATA != 0 {
        return inline(directory, visit);
    }
    let block_bytes = file_system.superblock.block_bytes;
    let blocks = directory.size_bytes.div_ceil(block_bytes);
    let mut runs = Vec::new();
    file_system.mapping(directory, budget, &mut |mapped| {
        if let Mapped::Data { at, run } = mapped
            && at < blocks
        {
            if runs.len() >= RUNS_MAX {
                return Err(FilesError::Damaged("a directory's size"));
            }
            runs.push(run.start..run.end.min(run.start.saturating_add(blocks - at)));
        }
        Ok(())
    })?;
    for block in runs.into_iter().flatten() {
        budget.take()?;
        if entries(&file_system.block(block)?, visit)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// The entries in one block.
fn entries(block: &[u8], visit: Visit<'_>) -> Result<Flow> {
    let mut at = 0;
    // The smallest entry has 8 bytes.
    while at + 8 <= block.len() {
        let bytes = Bytes(block);
        let length = entry_bytes(bytes.le16(at + 4)?, block.len());
        if length < 8 || at + length > block.len() {
            return Err(FilesError::Damaged("a directory entry's length"));
        }
        let (inode, name_bytes) = (bytes.le32(at)?, usize::from(bytes.byte(at + 6)?));
        if inode != 0 && name_bytes > 0 {
            if 8 + name_bytes > length {
                return Err(FilesError::Damaged("a directory entry's name"));
            }
            if visit(inode.into(), bytes.slice(at + 8, name_bytes)?).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        at += length;
    }
    Ok(ControlFlow::Continue(()))
}

/// An entry's length: in blocks of 64 KiB and more it does not fit, and its two lowest bits count as the highest.
fn entry_bytes(stored: u16, block_bytes: usize) -> usize {
    if block_bytes < 1 << 16 {
        return stored.into();
    }
    match stored {
        0 | u16::MAX => block_bytes,
        stored => usize::from(stored & !3) | usize::from(stored & 3) << 16,
    }
}

/// A small directory within its inode: the number of the one above, then entries; more of them in an attribute.
fn inline(directory: &Inode, visit: Visit<'_>) -> Result<()> {
    let bytes = Bytes(&directory.raw);
    if visit(bytes.le32(40)?.into(), b"..").is_break() {
        return Ok(());
    }
    if entries(bytes.slice(44, 56)?, visit)?.is_continue()
        && let Some(rest) = inline_attribute(bytes)?
    {
        let _ = entries(rest, visit)?;
    }
    Ok(())
}

const ATTRIBUTES_MAGIC: u32 = 0xea02_0000;
/// The namespace "system".
const SYSTEM: u8 = 7;

/// The attribute "system.data" in the inode's own space.
fn inline_attribute(inode: Bytes<'_>) -> Result<Option<&[u8]>> {
    let start = 128 + usize::from(inode.le16(128).unwrap_or(0));
    if inode.le32(start).unwrap_or(0) != ATTRIBUTES_MAGIC {
        return Ok(None);
    }
    let attributes = inode.from(start + 4)?;
    let mut at = 0;
    // The list ends with four zero bytes.
    while attributes.le32(at)? != 0 {
        let name_bytes = usize::from(attributes.byte(at)?);
        if attributes.byte(at + 1)? == SYSTEM && attributes.slice(at + 16, name_bytes)? == b"data" {
            let (value, length) = (attributes.le16(at + 2)?, attributes.le32(at + 8)?);
            return attributes.slice(value.into(), length as usize).map(Some);
        }
        at += (16 + name_bytes).next_multiple_of(4);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_entries() {
        assert_eq!(entry_bytes(12, 4096), 12);
        assert_eq!(entry_bytes(u16::MAX, 1 << 16), 1 << 16);
        assert_eq!(entry_bytes(0, 1 << 16), 1 << 16);
        assert_eq!(entry_bytes(16 | 1, 1 << 17), 16 + (1 << 16));
    }

    #[test]
    fn an_entry_that_does_not_move_on_is_damage() {
        assert!(entries(&[0; 64], &mut |_, _| ControlFlow::Continue(())).is_err());
        assert!(entries(&[255; 64], &mut |_, _| ControlFlow::Continue(())).is_err());
    }
}
