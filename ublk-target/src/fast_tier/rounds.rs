//! The journal's thread: one round after the other, each making durable all that was there when it began.
//!
//! A round: the active half is taken away (new deltas go to the other one), the device is synced, so that the
//! data of all its deltas is durable; then its records are written; then the device is synced again.
//!
//! What a crash leaves: before the last sync, the commits before this one, and of this one all or
//! nothing. The half is emptied after that sync, so until then a killed process leaves it to the next.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use forerun::geometry::Lsn;
use tracing::warn;

use super::commit::{Outcome, Waiter, outcome};
use super::committer::{Health, Inner, Shared};
use super::journal::JournalWriter;
use super::pending::Half;
use super::ring::JournalPoint;
use crate::volume::lock;

/// A half that no delta is added to any more.
struct Batch {
    half: Half,
    lsn: u64,
    /// The log's position after its last delta.
    end: u64,
}

/// The thread's state.
pub(super) struct Rounds {
    shared: Arc<Shared>,
    writer: JournalWriter,
    /// A batch whose commit failed, to be tried again with the same bytes.
    frozen: Option<Batch>,
    /// When to try again.
    retry_at: Option<Instant>,
}

impl Rounds {
    pub fn new(shared: Arc<Shared>) -> Self {
        let writer = JournalWriter::new(shared.volume, shared.generation, shared.layout);
        Self { shared, writer, frozen: None, retry_at: None }
    }

    /// Works until the committer stops.
    pub fn run(mut self) {
        while let Some(waiters) = self.wait_for_work() {
            let result = self.round();
            self.note(&result);
            let callback = lock(&self.shared.after_commit).clone();
            if let Some(callback) = callback {
                callback();
            }
            finish(waiters, &outcome(&result));
            // A checkpoint may be among those who waited.
            drop(self.shared.lock());
            self.shared.changed.notify_all();
        }
        let waiters = std::mem::take(&mut self.shared.lock().waiters);
        finish(waiters, &Err((io::ErrorKind::BrokenPipe, "the fast tier is closed".to_owned())));
        drop(self.shared.lock());
        self.shared.changed.notify_all();
    }

    /// Waits for somebody to ask, for a half that fills up, or for the oldest delta's time.
    fn wait_for_work(&self) -> Option<Vec<Arc<Waiter>>> {
        let mut inner = self.shared.lock();
        loop {
            if inner.stop {
                return None;
            }
            if inner.kick || !inner.waiters.is_empty() {
                break;
            }
            let idle_at = inner.oldest.and_then(|oldest| oldest.checked_add(self.shared.idle));
            let failed = matches!(inner.health, Health::Failed(_));
            let due = self.retry_at.or(idle_at).filter(|_| !failed);
            inner = match due.map(|due| due.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => break,
                Some(left) => self
                    .shared
                    .work
                    .wait_timeout(inner, left)
                    .map_or_else(|e| e.into_inner().0, |(inner, _)| inner),
                None => self.shared.work.wait(inner).unwrap_or_else(std::sync::PoisonError::into_inner),
            };
        }
        inner.kick = false;
        Some(std::mem::take(&mut inner.waiters))
    }

    fn round(&mut self) -> io::Result<()> {
        self.shared.check_health()?;
        let mut retried = false;
        loop {
            let again = self.frozen.is_some();
            let Some(batch) = self.frozen.take().or_else(|| self.freeze()) else {
                // Nothing was remapped: the data is all there is, and the retried commit covered none of it.
                return if retried { Ok(()) } else { self.shared.sync() };
            };
            match self.write(&batch) {
                Ok(pages) => self.publish(batch, pages),
                Err(error) => {
                    self.frozen = Some(batch);
                    return Err(error);
                }
            }
            if !again {
                return Ok(());
            }
            retried = true;
        }
    }

    /// Takes the active half away, if there is anything in it.
    fn freeze(&self) -> Option<Batch> {
        let mut inner = self.shared.lock();
        if inner.active.used() == 0 {
            return None;
        }
        let mut next = inner.spare.take()?;
        let lsn = inner.active_lsn;
        inner.active_lsn += 1;
        next.begin(Lsn(inner.active_lsn));
        let half = std::mem::replace(&mut inner.active, next);
        inner.oldest = None;
        let end = self.shared.appended.load(Ordering::SeqCst);
        self.shared.update_room(&inner);
        self.shared.changed.notify_all();
        Some(Batch { half, lsn, end })
    }

