//! The pending log: deltas that were appended and are not yet durable in the journal, in shared memory.
//!
//! The target may be killed while a file system is mounted on its device. What was acknowledged then has
//! to be there for the next target, though nobody asked for it to be durable. So pending deltas live in
//! a file on tmpfs that outlives the process (not the machine), in two halves: one takes new deltas
//! while the journal writes the other.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `forerunP` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | bytes in each half |
//! | 16 | 16 | the volume's UUID |
//! | 32 | 16 | the kernel's boot id |
//! | 48 | 4 | CRC-32C of the 48 bytes before |
//! | 64 | 8 | generation of the superblock it goes with |
//! | 72 | 8 | generation that an opening is about to give the superblock |
//! | 80 | 8 | the last LSN known to be durable |
//! | 88 | 8 | not 0: the device lost writes, and with them perhaps the data of these deltas |
//! | 128, 192 | 8, 8 | first half: the LSN its deltas will be committed as; its bytes in use |
//! | 256, 320 | 8, 8 | second half |
//! | 4096 | | the first half, then the second |
//!
//! An append copies the delta, then stores the new length (release): a process that dies in between has
//! not acknowledged it. A half is emptied only after its commit is durable; one whose LSN the journal
//! holds is not read again. A file of another boot, volume or generation says nothing about this tier.
//!
//! All the `unsafe` of the fast tier is here: the mapping. It does not survive a reset of the machine;
//! what a crash of the machine may lose is what was never flushed.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forerun::geometry::Lsn;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use uuid::Uuid;

use super::error::FastTierError;

const MAGIC: &[u8; 8] = b"forerunP";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 4096;
const IDENTITY_BYTES: usize = 52;
const GENERATION: usize = 64;
const ADOPTING: usize = 72;
const DURABLE: usize = 80;
pub(super) const VOID: usize = 88;
/// Of each half: where its LSN is, and 64 bytes on its length.
const HALVES: [usize; 2] = [128, 256];

/// What was found where the pending log should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PendingState {
    /// A pending log of this volume, boot and opening: nothing acknowledged is lost.
    Found,
    /// No file.
    Absent,
    /// A file of another boot: the machine was reset since.
    OtherBoot,
    /// A file of another volume, or of an earlier opening of this one.
    Foreign,
    /// The device failed to make writes durable: what the log speaks of may not be there.
    Void,
    /// It is ours, and it makes no sense.
    Damaged(String),
}

impl std::fmt::Display for PendingState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Found => f.write_str("is there"),
            Self::Absent => f.write_str("is not there"),
            Self::OtherBoot => f.write_str("is of another boot of this machine"),
            Self::Foreign => f.write_str("is of another volume, or of an earlier opening of this one"),
            Self::Void => {
                f.write_str("speaks of writes that the fast tier's device may have lost: a flush had failed")
            }
            Self::Damaged(how) => write!(f, "is damaged: {how}"),
        }
    }
}

/// What the kernel calls this boot.
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> io::Result<Uuid> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Uuid::parse_str(text.trim()).map_err(io::Error::other)
}

/// A batch of deltas found in a half.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PendingBatch {
    pub lsn: Lsn,
    pub deltas: Vec<u8>,
}

/// A pending log as a former process left it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub generation: u64,
    pub adopting: u64,
    pub durable: Lsn,
    /// Not empty halves, by LSN.
    pub batches: Vec<PendingBatch>,
}

/// Opens what is at `path`: it follows no link and waits for no FIFO.
fn open_file(path: &Path, write: bool) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(write).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
}

