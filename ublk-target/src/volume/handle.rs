//! Doing requests: plan, I/O on the request's own ring, commit.
//!
//! This is the hot path. A hit is one look-up and one I/O; everything else is below `slow`.
//!
//! A request that has to wait (for a slot, for the journal, for another write of the same sub-block)
//! holds nothing while it waits and plans anew.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::num::NonZeroU64;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use forerun::geometry::{BLOCK_BYTES, BlockIndex, SUB_BLOCK_BYTES, SlotId};

use super::read::{Piece, ReadPlan, Source};
use super::write::{LogFailed, NotYet, WriteTicket};
use super::{Flushes, Span, Volume};
use crate::aligned::AlignedBuffer;
use crate::request::{Operation, Request, RequestIo};

/// After this many blocks a long discard lets other requests of its queue go on.
const DISCARD_BLOCKS_A_TURN: u32 = 512;

/// What a request may need from other threads.
pub trait Services: Send + Sync {
    /// Reads a whole block from its place on the capacity tier, verified.
    fn fetch(
        &self,
        block: BlockIndex,
        place: NonZeroU64,
    ) -> impl Future<Output = io::Result<Arc<AlignedBuffer>>>;
    /// Makes all data and all deltas that were there before the call durable.
    fn commit(&self) -> impl Future<Output = io::Result<()>>;
    /// The flushes of the fast tier that are on their way.
    fn flushes(&self) -> &Flushes;
    /// Says that a flush of the fast tier failed. The device tells of lost writes once: nothing may be taken for
    /// durable from now on.
    fn flush_failed(&self, error: &io::Error);
    /// Says that I/O on the fast tier failed for a request, which fails with it. `operation` is a verb.
    fn fast_tier_failed(&self, operation: &'static str, block: BlockIndex, error: &io::Error);
    /// Says that a request waits: free slots, and let the journal catch up.
    fn need_room(&self);
}

/// Does requests on a volume whose slots begin at `slots_offset` of the fast tier.
pub struct Handler<'a, S> {
    /// The map.
    pub volume: &'a Volume,
    /// The other threads.
    pub services: &'a S,
    /// Where slot 0 begins on the fast tier, in bytes.
    pub slots_offset: u64,
}

/// Where a write's bytes come from.
#[derive(Clone, Copy)]
enum Data {
    /// The request's data from this offset on.
    Request(u32),
    /// Zeros.
    Zeros,
}

thread_local! {
    static LANE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// A small number of this thread's own.
fn lane() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    LANE.with(|lane| {
        lane.get().unwrap_or_else(|| {
            let own = NEXT.fetch_add(1, Ordering::Relaxed);
            lane.set(Some(own));
            own
        })
    })
}

