//! The committer: takes deltas from the engine, and makes them durable with all data written before them.
//!
//! Deltas go into the active half of the pending log; a task turns halves into commits of the
//! journal ([`super::rounds`]), another one takes checkpoints ([`super::checkpointer`]). Each has a thread of its own; a
//! simulation runs them beside everything else in one thread.
//!
//! Always true: deltas become durable in the order in which they were appended; a delta whose append
//! returned outlives the process; a commit that resolves `Ok` has made durable what was written and
//! appended before it was asked for.
//!
//! After a failed sync nobody can know what the device holds, so the tier counts as failed: every
//! later commit fails, and nothing is written any more. Other I/O errors fail the commit they meet; its
//! deltas stay pending, and the next commit tries again.

use std::io;
use std::pin::Pin;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::checkpoint::Place;
use super::checkpointer;
use super::commit::{Commit, Outcome, Waiter};
use super::delta::Delta;
use super::device::FastDevice;
use super::error::FastTierError;
use super::layout::{self, Layout};
use super::log::{DeltaLog, LogPosition};
use super::pending::{Half, PendingLog};
use super::ring::Ring;
use super::rounds::Rounds;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use crate::volume::{Flushes, Room, lock};

/// Bytes of a half that are kept for what is appended beside requests' promised deltas (the ends of epochs, deletions,
/// slots given up), at most; of small halves it is one half of them.
pub const ROOM_RESERVE_BYTES: usize = 1 << 20;

/// The engine's state, as a checkpoint keeps it.
pub trait Facts: Send + Sync {
    /// Walks over it: gives every whole fact, one after the other, while requests go on.
    ///
    /// It must show every change whose append had returned when the walk began, and no change whose append
    /// has not returned: so the engine changes its map and appends under one lock, and takes that lock to read
    /// a fact. It holds no lock between two facts: they are written to the device as they come.
    fn facts(&self) -> Box<dyn Iterator<Item = Delta> + Send + '_>;
}

/// What a task of the committer does, until it is told to stop.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Whether the tier takes commits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    /// It does.
    Good,
    /// The last commit or checkpoint failed; what is pending is tried again.
    Degraded(String),
    /// A sync failed: what was written since the one before may be lost. No commit succeeds any more; the
    /// volume has to be stopped, and opened again from what is durable.
    Failed(String),
}

/// Where the journal stands, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalStatus {
    /// Whether commits succeed.
    pub health: Health,
    /// The newest durable commit.
    pub lsn: forerun::geometry::Lsn,
    /// Bytes of the ring in use.
    pub used_bytes: u64,
    /// Bytes of the ring.
    pub size_bytes: u64,
    /// Bytes of deltas that are not in a commit yet.
    pub pending_bytes: u64,
    /// Checkpoints taken since the start.
    pub checkpoints: u64,
}

/// What both threads and all appenders share.
pub(super) struct Shared {
    pub device: Arc<dyn FastDevice>,
    /// Where everything is; the journal's part never changes.
    pub layout: Mutex<Layout>,
    /// Bytes of a half of the pending log.
    pub half_bytes: usize,
    pub volume: Uuid,
    pub generation: u64,
    pub pending: PendingLog,
    /// The oldest pending delta waits no longer than this for a commit.
    pub idle: Duration,
    pub inner: Mutex<Inner>,
    /// The journal's task waits here for work.
    pub work: Room,
    /// Tasks wait here: for a checkpoint, or for something to do for one.
    pub changed: Room,
    /// Appenders wait here for room.
    pub room: Condvar,
    pub appended: AtomicU64,
    pub durable: AtomicU64,
    /// Bytes in use of the active half; more than any half has when nothing is taken any more.
    pub used: AtomicUsize,
    /// The tier is closed or has failed for good: what is appended from now on is lost.
    pub failed: AtomicBool,
    pub after_commit: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
    /// One checkpoint at a time.
    pub checkpoint_turn: tokio::sync::Mutex<()>,
    /// The device's flushes that are on their way, also those of requests.
    pub flushes: Flushes,
}

/// What they share under the lock.
pub(super) struct Inner {
    pub active: Half,
    pub active_lsn: u64,
    pub spare: Option<Half>,
    /// When the oldest delta of the active half was appended.
    pub oldest: Option<Instant>,
    pub scratch: Vec<u8>,
    pub waiters: Vec<Arc<Waiter>>,
    pub kick: bool,
    pub ring: Ring,
    /// Appenders that wait for room.
    pub blocked: usize,
    /// A checkpoint waits for the log to be durable up to here; those commits may take the ring's last pages.
    pub draining: Option<u64>,
    pub stop: bool,
    pub health: Health,
    pub newest_sealed: Option<Delta>,
    pub checkpoint: CheckpointState,
}

