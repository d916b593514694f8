//! Free space: the block bitmaps of the groups that are asked for.

use std::ops::Range;

use super::Ext4;
use crate::files::error::Result;
use crate::files::file_system::{Free, GROWTH_BYTES};
use crate::files::ranges::Ranges;

/// Whether a bit is set. One past the end counts as set: nothing is free or to be looked at there.
pub fn is_set(bitmap: &[u8], index: usize) -> bool {
    bitmap.get(index / 8).is_none_or(|byte| byte >> (index % 8) & 1 == 1)
}

/// The bitmap of the group last looked at: neighbours are asked about one after the other.
struct Bitmaps<'a, 'b> {
    file_system: &'a Ext4<'b>,
    /// The group and its bitmap; `None` where the group was never written to.
    last: Option<(u32, Option<Vec<u8>>)>,
    /// Free blocks that were found last, so that none is looked at again and again on the way back.
    free: Range<u64>,
}

impl Bitmaps<'_, '_> {
    fn is_free(&mut self, block: u64) -> Result<bool> {
        let superblock = &self.file_system.superblock;
        let Some(within) = block.checked_sub(superblock.first_data_block) else { return Ok(false) };
        let group = (within / superblock.blocks_per_group) as u32;
        if self.last.as_ref().is_none_or(|(last, _)| *last != group) {
            let descriptor = self.file_system.group(group)?;
            let bitmap = if descriptor.is_blank {
                None
            } else {
                Some(self.file_system.block(descriptor.block_bitmap)?)
            };
            self.last = Some((group, bitmap));
        }
        let index = within % superblock.blocks_per_group / superblock.cluster_blocks;
        let bitmap = self.last.as_ref().and_then(|(_, bitmap)| bitmap.as_ref());
        Ok(bitmap.is_none_or(|bitmap| !is_set(bitmap, index as usize)))
    }

    /// Where the free space begins that a free block is part of, or how far it was looked for.
    fn begins(&mut self, block: u64) -> Result<u64> {
        let superblock = &self.file_system.superblock;
        let first = block.saturating_sub(GROWTH_BYTES / superblock.block_bytes);
        let mut begins = block;
        while begins > first {
            if begins == self.free.end {
                begins = self.free.start.max(first);
                break;
            }
            if !self.is_free(begins - 1)? {
                break;
            }
            begins -= 1;
        }
        Ok(begins)
    }

    /// The free parts of a run within one group.
    fn free_in(&mut self, run: Range<u64>, found: &mut dyn FnMut(Result<Free>) -> Result<()>) -> Result<()> {
        let mut block = run.start;
        while block < run.end {
            if !self.is_free(block)? {
                block += 1;
                continue;
            }
            let start = block;
            while block < run.end && self.is_free(block)? {
                block += 1;
            }
            let begins = if start == run.start { self.begins(start)? } else { start };
            self.free = begins..block;
            found(Ok(Free { run: start..block, begins }))?;
        }
        Ok(())
    }
}

/// Tells of the free space that is asked for.
pub fn free(
    file_system: &Ext4<'_>,
    asked: &Ranges,
    found: &mut dyn FnMut(Result<Free>) -> Result<()>,
) -> Result<()> {
    let superblock = &file_system.superblock;
    let mut bitmaps = Bitmaps { file_system, last: None, free: 0..0 };
    for run in asked.iter() {
        let mut from = run.start;
        // Group by group, so that a bitmap that cannot be read costs that group's answers only.
        while from < run.end {
            let group = from.saturating_sub(superblock.first_data_block) / superblock.blocks_per_group;
            let end = superblock.first_data_block + (group + 1) * superblock.blocks_per_group;
            let part = from..run.end.min(end);
            if let Err(error) = bitmaps.free_in(part.clone(), found) {
                found(Err(error))?;
            }
            from = part.end;
        }
    }
    Ok(())
}
