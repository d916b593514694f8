//! Planning and committing a write.
//!
//! The first write of a block in an epoch is a redirect: it takes a new slot and what was there before
//! lies below it, unread and uncopied. Later writes go straight to that slot.
//!
//! A redirect changes the index when it is planned, with no sub-block valid yet, so reads go on to see
//! what lies below. The sub-blocks become valid, and the log hears of it, when the write commits. A
//! ticket dropped before that leaves a slot in which nothing is valid.

use forerun::geometry::{SUB_BLOCK_BYTES, SlotId, SubBlockMask};

use super::join::Joined;
use super::layers::LayerNumber;
use super::read::ReadPlan;
use super::shard::Shard;
use super::slots::{ADDED, Below, Bits, CLEAN, CURRENT, FREQUENCY_ONE, Pin};
use super::{Span, Volume};
use crate::fast_tier::delta::{Delta, Holds};
use crate::sync::atomic::Ordering;

/// Why a write or a discard cannot be planned now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotYet {
    /// Another write in flight is about to change the same sub-blocks; it will be done soon.
    Busy,
    /// No slot is free; [`Volume::room`] tells when to try again.
    NoRoom,
    /// The journal has to catch up first.
    LogFull,
    /// The journal takes nothing any more: what is planned could not be kept. For good.
    LogFailed,
}

/// The log did not take a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogFailed;

/// A write that changes nothing in the map, planned without a lock: the steady state.
pub struct WriteHit<'a> {
    pin: Pin<'a>,
    _joined: Joined<'a>,
}

impl WriteHit<'_> {
    /// The slot to write to.
    #[must_use]
    pub const fn slot(&self) -> SlotId {
        self.pin.slot()
    }
}

/// A planned write. Commit it when its data is in the slot; dropping it gives it up.
pub struct WriteTicket<'a> {
    volume: &'a Volume,
    pin: Pin<'a>,
    joined: Joined<'a>,
    span: Span,
    /// Sub-blocks that become valid with this write.
    pending: SubBlockMask,
    /// Of those, what the write covers only in part: the rest comes from below and the sub-block is
    /// written whole. At most the first and the last.
    partial: SubBlockMask,
    /// What lies below the partial sub-blocks.
    fetch: Option<ReadPlan<'a>>,
}

impl<'a> WriteTicket<'a> {
    /// The slot to write to.
    #[must_use]
    pub const fn slot(&self) -> SlotId {
        self.pin.slot()
    }

    /// Sub-blocks to be completed from [`WriteTicket::fetch`] and written whole.
    #[must_use]
    pub const fn partial(&self) -> SubBlockMask {
        self.partial
    }

    /// Where the rest of the partial sub-blocks is; pieces cover these sub-blocks wholly.
    #[must_use]
    pub const fn fetch(&self) -> Option<&ReadPlan<'a>> {
        self.fetch.as_ref()
    }

    /// Makes the write part of the volume: its sub-blocks are valid and dirty, and the log knows.
    ///
    /// # Errors
    /// The log has failed and did not take it: the write must not be acknowledged.
    pub fn commit(self) -> Result<(), LogFailed> {
        let volume = self.volume;
        let shard = volume.shard(self.span.block);
        let record = volume.slots.at(self.slot());
        let bits = record.bits();
        let touched = self.span.touched();
        let new = Bits { valid: bits.valid.union(self.pending), dirty: bits.dirty.union(touched) };
        // The slot may have been given up by a discard that ran beside this write.
        let kept = record.block.load(Ordering::SeqCst) == self.span.block.0;
        debug_assert!(!kept || new.valid.contains(touched), "a write leaves all it touched valid");
        if kept && new != bits {
            // The log first: once the bits are set, another write of these sub-blocks is a hit, which takes no lock, and
            // is acknowledged, or flushed, on the strength of what the log has by then.
            let epoch = volume.layers.epoch(self.joined.layer());
            let holds = Holds {
                valid: new.valid,
                dirty: new.dirty,
                ..volume.holds(self.slot(), self.span.block, epoch)
            };
            volume.log.append(&Delta::Holds(holds));
            record.set_bits(new);
        }
        drop(shard);
        // The pending sub-blocks are released by Drop.
        if volume.log.has_failed() { Err(LogFailed) } else { Ok(()) }
    }
}

impl Drop for WriteTicket<'_> {
    fn drop(&mut self) {
        self.volume.promised.fetch_sub(1, Ordering::SeqCst);
        if self.pending.is_empty() {
            return;
        }
        let mut shard = self.volume.shard(self.span.block);
        if let Some(writing) = shard.writing.get_mut(&self.span.block) {
            *writing = writing.minus(self.pending);
            if writing.is_empty() {
                shard.writing.remove(&self.span.block);
            }
        }
        drop(shard);
        self.volume.room.wake_all();
    }
}

