//! Building the map from what the fast tier's checkpoint and journal say, and from the capacity tier's
//! places.
//!
//! What is dirty is not stored but follows: a slot's epoch is newer than the newest epoch on the
//! capacity tier, or it is not. A clean slot is kept only if the block's place is not of a later epoch
//! than the slot; so a slot that was about to be freed at the crash cannot bring back old data.
//!
//! What lies below a slot is not stored either: the block's next older version, or zeros where the block was
//! deleted between the two. A version that no write had completed is in no log, and nothing is missed without it.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;

use forerun::geometry::{BlockIndex, Epoch, Geometry, SlotId, SubBlockMask};

use thiserror::Error;

use super::Volume;
use super::layers::{LAYERS, LayerInfo, LayerNumber};
use super::slots::{ADDED, Below, Bits, CLEAN, CURRENT, FREQUENCY_ONE, TOP};
use crate::fast_tier::delta::{Delta, Holds, Sealed};
use crate::fast_tier::log::DeltaLog;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

/// A repaired fast tier begins with an epoch that is a multiple of this, far beyond all that its predecessor can have
/// had: so the predecessor is refused as too old as soon as anything of the new one is on the capacity tier.
pub const SEAM_EPOCHS: u32 = 1 << 16;

/// Whether epochs may be missing before this one.
const fn is_seam(epoch: Epoch) -> bool {
    epoch.0.is_multiple_of(SEAM_EPOCHS)
}

/// Why what a fast tier remembers makes no map.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Unsound {
    /// A slot or a deletion of an epoch that is neither sealed nor open.
    #[error("block {block} was changed in epoch {epoch}, which is neither sealed nor the open one, {open}")]
    UnknownEpoch {
        /// Which block.
        block: BlockIndex,
        /// In which epoch.
        epoch: Epoch,
        /// The open epoch.
        open: Epoch,
    },
    /// Two slots for what one can hold.
    #[error("slots {0} and {1} both hold block {2} of epoch {3}")]
    Twice(SlotId, SlotId, BlockIndex, Epoch),
    /// Epochs that were written back to the capacity tier, as far as the fast tier knows, and are not there.
    #[error(
        "the epochs {first} to {last} are neither here nor on the capacity tier, whose newest is {newest}: the capacity \
         tier is an old copy, or its HEAD is",
        first = newest.next(), last = before.0.saturating_sub(1)
    )]
    Gap {
        /// The oldest epoch that the fast tier still has.
        before: Epoch,
        /// The newest on the capacity tier.
        newest: Epoch,
    },
    /// More sealed epochs than there can be.
    #[error("{0} sealed epochs are not on the capacity tier, more than there can be")]
    TooManyLayers(usize),
}

/// A sealed epoch that may not be written back yet, as the fast tier tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveredLayer {
    /// The epoch.
    pub sealed: Sealed,
    /// The snapshot it is kept as.
    pub snapshot: Option<String>,
}

/// All that a fast tier remembers.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Recovered {
    /// What each slot that is not free holds; each slot once.
    pub holds: Vec<Holds>,
    /// Deletions, in any order.
    pub deleted: Vec<(BlockIndex, Epoch)>,
    /// Sealed epochs, ascending; those on the capacity tier may be among them.
    pub sealed: Vec<RecoveredLayer>,
}

impl Recovered {
    /// The epoch that was open: the one after the newest sealed one.
    #[must_use]
    pub fn open_epoch(&self) -> Epoch {
        self.sealed.last().map_or(Epoch::FIRST, |layer| layer.sealed.epoch.next())
    }

    /// Sees whether a map can be made of it.
    ///
    /// # Errors
    /// What cannot be.
    pub fn check(&self, written_back: Epoch) -> Result<(), Unsound> {
        let open = self.open_epoch();
        let mut live: HashSet<Epoch> = self.sealed.iter().map(|layer| layer.sealed.epoch).collect();
        live.retain(|epoch| *epoch > written_back);
        if live.len() + 1 >= LAYERS {
            return Err(Unsound::TooManyLayers(live.len()));
        }
        let oldest = live.iter().min().copied().unwrap_or(open);
        if oldest > written_back.next() && !is_seam(oldest) {
            return Err(Unsound::Gap { before: oldest, newest: written_back });
        }
        let check_epoch = |block, epoch| match epoch <= written_back || epoch == open || live.contains(&epoch)
        {
            true => Ok(()),
            false => Err(Unsound::UnknownEpoch { block, epoch, open }),
        };
        let mut slots = HashMap::new();
        for Holds { slot, block, epoch, .. } in &self.holds {
            check_epoch(*block, *epoch)?;
            if *epoch > written_back
                && let Some(other) = slots.insert((*block, *epoch), *slot)
            {
                return Err(Unsound::Twice(other, *slot, *block, *epoch));
            }
        }
        self.deleted.iter().try_for_each(|(block, epoch)| check_epoch(*block, *epoch))
    }

