//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Syncs `beside` and renames it to `path`, durably. After a crash either the old or the new file is there.
///
/// # Errors
/// The file system refuses.
pub fn put_in_place(beside: &Path, path: &Path) -> io::Result<()> {
    File::open(beside)?.sync_all()?;
    fs::rename(beside, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Writes `bytes` as the whole of the file at `path`, durably.
///
/// # Errors
/// The file system refuses; the file before is then still there.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes)?;
    put_in_place(&beside, path)
}
