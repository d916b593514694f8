//! Making an empty capacity directory, without touching anything that is somebody else's.
//!
//! A crash in the middle leaves folders without a HEAD; creating again takes them over.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::directory_store::{LEASES, LOCK};
use super::error::{CapacityError, Result};
use super::names::ObjectKind;
use super::reserve::RESERVE;

/// Folders and files that an earlier attempt may have left, and the one a fresh file system has.
const OURS: [&str; 7] = ["segments", "layers", "warm", LEASES, LOCK, RESERVE, "lost+found"];
/// What is made.
const FOLDERS: [&str; 4] =
    [ObjectKind::Segment.folder(), ObjectKind::Layer.folder(), ObjectKind::Warm.folder(), LEASES];

/// Checks that `directory` is new or empty and makes the folders of a capacity tier in it.
///
/// # Errors
/// A directory that holds something, a missing parent, a file system that is full or read-only.
pub fn prepare_directory(directory: &Path) -> Result<()> {
    let failed = |operation, path: &Path| {
        let place = path.display().to_string();
        move |source| CapacityError::Io { operation, place, source }
    };
    match fs::create_dir(directory) {
        Ok(()) => {
            if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                sync(parent).map_err(failed("synchronise", parent))?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_foreign(directory)?,
        Err(error) => return Err(failed("create", directory)(error)),
    }
    for folder in FOLDERS {
        let path = directory.join(folder);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("create", &path)(error));
            }
            _ => {}
        }
    }
    sync(directory).map_err(failed("synchronise", directory))
}

/// Takes back what was made in a directory for a volume that nobody has written to; `whole` with the
/// directory itself. What else is in it stays.
///
/// # Errors
/// Something of it cannot be removed, or holds something.
pub fn remove_created(directory: &Path, whole: bool) -> io::Result<()> {
    // HEAD first: without it there is no volume.
    match fs::remove_file(directory.join("HEAD")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for folder in FOLDERS {
        fs::remove_dir(directory.join(folder))?;
    }
    if whole { fs::remove_dir(directory) } else { Ok(()) }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn refuse_foreign(directory: &Path) -> Result<()> {
    let failed = |path: &Path, source| {
        let place = path.display().to_string();
        CapacityError::Io { operation: "list", place, source }
    };
    let refuse = |found: String| {
        let place = directory.display().to_string();
        Err(CapacityError::NotEmpty { place, found })
    };
    for entry in fs::read_dir(directory).map_err(|error| failed(directory, error))? {
        let entry = entry.map_err(|error| failed(directory, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "HEAD" {
            return refuse("a volume (HEAD)".to_owned());
        }
        if !OURS.contains(&name.as_str()) && !name.starts_with("HEAD.tmp-") {
            return refuse(name);
        }
        let path = entry.path();
        if name != "lost+found" && path.is_dir() {
            let mut inside = fs::read_dir(&path).map_err(|error| failed(&path, error))?;
            if inside.next().is_some() {
                return refuse(format!("{name} that is not empty"));
            }
        }
    }
    Ok(())
}