impl<S: Services> Handler<'_, S> {
    /// Does a request.
    ///
    /// # Errors
    /// What the tiers' I/O failed with.
    pub async fn handle<I: RequestIo>(&self, request: Request, io: &I) -> io::Result<()> {
        let stats = self.volume.stats();
        let len = u64::from(request.len_bytes);
        let result = match request.operation {
            Operation::Read => {
                stats.read_requests.add(1);
                stats.read_bytes.add(len);
                self.read(request, io).await
            }
            Operation::Write { fua } => {
                stats.write_requests.add(1);
                stats.write_bytes.add(len);
                let written = self.write(request, io).await;
                if fua && written.is_ok() { self.flush(io).await } else { written }
            }
            Operation::Flush => {
                stats.flush_requests.add(1);
                self.flush(io).await
            }
            Operation::Discard => {
                stats.discard_requests.add(1);
                self.forget(request, io, false).await
            }
            Operation::WriteZeroes { fua, .. } => {
                stats.discard_requests.add(1);
                let zeroed = self.forget(request, io, true).await;
                if fua && zeroed.is_ok() { self.flush(io).await } else { zeroed }
            }
        };
        if result.is_err() {
            stats.failed_requests.add(1);
        }
        result
    }

    const fn at(&self, slot: SlotId, start: u32) -> u64 {
        self.slots_offset + slot.offset_bytes() + start as u64
    }

    async fn read<I: RequestIo>(&self, request: Request, io: &I) -> io::Result<()> {
        let span = first_span(request);
        if span.len == request.len_bytes {
            return self.read_span(span, 0, io).await;
        }
        let spans = spans_with_data(request).map(|(span, at)| self.read_span(span, at, io));
        all(spans).await
    }

    async fn read_span<I: RequestIo>(&self, span: Span, at: u32, io: &I) -> io::Result<()> {
        if let Some(hit) = self.volume.read_hit(span) {
            self.volume.stats().read_hits.add(1);
            let read = io.fast_to_data(self.at(hit.slot(), span.start), at, span.len).await;
            return self.told("read", span.block, read);
        }
        let plan = self.volume.plan_read(span);
        let fetched = match plan.capacity_place() {
            Some(place) => {
                self.volume.stats().read_misses.add(1);
                Some(self.services.fetch(span.block, place).await?)
            }
            None => {
                self.volume.stats().read_hits.add(1);
                None
            }
        };
        for Piece { source, start, len } in &plan.pieces {
            let to = at + (start - span.start);
            match source {
                Source::Fast(slot) => {
                    let read = io.fast_to_data(self.at(*slot, *start), to, *len).await;
                    self.told("read", span.block, read)?;
                }
                Source::Zero => io.zero(to, *len).await?,
                Source::Capacity(_) => io.put(to, part(fetched.as_deref(), *start, *len)?).await?,
            }
        }
        Ok(())
    }

    async fn write<I: RequestIo>(&self, request: Request, io: &I) -> io::Result<()> {
        let span = first_span(request);
        if span.len == request.len_bytes {
            return self.write_span(span, Data::Request(0), io).await;
        }
        let spans = spans_with_data(request).map(|(span, at)| self.write_span(span, Data::Request(at), io));
        all(spans).await
    }

    async fn write_span<I: RequestIo>(&self, span: Span, data: Data, io: &I) -> io::Result<()> {
        loop {
            if let Some(hit) = self.volume.write_hit(lane(), span) {
                return self.store(hit.slot(), span, data, io).await;
            }
            let seen = self.volume.room().now();
            match self.volume.plan_write(lane(), span) {
                Ok(ticket) => {
                    self.write_planned(&ticket, span, data, io).await?;
                    return ticket.commit().map_err(|LogFailed| log_failed());
                }
                Err(not_yet) => self.wait(not_yet, seen).await?,
            }
        }
    }

    /// Puts the bytes of `span` into a slot.
    async fn store<I: RequestIo>(&self, slot: SlotId, span: Span, data: Data, io: &I) -> io::Result<()> {
        let to = self.at(slot, span.start);
        let written = match data {
            Data::Request(at) => io.data_to_fast(to, at, span.len).await,
            Data::Zeros => io.write_fast(to, AlignedBuffer::zeroed(span.len as usize)).await.0,
        };
        self.told("write", span.block, written)
    }

    /// An error of the fast tier, once others know of it.
    fn told(&self, operation: &'static str, block: BlockIndex, result: io::Result<()>) -> io::Result<()> {
        result.inspect_err(|error| self.services.fast_tier_failed(operation, block, error))
    }

    async fn write_planned<I: RequestIo>(
        &self,
        ticket: &WriteTicket<'_>,
        span: Span,
        data: Data,
        io: &I,
    ) -> io::Result<()> {
        let Some(below) = ticket.fetch() else { return self.store(ticket.slot(), span, data, io).await };
        let fetched = match below.capacity_place() {
            Some(place) => {
                self.volume.stats().read_misses.add(1);
                Some(self.services.fetch(span.block, place).await?)
            }
            None => None,
        };
        let sub_block = SUB_BLOCK_BYTES as u32;
        let (mut start, mut end) = (span.start, span.start + span.len);
        for number in (0..16).filter(|n| ticket.partial().0 >> n & 1 == 1) {
            let first = number * sub_block;
            let whole = self.complete(below, fetched.as_deref(), first, span, data, io).await?;
            let (written, _) = io.write_fast(self.at(ticket.slot(), first), whole).await;
            self.told("write", span.block, written)?;
            // A partial sub-block is the span's first or its last.
            if first <= span.start {
                start = end.min(first + sub_block);
            } else {
                end = first;
            }
        }
        if start >= end {
            return Ok(());
        }
        let rest = Span { start, len: end - start, ..span };
        let data = match data {
            Data::Request(at) => Data::Request(at + (start - span.start)),
            Data::Zeros => Data::Zeros,
        };
        self.store(ticket.slot(), rest, data, io).await
    }

    /// One sub-block at `first`, whole: what lies below with the span's bytes over it.
    async fn complete<I: RequestIo>(
        &self,
        below: &ReadPlan<'_>,
        fetched: Option<&AlignedBuffer>,
        first: u32,
        span: Span,
        data: Data,
        io: &I,
    ) -> io::Result<AlignedBuffer> {
        let sub_block = SUB_BLOCK_BYTES as u32;
        let mut whole = AlignedBuffer::zeroed(sub_block as usize);
        let piece = below
            .pieces
            .iter()
            .find(|piece| piece.start <= first && first + sub_block <= piece.start + piece.len)
            .ok_or_else(|| io::Error::other("a partial sub-block has no source below it"))?;
        match piece.source {
            Source::Fast(slot) => {
                let (read, buffer) = io.read_fast(self.at(slot, first), whole).await;
                self.told("read", span.block, read)?;
                whole = buffer;
            }
            Source::Capacity(_) => whole.copy_from_slice(part(fetched, first, sub_block)?),
            Source::Zero => {}
        }
        let from = span.start.max(first);
        let to = (span.start + span.len).min(first + sub_block);
        let Some(target) = whole.get_mut((from - first) as usize..(to - first) as usize) else {
            return Err(io::Error::other("a span lies outside of its sub-block"));
        };
        match data {
            Data::Request(at) => io.get(at + (from - span.start), target).await?,
            Data::Zeros => target.fill(0),
        }
        Ok(whole)
    }

    /// Discard, or with `zero` write-zeroes: whole blocks are deleted; of the blocks at the edges a
    /// discard forgets nothing, and write-zeroes writes zeros.
    async fn forget<I: RequestIo>(&self, request: Request, io: &I, zero: bool) -> io::Result<()> {
        let mut turn = 0;
        for (span, _) in spans_with_data(request) {
            if u64::from(span.len) < BLOCK_BYTES {
                if zero && self.volume.is_mapped(span.block) {
                    self.write_span(span, Data::Zeros, io).await?;
                }
                continue;
            }
            loop {
                let seen = self.volume.room().now();
                match self.volume.discard(lane(), span.block) {
                    Ok(()) => break,
                    Err(not_yet) => self.wait(not_yet, seen).await?,
                }
            }
            turn += 1;
            if turn % DISCARD_BLOCKS_A_TURN == 0 {
                smol::future::yield_now().await;
            }
        }
        Ok(())
    }

    async fn flush<I: RequestIo>(&self, io: &I) -> io::Result<()> {
        let log = self.volume.log();
        if log.has_failed() {
            return Err(log_failed());
        }
        if log.durable() == log.appended() {
            // Nothing was remapped since the journal's last commit: the data is all there is.
            let flush = self.services.flushes().begin();
            io.flush_fast().await.inspect_err(|error| self.services.flush_failed(error))?;
            // The device tells of lost writes once, and may have told another queue or the journal meanwhile.
            flush.succeeded().await;
            return if log.has_failed() { Err(log_failed()) } else { Ok(()) };
        }
        self.services.commit().await
    }

    async fn wait(&self, not_yet: NotYet, seen: u64) -> io::Result<()> {
        match not_yet {
            NotYet::LogFailed => return Err(log_failed()),
            NotYet::Busy => {}
            NotYet::NoRoom => {
                self.volume.stats().waits_for_room.add(1);
                self.services.need_room();
            }
            NotYet::LogFull => self.services.need_room(),
        }
        self.volume.room().after(seen).await;
        Ok(())
    }
}

