//! The change vectors of a volume, kept in sled so that a restarted trainer need not ask for them again.
//!
//! sled 0.34 is an index that can be rebuilt, not a place of truth: its `flush` does not survive a
//! power cut by itself and some damage makes `open` panic. Hence 8 MiB segments (no blob files), an
//! fdatasync of our own after each flush, values under 64 KB with a checksum of our own, an open that
//! catches panics and reads everything once, and on any damage a quarantine: the folder is put
//! aside and an empty one takes its place, which the target then fills.
//!
//! What always holds: an epoch that [`History::append`] returned for is there after a power cut, or
//! the damage is found at the next open. Dying at any point loses at most the epoch being appended
//! (a batch is atomic). One process has a folder at a time; its lock is the caller's.
//!
//! `default` holds which volume the history is of; the tree `volume/<uuid>` holds its epochs under
//! `epoch u32 BE | chunk u16 BE`, so that a volume is dropped in one step.

mod codec;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forerun::change_vector::ChangeVector;
use forerun::geometry::Epoch;
use thiserror::Error;

pub use codec::CodecError;

/// Bytes of vector in one value: with its checksum under the 64 KB up to which sled needs no blobs.
const CHUNK_BYTES: usize = 60_000;
/// sled's segment size; fixed when a database is created.
const SEGMENT_BYTES: usize = 8 << 20;
const CACHE_BYTES: u64 = 8 << 20;
const VOLUME_KEY: &[u8] = b"volume";
/// So long another handle may keep the database.
const IN_USE_LIMIT: Duration = Duration::from_secs(5);

/// What the history cannot do.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// The folder or the file system refuses.
    #[error("cannot {action} the history in {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database refuses.
    #[error("the history's database: {0}")]
    Database(#[from] sled::Error),
    /// A stored vector is not what was stored.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// What is stored does not hang together.
    #[error("the history is damaged: {0}")]
    Damaged(String),
}

/// The stored epochs of one volume.
#[derive(Debug)]
pub struct History {
    database: sled::Db,
    tree: sled::Tree,
    volume: [u8; 16],
    folder: PathBuf,
    keep_epochs: u32,
    last: Option<Epoch>,
}

/// A history as it was found.
#[derive(Debug)]
pub struct Opened {
    /// The volume it is of; `None` when nothing was stored yet.
    pub volume: Option<[u8; 16]>,
    /// Where damaged data was put aside, and what was wrong with it.
    pub quarantined: Option<(PathBuf, String)>,
    database: sled::Db,
    folder: PathBuf,
}

/// Opens the history in `folder`, putting it aside where it is damaged. One that somebody else has open is waited for: sled's
/// threads may let go of it a moment after the last handle is gone.
///
/// # Errors
/// The folder cannot be created, renamed or written, or is in use for longer.
pub fn open(folder: &Path) -> Result<Opened, HistoryError> {
    let failed = |action, text| HistoryError::Io {
        action,
        path: folder.to_path_buf(),
        source: io::Error::other(text),
    };
    let opened = |(database, volume), quarantined| Opened {
        volume,
        quarantined,
        database,
        folder: folder.to_path_buf(),
    };
    match open_when_free(folder) {
        Ok(found) => Ok(opened(found, None)),
        Err(Trouble::InUse(text)) => Err(failed("open", text)),
        Err(Trouble::Damaged(problem)) => {
            let aside = quarantine(folder)?;
            let found = open_when_free(folder)
                .map_err(|(Trouble::InUse(text) | Trouble::Damaged(text))| failed("create", text))?;
            Ok(opened(found, Some((aside, problem))))
        }
    }
}

/// Why a history was not opened.
enum Trouble {
    /// Another handle has it; nothing is wrong with it.
    InUse(String),
    Damaged(String),
}

type Found = (sled::Db, Option<[u8; 16]>);

fn open_when_free(folder: &Path) -> Result<Found, Trouble> {
    let began = Instant::now();
    loop {
        match try_open(folder) {
            Err(Trouble::InUse(_)) if began.elapsed() < IN_USE_LIMIT => {
                std::thread::sleep(IN_USE_LIMIT / 500)
            }
            ended => return ended,
        }
    }
}

