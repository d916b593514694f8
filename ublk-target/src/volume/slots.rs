//! The slot table: one small record a slot of the fast tier, in memory.
//!
//! 24 bytes a slot, all atomics, so that a hit needs no lock: it pins the slot, then looks again
//! whether the slot still is what it took it for. What is not a hit changes a slot only under the
//! lock of its block's shard.
//!
//! Always true:
//! - a slot with a pin is not given to another block before the pin is gone;
//! - `CURRENT` is set in at most one slot a block, the one the index finds;
//! - a slot's layer is `CLEAN` exactly when the capacity tier holds its data;
//! - no slot is `CLEAN` and `TOP`: what a deletion hides is given up with its write-back.

use std::sync::OnceLock;

use forerun::geometry::{BlockIndex, SlotId, SubBlockMask};

use crate::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};

/// No slot, in links between slots.
pub(super) const NO_SLOT: u32 = u32::MAX;
/// No block: the slot is free, or held for one that is not written yet.
pub(super) const NO_BLOCK: u32 = u32::MAX;
/// The layer number of slots whose data is on the capacity tier.
pub(super) const CLEAN: u8 = 0;

/// The slot holds its block's newest data and is found by the index.
pub(super) const CURRENT: u8 = 1;
/// The block held nothing when its epoch began: the slot's change is 'added'.
pub(super) const ADDED: u8 = 2;
/// Two bits that count hits, for eviction.
pub(super) const FREQUENCY: u8 = 4 | 8;
/// One hit, in the bits of `FREQUENCY`.
pub(super) const FREQUENCY_ONE: u8 = 4;
/// The slot was filled ahead of its use and has not been used yet.
pub(super) const PREFETCHED: u8 = 16;
/// The slot is in one of the eviction queues.
pub(super) const QUEUED: u8 = 32;
/// The block was deleted after this slot was its newest: nothing lies above the slot, and the index does
/// not lead to it. It is kept for its layer's write-back.
pub(super) const TOP: u8 = 64;
/// The block was read since the reads were last taken.
pub(super) const READ: u8 = 128;

/// What the sub-blocks that are not valid in a slot are to be read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Below {
    /// An older slot of the same block.
    Slot(SlotId),
    /// The block's place on the capacity tier; zeros where it has none.
    Place,
    /// Zeros, whatever the capacity tier still holds: the block was deleted in between.
    Zero,
}

const BELOW_PLACE: u32 = u32::MAX;
const BELOW_ZERO: u32 = u32::MAX - 1;

/// Which sub-blocks of a slot hold data, and which of those are not on the capacity tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bits {
    /// Readable from the slot.
    pub valid: SubBlockMask,
    /// Written since the block's last write-back.
    pub dirty: SubBlockMask,
}

impl Bits {
    pub(crate) const fn pack(self) -> u32 {
        self.valid.0 as u32 | (self.dirty.0 as u32) << 16
    }

    pub(crate) const fn unpack(word: u32) -> Self {
        Self { valid: SubBlockMask(word as u16), dirty: SubBlockMask((word >> 16) as u16) }
    }
}

/// One slot's record.
pub(super) struct Slot {
    pub block: AtomicU32,
    /// The next slot in the index's chain.
    pub next: AtomicU32,
    below: AtomicU32,
    bits: AtomicU32,
    /// The next slot in the free list or in an eviction queue.
    pub link: AtomicU32,
    pins: AtomicU16,
    pub layer: AtomicU8,
    pub flags: AtomicU8,
}

impl Slot {
    fn free() -> Self {
        Self {
            block: AtomicU32::new(NO_BLOCK),
            next: AtomicU32::new(NO_SLOT),
            below: AtomicU32::new(BELOW_PLACE),
            bits: AtomicU32::new(0),
            link: AtomicU32::new(NO_SLOT),
            pins: AtomicU16::new(0),
            layer: AtomicU8::new(CLEAN),
            flags: AtomicU8::new(0),
        }
    }

    pub fn bits(&self) -> Bits {
        Bits::unpack(self.bits.load(Ordering::SeqCst))
    }

    pub fn set_bits(&self, bits: Bits) {
        self.bits.store(bits.pack(), Ordering::SeqCst);
    }

    pub fn below(&self) -> Below {
        match self.below.load(Ordering::SeqCst) {
            BELOW_PLACE => Below::Place,
            BELOW_ZERO => Below::Zero,
            slot => Below::Slot(SlotId(slot)),
        }
    }

    pub fn set_below(&self, below: Below) {
        let word = match below {
            Below::Place => BELOW_PLACE,
            Below::Zero => BELOW_ZERO,
            Below::Slot(slot) => slot.0,
        };
        self.below.store(word, Ordering::SeqCst);
    }

    pub fn has(&self, flags: u8) -> bool {
        self.flags.load(Ordering::SeqCst) & flags != 0
    }

    pub fn set(&self, flags: u8) {
        self.flags.fetch_or(flags, Ordering::SeqCst);
    }

    pub fn clear(&self, flags: u8) {
        self.flags.fetch_and(!flags, Ordering::SeqCst);
    }

    pub fn pinned(&self) -> bool {
        self.pins.load(Ordering::SeqCst) != 0
    }

    /// Whether the slot is the newest of `block`.
    pub fn is_current(&self, block: BlockIndex) -> bool {
        self.block.load(Ordering::SeqCst) == block.0 && self.has(CURRENT)
    }

