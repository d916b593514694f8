//! The block device or file under a fast tier: opened for direct I/O, and for one user alone.
//!
//! The lock lies on the very open file that does the I/O. So while a ring of a predecessor that was
//! killed still has I/O in flight, the kernel keeps that open file, and with it the lock: whoever has the
//! lock can be sure that no old write arrives any more.
//!
//! It does not know what is on the device.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use tracing::warn;

use super::error::FastTierError;
use crate::aligned::AlignedBuffer;

/// How long a recovery waits for its predecessor's I/O in flight.
pub const LOCK_WAIT: Duration = Duration::from_secs(30);
/// How often it looks meanwhile.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// What the journal and the checkpoints need of a disk. Buffers are aligned to 4096 bytes, offsets and
/// lengths are multiples of it.
pub trait FastDevice: Send + Sync {
    /// The device's size in bytes.
    fn size_bytes(&self) -> u64;
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// I/O, and the device's end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes `bytes` at `offset`. Not durable before [`FastDevice::sync`].
    ///
    /// # Errors
    /// I/O; then any part of `bytes` may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes all writes that have completed durable, those of others to the same device included.
    ///
    /// # Errors
    /// I/O; then writes since the last good call may be lost for good, and calling again does not tell.
    fn sync(&self) -> io::Result<()>;
    /// Waited for before each I/O of the journal and the checkpoints while the volume is in use. A real device takes its
    /// time in the call itself; a simulated one takes it here, and everything else gets its turn meanwhile.
    fn turn(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// A block device or regular file.
#[derive(Debug)]
pub struct TierFile {
    file: File,
    path: PathBuf,
    size_bytes: u64,
}

/// Whether to wait for a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    /// Fail at once if somebody has it.
    Now,
    /// Wait up to [`LOCK_WAIT`]: a killed predecessor's last I/O may still be in flight.
    Wait,
}

impl TierFile {
    /// Opens a tier that is there, to read and write.
    ///
    /// # Errors
    /// It is missing, in use, of the wrong kind, or cannot be opened.
    pub fn open(path: &Path, lock: Lock) -> Result<Self, FastTierError> {
        Self::open_for(path, lock, true)
    }

    /// Opens a tier that is there, to read; nobody may be using it.
    ///
    /// # Errors
    /// It is missing, in use, of the wrong kind, or cannot be opened.
    pub fn open_read_only(path: &Path) -> Result<Self, FastTierError> {
        Self::open_for(path, Lock::Now, false)
    }

    /// Opens what is at `path`, or makes a file of `size_bytes` bytes if nothing is there.
    ///
    /// # Errors
    /// There is nothing and no size is given, no room, or what [`Self::open`] says.
    pub fn open_or_make(path: &Path, size_bytes: Option<u64>) -> Result<Self, FastTierError> {
        let Some(size_bytes) = size_bytes.filter(|_| !path.exists()) else {
            return Self::open(path, Lock::Now);
        };
        make_file(path, size_bytes)?;
        Self::open(path, Lock::Now).inspect_err(|_| drop(std::fs::remove_file(path)))
    }