/// Where checkpoints stand.
pub(super) struct CheckpointState {
    /// The newest valid one.
    pub place: Place,
    /// The number of the last attempt: no two share one, so that their pages cannot be mixed up.
    pub attempted: u64,
    pub wanted: bool,
    pub running: bool,
    pub failed: Option<Outcome>,
    pub source: Option<Arc<dyn Facts>>,
    pub taken: u64,
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    pub fn layout(&self) -> Layout {
        *lock(&self.layout)
    }

    /// Tells everybody who waits that something is not as it was.
    pub fn tell(&self) {
        self.room.notify_all();
        self.changed.wake_all();
    }

    /// Bytes of a half that requests may fill before they have to wait.
    fn room_limit(&self) -> usize {
        self.half_bytes - ROOM_RESERVE_BYTES.min(self.half_bytes / 2)
    }

    /// Recomputes what [`DeltaLog::has_room`] answers.
    pub fn update_room(&self, inner: &Inner) {
        let failed = matches!(inner.health, Health::Failed(_));
        self.used.store(if failed { usize::MAX } else { inner.active.used() }, Ordering::Release);
    }

    /// Makes completed writes durable; a failure is for good, whoever's sync it was.
    ///
    /// Linux tells of lost writes once. So where a checkpoint's sync, or a request's flush, was told that a commit's pages are
    /// lost, the commit's own sync succeeds after that: its success counts only if none has failed.
    pub async fn sync(&self) -> io::Result<()> {
        self.device.turn().await;
        let flush = self.flushes.begin();
        self.device.sync().inspect_err(|error| self.sync_failed(error))?;
        tokio::select! {
            // Not by chance: a simulation's runs are the same each time.
            biased;
            () = flush.succeeded() => {}
            // It may hold a lock that the thread of one of those flushes waits for, and would never get.
            () = self.blocked_appender() => {}
        }
        self.check_health()
    }

    /// Waits until somebody waits for room in [`DeltaLog::append`], which is rare: most look first.
    async fn blocked_appender(&self) {
        loop {
            let seen = self.changed.now();
            if self.lock().blocked > 0 {
                return;
            }
            self.changed.after(seen).await;
        }
    }

    /// Takes note of a failed sync, whoever asked the device for it: Linux tells of lost writes once.
    pub fn sync_failed(&self, error: &io::Error) {
        let words = format!(
            "the fast tier failed to make writes durable ({error}); what was written since the last flush may be lost; \
             nothing is acknowledged any more: stop the volume, see to the device, and start it again"
        );
        self.fail(words, true);
    }

    /// Nothing is acknowledged any more, for the reason in `words`; `lost` where writes may be that were.
    pub fn fail(&self, words: String, lost: bool) {
        let mut inner = self.lock();
        if matches!(inner.health, Health::Failed(_)) {
            return;
        }
        tracing::error!("{words}");
        inner.health = Health::Failed(words);
        if lost {
            self.pending.void();
        }
        self.failed.store(true, Ordering::SeqCst);
        self.update_room(&inner);
        self.work.wake_all();
        self.tell();
    }

    /// The error of a tier that has failed.
    pub fn check_health(&self) -> io::Result<()> {
        match &self.lock().health {
            Health::Failed(words) => Err(io::Error::other(words.clone())),
            _ => Ok(()),
        }
    }

    pub fn commit(&self) -> Commit {
        let waiter = Arc::new(Waiter::default());
        let mut inner = self.lock();
        if inner.stop {
            drop(inner);
            waiter.finish(&Err((io::ErrorKind::BrokenPipe, "the fast tier is closed".to_owned())));
        } else {
            inner.waiters.push(Arc::clone(&waiter));
            self.work.wake_all();
        }
        Commit(waiter)
    }
}

/// The journal's end that the engine writes to.
pub struct Committer {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Committer {
    /// A committer, and its tasks: nothing gets durable before they run.
    pub(super) fn new(shared: Arc<Shared>) -> (Self, [(&'static str, Work); 2]) {
        let rounds = Rounds::new(Arc::clone(&shared));
        let work: [(_, Work); 2] = [
            ("journal", Box::pin(rounds.run())),
            ("checkpoint", Box::pin(checkpointer::run(Arc::clone(&shared)))),
        ];
        (Self { shared, threads: Mutex::default() }, work)
    }

    /// Gives a task a thread of its own.
    pub(super) fn spawn(&self, name: &'static str, work: Work) -> Result<(), FastTierError> {
        let start = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(work))
        };
        lock(&self.threads).push(start().map_err(|source| FastTierError::Thread { name, source })?);
        Ok(())
    }