impl Volume {
    /// Plans a write to sub-blocks that the open epoch has written before; `None` says to take
    /// [`Volume::plan_write`]. `lane` tells queue threads apart.
    pub fn write_hit(&self, lane: usize, span: Span) -> Option<WriteHit<'_>> {
        let joined = self.join(lane);
        let slot = self.index.find_unlocked(&self.slots, span.block)?;
        let pin = self.slots.pin(slot);
        let record = self.slots.at(slot);
        let touched = span.touched();
        let bits = record.bits();
        let hit = record.is_current(span.block)
            && record.layer.load(Ordering::SeqCst) == joined.layer().0
            && bits.valid.contains(touched)
            && bits.dirty.contains(touched);
        if !hit {
            return None;
        }
        record.touch();
        Some(WriteHit { pin, _joined: joined })
    }

    /// Plans any write.
    ///
    /// # Errors
    /// [`NotYet`] where the write has to wait; nothing is held then.
    pub fn plan_write(&self, lane: usize, span: Span) -> Result<WriteTicket<'_>, NotYet> {
        let mut shard = self.shard(span.block);
        let touched = span.touched();
        if shard.writing.get(&span.block).is_some_and(|writing| writing.intersects(touched)) {
            return Err(NotYet::Busy);
        }
        self.check_log()?;
        // Joined under the shard's lock: no slot of this block can be of a newer layer.
        let joined = self.join(lane);
        let newest = self.index.find(&self.slots, span.block);
        let in_layer =
            newest.filter(|slot| self.slots.at(*slot).layer.load(Ordering::SeqCst) == joined.layer().0);
        if self.fetches_what_changes(in_layer, newest, span, joined.layer()) {
            return Err(NotYet::Busy);
        }
        let slot = match in_layer {
            Some(slot) => slot,
            None => self.redirect(&mut shard, span, newest, joined.layer())?,
        };
        let record = self.slots.at(slot);
        let pending = touched.minus(record.bits().valid);
        let partial = pending.minus(span.covered());
        let fetch = (!partial.is_empty()).then(|| self.plan_whole(record.below(), span, partial));
        if !pending.is_empty() {
            let writing = shard.writing.entry(span.block).or_default();
            *writing = writing.union(pending);
        }
        self.promised.fetch_add(1, Ordering::SeqCst);
        Ok(WriteTicket { volume: self, pin: self.slots.pin(slot), joined, span, pending, partial, fetch })
    }

    /// Whether the write is to complete a sub-block from a slot of a sealed layer on which writes are still in
    /// flight: it would copy what one of them is about to change, and hide that change for ever.
    fn fetches_what_changes(
        &self,
        in_layer: Option<SlotId>,
        newest: Option<SlotId>,
        span: Span,
        open: LayerNumber,
    ) -> bool {
        let mut partial = span.touched().minus(span.covered());
        let mut from = match (in_layer, newest) {
            (Some(slot), _) => {
                let record = self.slots.at(slot);
                partial = partial.minus(record.bits().valid);
                record.below()
            }
            (None, Some(older)) => Below::Slot(older),
            (None, None) => return false,
        };
        while let (Below::Slot(slot), false) = (from, partial.is_empty()) {
            let record = self.slots.at(slot);
            let layer = record.layer.load(Ordering::SeqCst);
            let here = record.bits().valid.intersection(partial);
            debug_assert_ne!(layer, open.0, "a block has one slot a layer");
            if !here.is_empty() && layer != CLEAN && !self.layers.drained(LayerNumber(layer)) {
                return true;
            }
            partial = partial.minus(here);
            from = record.below();
        }
        false
    }

    /// Plans reads of whole sub-blocks from below.
    fn plan_whole(&self, below: Below, span: Span, mask: SubBlockMask) -> ReadPlan<'_> {
        let mut whole = ReadPlan::default();
        for (first, count) in mask.runs() {
            let sub_block = SUB_BLOCK_BYTES as u32;
            let run = Span { block: span.block, start: first * sub_block, len: count * sub_block };
            whole.append(self.plan_from(below, run));
        }
        whole
    }

    /// Gives the block a new slot in the open layer, above what it has now.
    fn redirect(
        &self,
        shard: &mut Shard,
        span: Span,
        newest: Option<SlotId>,
        layer: LayerNumber,
    ) -> Result<SlotId, NotYet> {
        let block = span.block;
        let reserved = shard.reserved.remove(&block);
        let slot = match reserved {
            Some(slot) => {
                self.reserved.fetch_sub(1, Ordering::Relaxed);
                self.stats.reservations_used.add(1);
                slot
            }
            None if self.may_take_slot() => self.allocator.take(&self.slots).ok_or(NotYet::NoRoom)?,
            None => return Err(NotYet::NoRoom),
        };
        let deleted_in = shard.deleted.get(&block).copied();
        let placed = self.places.get(block).is_some();
        let (below, added) = match (newest, deleted_in) {
            (Some(older), _) => (Below::Slot(older), false),
            // Deleted in this very epoch: it was there when the epoch began.
            (None, Some(deleted)) => (Below::Zero, deleted != layer),
            (None, None) => (Below::Place, !placed),
        };
        if let Some(older) = newest {
            self.slots.at(older).clear(CURRENT);
            self.index.remove(&self.slots, block, older);
            self.note_use_of_prefetch(older);
        }
        let record = self.slots.at(slot);
        debug_assert!(record.block.load(Ordering::SeqCst) == super::slots::NO_BLOCK);
        record.set_bits(Bits::default());
        record.set_below(below);
        record.layer.store(layer.0, Ordering::SeqCst);
        record.block.store(block.0, Ordering::SeqCst);
        let kind = if added { ADDED } else { 0 };
        record.flags.store(CURRENT | kind | FREQUENCY_ONE, Ordering::SeqCst);
        self.index.insert(&self.slots, block, slot);
        if newest.is_none() && (deleted_in.is_some() || !placed) {
            self.mapped.fetch_add(1, Ordering::Relaxed);
        }
        self.stats.redirects.add(1);
        Ok(slot)
    }
}
