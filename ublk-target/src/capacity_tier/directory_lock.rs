//! Locks in a capacity directory: one writer, and leases on epochs that are being read.
//!
//! All are flocks, so that the kernel drops them when their process ends, however it ends. The content
//! of LOCK only tells who holds it. A lease file nobody holds is left behind by a crash and removed by
//! whoever asks for the leased epochs.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use forerun::geometry::Epoch;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::plain_file::{OTHER_KIND, open_now};

/// A lock that is held as long as the value lives.
pub struct FileLock {
    _file: Flock<File>,
}

/// The most bytes of LOCK that are shown.
const MAX_HOLDER_BYTES: u64 = 200;

/// Takes the writer's lock, or tells who holds it.
pub fn take_writer_lock(path: &Path) -> io::Result<Result<FileLock, String>> {
    let mut file = open_now(path, true)?;
    let mut held = match try_lock(file.try_clone()?, FlockArg::LockExclusiveNonblock)? {
        Some(held) => held,
        None => {
            let mut holder = String::new();
            file.take(MAX_HOLDER_BYTES).read_to_string(&mut holder)?;
            let holder = holder.trim();
            let unknown = "a process that did not leave its name";
            return Ok(Err(if holder.is_empty() { unknown.to_owned() } else { holder.to_owned() }));
        }
    };
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // The name is for people only: on a full disk the lock holds without it.
    let name = format!("process {} on host {}\n", std::process::id(), host.trim());
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| held.write_all(name.as_bytes()));
    Ok(Ok(FileLock { _file: held }))
}

fn try_lock(file: File, how: FlockArg) -> io::Result<Option<Flock<File>>> {
    match Flock::lock(file, how) {
        Ok(held) => Ok(Some(held)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// A lease on an epoch: while it lives nothing that the epoch needs is deleted.
pub struct Lease {
    path: PathBuf,
    file: Option<Flock<File>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Others may share the file; whoever can lock it alone is the last one and removes it.
        let Some(held) = self.file.take() else { return };
        if held.relock(FlockArg::LockExclusiveNonblock).is_ok() {
            // A file that stays is removed by whoever looks for leases.
            let _ = remove_if_same(&self.path, &held);
        }
    }
}

/// Removes a lease file that is locked alone, unless the name is another file's by now: between its opening
/// and its locking somebody else may have removed it, and a third have taken a lease on the next one. While it is locked
/// nobody else removes it.
fn remove_if_same(path: &Path, held: &File) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(there) if there.ino() == held.metadata()?.ino() => fs::remove_file(path),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes a shared lock on the epoch's lease file.
pub fn take_lease(folder: &Path, epoch: Epoch) -> io::Result<Lease> {
    let path = folder.join(format!("{:08x}", epoch.0));
    loop {
        let file = open_now(&path, true)?;
        let inode = file.metadata()?.ino();
        let held = Flock::lock(file, FlockArg::LockShared).map_err(|(_, errno)| io::Error::from(errno))?;
        // Between open and lock the file may have been removed as one that nobody holds.
        match fs::metadata(&path) {
            Ok(now) if now.ino() == inode => return Ok(Lease { path, file: Some(held) }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// The epochs that somebody holds a lease on; removes lease files that nobody holds.
pub fn leased_epochs(folder: &Path) -> io::Result<Vec<Epoch>> {
    let mut epochs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(epoch) = name.to_str().and_then(|text| u32::from_str_radix(text, 16).ok()) else { continue };
        if is_held(&entry.path())? {
            epochs.push(Epoch(epoch));
        }
    }
    Ok(epochs)
}

/// Whether somebody holds a lease; one that nobody holds is removed.
fn is_held(path: &Path) -> io::Result<bool> {
    loop {
        let file = match open_now(path, false) {
            Ok(file) => file,
            // What is no lease file holds nothing.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | OTHER_KIND) => return Ok(false),
            Err(error) => return Err(error),
        };
        match try_lock(file, FlockArg::LockExclusiveNonblock)? {
            // Removed while locked, so that nobody can come to hold what is being removed; then looked at again,
            // since the name may be the file of somebody who has just come.
            Some(unused) => remove_if_same(path, &unused)?,
            None => return Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let held = take_writer_lock(&path).unwrap().ok().unwrap();
        let holder = take_writer_lock(&path).unwrap().err().unwrap();
        assert!(holder.contains(&format!("process {}", std::process::id())), "{holder}");
        drop(held);
        assert!(take_writer_lock(&path).unwrap().is_ok());
    }

    #[test]
    fn leases_are_shared_and_end_with_their_holders() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (take_lease(dir.path(), Epoch(7)).unwrap(), take_lease(dir.path(), Epoch(7)).unwrap());
        let other = take_lease(dir.path(), Epoch(0x20)).unwrap();
        let mut epochs = leased_epochs(dir.path()).unwrap();
        epochs.sort();
        assert_eq!(epochs, [Epoch(7), Epoch(0x20)]);
        drop((a, other));
        assert_eq!(leased_epochs(dir.path()).unwrap(), [Epoch(7)]);
        drop(b);
        assert_eq!(leased_epochs(dir.path()).unwrap(), []);
        fs::write(dir.path().join("00000009"), "").unwrap();
        assert_eq!(leased_epochs(dir.path()).unwrap(), [], "left behind by a crash");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_lease_that_ends_late_does_not_take_the_next_one_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("00000007");
        let old = take_lease(dir.path(), Epoch(7)).unwrap();
        let opened = File::open(&path).unwrap();
        // Somebody found it unheld and removed it, between its holder's opening and locking.
        fs::remove_file(&path).unwrap();
        let next = take_lease(dir.path(), Epoch(7)).unwrap();
        drop(old);
        assert_eq!(leased_epochs(dir.path()).unwrap(), [Epoch(7)]);
        // The same in the search for leases.
        remove_if_same(&path, &opened).unwrap();
        assert_eq!(leased_epochs(dir.path()).unwrap(), [Epoch(7)]);
        drop(next);
        assert!(!path.exists());
    }
}