/// Reads what a former process left at `path`. Its halves have at most `half_bytes_max`: as much as a commit takes.
pub(super) fn read(
    path: &Path,
    volume: Uuid,
    boot: Uuid,
    half_bytes_max: u32,
) -> io::Result<Result<Found, PendingState>> {
    let file = match open_file(path, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(PendingState::Absent)),
        Err(error) => return Err(error),
    };
    let damaged = |what: &str| Ok(Err(PendingState::Damaged(what.to_owned())));
    let mut header = [0; HEADER_BYTES];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return damaged("it is too short"),
        other => other?,
    }
    let half_bytes = match parse_identity(&header, volume, boot) {
        Ok(half_bytes) => half_bytes,
        Err(state) => return Ok(Err(state)),
    };
    // The file may be sparse, and as long as it likes.
    if half_bytes > half_bytes_max {
        return damaged("its halves are larger than any commit");
    }
    if file.metadata()?.len() != HEADER_BYTES as u64 + 2 * u64::from(half_bytes) {
        return damaged("its size is not what it says");
    }
    if number(&header, VOID) != 0 {
        return Ok(Err(PendingState::Void));
    }
    let mut batches = Vec::new();
    for (half, at) in (0u64..).zip(HALVES) {
        let (lsn, used) = (number(&header, at), number(&header, at + 64));
        if used > half_bytes.into() {
            return damaged("a half holds more than fits");
        }
        if used > 0 {
            let mut deltas = vec![0; used as usize];
            file.read_exact_at(&mut deltas, HEADER_BYTES as u64 + half * u64::from(half_bytes))?;
            batches.push(PendingBatch { lsn: Lsn(lsn), deltas });
        }
    }
    batches.sort_unstable_by_key(|batch| batch.lsn);
    let generation = number(&header, GENERATION);
    Ok(Ok(Found {
        generation,
        adopting: number(&header, ADOPTING),
        durable: Lsn(number(&header, DURABLE)),
        batches,
    }))
}

fn number(header: &[u8; HEADER_BYTES], at: usize) -> u64 {
    header.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

pub(super) fn identity(half_bytes: u32, volume: Uuid, boot: Uuid) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(IDENTITY_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&half_bytes.to_le_bytes());
    bytes.extend_from_slice(volume.as_bytes());
    bytes.extend_from_slice(boot.as_bytes());
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes) as u32;
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn parse_identity(header: &[u8; HEADER_BYTES], volume: Uuid, boot: Uuid) -> Result<u32, PendingState> {
    let half_bytes = (number(header, 8) >> 32) as u32;
    let uuid = |at: usize| {
        let bytes = header.get(at..).and_then(|rest| rest.first_chunk::<16>()).copied().unwrap_or_default();
        Uuid::from_bytes(bytes)
    };
    let (found_volume, found_boot) = (uuid(16), uuid(32));
    if !header.starts_with(&identity(half_bytes, found_volume, found_boot)) {
        return Err(PendingState::Damaged("its header is broken".to_owned()));
    }
    if found_volume != volume {
        return Err(PendingState::Foreign);
    }
    if found_boot != boot {
        return Err(PendingState::OtherBoot);
    }
    Ok(half_bytes)
}

/// The mapped file.
struct Mapping {
    start: NonNull<u8>,
    bytes: NonZeroUsize,
}

// SAFETY: the memory belongs to the mapping until it is dropped; its counters are atomic, and its halves
// are each written by the one `Half` that stands for it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &File, bytes: NonZeroUsize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
        let start = unsafe {
            mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, file, 0)?
        };
        Ok(Self { start: start.cast(), bytes })
    }

    /// The counter at `offset` of the header, a multiple of 8.
    fn counter(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= HEADER_BYTES, "counters are in the header");
        // SAFETY: within the mapping (it is longer than its header) and aligned; all access to the counters is atomic.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and nothing borrows from it any more.
        let unmapped = unsafe { munmap(self.start.cast(), self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "a whole mapping can be unmapped");
    }
}

/// One half; whoever owns it is the only one who reads or writes it.
pub(super) struct Half {
    mapping: Arc<Mapping>,
    number: usize,
    capacity: usize,
    used: usize,
}

impl Half {
    fn start(&self) -> *mut u8 {
        let offset = HEADER_BYTES + self.number * self.capacity;
        assert!(self.number < 2 && offset + self.capacity <= self.mapping.bytes.get());
        // SAFETY: within the mapping, as just seen.
        unsafe { self.mapping.start.as_ptr().add(offset) }
    }

    fn counters(&self) -> (&AtomicU64, &AtomicU64) {
        let at = if self.number == 0 { HALVES[0] } else { HALVES[1] };
        (self.mapping.counter(at), self.mapping.counter(at + 64))
    }

