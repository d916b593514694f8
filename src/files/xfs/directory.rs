//! Directories: within the inode, in one block, or in many with an index apart, which is not needed here.

use std::ops::ControlFlow;

use super::Xfs;
use super::mapping::{LOCAL, forks};
use crate::files::bytes::Bytes;
use crate::files::error::{FilesError, Result};
use crate::files::file_system::{Budget, FileSystem, Flow, Inode, Mapped};

type Visit<'v> = &'v mut dyn FnMut(u64, &[u8]) -> Flow;

/// Where in a directory's own addresses the index begins, in bytes.
const INDEX_START: u64 = 32 << 30;
/// The header of a block of entries, in bytes.
const HEADER_BYTES: usize = 64;
/// In place of an inode's number: nothing is here.
const UNUSED: u16 = 0xffff;

/// Visits the entries of a directory.
pub fn visit(xfs: &Xfs<'_>, directory: &Inode, budget: &mut Budget, visit: Visit<'_>) -> Result<()> {
    let bytes = Bytes(&directory.raw);
    if bytes.byte(5)? == LOCAL {
        return short(xfs, forks(bytes)?.0, visit);
    }
    let block_bytes = xfs.superblock.block_bytes;
    let mut content = Content { whole: Vec::new(), bytes: xfs.superblock.directory_block_bytes };
    let mut blocks = Vec::new();
    xfs.mapping(directory, budget, &mut |mapped| {
        if let Mapped::Data { at, run } = mapped
            && at < INDEX_START / block_bytes
        {
            if blocks.len() >= RUNS_MAX {
                return Err(FilesError::Damaged("a directory's size"));
            }
            blocks.push(run);
        }
        Ok(())
    })?;
    for block in blocks.into_iter().flatten() {
        budget.take()?;
        content.whole.extend_from_slice(&xfs.block(block)?);
        // A directory's block may have several of the file system's.
        if content.whole.len() >= content.bytes {
            let flow = entries(xfs, &content.whole, visit)?;
            content.whole.clear();
            if flow.is_break() {
                break;
            }
        }
    }
    Ok(())
}

/// The most runs of blocks that a directory may lie in: a bound on memory.
const RUNS_MAX: usize = 1 << 20;

/// A directory's block as it is put together.
struct Content {
    whole: Vec<u8>,
    bytes: usize,
}

/// A directory within its inode.
fn short(xfs: &Xfs<'_>, fork: Bytes<'_>, visit: Visit<'_>) -> Result<()> {
    let (count, wide) = (fork.byte(0)?, fork.byte(1)?);
    let number_bytes = if wide > 0 { 8 } else { 4 };
    let number = |at| if wide > 0 { fork.be64(at) } else { fork.be32(at).map(u64::from) };
    if visit(number(2)?, b"..").is_break() {
        return Ok(());
    }
    let mut at = 2 + number_bytes;
    for _ in 0..count {
        let name_bytes = usize::from(fork.byte(at)?);
        let name = fork.slice(at + 3, name_bytes)?;
        at += 3 + name_bytes + usize::from(xfs.superblock.has_file_types);
        if visit(number(at)?, name).is_break() {
            return Ok(());
        }
        at += number_bytes;
    }
    Ok(())
}

/// The entries in one of a directory's blocks.
fn entries(xfs: &Xfs<'_>, block: &[u8], visit: Visit<'_>) -> Result<Flow> {
    let bytes = Bytes(block);
    let end = match bytes.slice(0, 4)? {
        // The only one: its end holds the index, 8 bytes an entry and 8 of its own.
        b"XDB3" => {
            let index_bytes = 8 * bytes.be32(block.len() - 8)? as usize + 8;
            block.len().checked_sub(index_bytes).ok_or(FilesError::Damaged("a directory's index"))?
        }
        b"XDD3" => block.len(),
        _ => return Err(FilesError::Damaged("a directory's block")),
    };
    let mut at = HEADER_BYTES;
    while at < end {
        if bytes.be16(at)? == UNUSED {
            let length = usize::from(bytes.be16(at + 2)?);
            if length == 0 {
                return Err(FilesError::Damaged("unused space in a directory"));
            }
            at += length;
            continue;
        }
        let name_bytes = usize::from(bytes.byte(at + 8)?);
        if visit(bytes.be64(at)?, bytes.slice(at + 9, name_bytes)?).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        // A number, a name's length and the name, its kind, and its own place.
        at += (9 + name_bytes + usize::from(xfs.superblock.has_file_types) + 2).next_multiple_of(8);
    }
    Ok(ControlFlow::Continue(()))
}