/// What a request fails with once the fast tier has failed; why it did is in the log and in the status.
fn log_failed() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::EIO)
}

fn first_span(request: Request) -> Span {
    let start = request.offset_bytes % BLOCK_BYTES;
    let len = (BLOCK_BYTES - start).min(request.len_bytes.into());
    let block = BlockIndex((request.offset_bytes / BLOCK_BYTES) as u32);
    Span { block, start: start as u32, len: len as u32 }
}

/// A request's spans, each with where its bytes begin in the request's data.
fn spans_with_data(request: Request) -> impl Iterator<Item = (Span, u32)> {
    let mut at = 0;
    Span::cut(request.offset_bytes, request.len_bytes.into()).map(move |span| {
        let from = at;
        at += span.len;
        (span, from)
    })
}

fn part(block: Option<&AlignedBuffer>, start: u32, len: u32) -> io::Result<&[u8]> {
    block
        .and_then(|block| block.get(start as usize..(start + len) as usize))
        .ok_or_else(|| io::Error::other("a block from the capacity tier is shorter than a block"))
}

/// Runs futures side by side to the end, all of them even when one fails: I/O in flight must not be
/// dropped. The first error is returned.
async fn all<F: Future<Output = io::Result<()>>>(futures: impl Iterator<Item = F>) -> io::Result<()> {
    let mut running: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut result = Ok(());
    let together = std::future::poll_fn(|context: &mut Context<'_>| {
        running.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Ready(done) => {
                if result.is_ok() {
                    result = done;
                }
                false
            }
            Poll::Pending => true,
        });
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    pin!(together).await;
    result
}