    /// The deltas in it.
    pub fn bytes(&self) -> &[u8] {
        assert!(self.used <= self.capacity);
        // SAFETY: `used` bytes from the half's start are initialised and, while `self` is borrowed, not written.
        unsafe { std::slice::from_raw_parts(self.start(), self.used) }
    }

    /// Bytes that still fit.
    pub const fn room(&self) -> usize {
        self.capacity - self.used
    }

    /// Bytes in use.
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Adds a delta's bytes; false where they do not fit.
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.room() {
            return false;
        }
        // SAFETY: the bytes fit behind those in use, the source is not in the mapping, and `&mut self` is alone.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start().add(self.used), bytes.len());
        }
        self.used += bytes.len();
        self.counters().1.store(self.used as u64, Ordering::Release);
        true
    }

    /// Empties it, to take the deltas of commit `lsn`.
    pub fn begin(&mut self, lsn: Lsn) {
        self.used = 0;
        self.counters().1.store(0, Ordering::Release);
        self.counters().0.store(lsn.0, Ordering::Release);
    }
}

/// The pending log of an open tier; its halves are handed out once.
pub(super) struct PendingLog {
    mapping: Arc<Mapping>,
    path: PathBuf,
}

impl PendingLog {
    /// Goes on with the file at `path` if it was found to be ours and has halves of `half_bytes`, and makes
    /// a new one otherwise.
    pub fn open(
        path: &Path,
        volume: Uuid,
        boot: Uuid,
        half_bytes: u32,
        found: bool,
    ) -> Result<Self, FastTierError> {
        let error = |source| FastTierError::Pending { path: path.to_owned(), source };
        let identity = identity(half_bytes, volume, boot);
        if found {
            let file = open_file(path, true).map_err(error)?;
            let mut header = [0; IDENTITY_BYTES];
            file.read_exact_at(&mut header, 0).map_err(error)?;
            if header.as_slice() == identity {
                return Self::map(&file, path, half_bytes).map_err(error);
            }
        }
        Self::make(path, &identity, half_bytes).map_err(error)
    }

