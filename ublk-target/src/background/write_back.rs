//! Write-back: copies sealed layers, oldest first, to the capacity tier.
//!
//! A layer is complete once its writes have drained; it and its mappings are durable on the fast tier (see `publish`)
//! before the first segment is written, so the capacity tier is never ahead of it. A failure leaves the layer
//! where it was: it is tried again, for ever, and nothing dirty is dropped.

use std::rc::Rc;
use std::time::Duration;

use anyhow::anyhow;
use forerun::geometry::{BLOCK_BYTES, BlockIndex, SlotId};
use tokio::time::Instant;

use super::pace::Pace;
use super::world::Slots as _;
use super::{Shared, TICK, Tasks, World};
use crate::aligned::AlignedBuffer;
use crate::capacity_tier::{CapacityError, Place};
use crate::volume::layers::LayerNumber;
use crate::volume::{LayerBlock, LayerContent, Source};

/// Blocks read from the fast tier side by side.
const READS_IN_FLIGHT: usize = 16;
/// After so many blocks (256 MiB), whatever their layers, the memory that they took is given back; it takes some
/// milliseconds.
const BUSY_BLOCKS: usize = 4_096;
/// After so many (16 MiB) when nothing is left to be written back.
const IDLE_BLOCKS: usize = 256;
/// Blocks that the map is told of before other tasks of the thread get a turn.
const NOTES_A_TURN: usize = 64;
/// The first wait after a failure; doubled each time up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Writes back whatever is sealed, for ever.
pub(super) async fn keep_writing_back(tasks: Rc<Tasks<impl World>>) {
    let shared = &tasks.shared;
    let mut retry = RETRY_FIRST;
    let mut blocks = 0;
    while !shared.stopping() {
        let live = shared.volume.layers().live();
        let Some((layer, true)) = live.first().map(|oldest| (*oldest, live.len() > 1)) else {
            // Woken, or not: it looks again.
            let _ = tokio::time::timeout(Duration::from_secs(1), shared.wake_writer.notified()).await;
            continue;
        };
        match write_back(&tasks, layer).await {
            Ok(written) => {
                retry = RETRY_FIRST;
                shared.note_write_back(None);
                tasks.wake_upkeep.notify_one();
                if super::upkeep::is_behind(&tasks) {
                    // What is under way.
                    drop(tasks.maintaining.lock().await);
                }
                blocks += written;
                let is_last = shared.volume.layers().live().len() <= 1;
                if blocks >= if is_last { IDLE_BLOCKS } else { BUSY_BLOCKS } {
                    crate::memory::give_back();
                    blocks = 0;
                }
            }
            Err(_) if shared.stopping() => break,
            Err(error) => {
                tracing::error!(%error, "write-back failed; it is tried again in {retry:?}");
                shared.note_write_back(Some(error.to_string()));
                wait(&tasks, retry).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

async fn wait(tasks: &Tasks<impl World>, long: Duration) {
    let until = Instant::now() + long;
    while Instant::now() < until && !tasks.shared.stopping() {
        tokio::time::sleep(TICK.min(long)).await;
    }
}

/// Writes one layer back; gives the number of its blocks.
async fn write_back(tasks: &Rc<Tasks<impl World>>, layer: LayerNumber) -> anyhow::Result<usize> {
    let shared = &tasks.shared;
    let volume = &shared.volume;
    let epoch = volume.layers().epoch(layer);
    // A layer that has been told of has drained and is durable.
    let mut sealed = shared.sealed();
    while *sealed.borrow_and_update() < epoch {
        // Only a volume that is being closed tells of nothing any more.
        let _ = tokio::time::timeout(TICK, sealed.changed()).await;
        closing(shared)?;
    }
    let content = volume.layer_content(layer);
    debug_assert!(
        content.blocks.is_sorted_by(|a, b| a.change.block < b.change.block),
        "a layer's blocks ascend, each once"
    );
    let (opened_us, sealed_us, mapped) =
        volume.layers().with_info(layer, |info| (info.opened_us, info.sealed_us, info.mapped_blocks));
    shared.note_progress(|progress| {
        progress.layer_blocks = content.blocks.len() as u64;
        progress.layer_blocks_done = 0;
    });
    let begun = Instant::now();
    let pace = Pace::begin(shared, content.blocks.len() as u64);
    let mut done = 0;
    let mut writer = tasks.capacity.begin_layer(epoch, opened_us, sealed_us)?;
    for chunk in content.blocks.chunks(READS_IN_FLIGHT) {
        tasks.budget(chunk.len() as u64 * BLOCK_BYTES).await;
        for (entry, data) in chunk.iter().zip(read_all(tasks, chunk).await) {
            let change = entry.change;
            match data? {
                Some(data) => writer.put(change.block, change.kind, change.sub_blocks, &data).await?,
                None => writer.delete(change.block)?,
            }
        }
        done += chunk.len() as u64;
        pace.done(done);
        shared.note_progress(|progress| progress.layer_blocks_done = done);
        closing(shared)?;
    }
    // What was read counts only if the device has not lost it meanwhile: sub-blocks that were filled in a moment ago are not
    // durable, and a device that has lost them shows what the slot held before.
    shared.committer.commit().await?;
    let noting = tasks.noting.lock().await;
    // From here on the name cannot be taken off the layer: HEAD is about to have it.
    let snapshot = volume.begin_leaving(layer);
    let placed = match snapshot.map(crate::capacity_tier::SnapshotName::new).transpose() {
        Ok(snapshot) => writer.commit(snapshot.as_ref(), mapped).await,
        Err(error) => Err(CapacityError::Misuse(error.to_string())),
    };
    let placed = placed.inspect_err(|_| {
        // A HEAD that may have the layer may have its name, and a crash would bring it back.
        if !tasks.capacity.is_head_in_doubt() {
            volume.stay(layer);
        }
    })?;
    // Before the layer ceases to be live: a snapshot is always in one of the two lists.
    super::kept::note_kept(tasks);
    take_note(shared, layer, &content, &placed).await?;
    drop(noting);
    let bytes = content.blocks.iter().filter(|entry| entry.slot.is_some()).count() as u64 * BLOCK_BYTES;
    volume.stats().written_back_bytes.add(bytes);
    let rate = bytes as f64 / begun.elapsed().as_secs_f64().max(1e-6);
    shared.note_progress(|progress| {
        let old = if progress.bytes_per_second > 0.0 { progress.bytes_per_second } else { rate };
        progress.bytes_per_second = 0.7 * old + 0.3 * rate;
        (progress.layer_blocks, progress.layer_blocks_done) = (0, 0);
    });
    volume.room().wake_all();
    shared.wake_keeper.notify_one();
    Ok(content.blocks.len())
}

/// Whether the volume is being closed: the layer stays sealed on the fast tier then, for the next opening.
fn closing(shared: &Shared) -> anyhow::Result<()> {
    anyhow::ensure!(!shared.stopping(), "the volume is being closed");
    Ok(())
}

/// Lets the map know of what HEAD has by now, with pauses for others, and where the journal has to catch up.
async fn take_note(
    shared: &Shared,
    layer: LayerNumber,
    content: &LayerContent,
    placed: &[(BlockIndex, Option<Place>)],
) -> anyhow::Result<()> {
    let volume = &shared.volume;
    assert_eq!(content.blocks.len(), placed.len(), "every block of the layer is placed or deleted");
    for (number, (entry, (block, place))) in content.blocks.iter().zip(placed).enumerate() {
        assert_eq!(entry.change.block, *block, "places come in the blocks' order");
        while volume.block_written_back(layer, entry, place.map(Place::word)).is_err() {
            // Not an error of the capacity tier: HEAD has the layer, and the next opening goes by that.
            closing(shared)?;
            tokio::time::sleep(TICK).await;
        }
        if number % NOTES_A_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
    while volume.layer_written_back(layer, content).is_err() {
        closing(shared)?;
        tokio::time::sleep(TICK).await;
    }
    Ok(())
}

type Data = std::io::Result<Option<AlignedBuffer>>;

/// Reads blocks side by side, in order.
async fn read_all(
    tasks: &Rc<Tasks<impl World>>,
    chunk: &[LayerBlock],
) -> Vec<anyhow::Result<Option<AlignedBuffer>>> {
    let reads: Vec<_> = chunk
        .iter()
        .map(|entry| {
            let (tasks, block, slot) = (tasks.clone(), entry.change.block, entry.slot);
            tokio::task::spawn_local(async move {
                match slot {
                    Some(slot) => compose(&tasks, block, slot).await.map(Some),
                    None => Data::Ok(None),
                }
            })
        })
        .collect();
    let mut all = Vec::with_capacity(reads.len());
    for (read, entry) in reads.into_iter().zip(chunk) {
        let block = entry.change.block;
        all.push(match read.await {
            Ok(data) => data.map_err(|error| anyhow!("cannot read block {block} to write it back: {error}")),
            Err(error) => Err(anyhow::Error::from(error)),
        });
    }
    all
}

/// The whole of a block as its layer's epoch left it; completes its slot where that pays.
async fn compose(
    tasks: &Tasks<impl World>,
    block: BlockIndex,
    slot: SlotId,
) -> std::io::Result<AlignedBuffer> {
    let whole = read_whole(tasks, block, slot).await?;
    super::fetch::complete_sealed(tasks, block, slot, &whole).await;
    Ok(whole)
}

async fn read_whole(
    tasks: &Tasks<impl World>,
    block: BlockIndex,
    slot: SlotId,
) -> std::io::Result<AlignedBuffer> {
    let plan = tasks.shared.volume.plan_layer_block(block, slot);
    if let [only] = plan.pieces.as_slice()
        && let Source::Fast(slot) = only.source
    {
        return tasks.fast.read(slot, only.start, only.len).await;
    }
    let mut whole = AlignedBuffer::zeroed(BLOCK_BYTES as usize);
    if let Some(place) = plan.capacity_place() {
        let place =
            Place::from_word(place.get()).ok_or_else(|| std::io::Error::other("an impossible place"))?;
        tasks.capacity.read_block(place, block, &mut whole).await.map_err(std::io::Error::other)?;
    }
    for piece in &plan.pieces {
        let range = piece.start as usize..(piece.start + piece.len) as usize;
        let Some(target) = whole.get_mut(range) else { continue };
        match piece.source {
            Source::Fast(slot) => {
                target.copy_from_slice(&tasks.fast.read(slot, piece.start, piece.len).await?);
            }
            Source::Zero => target.fill(0),
            Source::Capacity(_) => {}
        }
    }
    Ok(whole)
}
