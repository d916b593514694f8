//! Room kept in a capacity directory, so that a full disk can be emptied again.
//!
//! Giving space back begins with writing: a HEAD without the snapshot, then a table for the merged layers.
//! The reserve
//! is a file of allocated blocks that is given up when HEAD does not find room, and made anew once there is
//! plenty.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};

use super::plain_file::open_now;

/// Bytes that are kept: the largest HEAD, and as much again for a table.
pub const RESERVE_BYTES: u64 = 4 << 20;
/// The reserve is made only where so many times its size are free.
const PLENTY: u64 = 4;

pub(super) const RESERVE: &str = "RESERVE";

/// Makes the reserve where it is missing and there is plenty of room.
///
/// # Errors
/// A file system that cannot be examined, or that has no room after all.
pub fn keep(directory: &Path) -> io::Result<()> {
    let path = directory.join(RESERVE);
    if fs::symlink_metadata(&path).is_ok_and(|there| there.is_file() && there.len() == RESERVE_BYTES) {
        return Ok(());
    }
    let stat = nix::sys::statvfs::statvfs(directory)?;
    if stat.blocks_available().saturating_mul(stat.fragment_size()) < PLENTY * RESERVE_BYTES {
        return Ok(());
    }
    let file = open_now(&path, true)?;
    let allocated = allocate(&file);
    if allocated.is_err() {
        // A part of it is of no use.
        let _ = fs::remove_file(&path);
    }
    allocated
}

fn allocate(file: &File) -> io::Result<()> {
    fallocate(file, FallocateFlags::empty(), 0, RESERVE_BYTES as i64)?;
    Ok(())
}

/// Gives the reserve up; whether there was one.
pub fn give_up(directory: &Path) -> bool {
    let given = fs::remove_file(directory.join(RESERVE)).is_ok();
    if given {
        tracing::warn!(directory = %directory.display(), "the disk is full: the room kept for HEAD is used now");
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_made_once_and_given_up_once() {
        let dir = tempfile::tempdir().unwrap();
        keep(dir.path()).unwrap();
        keep(dir.path()).unwrap();
        assert_eq!(fs::metadata(dir.path().join(RESERVE)).unwrap().len(), RESERVE_BYTES);
        assert!(give_up(dir.path()));
        assert!(!give_up(dir.path()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
