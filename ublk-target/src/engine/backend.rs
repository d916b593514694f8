//! The volume behind a device.

use std::future::Future;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use forerun::geometry::{BlockIndex, Geometry};
use tokio::sync::{mpsc, oneshot};

use crate::aligned::AlignedBuffer;
use crate::background::{Ask, Shared};
use crate::fast_tier::OpenSuperblock;
use crate::request::{Backend, Request, RequestIo};
use crate::volume::Flushes;
use crate::volume::handle::{Handler, Services};

/// One request in so many is timed, for the budget of background work.
const TIMED_ONE_IN: u32 = 16;

/// The other threads, as requests see them.
pub(crate) struct Threads {
    pub shared: Arc<Shared>,
    pub asks: mpsc::UnboundedSender<Ask>,
}

impl Services for Threads {
    async fn fetch(&self, block: BlockIndex, place: NonZeroU64) -> io::Result<Arc<AlignedBuffer>> {
        let (reply, answer) = oneshot::channel();
        let gone = || io::Error::other("the volume is being closed");
        self.asks.send(Ask::Fetch { block, place, reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    fn commit(&self) -> impl Future<Output = io::Result<()>> {
        self.shared.committer.commit()
    }

    fn flushes(&self) -> &Flushes {
        self.shared.committer.flushes()
    }

    fn flush_failed(&self, error: &io::Error) {
        self.shared.committer.sync_failed(error);
    }

    fn fast_tier_failed(&self, operation: &'static str, block: BlockIndex, error: &io::Error) {
        self.shared.fast_tier_failed(operation, block, error);
    }

    fn need_room(&self) {
        // A closed channel means that the volume is being closed: nobody waits for room then.
        let _ = self.asks.send(Ask::Room);
    }
}

/// A volume that serves requests.
pub struct VolumeBackend {
    pub(super) threads: Threads,
    pub(super) fast: std::fs::File,
    pub(super) slots_offset: u64,
    /// Of the fast tier, for the volume's growth.
    pub(super) superblock: OpenSuperblock,
    requests: AtomicU32,
}

impl VolumeBackend {
    pub(super) fn new(
        threads: Threads,
        fast: std::fs::File,
        slots_offset: u64,
        superblock: OpenSuperblock,
    ) -> Self {
        Self { threads, fast, slots_offset, superblock, requests: AtomicU32::new(0) }
    }
}

impl Backend for VolumeBackend {
    fn geometry(&self) -> Geometry {
        self.threads.shared.volume.geometry()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn fast_tier(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fast.as_fd())
    }

    async fn handle<I: RequestIo>(&self, request: Request, io: &I) -> io::Result<()> {
        let handler = Handler {
            volume: &self.threads.shared.volume,
            services: &self.threads,
            slots_offset: self.slots_offset,
        };
        // Relaxed and shared by the queues: which requests are timed does not matter.
        if !self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(TIMED_ONE_IN) {
            return handler.handle(request, io).await;
        }
        let begun = Instant::now();
        let result = handler.handle(request, io).await;
        let ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.threads.shared.foreground.note(ns);
        result
    }
}
