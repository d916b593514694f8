//! An open fast tier: opening it with all that was acknowledged, and leaving it in order.
//!
//! Opening, step by step, and what a crash after each leaves:
//! 1. lock, superblocks, checkpoint, journal, pending log are read: nothing has changed;
//! 2. the pending log is told the next generation, and the superblocks get it, not clean any more: the
//!    same state, and a torn commit of before cannot be taken for one of from now on;
//! 3. if the ring is over half full, a checkpoint of what was read: the same state;
//! 4. a killed process's pending deltas are committed: the state of its end;
//! 5. the pending log is emptied, and the threads start.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use forerun::geometry::{Epoch, Geometry, Lsn};
use tracing::warn;
use uuid::Uuid;

use super::checkpoint::CheckpointWriter;
use super::committer::{CheckpointState, Committer, Facts, Health, Inner, Shared, Work};
use super::delta::Delta;
use super::device::{FastDevice, Lock, TierFile};
use super::error::FastTierError;
use super::format::{self, FormatOptions};
use super::journal::JournalWriter;
use super::layout::Layout;
use super::log::DeltaLog;
use super::pack;
use super::pending::{self, Found, PendingLog, PendingState};
use super::recovery::{Recovery, recover};
use super::superblock::{Copies, Superblock};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use crate::sync::{Arc, Condvar, Mutex, PoisonError};
use crate::volume::{Flushes, Recovered, Room};

/// How long a pending delta waits for a commit when nobody asks for one.
pub const IDLE_COMMIT: Duration = Duration::from_secs(1);

/// How to open a tier.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The volume's shape, to be compared with the tier's; `None` takes the tier's.
    pub geometry: Option<Geometry>,
    /// The pending log: a file on tmpfs, which is made if it is not there. Its folder is.
    pub pending: PathBuf,
    /// Whether a device that outlived its process is to be taken over: waits for that process's last I/O, and refuses
    /// a tier of which not all is there that the process had acknowledged.
    pub take_over: bool,
    /// The newest epoch on the capacity tier, 0 for none or unknown: what the fast tier knows of epochs up
    /// to it is dropped, but for the newest sealed one.
    pub written_back: Epoch,
    /// The oldest pending delta waits no longer than this for a commit.
    pub idle_commit: Duration,
    /// The kernel's boot id; `None` asks the kernel. Tests say another.
    pub boot: Option<Uuid>,
}

impl OpenOptions {
    /// With the pending log at `pending`, and the usual for the rest.
    #[must_use]
    pub fn new(pending: impl Into<PathBuf>) -> Self {
        Self {
            geometry: None,
            pending: pending.into(),
            take_over: false,
            written_back: Epoch(0),
            idle_commit: IDLE_COMMIT,
            boot: None,
        }
    }
}

/// How the tier was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LastEnd {
    /// By a clean stop, or it is new.
    Clean,
    /// The process ended without one, and the machine went on: nothing acknowledged is lost.
    Killed,
    /// The machine went down, or the pending log is gone: what was flushed is there.
    Crashed,
}

/// What opening found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenInfo {
    /// How the tier was left.
    pub end: LastEnd,
    /// The pending log as it was found.
    pub pending: PendingState,
    /// The volume's shape.
    pub geometry: Geometry,
    /// When the tier was made, in microseconds since 1970.
    pub created_us: u64,
    /// The newest commit, pending deltas of a killed process included.
    pub lsn: Lsn,
    /// Commits that were read from the journal.
    pub replayed_commits: u64,
    /// Deltas that were taken from the pending log.
    pub pending_deltas: u64,
    /// What was damaged and could be done without; for the log and for people.
    pub notes: Vec<String>,
}

/// An open fast tier.
///
/// Dropping it is like being killed: pending changes stay in the pending log.
pub struct FastTier<D = TierFile> {
    device: Arc<D>,
    superblock: OpenSuperblock,
    committer: Arc<Committer>,
}