    /// Counts a hit for eviction, up to three.
    pub fn touch(&self) {
        let flags = self.flags.load(Ordering::Relaxed);
        if flags & FREQUENCY != FREQUENCY {
            // Losing this race loses one count of a hit, nothing else.
            let _ = self.flags.compare_exchange(
                flags,
                flags + FREQUENCY_ONE,
                Ordering::SeqCst,
                Ordering::Relaxed,
            );
        }
    }

    /// As [`Self::touch`], and notes that it was a read that hit.
    pub fn note_read(&self) {
        let flags = self.flags.load(Ordering::Relaxed);
        let hit = if flags & FREQUENCY == FREQUENCY { flags } else { flags + FREQUENCY_ONE };
        if hit | READ != flags {
            let _ = self.flags.compare_exchange(flags, hit | READ, Ordering::SeqCst, Ordering::Relaxed);
        }
    }
}

impl Slot {
    /// Takes one hit back, if any is counted.
    pub fn forget_hit(&self) {
        let less = |flags: u8| (flags & FREQUENCY != 0).then(|| flags - FREQUENCY_ONE);
        // Failing means that no hit is counted any more.
        let _ = self.flags.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }
}

/// How often a fast tier can grow before its volume is opened again.
pub(super) const GROWTHS_MAX: usize = 64;

/// Slots by which a tier has grown while its volume is open.
struct Growth {
    first: u32,
    slots: Box<[Slot]>,
}

/// All slots of a fast tier: those that there were at the opening in one piece, and behind them a piece for each growth.
pub(super) struct SlotTable {
    opened: Box<[Slot]>,
    /// `OnceLock` of `std`, also under a model checker: only [`Self::grow`] fills it, one piece after the other.
    grown: [OnceLock<Growth>; GROWTHS_MAX],
    len: AtomicU32,
}

impl SlotTable {
    pub fn new(slots: u32) -> Self {
        let opened = (0..slots).map(|_| Slot::free()).collect();
        Self { opened, grown: [const { OnceLock::new() }; GROWTHS_MAX], len: AtomicU32::new(slots) }
    }

    pub fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    #[inline]
    pub fn at(&self, slot: SlotId) -> &Slot {
        self.opened.get(slot.0 as usize).unwrap_or_else(|| self.grown_at(slot))
    }

    #[cold]
    #[allow(clippy::expect_used, reason = "a SlotId is only made from this table's own numbers")]
    fn grown_at(&self, slot: SlotId) -> &Slot {
        let pieces = self.grown.iter().map_while(OnceLock::get);
        let mut found = pieces.filter_map(|piece| piece.slots.get(slot.0.checked_sub(piece.first)? as usize));
        found.next().expect("a slot of this table")
    }

    /// Whether there may be one more growth.
    pub fn can_grow(&self) -> bool {
        self.grown.last().is_some_and(|last| last.get().is_none())
    }

    /// Adds free slots up to `slots`, which are in no list yet; returns the first of them. One caller at a time.
    pub fn grow(&self, slots: u32) -> u32 {
        let first = self.len();
        let piece = Growth { first, slots: (first..slots).map(|_| Slot::free()).collect() };
        if let Some(place) = self.grown.iter().find(|place| place.get().is_none()) {
            let _ = place.set(piece);
            self.len.store(slots.max(first), Ordering::Release);
        }
        first
    }

    pub fn iter(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        (0..self.len()).map(|slot| (SlotId(slot), self.at(SlotId(slot))))
    }

    /// Keeps the slot from being given to another block for as long as the pin lives.
    ///
    /// The caller looks again, after pinning, whether the slot still is what it wants.
    pub fn pin(&self, slot: SlotId) -> Pin<'_> {
        let record = self.at(slot);
        let pins = record.pins.fetch_add(1, Ordering::SeqCst);
        assert!(pins < u16::MAX, "more I/O in flight on slot {slot} than all queues can hold");
        Pin { record, slot }
    }
}

/// A slot that is in use by I/O.
pub struct Pin<'a> {
    record: &'a Slot,
    slot: SlotId,
}

impl Pin<'_> {
    /// Which slot is pinned.
    #[must_use]
    pub const fn slot(&self) -> SlotId {
        self.slot
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let before = self.record.pins.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "a pin is dropped once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_costs_24_bytes() {
        assert_eq!(size_of::<Slot>(), 24);
    }

    #[test]
    fn a_table_grows_behind_what_there_is() {
        let table = SlotTable::new(3);
        table.at(SlotId(2)).block.store(7, Ordering::SeqCst);
        assert_eq!((table.grow(5), table.grow(6)), (3, 5));
        for slot in 3..6 {
            assert_eq!(table.at(SlotId(slot)).block.swap(100 + slot, Ordering::SeqCst), NO_BLOCK);
        }
        let blocks: Vec<u32> = table.iter().map(|(_, slot)| slot.block.load(Ordering::SeqCst)).collect();
        assert_eq!(blocks, [NO_BLOCK, NO_BLOCK, 7, 103, 104, 105]);
        (2..GROWTHS_MAX as u32)
            .for_each(|more| assert!(table.can_grow() && table.grow(5 + more) == 4 + more));
        assert!(!table.can_grow());
    }

    #[test]
    fn hits_are_counted_to_three() {
        let slot = Slot::free();
        slot.set(CURRENT);
        for _ in 0..5 {
            slot.touch();
        }
        assert_eq!(slot.flags.load(Ordering::SeqCst), CURRENT | FREQUENCY);
    }
}
