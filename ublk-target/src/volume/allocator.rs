//! Which slots are free, and which are waiting to become free.
//!
//! A slot that is given up may be used again only when (1) its being free is durable, for otherwise a
//! crash would bring back a map that points at another block's data, and (2) no I/O is in flight on
//! it. Until then it waits in limbo.

use std::collections::VecDeque;

use forerun::geometry::SlotId;

use super::lock;
use super::slots::{NO_SLOT, SlotTable};
use crate::fast_tier::log::LogPosition;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, Ordering};

#[derive(Debug)]
struct Lists {
    /// Head and tail of the free list, linked through the slot table. First in, first out, so that
    /// slots that were freed together, and those of a new tier, are handed out in order.
    head: u32,
    tail: u32,
    limbo: VecDeque<(LogPosition, SlotId)>,
}

/// The free slots of a fast tier.
pub(super) struct Allocator {
    lists: Mutex<Lists>,
    free: AtomicU32,
    in_limbo: AtomicU32,
}

impl Allocator {
    /// No slot is free yet.
    pub fn new() -> Self {
        Self {
            lists: Mutex::new(Lists { head: NO_SLOT, tail: NO_SLOT, limbo: VecDeque::new() }),
            free: AtomicU32::new(0),
            in_limbo: AtomicU32::new(0),
        }
    }

    /// Slots that can be taken now.
    pub fn free(&self) -> u32 {
        self.free.load(Ordering::Relaxed)
    }

    /// Slots that will be free after the journal's next commit.
    pub fn in_limbo(&self) -> u32 {
        self.in_limbo.load(Ordering::Relaxed)
    }

    /// Takes a free slot.
    pub fn take(&self, slots: &SlotTable) -> Option<SlotId> {
        let mut lists = lock(&self.lists);
        if lists.head == NO_SLOT {
            return None;
        }
        let slot = SlotId(lists.head);
        lists.head = slots.at(slot).link.swap(NO_SLOT, Ordering::SeqCst);
        if lists.head == NO_SLOT {
            lists.tail = NO_SLOT;
        }
        self.free.fetch_sub(1, Ordering::Relaxed);
        Some(slot)
    }

    /// Gives back a slot that nothing durable ever pointed at, or that is free in what is durable.
    pub fn give(&self, slots: &SlotTable, slot: SlotId) {
        self.push(slots, &mut lock(&self.lists), slot);
    }

    fn push(&self, slots: &SlotTable, lists: &mut Lists, slot: SlotId) {
        slots.at(slot).link.store(NO_SLOT, Ordering::SeqCst);
        if lists.tail == NO_SLOT {
            lists.head = slot.0;
        } else {
            slots.at(SlotId(lists.tail)).link.store(slot.0, Ordering::SeqCst);
        }
        lists.tail = slot.0;
        self.free.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives up a slot; it becomes free once `freed` is durable and no I/O is in flight on it.
    pub fn retire(&self, slot: SlotId, freed: LogPosition) {
        lock(&self.lists).limbo.push_back((freed, slot));
        self.in_limbo.fetch_add(1, Ordering::Relaxed);
    }

    /// Moves what may be used again from limbo to the free list; returns how many that were.
    pub fn reclaim(&self, slots: &SlotTable, durable: LogPosition) -> u32 {
        let mut lists = lock(&self.lists);
        let mut moved = 0;
        for _ in 0..lists.limbo.len() {
            let Some((freed, slot)) = lists.limbo.pop_front() else { break };
            if freed > durable {
                // In order of the log, nearly: what follows is not durable either.
                lists.limbo.push_front((freed, slot));
                break;
            }
            if slots.at(slot).pinned() {
                lists.limbo.push_back((freed, slot));
            } else {
                self.push(slots, &mut lists, slot);
                moved += 1;
            }
        }
        self.in_limbo.fetch_sub(moved, Ordering::Relaxed);
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_waits_for_the_journal_and_for_its_pins() {
        let slots = SlotTable::new(2);
        let allocator = Allocator::new();
        allocator.give(&slots, SlotId(0));
        let slot = allocator.take(&slots).expect("one is free");
        assert!(allocator.take(&slots).is_none());
        let pin = slots.pin(slot);
        allocator.retire(slot, LogPosition(5));
        assert_eq!(allocator.reclaim(&slots, LogPosition(4)), 0);
        assert_eq!(allocator.reclaim(&slots, LogPosition(5)), 0);
        drop(pin);
        assert_eq!(allocator.reclaim(&slots, LogPosition(5)), 1);
        assert_eq!(allocator.take(&slots), Some(slot));
    }

    #[test]
    fn slots_come_in_the_order_in_which_they_were_given() {
        let slots = SlotTable::new(10);
        let allocator = Allocator::new();
        (0..10).for_each(|n| allocator.give(&slots, SlotId(n)));
        let taken: Vec<u32> = std::iter::from_fn(|| allocator.take(&slots)).map(|slot| slot.0).collect();
        assert_eq!(taken, (0..10).collect::<Vec<_>>());
    }
}