    fn make(path: &Path, identity: &[u8], half_bytes: u32) -> io::Result<Self> {
        let new = path.with_extension("new");
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new)?;
        // All memory is taken now: a store into a mapping cannot fail with 'no space', it kills.
        let bytes = HEADER_BYTES as i64 + 2 * i64::from(half_bytes);
        let made = fallocate(&file, FallocateFlags::empty(), 0, bytes)
            .map_err(io::Error::from)
            .and_then(|()| file.write_all_at(identity, 0))
            .and_then(|()| Self::map(&file, path, half_bytes))
            .and_then(|log| std::fs::rename(&new, path).map(|()| log));
        made.inspect_err(|_| drop(std::fs::remove_file(&new)))
    }

    fn map(file: &File, path: &Path, half_bytes: u32) -> io::Result<Self> {
        let bytes = HEADER_BYTES + 2 * half_bytes as usize;
        // Shorter than its mapping, it would kill us at the first touch.
        if file.metadata()?.len() != bytes as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file's size is not what its header says",
            ));
        }
        let bytes = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { mapping: Arc::new(Mapping::new(file, bytes)?), path: path.to_owned() })
    }

    /// Says that an opening is about to give the superblock this generation: until [`Self::start`], the
    /// file goes with either.
    pub fn adopt(&self, generation: u64) {
        self.mapping.counter(ADOPTING).store(generation, Ordering::Release);
    }

    /// Empties both halves and hands them out: the first takes the deltas of the commit after `durable`.
    pub fn start(&self, generation: u64, durable: Lsn) -> [Half; 2] {
        let capacity = (self.mapping.bytes.get() - HEADER_BYTES) / 2;
        let halves = [0, 1].map(|number| {
            let mut half = Half { mapping: Arc::clone(&self.mapping), number, capacity, used: 0 };
            half.begin(Lsn(durable.0 + 1));
            half
        });
        self.durable(durable);
        self.adopt(generation);
        self.mapping.counter(GENERATION).store(generation, Ordering::Release);
        halves
    }

    /// Notes how far the journal is durable.
    pub fn durable(&self, lsn: Lsn) {
        self.mapping.counter(DURABLE).store(lsn.0, Ordering::Release);
    }

    /// Notes that the device lost writes. The next opening then goes by what is durable, as after a power cut: a delta whose
    /// data is lost would show what the slot held before.
    pub fn void(&self) {
        self.mapping.counter(VOID).store(1, Ordering::Release);
    }

    /// Removes the file, after a clean stop.
    pub fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VOLUME: Uuid = Uuid::from_u128(1);
    const BOOT: Uuid = Uuid::from_u128(2);

    #[test]
    fn what_is_no_pending_log_of_ours_is_neither_waited_for_nor_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pending");
        // Sixteen GiB of nothing, with a right header.
        let file = File::create(&path).expect("made");
        file.write_all_at(&identity(1 << 30, VOLUME, BOOT), 0).expect("written");
        file.write_all_at(&(1_u64 << 30).to_le_bytes(), HALVES[0] as u64 + 64).expect("written");
        file.set_len(HEADER_BYTES as u64 + (2 << 30)).expect("sparse");
        let found = read(&path, VOLUME, BOOT, 8 << 20).expect("read");
        assert_eq!(found, Err(PendingState::Damaged("its halves are larger than any commit".to_owned())));
        let (fifo, link) = (folder.path().join("fifo"), folder.path().join("link"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
        std::os::unix::fs::symlink(&path, &link).expect("made");
        assert!(read(&fifo, VOLUME, BOOT, 4096).is_err());
        assert!(read(&link, VOLUME, BOOT, 4096).is_err());
        // A new log replaces a link, and does not write through it.
        let before = std::fs::metadata(&path).expect("there").len();
        drop(PendingLog::open(&link, VOLUME, BOOT, 4096, false).expect("made"));
        assert!(std::fs::symlink_metadata(&link).expect("there").is_file());
        assert_eq!(std::fs::metadata(&path).expect("there").len(), before);
    }

    #[test]
    fn what_was_appended_outlives_its_writer() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pending");
        assert_eq!(read(&path, VOLUME, BOOT, 4096).expect("read"), Err(PendingState::Absent));
        let log = PendingLog::open(&path, VOLUME, BOOT, 4096, false).expect("made");
        let [mut first, mut second] = log.start(7, Lsn(10));
        assert!(first.append(b"one") && first.append(b"two"));
        second.begin(Lsn(12));
        assert!(second.append(b"three"));
        assert!(!second.append(&[0; 4096]));
        drop((log, first, second));

        let found = read(&path, VOLUME, BOOT, 4096).expect("read").expect("ours");
        assert_eq!((found.generation, found.durable), (7, Lsn(10)));
        let batch = |lsn, bytes: &[u8]| PendingBatch { lsn: Lsn(lsn), deltas: bytes.to_vec() };
        assert_eq!(found.batches, vec![batch(11, b"onetwo"), batch(12, b"three")]);
        assert_eq!(read(&path, VOLUME, Uuid::nil(), 4096).expect("read"), Err(PendingState::OtherBoot));
        assert_eq!(read(&path, Uuid::nil(), BOOT, 4096).expect("read"), Err(PendingState::Foreign));

        let again = PendingLog::open(&path, VOLUME, BOOT, 4096, true).expect("ours");
        assert_eq!(read(&path, VOLUME, BOOT, 4096).expect("read").expect("ours").batches.len(), 2);
        again.start(8, Lsn(12));
        assert_eq!(read(&path, VOLUME, BOOT, 4096).expect("read").expect("ours").batches.len(), 0);
        again.void();
        assert_eq!(read(&path, VOLUME, BOOT, 4096).expect("read"), Err(PendingState::Void));
    }

    proptest! {
        #[test]
        fn any_file_is_read_without_a_panic(
            header in proptest::collection::vec(any::<u8>(), 0..400),
            size in 0u64..20_000,
            ours in any::<bool>(),
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("pending");
            let file = File::create(&path).expect("created");
            file.write_all_at(&header, 0).expect("written");
            if ours {
                file.write_all_at(&identity(4096, VOLUME, BOOT), 0).expect("written");
            }
            file.set_len(size).expect("sized");
            let _ = read(&path, VOLUME, BOOT, 4096).expect("read");
        }
    }
}
