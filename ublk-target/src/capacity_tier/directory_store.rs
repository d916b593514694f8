//! The objects of a volume as files of one directory, by io_uring.
//!
//! ```text
//! DIR/HEAD                    the one mutable file, replaced by rename
//! DIR/HEAD.tmp-<gen>-<seq>    the next HEAD while it is written
//! DIR/LOCK                    flock held by the writer; its content says who that is
//! DIR/RESERVE                 room for HEAD when the disk is full (4 MiB)
//! DIR/segments/<16 hex>       immutable
//! DIR/layers/<16 hex>         immutable
//! DIR/leases/<8 hex epoch>    flock held shared by whoever reads a snapshot
//! DIR/clones/<uuid>           what a clone needs of this volume, written by whoever made it
//! ```
//! An object is written under its final name, then its file and its folder are synchronised: until HEAD
//! names it nobody looks there, so a crash leaves a file that the next writer removes, whole or not. HEAD is
//! written and
//! synchronised under another name, compared, renamed, and the directory is synchronised: a crash leaves the
//! old or
//! the new one. Between compare and rename only the lock keeps others away, which is why a
//! writer holds it for all its life.
//!
//! Rare operations without an io_uring opcode here (list, flock, rename, statvfs) are plain calls.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use forerun::geometry::{Epoch, Generation};
use nix::errno::Errno;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::fs::{File, OpenOptions};

use super::directory_lock::{FileLock, Lease, leased_epochs, take_lease, take_writer_lock};
use super::directory_pins;
use super::names::{ObjectKind, ObjectName, VolumeUuid};
use super::open_files::OpenFiles;
use super::plain_file;
use super::reserve;
use super::store::{HeadNumber, ReplaceError, Store, StoreSpace, Upload};

const HEAD: &str = "HEAD";
const HEAD_TMP: &str = "HEAD.tmp-";
pub(super) const LOCK: &str = "LOCK";
pub(super) const LEASES: &str = "leases";

/// A capacity tier in a directory.
pub struct DirectoryStore {
    path: PathBuf,
    open: OpenFiles,
    lock: RefCell<Option<FileLock>>,
}

impl DirectoryStore {
    /// Uses the directory at `path`; nothing is touched yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: OpenFiles::default(), lock: RefCell::new(None) }
    }

    fn folder(&self, kind: ObjectKind) -> PathBuf {
        self.path.join(kind.folder())
    }

    fn file(&self, name: ObjectName) -> PathBuf {
        self.path.join(name.to_string())
    }

    async fn opened(&self, name: ObjectName) -> io::Result<Rc<File>> {
        if let Some(file) = self.open.get(name) {
            return Ok(file);
        }
        let file = Rc::new(plain_file::open(&self.file(name)).await?);
        self.open.put(name, Rc::clone(&file));
        Ok(file)
    }

    async fn write_head(&self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        // What lies there is a left-over, or somebody's trap: nothing is written through a name that is there.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).open(path).await?;
        file.write_all_at(bytes, 0).await.0?;
        file.sync_all().await?;
        file.close().await
    }
}

fn is_full(result: &io::Result<()>) -> bool {
    let errno = result.as_ref().err().and_then(io::Error::raw_os_error).map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOSPC | Errno::EDQUOT))
}

async fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = File::open(path).await?;
    folder.sync_all().await?;
    folder.close().await
}

/// A file of a capacity tier being written.
pub struct DirectoryUpload {
    file: File,
    folder: PathBuf,
    written: u64,
}

impl Upload for DirectoryUpload {
    async fn append(&mut self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let len = bytes.len() as u64;
        let (result, bytes) = self.file.write_all_at(bytes, self.written).await;
        self.written += len;
        (result, bytes)
    }

    async fn finish(self) -> io::Result<()> {
        self.file.sync_all().await?;
        self.file.close().await?;
        sync_folder(&self.folder).await
    }
}

impl Store for DirectoryStore {
    type Upload = DirectoryUpload;
    type Lease = Lease;

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    async fn lock_writer(&self) -> io::Result<Result<Generation, String>> {
        match take_writer_lock(&self.path.join(LOCK))? {
            Ok(lock) => {
                // What an earlier writer left half-done; only the holder of the lock may remove it.
                for entry in std::fs::read_dir(&self.path)?.flatten() {
                    if entry.file_name().to_string_lossy().starts_with(HEAD_TMP) {
                        std::fs::remove_file(entry.path())?;
                    }
                }
                *self.lock.borrow_mut() = Some(lock);
                Ok(Ok(Generation(0)))
            }
            Err(holder) => Ok(Err(holder)),
        }
    }

    async fn begin_upload(&self, name: ObjectName) -> io::Result<DirectoryUpload> {
        if name.kind == ObjectKind::Warm {
            // A tier from before there were warm lists has no folder for them.
            match std::fs::create_dir(self.folder(name.kind)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Err(_) => {}
                Ok(()) => sync_folder(&self.path).await?,
            }
        }
        let file = OpenOptions::new().write(true).create_new(true).open(self.file(name)).await?;
        Ok(DirectoryUpload { file, folder: self.folder(name.kind), written: 0 })
    }