    fn write(&mut self, batch: &Batch) -> io::Result<u64> {
        // The data that the deltas speak of has been written, and is durable before they are.
        self.shared.sync()?;
        let pages = JournalWriter::pages_of(batch.half.bytes())?;
        let at = self.wait_for_ring(pages)?;
        debug_assert_eq!(at.lsn.0 + 1, batch.lsn, "commits follow each other");
        let written = self.writer.write(&*self.shared.device, at, batch.half.bytes())?;
        debug_assert_eq!(written, pages);
        self.shared.sync()?;
        Ok(pages)
    }

    /// Waits until `pages` pages of the ring can be written, with enough left for a checkpoint to end.
    fn wait_for_ring(&self, pages: u64) -> io::Result<JournalPoint> {
        let mut inner = self.shared.lock();
        loop {
            let draining = inner.draining.is_some_and(|end| end > self.shared.durable.load(Ordering::SeqCst));
            if inner.ring.free() >= pages + reserve(draining, &inner, self.shared.layout.batch_pages()) {
                return Ok(inner.ring.next());
            }
            if draining {
                // Only after a checkpoint that failed at its very end; opening the tier anew takes one that
                // needs no commit.
                let words =
                    "the journal is full, and a checkpoint cannot end: stop the volume and start it again";
                return Err(io::Error::new(io::ErrorKind::StorageFull, words));
            }
            if inner.stop {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the fast tier is closed"));
            }
            if let Health::Failed(words) = &inner.health {
                return Err(io::Error::other(words.clone()));
            }
            let checkpoint = &mut inner.checkpoint;
            let why = match (&checkpoint.source, checkpoint.failed.take()) {
                (_, Some(Err((_, words)))) if !checkpoint.running => words,
                (None, _) if !checkpoint.running => "nobody takes one".to_owned(),
                _ => {
                    if !checkpoint.running {
                        checkpoint.wanted = true;
                    }
                    self.shared.changed.notify_all();
                    inner = self.shared.wait_changed(inner);
                    continue;
                }
            };
            checkpoint.wanted = true;
            self.shared.changed.notify_all();
            let words = format!("the journal is full until a checkpoint succeeds: {why}");
            return Err(io::Error::new(io::ErrorKind::StorageFull, words));
        }
    }

    /// Everything in the batch is durable: says so, and takes its half for new deltas.
    fn publish(&self, batch: Batch, pages: u64) {
        let Batch { mut half, lsn, end } = batch;
        self.shared.pending.durable(Lsn(lsn));
        half.begin(Lsn(lsn));
        let mut inner = self.shared.lock();
        inner.ring.advance(pages);
        inner.spare = Some(half);
        self.shared.durable.store(end, Ordering::SeqCst);
        inner.checkpoint.wanted |= inner.ring.is_half_full() && !inner.checkpoint.running;
        self.shared.changed.notify_all();
    }

    /// Keeps how the round went for status.
    fn note(&mut self, result: &io::Result<()>) {
        let mut inner = self.shared.lock();
        self.retry_at = None;
        match (result, &inner.health) {
            (_, Health::Failed(_)) => {}
            (Ok(()), Health::Good) => {}
            (Ok(()), Health::Degraded(_)) => {
                if inner.checkpoint.failed.is_none() {
                    inner.health = Health::Good;
                }
            }
            (Err(error), before) => {
                let now = Health::Degraded(error.to_string());
                // Once for each reason: it is tried again as often as somebody asks.
                if *before != now {
                    warn!(%error, "a commit of the fast tier's journal failed; it will be tried again");
                }
                inner.health = now;
                self.retry_at = Instant::now().checked_add(self.shared.idle);
            }
        }
    }
}

/// Ring pages that a commit has to leave. A checkpoint needs two commits to end: that of the frozen and
/// that of the active half; an engine that waits for room with its locks held may need one more before.
fn reserve(draining: bool, inner: &Inner, batch_pages: u64) -> u64 {
    match (draining, inner.blocked) {
        (true, _) => 0,
        (false, 0) => 3 * batch_pages,
        (false, _) => 2 * batch_pages,
    }
}

fn finish(waiters: Vec<Arc<Waiter>>, outcome: &Outcome) {
    for waiter in waiters {
        waiter.finish(outcome);
    }
}
