//! Which clean slot to give up: S3-FIFO, which a scan cannot flush.
//!
//! After Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023): new slots enter a
//! small queue; those hit again go on to the main queue, the others leave and are remembered as ghosts;
//! a ghost that returns enters the main queue at once. The main queue gives a slot one more round for
//! each hit, up to three.
//!
//! Only clean slots are in the queues, linked through the slot table. A slot that is freed while it is
//! queued stays linked, empty, until eviction comes across it and hands it to the allocator.

use forerun::geometry::{BlockIndex, SlotId};

use super::slots::{
    Below, CLEAN, CURRENT, FREQUENCY, FREQUENCY_ONE, NO_BLOCK, NO_SLOT, QUEUED, READ, SlotTable,
};
use super::{Volume, lock};
use crate::sync::atomic::Ordering;

/// The small queue's share of all queued slots, in percent (the paper's 10 %).
const SMALL_PERCENT: u32 = 10;

/// Slots looked at in one call, at most: the caller has other things to do as well.
const LOOKS_MAX: u32 = 1024;

/// A block whose slot was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaver {
    /// Which block.
    pub block: BlockIndex,
    /// It was read since [`Volume::take_reads`].
    pub read: bool,
}

/// What a round of eviction came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evicted {
    /// A slot was given up; it is free after the journal's next commit. `None` where it was empty already.
    One(Option<Leaver>),
    /// None so far, and there are more to look at.
    NotYet,
    /// No clean slot can be given up now.
    Nothing,
}

/// How long slots have been looked at, over the calls of one search for room.
#[derive(Default, Debug)]
pub struct Effort {
    looks: u32,
    kept: u32,
    /// Slots to be kept are not given up even where there are no others.
    sparing: bool,
}

impl Effort {
    /// An effort that never takes what is to be kept.
    #[must_use]
    pub fn sparing() -> Self {
        Self { sparing: true, ..Self::default() }
    }
}

struct List {
    head: u32,
    tail: u32,
    len: u32,
}

impl List {
    const fn new() -> Self {
        Self { head: NO_SLOT, tail: NO_SLOT, len: 0 }
    }

    fn push(&mut self, slots: &SlotTable, slot: SlotId) {
        slots.at(slot).link.store(NO_SLOT, Ordering::SeqCst);
        if self.tail == NO_SLOT {
            self.head = slot.0;
        } else {
            slots.at(SlotId(self.tail)).link.store(slot.0, Ordering::SeqCst);
        }
        self.tail = slot.0;
        self.len += 1;
    }

    fn pop(&mut self, slots: &SlotTable) -> Option<SlotId> {
        if self.head == NO_SLOT {
            return None;
        }
        let slot = SlotId(self.head);
        self.head = slots.at(slot).link.swap(NO_SLOT, Ordering::SeqCst);
        if self.head == NO_SLOT {
            self.tail = NO_SLOT;
        }
        self.len -= 1;
        Some(slot)
    }
}

/// The queues of clean slots, and the ghosts of those that left the small one.
pub(super) struct Queues {
    small: List,
    main: List,
    /// Fingerprints of blocks, one a bucket; a newer one replaces an older one.
    ghosts: Box<[u16]>,
}

impl Queues {
    pub fn new(slots: u32) -> Self {
        Self { small: List::new(), main: List::new(), ghosts: vec![0; slots as usize].into_boxed_slice() }
    }

    fn ghost(&mut self, block: BlockIndex) -> Option<(&mut u16, u16)> {
        let hash = u64::from(block.0).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bucket = ((hash >> 32) * self.ghosts.len() as u64) >> 32;
        let fingerprint = (hash as u16) | 1;
        self.ghosts.get_mut(bucket as usize).map(|word| (word, fingerprint))
    }
}

impl Volume {
    /// Queues a slot that has become clean. Not needed again while it is queued.
    pub(super) fn queue_clean(&self, slot: SlotId) {
        let record = self.slots.at(slot);
        if record.flags.fetch_or(QUEUED, Ordering::SeqCst) & QUEUED != 0 {
            return;
        }
        let block = BlockIndex(record.block.load(Ordering::SeqCst));
        let mut queues = lock(&self.eviction);
        let was_ghost = queues.ghost(block).is_some_and(|(word, fingerprint)| {
            let hit = *word == fingerprint;
            if hit {
                *word = 0;
            }
            hit
        });
        let queues = &mut *queues;
        if was_ghost { &mut queues.main } else { &mut queues.small }.push(&self.slots, slot);
    }