    /// Makes everything written and appended before this call durable. It begins with the call, not when
    /// it is first polled.
    pub fn commit(&self) -> Commit {
        self.shared.commit()
    }

    /// [`Self::commit`], waited for.
    ///
    /// # Errors
    /// What the device failed with.
    pub fn commit_blocking(&self) -> io::Result<()> {
        self.shared.commit().wait()
    }

    /// Calls `callback` after every round of the journal, also a failed one, before its waiters are woken.
    /// It is called on the journal's thread and must not wait for a commit.
    pub fn after_commit(&self, callback: impl Fn() + Send + Sync + 'static) {
        *lock(&self.shared.after_commit) = Some(Arc::new(callback));
    }

    /// Takes checkpoints of this state from now on, whenever the ring is over half full.
    pub fn checkpoints(&self, state: Arc<dyn Facts>) {
        let mut inner = self.shared.lock();
        inner.checkpoint.source = Some(state);
        inner.checkpoint.wanted = inner.ring.is_half_full();
        self.shared.tell();
    }

    /// Takes a checkpoint of this state now; commits go on meanwhile.
    ///
    /// # Errors
    /// What the device failed with; the checkpoint before is as good as it was.
    pub async fn checkpoint(&self, state: &dyn Facts) -> io::Result<()> {
        checkpointer::take(&self.shared, state).await
    }

    /// Where everything is on the tier, now.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.shared.layout()
    }

    /// Why no commit succeeds any more, if that is so.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        match &self.shared.lock().health {
            Health::Failed(words) => Some(words.clone()),
            _ => None,
        }
    }

    /// The device's flushes that are on their way: whoever flushes it beside the committer begins one here.
    #[must_use]
    pub fn flushes(&self) -> &Flushes {
        &self.shared.flushes
    }

    /// Takes note of a sync of the tier's device that failed for somebody else: the tier has failed.
    pub fn sync_failed(&self, error: &io::Error) {
        self.shared.sync_failed(error);
    }

    /// Where the journal stands.
    #[must_use]
    pub fn status(&self) -> JournalStatus {
        let page = super::page::PAGE_BYTES as u64;
        let inner = self.shared.lock();
        JournalStatus {
            health: inner.health.clone(),
            lsn: inner.ring.next().lsn,
            used_bytes: inner.ring.used() * page,
            size_bytes: inner.ring.pages() * page,
            pending_bytes: inner.active.used() as u64,
            checkpoints: inner.checkpoint.taken,
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Ends the tasks after what they are doing now, and waits for their threads. What is pending stays pending.
    pub(super) fn stop(&self) {
        {
            let mut inner = self.shared.lock();
            inner.stop = true;
            self.shared.failed.store(true, Ordering::SeqCst);
            inner.checkpoint.source = None;
            self.shared.work.wake_all();
            self.shared.tell();
        }
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the fast tier had panicked");
            }
        }
        *lock(&self.shared.after_commit) = None;
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl DeltaLog for Committer {
    fn append(&self, delta: &Delta) -> LogPosition {
        let shared = &self.shared;
        let mut inner = shared.lock();
        loop {
            let Inner { active, scratch, .. } = &mut *inner;
            scratch.clear();
            delta.encode(scratch);
            if active.append(scratch) {
                break;
            }
            // A tier that failed, or is closed, makes no room any more: the delta is dropped, and never durable.
            // `has_failed` says so by now, and whoever appended it must not acknowledge anything.
            if inner.stop || matches!(inner.health, Health::Failed(_)) {
                break;
            }
            inner.blocked += 1;
            inner.kick = true;
            shared.work.wake_all();
            shared.changed.wake_all();
            inner = shared.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
            inner.blocked -= 1;
        }
        if matches!(delta, Delta::Sealed { .. }) {
            inner.newest_sealed = Some(delta.clone());
        }
        if inner.oldest.is_none() {
            inner.oldest = Some(Instant::now());
            shared.work.wake_all();
        }
        if !inner.kick && inner.active.used() > shared.room_limit() / 2 {
            inner.kick = true;
            shared.work.wake_all();
        }
        shared.update_room(&inner);
        LogPosition(shared.appended.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn appended(&self) -> LogPosition {
        LogPosition(self.shared.appended.load(Ordering::SeqCst))
    }

    fn durable(&self) -> LogPosition {
        LogPosition(self.shared.durable.load(Ordering::SeqCst))
    }

    fn has_room(&self, promised: u32) -> bool {
        let promised = promised as usize * layout::HOLDS_BYTES as usize;
        self.shared.used.load(Ordering::Acquire).saturating_add(promised) < self.shared.room_limit()
    }

    fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }
}