    /// Deletions in live layers, sorted by block and epoch.
    fn live_deletions(&self, written_back: Epoch) -> Vec<(BlockIndex, Epoch)> {
        let live = self.deleted.iter().filter(|(_, epoch)| *epoch > written_back);
        let mut sorted: Vec<_> = live.copied().collect();
        sorted.sort_unstable();
        sorted
    }
}

/// A map that is being built.
pub struct Recovery<'a> {
    volume: Volume,
    recovered: &'a Recovered,
    numbers: HashMap<Epoch, LayerNumber>,
    /// Of each block that has a slot: the epoch of its newest place.
    newest_place: HashMap<BlockIndex, Epoch>,
}

impl<'a> Recovery<'a> {
    /// Begins with what the fast tier says; `written_back` is the newest epoch on the capacity tier.
    ///
    /// The caller has checked that `recovered.open_epoch()` is newer than `written_back`, and that slots and blocks
    /// are in range.
    ///
    /// # Errors
    /// What is recovered cannot be.
    pub fn begin(
        geometry: Geometry,
        slots: u32,
        log: Arc<dyn DeltaLog>,
        recovered: &'a Recovered,
        written_back: Epoch,
        now_us: u64,
    ) -> Result<Self, Unsound> {
        recovered.check(written_back)?;
        let open = recovered.open_epoch();
        assert!(open > written_back, "the fast tier is not older than the capacity tier");
        let live: Vec<&RecoveredLayer> =
            recovered.sealed.iter().filter(|layer| layer.sealed.epoch > written_back).collect();
        let first = live.first().map_or(open, |layer| layer.sealed.epoch);
        let volume = Volume::bare(geometry, slots, log, first, now_us);
        volume.written_back.store(written_back.0, Ordering::SeqCst);
        let mut numbers = HashMap::from([(first, volume.layers.open())]);
        for RecoveredLayer { sealed, snapshot } in live {
            let next = LayerInfo { opened_us: sealed.sealed_us, ..LayerInfo::default() };
            numbers.insert(sealed.epoch.next(), volume.layers.push(sealed.epoch.next(), next));
            if let Some(number) = numbers.get(&sealed.epoch) {
                volume.layers.with_info(*number, |info| {
                    info.opened_us = sealed.opened_us;
                    info.sealed_us = sealed.sealed_us;
                    info.mapped_blocks = sealed.mapped_blocks;
                    info.snapshot.clone_from(snapshot);
                });
            }
        }
        let newest_place = recovered.holds.iter().map(|holds| (holds.block, Epoch(0))).collect();
        Ok(Self { volume, recovered, numbers, newest_place })
    }

    /// Adds an entry of the capacity tier's layers, which come from the oldest to the newest: a block's
    /// place (`None`: deleted) and the epoch it is of.
    pub fn place(&mut self, block: BlockIndex, epoch: Epoch, place: Option<NonZeroU64>) {
        if block.0 >= self.volume.geometry().blocks() {
            return;
        }
        self.volume.places.set(block, place);
        if let Some(newest) = self.newest_place.get_mut(&block) {
            *newest = epoch;
        }
    }

    /// Links slots and layers, and gives the map.
    pub fn finish(self) -> Volume {
        let written_back = self.volume.written_back();
        let deletions = self.recovered.live_deletions(written_back);
        self.note_deletions(&deletions);
        let mut sorted: Vec<&Holds> = self.recovered.holds.iter().collect();
        sorted.sort_unstable_by_key(|holds| (holds.block, holds.epoch));
        let mut used = vec![false; self.volume.slots.len() as usize];
        for versions in sorted.chunk_by(|a, b| a.block == b.block) {
            self.link(versions, written_back, &deletions, &mut used);
        }
        self.give_free_slots(&used);
        self.volume.count_mapped();
        self.volume
    }

    fn note_deletions(&self, deletions: &[(BlockIndex, Epoch)]) {
        for (block, epoch) in deletions {
            let Some(number) = self.numbers.get(epoch) else { continue };
            self.volume.layers.with_info(*number, |info| info.deleted.push(*block));
            self.volume.deletions.fetch_add(1, Ordering::Relaxed);
            // The newest comes last.
            self.volume.shard(*block).deleted.insert(*block, *number);
        }
    }