    /// Clean slots that eviction can choose from, those included that are empty already.
    pub fn evictable_slots(&self) -> u32 {
        let queues = lock(&self.eviction);
        queues.small.len + queues.main.len
    }

    /// Gives up one clean slot, but for slots of blocks that `keep` names as long as there are others.
    pub fn evict(&self, keep: &dyn Fn(BlockIndex) -> bool, effort: &mut Effort) -> Evicted {
        if !self.log_has_room() {
            return Evicted::Nothing;
        }
        // A slot is passed over three times for its hits, and once more where it is in use.
        let evictable = self.evictable_slots();
        let looks_max = evictable.saturating_mul(5);
        for _ in 0..LOOKS_MAX {
            if effort.looks >= looks_max {
                return Evicted::Nothing;
            }
            effort.looks += 1;
            let mut queues = lock(&self.eviction);
            let from_small = queues.small.len * 100 >= (queues.small.len + queues.main.len) * SMALL_PERCENT
                || queues.main.len == 0;
            let list = if from_small { &mut queues.small } else { &mut queues.main };
            let Some(slot) = list.pop(&self.slots) else { return Evicted::Nothing };
            let record = self.slots.at(slot);
            let block = BlockIndex(record.block.load(Ordering::SeqCst));
            let frequency = (record.flags.load(Ordering::SeqCst) & FREQUENCY) / FREQUENCY_ONE;
            let stays = if block.0 == NO_BLOCK {
                false
            } else if from_small {
                // The first hit is the one that brought the slot in.
                frequency > 1
            } else {
                frequency > 0
            };
            if stays {
                if from_small {
                    record.clear(FREQUENCY);
                } else {
                    record.forget_hit();
                }
                queues.main.push(&self.slots, slot);
                continue;
            }
            if block.0 != NO_BLOCK && (effort.sparing || effort.kept < evictable) && keep(block) {
                effort.kept = effort.kept.saturating_add(1);
                queues.main.push(&self.slots, slot);
                continue;
            }
            drop(queues);
            let read = record.has(READ);
            if self.give_up(slot, block) {
                if from_small
                    && block.0 != NO_BLOCK
                    && let Some((word, fingerprint)) = lock(&self.eviction).ghost(block)
                {
                    *word = fingerprint;
                }
                effort.looks = 0;
                return Evicted::One((block.0 != NO_BLOCK).then_some(Leaver { block, read }));
            }
        }
        Evicted::NotYet
    }

    /// Frees a slot that was just taken out of its queue; false where it is in use, and then queued again.
    fn give_up(&self, slot: SlotId, block: BlockIndex) -> bool {
        let record = self.slots.at(slot);
        // A slot that is freed while it is marked as queued is left to us, and block numbers do not
        // come back before we hand it on. The mark and the list change together under the shard's lock: whoever
        // frees the slot must not find it unmarked while it is about to be linked again.
        let _shard = (block.0 != NO_BLOCK).then(|| self.shard(block));
        if record.block.load(Ordering::SeqCst) == NO_BLOCK {
            record.clear(QUEUED);
            self.allocator.retire(slot, self.log.appended());
            return true;
        }
        debug_assert_eq!(record.layer.load(Ordering::SeqCst), CLEAN, "only clean slots are queued");
        if record.has(CURRENT) {
            // First out of sight, then the look at the pins: a reader pins first and looks then, so one
            // of the two sees the other.
            record.clear(CURRENT);
            if record.pinned() {
                record.set(CURRENT);
                record.clear(QUEUED);
                self.queue_clean(slot);
                return false;
            }
            self.index.remove(&self.slots, block, slot);
            debug_assert!(self.places.get(block).is_some(), "a clean slot's block {block} has a place");
        } else {
            if record.pinned() {
                record.clear(QUEUED);
                self.queue_clean(slot);
                return false;
            }
            let Some(above) = self.slot_above(block, slot) else {
                // Below a slot that waits for its write-back out of the index's sight, and freed with it.
                record.clear(QUEUED);
                return false;
            };
            self.slots.at(above).set_below(Below::Place);
        }
        record.clear(QUEUED);
        self.free(slot);
        self.stats.evictions.add(1);
        true
    }

    /// The slot in the block's chain that lies right above `slot`; the caller holds the shard's lock.
    pub(super) fn slot_above(&self, block: BlockIndex, slot: SlotId) -> Option<SlotId> {
        let mut from = self.index.find(&self.slots, block)?;
        loop {
            match self.slots.at(from).below() {
                Below::Slot(below) if below == slot => return Some(from),
                Below::Slot(below) => from = below,
                Below::Place | Below::Zero => return None,
            }
        }
    }
}
