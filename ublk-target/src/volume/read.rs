//! Planning a read: from which slots, from the capacity tier, or zeros.
//!
//! A plan pins every slot it names, so that the data stays where it is until the plan is dropped.

use std::num::NonZeroU64;

use forerun::geometry::{BlockIndex, SUB_BLOCK_BYTES, SlotId, SubBlockMask};

use super::slots::{Below, NO_BLOCK, PREFETCHED, Pin, READ};
use super::{Span, Volume};
use crate::sync::atomic::Ordering;

/// Where a piece of a block is read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The same bytes of a slot.
    Fast(SlotId),
    /// The same bytes of the block at its place on the capacity tier.
    Capacity(NonZeroU64),
    /// Nothing was ever written there.
    Zero,
}

/// A range of a block with its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where the bytes are.
    pub source: Source,
    /// Where the range begins in the block, in bytes.
    pub start: u32,
    /// How long it is, in bytes.
    pub len: u32,
}

/// A read of one slot, planned without a lock.
pub struct ReadHit<'a> {
    pin: Pin<'a>,
}

impl ReadHit<'_> {
    /// The slot that holds all of the span.
    #[must_use]
    pub const fn slot(&self) -> SlotId {
        self.pin.slot()
    }
}

/// A planned read of one block: disjoint pieces that cover the span.
#[derive(Default)]
pub struct ReadPlan<'a> {
    /// The pieces, in no particular order.
    pub pieces: Vec<Piece>,
    _pins: Vec<Pin<'a>>,
}

impl ReadPlan<'_> {
    /// The place that has to be read on the capacity tier, if any.
    #[must_use]
    pub fn capacity_place(&self) -> Option<NonZeroU64> {
        self.pieces.iter().find_map(|piece| match piece.source {
            Source::Capacity(place) => Some(place),
            _ => None,
        })
    }
}

impl Volume {
    /// Plans a read that one slot can serve; `None` says to take [`Volume::plan_read`].
    pub fn read_hit(&self, span: Span) -> Option<ReadHit<'_>> {
        let slot = self.index.find_unlocked(&self.slots, span.block)?;
        let pin = self.slots.pin(slot);
        let record = self.slots.at(slot);
        if !record.is_current(span.block) || !record.bits().valid.contains(span.touched()) {
            return None;
        }
        record.note_read();
        self.note_use_of_prefetch(slot);
        Some(ReadHit { pin })
    }

    /// Plans a read of any block.
    pub fn plan_read(&self, span: Span) -> ReadPlan<'_> {
        let shard = self.shard(span.block);
        let newest = self.index.find(&self.slots, span.block);
        let start = match newest {
            Some(slot) => Below::Slot(slot),
            None if shard.deleted.contains_key(&span.block) => Below::Zero,
            None => Below::Place,
        };
        if let Some(slot) = newest {
            self.slots.at(slot).note_read();
            self.note_use_of_prefetch(slot);
        }
        self.plan_from(start, span)
    }

    /// Plans a read beginning at a slot or what lies below; the caller holds the shard's lock.
    pub(super) fn plan_from(&self, start: Below, span: Span) -> ReadPlan<'_> {
        let mut plan = ReadPlan { pieces: Vec::with_capacity(1), _pins: Vec::new() };
        let mut missing = span.touched();
        let mut from = start;
        while !missing.is_empty() {
            match from {
                Below::Slot(slot) => {
                    let record = self.slots.at(slot);
                    debug_assert_eq!(record.block.load(Ordering::SeqCst), span.block.0);
                    let here = record.bits().valid.intersection(missing);
                    if !here.is_empty() {
                        plan._pins.push(self.slots.pin(slot));
                        plan.add(Source::Fast(slot), here, span);
                        missing = missing.minus(here);
                    }
                    from = record.below();
                }
                Below::Place => {
                    let source = self.places.get(span.block).map_or(Source::Zero, Source::Capacity);
                    plan.add(source, missing, span);
                    break;
                }
                Below::Zero => {
                    plan.add(Source::Zero, missing, span);
                    break;
                }
            }
        }
        plan
    }

    /// Blocks that were read on the fast tier since the last call and are there still, in no order. Looks at every slot.
    pub fn take_reads(&self) -> Vec<BlockIndex> {
        let mut reads = Vec::new();
        for (_, record) in self.slots.iter() {
            if record.flags.load(Ordering::Relaxed) & READ != 0 {
                record.clear(READ);
                let block = record.block.load(Ordering::SeqCst);
                if block != NO_BLOCK {
                    reads.push(BlockIndex(block));
                }
            }
        }
        reads
    }

    /// A prefetched slot that is read or built upon has earned its fetch, once.
    pub(super) fn note_use_of_prefetch(&self, slot: SlotId) {
        let record = self.slots.at(slot);
        if record.has(PREFETCHED) && record.flags.fetch_and(!PREFETCHED, Ordering::SeqCst) & PREFETCHED != 0 {
            let bytes = u64::from(record.bits().valid.count()) * SUB_BLOCK_BYTES;
            self.stats.prefetched_used_bytes.add(bytes);
        }
    }

    /// Whether the block holds something now.
    pub fn is_mapped(&self, block: BlockIndex) -> bool {
        let shard = self.shard(block);
        self.index.find(&self.slots, block).is_some()
            || (!shard.deleted.contains_key(&block) && self.places.get(block).is_some())
    }
}

impl<'a> ReadPlan<'a> {
    /// Takes over another plan's pieces and pins.
    pub(super) fn append(&mut self, mut other: ReadPlan<'a>) {
        self.pieces.append(&mut other.pieces);
        self._pins.append(&mut other._pins);
    }

    /// Adds the sub-blocks of `mask`, cut to the span's bytes.
    fn add(&mut self, source: Source, mask: SubBlockMask, span: Span) {
        let sub_block = SUB_BLOCK_BYTES as u32;
        for (first, count) in mask.runs() {
            let start = (first * sub_block).max(span.start);
            let end = ((first + count) * sub_block).min(span.start + span.len);
            self.pieces.push(Piece { source, start, len: end - start });
        }
    }
}