    fn open_for(path: &Path, lock: Lock, write: bool) -> Result<Self, FastTierError> {
        let metadata = std::fs::metadata(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => FastTierError::Missing(path.to_owned()),
            _ => error("look at", path)(source),
        })?;
        let kind = metadata.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(FastTierError::WrongKind(path.to_owned()));
        }
        // On a block device O_EXCL also shuts out mounts and what else claims it.
        let exclusive = if kind.is_block_device() { OFlag::O_EXCL } else { OFlag::empty() };
        let deadline = Instant::now() + if lock == Lock::Wait { LOCK_WAIT } else { Duration::ZERO };
        let file = loop {
            match open_locked(path, exclusive, write)? {
                Some(file) => break file,
                None if Instant::now() >= deadline => return Err(FastTierError::InUse(path.to_owned())),
                None => std::thread::sleep(LOCK_POLL),
            }
        };
        let size_bytes = size_bytes(&file, path)?;
        Ok(Self { file, path: path.to_owned(), size_bytes })
    }

    /// Sees whether the tier takes I/O of a volume's logical blocks.
    ///
    /// # Errors
    /// It does not, or cannot be read at all.
    pub fn takes(&self, logical_block_bytes: u32) -> Result<(), FastTierError> {
        let mut buffer = AlignedBuffer::zeroed(4096);
        let Some((block, _)) = buffer.split_at_mut_checked(logical_block_bytes as usize) else {
            return Ok(());
        };
        match self.file.read_exact_at(block, u64::from(logical_block_bytes)) {
            Err(source) if source.raw_os_error() == Some(Errno::EINVAL as i32) => {
                Err(FastTierError::Sector { path: self.path.clone(), logical_block_bytes })
            }
            // A file of less than two blocks is no tier, which is seen when its superblocks are looked for.
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            other => other.map_err(error("read", &self.path)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another handle of the same open file, lock included.
    ///
    /// # Errors
    /// The process has no file handle left.
    pub fn try_clone(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl AsFd for TierFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl FastDevice for TierFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The size of an open tier's file or device, in bytes.
///
/// # Errors
/// It cannot be measured.
pub fn size_bytes(file: &File, path: &Path) -> Result<u64, FastTierError> {
    // Seeking to the end tells a block device's size as well as a file's.
    io::Seek::seek(&mut &*file, io::SeekFrom::End(0)).map_err(error("measure", path))
}

/// Makes an open tier's file at least `to_bytes` bytes large, with all its room taken; a block device has to be that large.
///
/// # Errors
/// A device that is smaller; no room, and then the file is as it was.
pub fn extend(file: &File, path: &Path, to_bytes: u64) -> Result<(), FastTierError> {
    let device_bytes = size_bytes(file, path)?;
    if to_bytes <= device_bytes {
        return Ok(());
    }
    let kind = file.metadata().map_err(error("look at", path))?.file_type();
    if !kind.is_file() {
        return Err(FastTierError::DeviceSmaller {
            path: path.to_owned(),
            device_bytes,
            size_bytes: to_bytes,
        });
    }
    take_room(file, path, device_bytes, to_bytes)
        .and_then(|()| file.sync_all())
        .map_err(error("take room for", path))
        // It may be longer by then; what is behind the tier's end is nothing that is in use.
        .inspect_err(|_| drop(file.set_len(device_bytes)))
}

/// Makes a file that was extended for nothing as long as it was; a block device stays as it is.
///
/// # Errors
/// I/O.
pub fn cut_back(file: &File, path: &Path, to_bytes: u64) -> Result<(), FastTierError> {
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => file.set_len(to_bytes).map_err(error("cut back", path)),
        Ok(_) => Ok(()),
        Err(source) => Err(error("look at", path)(source)),
    }
}

/// Takes all of a file's room from `from_bytes` on, so that 'no space' comes now and not in the middle of a write.
fn take_room(file: &File, path: &Path, from_bytes: u64, to_bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), from_bytes as i64, (to_bytes - from_bytes) as i64) {
        Err(Errno::EOPNOTSUPP) => {
            warn!(path = %path.display(), "the file system reserves no room: the fast tier may meet 'no space' later");
            file.set_len(to_bytes)
        }
        other => other.map_err(io::Error::from),
    }
}

/// Opens and locks; `None` while somebody else has it.
fn open_locked(path: &Path, exclusive: OFlag, write: bool) -> Result<Option<File>, FastTierError> {
    let open = |flags: OFlag| {
        OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags((flags | exclusive | OFlag::O_CLOEXEC).bits())
            .open(path)
    };
    let opened = match open(OFlag::O_DIRECT) {
        Err(source) if source.raw_os_error() == Some(Errno::EINVAL as i32) => {
            warn!(
                path = %path.display(),
                "the file system takes no direct I/O: the fast tier goes through the page cache, and uses memory twice"
            );
            open(OFlag::empty())
        }
        other => other,
    };
    let file = match opened {
        Err(source) if source.raw_os_error() == Some(Errno::EBUSY as i32) => return Ok(None),
        other => other.map_err(error("open", path))?,
    };
    match if write { file.try_lock() } else { file.try_lock_shared() } {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(error("lock", path)(source)),
    }
}

/// Makes a file with all its room taken.
fn make_file(path: &Path, size_bytes: u64) -> Result<(), FastTierError> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(error("create", path))?;
    let taken = take_room(&file, path, 0, size_bytes);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    taken
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(error("take room for", path))
        .inspect_err(|_| drop(std::fs::remove_file(path)))
}

fn error<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> FastTierError + use<'a> {
    move |source| FastTierError::Io { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_user_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tier");
        assert!(matches!(TierFile::open(&path, Lock::Now), Err(FastTierError::Missing(_))));
        let tier = TierFile::open_or_make(&path, Some(1 << 20)).expect("made");
        assert_eq!(tier.size_bytes(), 1 << 20);
        tier.takes(4096).expect("takes its own blocks");
        assert!(matches!(TierFile::open(&path, Lock::Now), Err(FastTierError::InUse(_))));
        assert!(matches!(TierFile::open_read_only(&path), Err(FastTierError::InUse(_))));
        let clone = tier.try_clone().expect("a handle");
        drop(tier);
        assert!(matches!(TierFile::open(&path, Lock::Now), Err(FastTierError::InUse(_))));
        drop(clone);
        TierFile::open(&path, Lock::Now).expect("free again");
    }

    #[test]
    fn a_recovery_waits_for_the_lock() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tier");
        let first = TierFile::open_or_make(&path, Some(1 << 20)).expect("made");
        let waiter = std::thread::spawn(move || TierFile::open(&path, Lock::Wait).map(drop));
        std::thread::sleep(Duration::from_millis(120));
        assert!(!waiter.is_finished());
        drop(first);
        waiter.join().expect("no panic").expect("opened");
    }

    #[test]
    fn a_folder_is_no_tier() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(TierFile::open(folder.path(), Lock::Now), Err(FastTierError::WrongKind(_))));
    }

    #[test]
    fn a_file_is_extended_or_left_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tier");
        let tier = TierFile::open_or_make(&path, Some(1 << 20)).expect("made");
        let file = tier.try_clone().expect("a handle");
        extend(&file, &path, 2 << 20).expect("larger");
        extend(&file, &path, 1 << 20).expect("it is larger than that");
        assert_eq!(size_bytes(&file, &path).expect("measured"), 2 << 20);
        assert!(extend(&file, &path, 1 << 60).is_err());
        assert_eq!(size_bytes(&file, &path).expect("measured"), 2 << 20);
    }

    #[test]
    fn what_does_not_fit_leaves_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tier");
        assert!(TierFile::open_or_make(&path, Some(1 << 60)).is_err());
        assert!(!path.exists());
    }
}
