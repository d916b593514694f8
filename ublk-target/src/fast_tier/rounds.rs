//! The journal's task: one round after the other, each making durable all that was there when it began.
//!
//! A round: the active half is taken away (new deltas go to the other one), the device is synced, so that the
//! data of all its deltas is durable; then its records are written; then the device is synced again.
//!
//! What a crash leaves: before the last sync, the commits before this one, and of this one all or
//! nothing. The half is emptied after that sync, so until then a killed process leaves it to the next.

use std::io;
use std::time::Duration;

use forerun::geometry::Lsn;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::commit::{Outcome, Waiter, outcome};
use super::committer::{Health, Inner, Shared};
use super::journal::JournalWriter;
use super::pending::Half;
use super::ring::JournalPoint;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::volume::lock;

/// A half that no delta is added to any more.
struct Batch {
    half: Half,
    lsn: u64,
    /// The log's position after its last delta.
    end: u64,
}

/// The task's state.
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
        let writer = JournalWriter::new(shared.volume, shared.generation, shared.layout());
        Self { shared, writer, frozen: None, retry_at: None }
    }

    /// Works until the committer stops.
    pub async fn run(mut self) {
        while let Some(waiters) = self.wait_for_work().await {
            let result = self.round().await;
            self.note(&result);
            let callback = lock(&self.shared.after_commit).clone();
            if let Some(callback) = callback {
                callback();
            }
            finish(waiters, &outcome(&result));
            // A checkpoint may be among those who waited.
            self.shared.tell();
        }
        let waiters = std::mem::take(&mut self.shared.lock().waiters);
        finish(waiters, &Err((io::ErrorKind::BrokenPipe, "the fast tier is closed".to_owned())));
        self.shared.tell();
    }

    /// Waits for somebody to ask, for a half that fills up, or for the oldest delta's time.
    async fn wait_for_work(&self) -> Option<Vec<Arc<Waiter>>> {
        loop {
            let seen = self.shared.work.now();
            let left = {
                let mut inner = self.shared.lock();
                if inner.stop {
                    return None;
                }
                let left = self.time_left(&inner);
                if inner.kick || !inner.waiters.is_empty() || left.is_some_and(|left| left.is_zero()) {
                    inner.kick = false;
                    return Some(std::mem::take(&mut inner.waiters));
                }
                left
            };
            let work = self.shared.work.after(seen);
            match left {
                // Woken or not: it looks again.
                Some(left) => drop(timeout(left, work).await),
                None => work.await,
            }
        }
    }

    /// How long it may wait when nobody asks.
    fn time_left(&self, inner: &Inner) -> Option<Duration> {
        let idle_at = inner.oldest.and_then(|oldest| oldest.checked_add(self.shared.idle));
        let failed = matches!(inner.health, Health::Failed(_));
        let due = self.retry_at.or(idle_at).filter(|_| !failed);
        due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    async fn round(&mut self) -> io::Result<()> {
        self.shared.check_health()?;
        let mut retried = false;
        loop {
            let again = self.frozen.is_some();
            let Some(batch) = self.frozen.take().or_else(|| self.freeze()) else {
                // Nothing was remapped: the data is all there is, and the retried commit covered none of it.
                return if retried { Ok(()) } else { self.shared.sync().await };
            };
            match self.write(&batch).await {
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
        self.shared.tell();
        Some(Batch { half, lsn, end })
    }

    async fn write(&mut self, batch: &Batch) -> io::Result<u64> {
        // The data that the deltas speak of has been written, and is durable before they are.
        self.shared.sync().await?;
        let pages = JournalWriter::pages_of(batch.half.bytes())?;
        let at = self.wait_for_ring(pages).await?;
        self.shared.device.turn().await;
        debug_assert_eq!(at.lsn.0 + 1, batch.lsn, "commits follow each other");
        let written = self.writer.write(&*self.shared.device, at, batch.half.bytes())?;
        debug_assert_eq!(written, pages);
        self.shared.sync().await?;
        Ok(pages)
    }

    /// Waits until `pages` pages of the ring can be written, with enough left for a checkpoint to end.
    async fn wait_for_ring(&self, pages: u64) -> io::Result<JournalPoint> {
        let tried = self.shared.lock().checkpoint.attempted;
        loop {
            let seen = self.shared.changed.now();
            if let Some(point) = self.look_at_ring(pages, tried)? {
                return Ok(point);
            }
            self.shared.tell();
            self.shared.changed.after(seen.wrapping_add(1)).await;
        }
    }

    /// Where the next record goes; `None` while a checkpoint has to make room, which is wanted then. Only one that was
    /// begun after the first `tried` says that there is none: the fault that an earlier one met may be over.
    fn look_at_ring(&self, pages: u64, tried: u64) -> io::Result<Option<JournalPoint>> {
        let mut inner = self.shared.lock();
        let draining = inner.draining.is_some_and(|end| end > self.shared.durable.load(Ordering::SeqCst));
        if inner.ring.free() >= pages + reserve(draining, &inner, self.shared.layout().batch_pages()) {
            return Ok(Some(inner.ring.next()));
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
        let why = match (&checkpoint.source, &checkpoint.failed) {
            (_, Some(Err((_, words)))) if !checkpoint.running && checkpoint.attempted > tried => {
                words.clone()
            }
            (None, _) if !checkpoint.running => "nobody takes one".to_owned(),
            _ => {
                checkpoint.wanted |= !checkpoint.running;
                return Ok(None);
            }
        };
        checkpoint.wanted = true;
        self.shared.tell();
        let words = format!("the journal is full until a checkpoint succeeds: {why}");
        Err(io::Error::new(io::ErrorKind::StorageFull, words))
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
        self.shared.tell();
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