/// Opens and reads everything once. Damage makes sled panic; that must not end the trainer.
fn try_open(folder: &Path) -> Result<Found, Trouble> {
    let attempt = catch_unwind(AssertUnwindSafe(|| -> Result<_, HistoryError> {
        let database = sled::Config::new()
            .path(folder)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput)
            .open()?;
        let volume = match database.get(VOLUME_KEY)? {
            Some(bytes) => Some(
                <[u8; 16]>::try_from(bytes.as_ref())
                    .map_err(|_| HistoryError::Damaged("the volume's name is no uuid".to_owned()))?,
            ),
            None => None,
        };
        if let Some(volume) = volume {
            let tree = database.open_tree(tree_name(volume))?;
            for vector in vectors(&tree, Epoch(0)) {
                vector?;
            }
        }
        Ok((database, volume))
    }));
    match attempt {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => {
            let text = error.to_string();
            // The words are all that sled 0.34 tells it by.
            Err(if text.contains("could not acquire lock") {
                Trouble::InUse(text)
            } else {
                Trouble::Damaged(text)
            })
        }
        Err(_) => Err(Trouble::Damaged("opening the database panicked".to_owned())),
    }
}

/// Moves a folder aside, under a name with the time; of those from before, none stays.
fn quarantine(folder: &Path) -> Result<PathBuf, HistoryError> {
    let fail = |action| {
        let path = folder.to_path_buf();
        move |source| HistoryError::Io { action, path, source }
    };
    let parent = folder.parent().unwrap_or(Path::new("."));
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let prefix = format!("{name}.quarantine-");
    for entry in fs::read_dir(parent).map_err(fail("list the folder of"))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let aside = parent.join(format!("{prefix}{seconds}"));
    fs::rename(folder, &aside).map_err(fail("put aside"))?;
    Ok(aside)
}

impl Opened {
    /// The history of `volume`. What was stored of another volume is dropped.
    ///
    /// # Errors
    /// The database refuses, or the file system does.
    pub fn of_volume(self, volume: [u8; 16], keep_epochs: u32) -> Result<History, HistoryError> {
        if self.volume != Some(volume) {
            if let Some(other) = self.volume {
                self.database.drop_tree(tree_name(other))?;
            }
            self.database.insert(VOLUME_KEY, volume.as_slice())?;
        }
        let tree = self.database.open_tree(tree_name(volume))?;
        let last = tree.last()?.and_then(|(key, _)| split_key(&key)).map(|(epoch, _)| epoch);
        let folder = self.folder;
        let history = History { database: self.database, tree, volume, folder, keep_epochs, last };
        history.make_durable()?;
        Ok(history)
    }
}

impl History {
    /// The volume that the epochs are of.
    #[must_use]
    pub const fn volume(&self) -> [u8; 16] {
        self.volume
    }

    /// The newest epoch stored.
    #[must_use]
    pub const fn last(&self) -> Option<Epoch> {
        self.last
    }

    /// Stores a vector that comes after all stored ones, and drops what is too old, in one step.
    ///
    /// # Errors
    /// An epoch that is not new, or a write that failed; nothing was stored then.
    pub fn append(&mut self, vector: &ChangeVector) -> Result<(), HistoryError> {
        if self.last.is_some_and(|last| vector.epoch <= last) {
            return Err(HistoryError::Damaged(format!("epoch {} is stored already", vector.epoch)));
        }
        let bytes = codec::encode(vector)?;
        let mut batch = sled::Batch::default();
        let chunks: Vec<&[u8]> = bytes.chunks(CHUNK_BYTES).collect();
        for (index, chunk) in chunks.iter().enumerate() {
            let index = u16::try_from(index)
                .map_err(|_| HistoryError::Damaged("a vector is too long to be stored".to_owned()))?;
            let mut value = codec::crc32c(chunk).to_le_bytes().to_vec();
            value.extend_from_slice(&(chunks.len() as u16).to_le_bytes());
            value.extend_from_slice(chunk);
            batch.insert(&key(vector.epoch, index), value);
        }
        let oldest_kept = Epoch(vector.epoch.0.saturating_sub(self.keep_epochs.saturating_sub(1)));
        for old in self.tree.range(..key(oldest_kept, 0)).keys() {
            batch.remove(old?);
        }
        self.tree.apply_batch(batch)?;
        self.make_durable()?;
        self.last = Some(vector.epoch);
        Ok(())
    }