    /// Links one block's versions, oldest first.
    fn link(
        &self,
        versions: &[&Holds],
        written_back: Epoch,
        deletions: &[(BlockIndex, Epoch)],
        used: &mut [bool],
    ) {
        let Some(block) = versions.first().map(|holds| holds.block) else { return };
        let volume = &self.volume;
        let from = deletions.partition_point(|(of, _)| *of < block);
        let of_block = deletions.iter().skip(from).take_while(|(of, _)| *of == block);
        let deleted: Vec<Epoch> = of_block.map(|(_, epoch)| *epoch).collect();
        let live = versions.partition_point(|holds| holds.epoch <= written_back);
        let (clean, live) = versions.split_at(live);
        let mut chain: Option<(SlotId, Epoch)> = None;
        let clean = self.newest_clean(block, clean).filter(|clean| {
            // Nothing reads through a deletion, and a checkpoint would tell it as of a later epoch.
            let until = live.first().map_or(Epoch(u32::MAX), |oldest| oldest.epoch);
            !deleted.iter().any(|epoch| clean.epoch < *epoch && *epoch <= until)
        });
        for holds in clean.into_iter().chain(live.iter().copied()) {
            let is_clean = holds.epoch <= written_back;
            let layer = if is_clean { CLEAN } else { self.numbers.get(&holds.epoch).map_or(CLEAN, |n| n.0) };
            let record = volume.slots.at(holds.slot);
            record.block.store(block.0, Ordering::SeqCst);
            record.layer.store(layer, Ordering::SeqCst);
            let dirty = if is_clean { SubBlockMask::EMPTY } else { holds.dirty };
            record.set_bits(Bits { valid: holds.valid, dirty });
            let older = chain.map_or(Epoch(0), |(_, epoch)| epoch);
            let over_zero = deleted.iter().any(|epoch| older < *epoch && *epoch <= holds.epoch);
            record.set_below(match chain {
                Some((older, _)) if over_zero => {
                    volume.slots.at(older).set(TOP);
                    Below::Zero
                }
                None if over_zero => Below::Zero,
                Some((older, _)) => Below::Slot(older),
                None => Below::Place,
            });
            record.set(FREQUENCY_ONE | if holds.added && !is_clean { ADDED } else { 0 });
            if let Some(word) = used.get_mut(holds.slot.0 as usize) {
                *word = true;
            }
            if is_clean {
                volume.queue_clean(holds.slot);
            }
            chain = Some((holds.slot, holds.epoch));
        }
        let Some((newest, epoch)) = chain else { return };
        // Deleted after it was last written: the slots stay for their layers only. A deletion and a
        // write of the same epoch: the write was the later, for a deletion frees the epoch's slot.
        if deleted.last().is_some_and(|deleted| *deleted > epoch) {
            volume.slots.at(newest).set(TOP);
            return;
        }
        volume.slots.at(newest).set(CURRENT);
        let _shard = volume.shard(block);
        volume.index.insert(&volume.slots, block, newest);
    }

    /// The clean version to keep, if its data still is the block's.
    fn newest_clean<'h>(&self, block: BlockIndex, clean: &[&'h Holds]) -> Option<&'h Holds> {
        let (newest, older) = clean.split_last()?;
        let placed = self.newest_place.get(&block).copied().unwrap_or_default();
        let current = newest.epoch >= placed && self.volume.places.get(block).is_some();
        // Two of one epoch cannot both be it; the capacity tier has the block in any case.
        let alone = older.last().is_none_or(|older| older.epoch < newest.epoch);
        (current && alone).then_some(*newest)
    }

    fn give_free_slots(&self, used: &[bool]) {
        let volume = &self.volume;
        let mut stale = vec![false; used.len()];
        for holds in &self.recovered.holds {
            if let Some(word) = stale.get_mut(holds.slot.0 as usize) {
                *word = true;
            }
        }
        for ((slot, used), stale) in (0u32..).map(SlotId).zip(used).zip(stale) {
            match (used, stale) {
                (true, _) => {}
                (false, false) => volume.allocator.give(&volume.slots, slot),
                // What is durable still says that it holds something.
                (false, true) => volume.allocator.retire(slot, volume.log.append(&Delta::Free(slot))),
            }
        }
    }
}

impl Volume {
    /// Counts what holds something, once, from the whole map.
    fn count_mapped(&self) {
        let mut mapped = self.places.len();
        for (_, record) in self.slots.iter() {
            let block = BlockIndex(record.block.load(Ordering::SeqCst));
            if record.has(CURRENT) && self.places.get(block).is_none() {
                mapped += 1;
            }
        }
        for shard in &self.shards {
            let shard = super::lock(shard);
            for block in shard.deleted.keys() {
                let has_slot = self.index.find(&self.slots, *block).is_some();
                if !has_slot && self.places.get(*block).is_some() {
                    mapped -= 1;
                }
            }
        }
        self.mapped.store(mapped, Ordering::Relaxed);
    }
}