    async fn read_range(
        &self,
        name: ObjectName,
        offset: u64,
        len: usize,
        mut buffer: Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        let file = self.opened(name).await?;
        buffer.clear();
        if len == 0 {
            return Ok(buffer);
        }
        buffer.reserve(len);
        let (result, slice) = file.read_exact_at(buffer.slice(..len), offset).await;
        result?;
        Ok(slice.into_inner())
    }

    async fn list(&self, kind: ObjectKind) -> io::Result<Vec<(ObjectName, u64)>> {
        let folder = self.folder(kind);
        // A look at every file, which may take long on a cold disk: the volume's own thread has other things to do.
        let listed = tokio::task::spawn_blocking(move || list(&folder, kind)).await;
        listed.map_err(io::Error::other)?
    }

    async fn delete(&self, name: ObjectName) -> io::Result<()> {
        self.open.forget(name);
        match tokio_uring::fs::remove_file(self.file(name)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    async fn read_head(&self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let file = match plain_file::open(&self.path.join(HEAD)).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path.is_dir() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        loop {
            let at = bytes.len();
            if at > limit {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "HEAD is longer than any HEAD can be",
                ));
            }
            let (result, piece) = file.read_at(Vec::with_capacity(64 << 10), at as u64).await;
            let len = result?;
            if len == 0 {
                break;
            }
            bytes.extend_from_slice(piece.get(..len).unwrap_or_default());
        }
        file.close().await?;
        Ok(Some(bytes))
    }

    async fn replace_head(
        &self,
        expected: &[&[u8]],
        new: Vec<u8>,
        number: HeadNumber,
    ) -> Result<(), ReplaceError> {
        let temporary = self.path.join(format!("{HEAD_TMP}{number}"));
        let limit = expected.iter().map(|head| head.len()).max().unwrap_or(0);
        let mut written = self.write_head(&temporary, new.clone()).await;
        if is_full(&written) && reserve::give_up(&self.path) {
            // Deleting snapshots and merging begin with a HEAD: without room for it a full disk would stay
            // full.
            written = self.write_head(&temporary, new).await;
        }
        let compared = match written {
            Ok(()) => self.read_head(limit).await.map(|now| match now {
                Some(now) => expected.contains(&now.as_slice()),
                None => expected.is_empty(),
            }),
            Err(error) => Err(error),
        };
        match compared {
            Ok(true) => {}
            other => {
                // The next writer removes it otherwise.
                let _ = std::fs::remove_file(&temporary);
                return Err(match other {
                    Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                        ReplaceError::Unchanged(error)
                    }
                    _ => ReplaceError::Conflict,
                });
            }
        }
        let head = self.path.join(HEAD);
        if expected.is_empty() {
            // A link is refused where a HEAD has come meanwhile; a rename would put itself over it.
            let linked = std::fs::hard_link(&temporary, &head);
            let _ = std::fs::remove_file(&temporary);
            linked.map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => ReplaceError::Conflict,
                _ => ReplaceError::InDoubt(error),
            })?;
        } else {
            std::fs::rename(&temporary, &head).map_err(ReplaceError::InDoubt)?;
        }
        sync_folder(&self.path).await.map_err(ReplaceError::InDoubt)
    }

    async fn settle_head(&self) -> io::Result<()> {
        // Its bytes were durable before it got its name.
        sync_folder(&self.path).await
    }

    async fn space(&self) -> io::Result<StoreSpace> {
        let stat = nix::sys::statvfs::statvfs(&self.path)?;
        let unit = stat.fragment_size();
        Ok(StoreSpace {
            total_bytes: stat.blocks().saturating_mul(unit),
            free_bytes: stat.blocks_available().saturating_mul(unit),
        })
    }

    async fn replenish(&self) -> io::Result<()> {
        reserve::keep(&self.path)
    }

    fn other(&self, address: &str) -> io::Result<Self> {
        Ok(Self::new(Path::new(address)))
    }

    async fn put_pin(&self, clone: VolumeUuid, bytes: Vec<u8>) -> io::Result<()> {
        directory_pins::put(&self.path, clone, &bytes)
    }

    async fn pins(&self) -> io::Result<Vec<(VolumeUuid, Vec<u8>)>> {
        directory_pins::all(&self.path)
    }

    async fn remove_pin(&self, clone: VolumeUuid) -> io::Result<()> {
        directory_pins::remove(&self.path, clone)
    }

    async fn lease(&self, epoch: Epoch) -> io::Result<Lease> {
        take_lease(&self.path.join(LEASES), epoch)
    }

    async fn leased(&self) -> io::Result<Vec<Epoch>> {
        leased_epochs(&self.path.join(LEASES))
    }
}

fn list(folder: &Path, kind: ObjectKind) -> io::Result<Vec<(ObjectName, u64)>> {
    let mut objects = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if kind == ObjectKind::Warm && error.kind() == io::ErrorKind::NotFound => {
            return Ok(objects);
        }
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().and_then(|text| ObjectName::parse(kind, text)) else {
            continue;
        };
        match entry.metadata() {
            Ok(metadata) => objects.push((name, metadata.len())),
            // A reader may list while the writer deletes.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(objects)
}