    /// The stored vectors from an epoch on, oldest first.
    pub fn from(&self, epoch: Epoch) -> impl Iterator<Item = Result<ChangeVector, HistoryError>> {
        vectors(&self.tree, epoch)
    }

    /// sled's flush writes; that it survives a power cut takes an fdatasync of our own.
    fn make_durable(&self) -> Result<(), HistoryError> {
        self.database.flush()?;
        File::open(self.folder.join("db"))
            .and_then(|file| file.sync_data())
            .map_err(|source| HistoryError::Io { action: "sync", path: self.folder.clone(), source })
    }
}

fn tree_name(volume: [u8; 16]) -> Vec<u8> {
    let mut name = b"volume/".to_vec();
    for byte in volume {
        name.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    name
}

fn key(epoch: Epoch, chunk: u16) -> [u8; 6] {
    let mut key = [0; 6];
    let (first, second) = key.split_at_mut(4);
    first.copy_from_slice(&epoch.0.to_be_bytes());
    second.copy_from_slice(&chunk.to_be_bytes());
    key
}

fn split_key(key: &[u8]) -> Option<(Epoch, u16)> {
    let (epoch, chunk) = key.split_first_chunk::<4>()?;
    Some((Epoch(u32::from_be_bytes(*epoch)), u16::from_be_bytes(chunk.try_into().ok()?)))
}

/// Puts the chunks of each epoch together and reads them, checking everything.
fn vectors(tree: &sled::Tree, from: Epoch) -> impl Iterator<Item = Result<ChangeVector, HistoryError>> {
    let mut entries = tree.range(key(from, 0)..);
    std::iter::from_fn(move || {
        let first = entries.next()?;
        Some(first.map_err(HistoryError::from).and_then(|first| {
            let (epoch, count, mut bytes) = check_chunk(&first, 0)?;
            for index in 1..count {
                let next = entries.next().ok_or_else(|| damaged(epoch, "lacks its end"))??;
                let (of, again, more) = check_chunk(&next, index)?;
                if of != epoch || again != count {
                    return Err(damaged(epoch, "lacks a piece"));
                }
                bytes.extend_from_slice(&more);
            }
            let vector = codec::decode(&bytes)?;
            if vector.epoch == epoch {
                Ok(vector)
            } else {
                Err(damaged(epoch, "is stored under another's key"))
            }
        }))
    })
}

fn check_chunk(
    (key, value): &(sled::IVec, sled::IVec),
    index: u16,
) -> Result<(Epoch, u16, Vec<u8>), HistoryError> {
    let (epoch, chunk) =
        split_key(key).ok_or_else(|| HistoryError::Damaged("a key has another length".to_owned()))?;
    let parts = value
        .split_first_chunk::<4>()
        .and_then(|(crc, rest)| rest.split_first_chunk::<2>().map(|(count, bytes)| (*crc, *count, bytes)));
    let (crc, count, bytes) = parts.ok_or_else(|| damaged(epoch, "has a piece that is too short"))?;
    if codec::crc32c(bytes) != u32::from_le_bytes(crc) {
        return Err(damaged(epoch, "has a wrong checksum"));
    }
    if chunk != index {
        return Err(damaged(epoch, "lacks a piece"));
    }
    Ok((epoch, u16::from_le_bytes(count), bytes.to_vec()))
}

fn damaged(epoch: Epoch, what: &str) -> HistoryError {
    HistoryError::Damaged(format!("epoch {epoch} {what}"))
}
