//! The volume engine: map, slots, layers, plan and commit.
//!
//! All but [`handle`] is in memory: a request is planned, its I/O is done by somebody else, the
//! plan is committed. Queue threads meet background work only in here.
//!
//! ```text
//! request -> read.rs / write.rs / discard.rs : plan  -> I/O (handle.rs) -> commit
//!                     |
//!    index + slots (fast tier)   place_map (capacity tier)   layers (epochs)   allocator
//!                     ^
//! background -> seal.rs, write_back.rs, promote.rs, evict.rs, reserve.rs
//! ```
//!
//! Always true, and checked by the tests against a plain byte array:
//! - a read sees the newest completed write of each sub-block;
//! - what a slot of a sealed layer holds does not change, but for sub-blocks filled from below;
//! - every change of the map was appended to the log before the request that made it completes.

mod allocator;
mod discard;
mod evict;
mod facts;
mod flushes;
pub mod handle;
mod index;
mod join;
pub mod layers;
mod place_map;
mod promote;
mod read;
mod recover;
mod reserve;
mod residents;
mod seal;
mod shard;
pub mod slots;
pub mod stats;
mod wait;
mod write;
mod write_back;

#[cfg(test)]
mod model_tests;

use std::num::NonZeroU64;

use forerun::geometry::{BLOCK_BYTES, BlockIndex, Epoch, Geometry, SlotId, SubBlockMask};

use crate::fast_tier::delta::{Delta, Holds};
use crate::fast_tier::log::{DeltaLog, LogPosition};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use allocator::Allocator;
use index::Index;
use layers::Layers;
pub use place_map::PlaceMap;
use shard::Shard;
use slots::{ADDED, SlotTable};

pub use evict::{Effort, Evicted, Leaver};
pub use flushes::{Flush, Flushes};
pub use promote::{FillTicket, PromoteTicket};
pub use read::{Piece, ReadHit, ReadPlan, Source};
pub use recover::{Recovered, RecoveredLayer, Recovery, SEAM_EPOCHS, Unsound};
pub use reserve::Reservation;
pub use seal::SealError;
pub use stats::Stats;
pub use wait::Room;
pub use write::{LogFailed, NotYet, WriteHit, WriteTicket};
pub use write_back::{LayerBlock, LayerContent};

/// Locks of the slow path, at most.
const SHARDS_MAX: u32 = 1024;

/// Takes a lock whose holder may have panicked: every critical section here leaves sound state at
/// each step, and a target that stops serving would lose more than one that goes on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A part of a request that lies within one block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The block.
    pub block: BlockIndex,
    /// Where the part begins in the block, in bytes.
    pub start: u32,
    /// How long it is, in bytes; at least 1.
    pub len: u32,
}

impl Span {
    /// The sub-blocks the span touches, whole or in part.
    #[must_use]
    pub fn touched(self) -> SubBlockMask {
        SubBlockMask::touched(self.start.into(), self.len.into())
    }

    /// The sub-blocks the span covers wholly.
    #[must_use]
    pub fn covered(self) -> SubBlockMask {
        SubBlockMask::covered(self.start.into(), self.len.into())
    }

    /// Cuts `len` bytes at `offset` of a volume into spans, in order.
    pub fn cut(offset: u64, len: u64) -> impl Iterator<Item = Self> {
        let end = offset + len;
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let start = at % BLOCK_BYTES;
            let len = (BLOCK_BYTES - start).min(end - at);
            let block = BlockIndex((at / BLOCK_BYTES) as u32);
            at += len;
            Some(Self { block, start: start as u32, len: len as u32 })
        })
    }
}

/// The map of a volume and all that is known of its slots and layers.
pub struct Volume {
    /// As it was opened; it may have grown since.
    geometry: Geometry,
    size_bytes: AtomicU64,
    slots: SlotTable,
    index: Index,
    shards: Box<[Mutex<Shard>]>,
    places: PlaceMap,
    layers: Layers,
    allocator: Allocator,
    eviction: Mutex<evict::Queues>,
    log: Arc<dyn DeltaLog>,
    /// The newest epoch that is wholly on the capacity tier.
    written_back: AtomicU32,
    /// Blocks that hold something.
    mapped: AtomicU64,
    /// Slots held for blocks that are expected to be written.
    reserved: AtomicU32,
    /// Deletions in live layers.
    deletions: AtomicU64,
    /// Planned writes, each of which may append a delta.
    promised: AtomicU32,
    /// Free slots that first writes leave alone for now.
    held_back: AtomicU32,
    room: Room,
    stats: Stats,
}

impl Volume {
    /// An empty volume over `slots` free slots, with its first epoch open.
    pub fn new(geometry: Geometry, slots: u32, log: Arc<dyn DeltaLog>, opened_us: u64) -> Self {
        let volume = Self::bare(geometry, slots, log, Epoch::FIRST, opened_us);
        for slot in 0..slots {
            volume.allocator.give(&volume.slots, SlotId(slot));
        }
        volume
    }

    /// A volume whose slots are in no list yet.
    fn bare(geometry: Geometry, slots: u32, log: Arc<dyn DeltaLog>, open: Epoch, opened_us: u64) -> Self {
        let shards = SHARDS_MAX.min(slots);
        Self {
            geometry,
            size_bytes: AtomicU64::new(geometry.size_bytes()),
            slots: SlotTable::new(slots),
            index: Index::new(slots, shards),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            places: PlaceMap::new(geometry.blocks()),
            layers: Layers::new(open, opened_us),
            allocator: Allocator::new(),
            eviction: Mutex::new(evict::Queues::new(slots)),
            log,
            written_back: AtomicU32::new(open.0 - 1),
            mapped: AtomicU64::new(0),
            reserved: AtomicU32::new(0),
            deletions: AtomicU64::new(0),
            promised: AtomicU32::new(0),
            held_back: AtomicU32::new(0),
            room: Room::default(),
            stats: Stats::default(),
        }
    }