/// The superblock of an open tier: what it says of the volume's size, and of the tier's own, can become more.
#[derive(Clone)]
pub struct OpenSuperblock {
    device: Arc<dyn FastDevice>,
    superblock: Arc<Mutex<Superblock>>,
}

impl OpenSuperblock {
    pub(super) fn get(&self) -> Superblock {
        self.superblock.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_layout(&self, layout: Layout) {
        self.superblock.lock().unwrap_or_else(PoisonError::into_inner).layout = layout;
    }

    /// Notes durably that the volume has grown to this shape. Both copies keep their generation: a crash between the two
    /// leaves either shape, and the opening that follows is told which one is right.
    ///
    /// # Errors
    /// I/O. The old shape may be what the next opening finds.
    pub fn grow(&self, geometry: Geometry) -> io::Result<()> {
        let mut superblock = self.superblock.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = Superblock { geometry, ..superblock.clone() };
        grown.write(&*self.device, 0)?;
        *superblock = grown;
        Ok(())
    }
}

/// An open tier, what was found, and its tasks with their names.
pub(crate) type OpenedWithoutThreads<D> = (FastTier<D>, Recovered, OpenInfo, [(&'static str, Work); 2]);

impl FastTier<TierFile> {
    /// Opens the tier at `path` of the volume with this UUID.
    ///
    /// # Errors
    /// It is missing, in use, foreign, of another volume or version, too small, damaged, or nothing to take over.
    /// Nothing has changed then, unless it is an I/O error.
    pub fn open(
        path: &Path,
        volume: Uuid,
        options: &OpenOptions,
    ) -> Result<(Self, Recovered, OpenInfo), FastTierError> {
        let file = TierFile::open(path, if options.take_over { Lock::Wait } else { Lock::Now })?;
        if let Some(geometry) = options.geometry {
            file.takes(geometry.logical_block_bytes())?;
        }
        Self::open_on(Arc::new(file), &path.display().to_string(), volume, options)
    }

    /// Sees whether [`Self::format`] would refuse; changes nothing, and makes no file.
    ///
    /// # Errors
    /// As [`Self::format`], but for I/O errors that come only with writing.
    pub fn check_before_format(
        path: &Path,
        file_bytes: Option<u64>,
        geometry: Geometry,
    ) -> Result<(), FastTierError> {
        format::check(path, file_bytes, geometry)
    }

    /// Makes an empty tier at `path` for a volume. A block device or a file that is there is taken as it is;
    /// where nothing is, a file of `file_bytes` bytes is made, and removed again if the rest fails.
    ///
    /// # Errors
    /// There is nothing and no size; it is in use, too small, not empty, or takes no I/O of the
    /// volume's logical blocks; or I/O.
    pub fn format(
        path: &Path,
        file_bytes: Option<u64>,
        volume: [u8; 16],
        geometry: Geometry,
    ) -> Result<(), FastTierError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now_us = now.as_micros() as u64;
        let options = FormatOptions { volume: Uuid::from_bytes(volume), geometry, now_us };
        format::format(path, file_bytes, &options).map(drop)
    }

    /// The file for rings to do I/O on.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// Another handle of the same open file; the lock lasts until the last of them is closed.
    ///
    /// # Errors
    /// The process has no file handle left.
    pub fn try_clone_file(&self) -> io::Result<File> {
        self.device.try_clone()
    }
}

impl<D: FastDevice + 'static> FastTier<D> {
    /// Opens the tier of `volume` on a device that is called `name` in messages.
    ///
    /// # Errors
    /// As [`FastTier::open`].
    pub fn open_on(
        device: Arc<D>,
        name: &str,
        volume: Uuid,
        options: &OpenOptions,
    ) -> Result<(Self, Recovered, OpenInfo), FastTierError> {
        let (tier, recovered, info, work) = Self::open_without_threads(device, name, volume, options)?;
        for (name, work) in work {
            tier.committer.spawn(name, work)?;
        }
        Ok((tier, recovered, info))
    }

    /// [`Self::open_on`], but whoever opens it runs its tasks: nothing gets durable before.
    pub(crate) fn open_without_threads(
        device: Arc<D>,
        name: &str,
        volume: Uuid,
        options: &OpenOptions,
    ) -> Result<OpenedWithoutThreads<D>, FastTierError> {
        let copies = Copies::read(&*device).map_err(FastTierError::tier("read the superblocks"))?;
        let superblock = copies.newest(name)?.verify(name, device.size_bytes(), Some(volume))?;
        let geometry = grown(name, superblock.geometry, options.geometry)?;
        let superblock = Superblock { geometry, ..superblock };
        let mut recovery = recover(&*device, &superblock)?;
        let boot = match options.boot {
            Some(boot) => boot,
            None => pending::boot_id().map_err(pending_error(&options.pending))?,
        };
        let (pending_state, found) = read_pending(options, &superblock, boot, &recovery)?;
        // Before anything is written: a second try must not find a pending log that this one made.
        if options.take_over && pending_state != PendingState::Found {
            let path = options.pending.clone();
            return Err(FastTierError::NothingToTakeOver { path, why: pending_state.to_string() });
        }

        let was_clean = superblock.clean.is_some();
        let superblock = Superblock { generation: superblock.generation + 1, clean: None, ..superblock };
        let layout = superblock.layout;
        let half_bytes = layout.batch_bytes() as u32;
        let log = PendingLog::open(&options.pending, volume, boot, half_bytes, found.is_some())?;
        log.adopt(superblock.generation);
        superblock.write(&*device, copies.worse()).map_err(FastTierError::tier("write the superblocks"))?;

        recovery.state.forget(options.written_back);
        if recovery.ring.is_half_full() {
            let taken = checkpoint_at_rest(&*device, &superblock, &mut recovery);
            // Layers on the capacity tier, of which nothing is known here, may make it too large; the
            // engine's own will be smaller.
            let can_wait = recovery.ring.free() >= 2 * layout.batch_pages();
            match taken {
                Err(error) if can_wait && error.kind() == io::ErrorKind::StorageFull => {
                    warn!(tier = name, "{error}")
                }
                other => other.map_err(FastTierError::tier("take a checkpoint"))?,
            }
        }
        let pending_deltas = match &found {
            Some(found) => commit_pending(&*device, &superblock, &mut recovery, found)?,
            None => 0,
        };

        let lsn = recovery.ring.next().lsn;
        let info = OpenInfo {
            end: match (&pending_state, was_clean) {
                (_, true) => LastEnd::Clean,
                (PendingState::Found, false) => LastEnd::Killed,
                _ => LastEnd::Crashed,
            },
            pending: pending_state,
            geometry: superblock.geometry,
            created_us: superblock.created_us,
            lsn,
            replayed_commits: recovery.commits,
            pending_deltas,
            notes: recovery.notes,
        };
        for note in &info.notes {
            warn!(tier = name, "{note}");
        }
        let halves = log.start(superblock.generation, lsn);
        let [active, spare] = halves;
        let newest_sealed = recovery.state.newest_sealed();
        let unsealed_names = recovery.state.unsealed_names();
        let shared = Shared {
            device: Arc::clone(&device) as Arc<dyn FastDevice>,
            layout: Mutex::new(layout),
            half_bytes: half_bytes as usize,
            volume,
            generation: superblock.generation,
            pending: log,
            idle: options.idle_commit,
            inner: Mutex::new(Inner {
                active,
                active_lsn: lsn.0 + 1,
                spare: Some(spare),
                oldest: None,
                scratch: Vec::new(),
                waiters: Vec::new(),
                kick: false,
                ring: recovery.ring,
                blocked: 0,
                draining: None,
                stop: false,
                health: Health::Good,
                newest_sealed,
                checkpoint: CheckpointState {
                    place: recovery.place,
                    attempted: recovery.attempted,
                    wanted: false,
                    running: false,
                    failed: None,
                    source: None,
                    taken: 0,
                },
            }),
            work: Room::default(),
            changed: Room::default(),
            room: Condvar::new(),
            appended: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            used: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            after_commit: Mutex::default(),
            checkpoint_turn: tokio::sync::Mutex::default(),
            flushes: Flushes::default(),
        };
        let (committer, work) = Committer::new(Arc::new(shared));
        let committer = Arc::new(committer);
        // Such an epoch goes on, and may be sealed without a name.
        for epoch in unsealed_names {
            committer.append(&Delta::Unnamed { epoch });
        }
        let superblock = OpenSuperblock {
            device: Arc::clone(&device) as Arc<dyn FastDevice>,
            superblock: Arc::new(Mutex::new(superblock)),
        };
        Ok((Self { device, superblock, committer }, recovery.state.finish(), info, work))
    }

    /// Where slot 0 begins, in bytes.
    #[must_use]
    pub fn slots_offset(&self) -> u64 {
        self.layout().slots_offset
    }

    /// How many slots there are.
    #[must_use]
    pub fn slot_count(&self) -> u32 {
        self.layout().slots
    }

    /// Where everything is, and the limits that follow.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.committer.shared().layout()
    }

    /// The superblock, for growth.
    #[must_use]
    pub fn superblock(&self) -> OpenSuperblock {
        self.superblock.clone()
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &Arc<D> {
        &self.device
    }

    /// The journal's end that the engine writes to.
    #[must_use]
    pub fn committer(&self) -> Arc<Committer> {
        Arc::clone(&self.committer)
    }

    /// Leaves the tier in order: everything committed, a checkpoint of `state`, and superblocks that say so.
    /// No request is under way any more, and none comes.
    ///
    /// # Errors
    /// I/O; the tier is then left as a killed process leaves it.
    pub async fn close_clean(self, state: &dyn Facts) -> Result<(), FastTierError> {
        let close = async {
            self.committer.commit().await?;
            self.committer.checkpoint(state).await?;
            // The walk may have appended.
            self.committer.commit().await
        };
        close.await.map_err(FastTierError::tier("take the last checkpoint"))?;
        let shared = self.committer.shared();
        // No growth begins after this, and one that is under way is waited for: it writes superblocks, too.
        shared.lock().stop = true;
        drop(shared.checkpoint_turn.lock().await);
        self.committer.stop();
        let clean = Some(shared.lock().ring.next().lsn);
        let superblock = self.superblock.get();
        let superblock = Superblock { clean, generation: superblock.generation + 1, ..superblock };
        superblock.write(&*self.device, 0).map_err(FastTierError::tier("write the superblocks"))?;
        if let Err(error) = shared.pending.remove() {
            warn!(%error, "the empty log of pending changes could not be removed; it does no harm");
        }
        Ok(())
    }
}

impl<D> Drop for FastTier<D> {
    fn drop(&mut self) {
        self.committer.stop();
    }
}

/// The shape that the volume has, where the tier may not have heard of its growth.
fn grown(name: &str, found: Geometry, wanted: Option<Geometry>) -> Result<Geometry, FastTierError> {
    match wanted {
        Some(wanted) if !found.grows_into(wanted) => Err(FastTierError::OtherGeometry {
            tier: name.to_owned(),
            found_bytes: found.size_bytes(),
            found_logical: found.logical_block_bytes(),
            wanted_bytes: wanted.size_bytes(),
            wanted_logical: wanted.logical_block_bytes(),
        }),
        wanted => Ok(wanted.unwrap_or(found)),
    }
}

fn pending_error(path: &Path) -> impl FnOnce(io::Error) -> FastTierError {
    let path = path.to_owned();
    move |source| FastTierError::Pending { path, source }
}

/// The pending log, if it goes with this tier as it is now.
fn read_pending(
    options: &OpenOptions,
    superblock: &Superblock,
    boot: Uuid,
    recovery: &Recovery,
) -> Result<(PendingState, Option<Found>), FastTierError> {
    let half_bytes_max = superblock.layout.batch_bytes() as u32;
    let read = pending::read(&options.pending, superblock.volume, boot, half_bytes_max)
        .map_err(pending_error(&options.pending))?;
    let found = match read {
        Ok(found) => found,
        Err(state) => return Ok((state, None)),
    };
    if superblock.generation != found.generation && superblock.generation != found.adopting {
        return Ok((PendingState::Foreign, None));
    }
    let end = recovery.ring.next();
    if found.durable > end.lsn {
        let what = format!("record {} was durable, and the journal ends after {}", found.durable, end.lsn);
        let offset = superblock.layout.journal_offset + end.page * super::page::PAGE_BYTES as u64;
        return Err(FastTierError::Damaged { what, offset });
    }
    let mut expected = end.lsn.0;
    for batch in found.batches.iter().filter(|batch| batch.lsn > end.lsn) {
        expected += 1;
        if batch.lsn.0 != expected || pack::payloads(&batch.deltas).is_none() {
            let what =
                format!("its half for record {} does not follow the journal's record {}", batch.lsn, end.lsn);
            return Ok((PendingState::Damaged(what), None));
        }
        // Its deltas have no checksum. Once one that cannot be is in the journal, the tier is lost.
        let mut problem = None;
        pack::unpack(&batch.deltas, &mut |delta| {
            problem = problem.take().or_else(|| recovery.state.problem_of(&delta));
        });
        if let Some(problem) = problem {
            return Ok((PendingState::Damaged(problem), None));
        }
    }
    Ok((PendingState::Found, Some(found)))
}

/// Commits what a killed process left pending; returns how many deltas that were.
fn commit_pending(
    device: &dyn FastDevice,
    superblock: &Superblock,
    recovery: &mut Recovery,
    found: &Found,
) -> Result<u64, FastTierError> {
    let mut writer = JournalWriter::new(superblock.volume, superblock.generation, superblock.layout);
    let mut deltas = 0;
    for batch in &found.batches {
        if batch.lsn <= recovery.ring.next().lsn {
            continue;
        }
        let at = recovery.ring.next();
        let pages = JournalWriter::pages_of(&batch.deltas)
            .and_then(|pages| {
                if pages <= recovery.ring.free() { Ok(pages) } else { Err(io::ErrorKind::StorageFull.into()) }
            })
            .and_then(|_| writer.write(device, at, &batch.deltas))
            .and_then(|pages| device.sync().map(|()| pages))
            .map_err(FastTierError::tier("commit what was pending"))?;
        recovery.ring.advance(pages);
        pack::unpack(&batch.deltas, &mut |delta| {
            deltas += 1;
            recovery.state.apply(delta);
        });
    }
    match recovery.state.problem() {
        None => Ok(deltas),
        Some(problem) => {
            Err(FastTierError::Damaged { what: format!("the pending log: {problem}"), offset: 0 })
        }
    }
}

/// A checkpoint of what was read, while nothing else goes on.
fn checkpoint_at_rest(
    device: &dyn FastDevice,
    superblock: &Superblock,
    recovery: &mut Recovery,
) -> io::Result<()> {
    recovery.attempted += 1;
    let mut place = recovery.place.next();
    place.number = recovery.attempted;
    let mut writer =
        CheckpointWriter::new(device, &superblock.layout, superblock.volume, superblock.generation, place);
    recovery.state.walk(&mut |delta| writer.push(delta));
    writer.finish_content()?;
    device.sync()?;
    let start = recovery.ring.next();
    let (offset, header) = writer.header(start);
    device.write_at(offset, &header)?;
    device.sync()?;
    recovery.ring.free_to(start);
    recovery.place = place;
    Ok(())
}
