//! Misses and prefetches: reads a block from the capacity tier once for all who want it, answers them,
//! and brings the block up to the fast tier.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use forerun::geometry::{BLOCK_BYTES, BlockIndex, SUB_BLOCK_BYTES, SlotId};

use super::capacity::Reply;
use super::world::Slots as _;
use super::{Tasks, World};
use crate::aligned::AlignedBuffer;
use crate::capacity_tier::Place;
use crate::volume::FillTicket;

/// Reads of the capacity tier under way, with those who wait for each.
#[derive(Default)]
pub(super) struct Fetches {
    running: RefCell<HashMap<NonZeroU64, Vec<Reply<Arc<AlignedBuffer>>>>>,
}

/// Begins to fetch a block for a request, or joins a fetch that is under way.
pub(super) fn start(
    tasks: &Rc<Tasks<impl World>>,
    block: BlockIndex,
    place: NonZeroU64,
    reply: Reply<Arc<AlignedBuffer>>,
) {
    if tasks.shared.settings.prediction {
        tasks.shared.prediction.missed(block);
    }
    tasks.shared.warmth.missed(block);
    let mut running = tasks.fetches.running.borrow_mut();
    if let Some(waiting) = running.get_mut(&place) {
        waiting.push(reply);
        return;
    }
    running.insert(place, vec![reply]);
    let tasks = tasks.clone();
    tokio::task::spawn_local(async move {
        let read = read(&tasks, block, place).await;
        let waiting = tasks.fetches.running.borrow_mut().remove(&place).unwrap_or_default();
        for reply in waiting {
            // Whoever asked may have gone away; that is its own business.
            let _ = reply.send(match &read {
                Ok(data) => Ok(data.clone()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
        if let Ok(data) = read {
            bring_up(&tasks, block, place, &data, Why::Read).await;
        }
    });
}

/// Whether any fetch is under way.
async fn idle(tasks: &Tasks<impl World>) -> bool {
    tokio::task::yield_now().await;
    tasks.fetches.running.borrow().is_empty()
}

/// Waits until no fetch is under way.
pub(super) async fn settle(tasks: &Tasks<impl World>) {
    while !idle(tasks).await {
        tokio::time::sleep(super::TICK).await;
    }
}

/// Fetches a block that is expected to be wanted; returns the bytes fetched.
pub(super) async fn prefetch(tasks: &Tasks<impl World>, block: BlockIndex) -> u64 {
    let Some(place) = tasks.shared.volume.place(block) else { return 0 };
    match read(tasks, block, place).await {
        Ok(data) => bring_up(tasks, block, place, &data, Why::Predicted).await,
        Err(error) => {
            tracing::warn!(%block, %error, "a prefetch failed");
            0
        }
    }
}

/// Fetches a block because there is room for it; returns the bytes copied to the fast tier.
///
/// # Errors
/// It cannot be read, which is in the log.
pub(super) async fn hydrate(tasks: &Tasks<impl World>, block: BlockIndex) -> io::Result<u64> {
    let Some(place) = tasks.shared.volume.place(block) else { return Ok(0) };
    let data = read(tasks, block, place).await?;
    Ok(bring_up(tasks, block, place, &data, Why::Room).await)
}

/// Why a block comes to the fast tier.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// A request asked for it.
    Read,
    /// It is expected to be asked for.
    Predicted,
    /// There is room.
    Room,
}

async fn read(
    tasks: &Tasks<impl World>,
    block: BlockIndex,
    place: NonZeroU64,
) -> io::Result<Arc<AlignedBuffer>> {
    let mut data = AlignedBuffer::zeroed(BLOCK_BYTES as usize);
    let place = Place::from_word(place.get())
        .ok_or_else(|| io::Error::other(format!("block {block} has an impossible place {place}")))?;
    let began = Instant::now();
    match tasks.capacity.read_block(place, block, &mut data).await {
        Ok(()) => {
            tasks.shared.prediction.capacity_read(began.elapsed());
            Ok(Arc::new(data))
        }
        Err(error) => {
            tracing::error!(%block, %error, "a block cannot be read from the capacity tier");
            let failed = (Instant::now(), error.to_string());
            tasks.shared.volume.stats().capacity_read_errors.add(1);
            tasks.shared.note_progress(|progress| progress.read_error = Some(failed));
            Err(io::Error::from_raw_os_error(nix::libc::EIO))
        }
    }
}

/// Copies a fetched block to the fast tier, as far as it is missing there; returns the bytes copied.
async fn bring_up(
    tasks: &Tasks<impl World>,
    block: BlockIndex,
    place: NonZeroU64,
    data: &AlignedBuffer,
    why: Why,
) -> u64 {
    let volume = &tasks.shared.volume;
    let keep_free = super::evict::reserve(volume.slot_count()) / 2;
    if let Some(ticket) = volume.begin_promote(block, place, keep_free) {
        let mut copy = AlignedBuffer::zeroed(BLOCK_BYTES as usize);
        copy.copy_from_slice(data);
        return match tasks.fast.write(ticket.slot(), 0, copy).await {
            Ok(()) if ticket.finish(why == Why::Predicted) => {
                volume.stats().promotions.add(1);
                if why == Why::Predicted {
                    volume.stats().prefetched_bytes.add(BLOCK_BYTES);
                }
                BLOCK_BYTES
            }
            Ok(()) => 0,
            Err(error) => {
                tracing::warn!(%block, %error, "a block cannot be copied to the fast tier");
                0
            }
        };
    }
    let Some(ticket) = volume.begin_fill(block, place) else { return 0 };
    fill(tasks, block, ticket, data).await
}

/// Completes a slot of a sealed layer with the block as write-back has just put it together, where that pays.
pub(super) async fn complete_sealed(
    tasks: &Tasks<impl World>,
    block: BlockIndex,
    slot: SlotId,
    whole: &AlignedBuffer,
) {
    if let Some(ticket) = tasks.shared.volume.begin_fill_sealed(block, slot) {
        tasks.budget(u64::from(ticket.missing().count()) * SUB_BLOCK_BYTES).await;
        fill(tasks, block, ticket, whole).await;
    }
}

/// Copies what is missing in a slot to it; returns the bytes copied.
async fn fill(
    tasks: &Tasks<impl World>,
    block: BlockIndex,
    ticket: FillTicket<'_>,
    data: &AlignedBuffer,
) -> u64 {
    for (first, count) in ticket.missing().runs() {
        let (first, len) = (first * SUB_BLOCK_BYTES as u32, count * SUB_BLOCK_BYTES as u32);
        let Some(bytes) = data.get(first as usize..(first + len) as usize) else { return 0 };
        if let Err(error) = tasks.fast.write(ticket.slot(), first, AlignedBuffer::padded(bytes)).await {
            tracing::warn!(%block, %error, "a slot cannot be completed");
            return 0;
        }
    }
    let filled = u64::from(ticket.missing().count()) * SUB_BLOCK_BYTES;
    if ticket.finish() { filled } else { 0 }
}