    /// The volume's shape, as it is now.
    pub fn geometry(&self) -> Geometry {
        self.geometry.grown_to(self.size_bytes.load(Ordering::Acquire)).unwrap_or(self.geometry)
    }

    /// Takes requests for all of a larger shape from now on. Both tiers have to know of it before.
    pub fn grow(&self, geometry: Geometry) {
        debug_assert!(self.geometry().grows_into(geometry), "a volume does not shrink");
        self.places.grow(geometry.blocks());
        self.size_bytes.store(geometry.size_bytes(), Ordering::Release);
    }

    /// Whether the fast tier may grow once more before the volume is opened again.
    pub fn can_grow_slots(&self) -> bool {
        self.slots.can_grow()
    }

    /// Takes slots of a fast tier that has grown into use; `slots` is how many there are now. One caller at a time.
    ///
    /// The index and the ghosts of eviction keep the size that they had at the opening: chains of the index get longer, and
    /// fewer blocks are remembered after they left, until the volume is opened again.
    pub fn grow_slots(&self, slots: u32) {
        for slot in self.slots.grow(slots)..slots {
            self.allocator.give(&self.slots, SlotId(slot));
        }
        self.room.wake_all();
    }

    /// The live layers.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// What has been counted since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Where requests wait for a free slot.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// The journal's end that the engine writes to.
    pub fn log(&self) -> &dyn DeltaLog {
        &*self.log
    }

    /// All slots of the fast tier.
    pub fn slot_count(&self) -> u32 {
        self.slots.len()
    }

    /// Slots that can be taken now.
    pub fn free_slots(&self) -> u32 {
        self.allocator.free()
    }

    /// Slots that become free with the journal's next commit.
    pub fn limbo_slots(&self) -> u32 {
        self.allocator.in_limbo()
    }

    /// Slots that first writes can have sooner or later without waiting for write-back.
    pub fn available_slots(&self) -> u32 {
        self.free_slots() + self.limbo_slots() + self.evictable_slots()
    }

    /// Lets first writes take slots only while more than `slots` are free, so that they do not run ahead of write-back.
    pub fn hold_back(&self, slots: u32) {
        if self.held_back.swap(slots, Ordering::Relaxed) > slots {
            self.room.wake_all();
        }
    }

    /// Whether a first write that holds no reservation gets a slot now.
    pub fn may_take_slot(&self) -> bool {
        self.free_slots() > self.held_back.load(Ordering::Relaxed)
    }

    /// Whether another epoch may end for its own sake: it makes overwrites take new slots, of which `least` have to be
    /// there where sealed epochs wait for write-back already.
    pub fn has_room_for_epoch(&self, least: u32) -> bool {
        self.layers.live_count() == 1 || self.available_slots() >= least
    }

    /// Slots held for blocks that are expected to be written.
    pub fn reserved_slots(&self) -> u32 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Deletions in live layers; from as many as there are slots on, discards wait for write-back, since the
    /// fast tier's checkpoint has room for so many.
    pub fn live_deletions(&self) -> u64 {
        self.deletions.load(Ordering::Relaxed)
    }

    /// Blocks that hold something.
    pub fn mapped_blocks(&self) -> u64 {
        self.mapped.load(Ordering::Relaxed)
    }

    /// The newest epoch that is wholly on the capacity tier; 0 for none.
    pub fn written_back(&self) -> Epoch {
        Epoch(self.written_back.load(Ordering::SeqCst))
    }

    /// The block's place on the capacity tier; what is newer is not looked at.
    pub fn place(&self, block: BlockIndex) -> Option<NonZeroU64> {
        self.places.get(block)
    }

    #[allow(clippy::indexing_slicing, reason = "`Index::shard` is below the number of shards")]
    fn shard(&self, block: BlockIndex) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.index.shard(block)])
    }

    /// Appends what a slot now holds to the log. `epoch` is the slot's layer's, or for clean data the
    /// newest epoch at whose end it was current.
    fn log_holds(&self, slot: SlotId, block: BlockIndex, epoch: Epoch) -> LogPosition {
        self.log.append(&Delta::Holds(self.holds(slot, block, epoch)))
    }

    /// Whether the journal takes another delta beside those that writes under way have promised.
    pub fn log_has_room(&self) -> bool {
        self.log.has_room(self.promised.load(Ordering::SeqCst))
    }

    /// Sees whether deltas can be appended now.
    fn check_log(&self) -> Result<(), NotYet> {
        match (self.log_has_room(), self.log.has_failed()) {
            (_, true) => Err(NotYet::LogFailed),
            (false, false) => Err(NotYet::LogFull),
            (true, false) => Ok(()),
        }
    }

    fn holds(&self, slot: SlotId, block: BlockIndex, epoch: Epoch) -> Holds {
        let record = self.slots.at(slot);
        let bits = record.bits();
        Holds { slot, block, epoch, valid: bits.valid, dirty: bits.dirty, added: record.has(ADDED) }
    }

    /// Gives slots whose freeing has become durable to whoever waits for one.
    pub fn reclaim(&self) -> u32 {
        let moved = self.allocator.reclaim(&self.slots, self.log.durable());
        if moved > 0 {
            self.room.wake_all();
        }
        moved
    }
}
