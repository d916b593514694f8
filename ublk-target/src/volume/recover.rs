//! Building the map from what the fast tier's checkpoint and journal say, and from the capacity tier's
//! places.
//!
//! What is dirty is not stored but follows: a slot's epoch is newer than the newest epoch on the
//! capacity tier, or it is not. A clean slot is kept only if the block's place is not of a later epoch
//! than the slot; so a slot that was about to be freed at the crash cannot bring back old data.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use forerun::geometry::{BlockIndex, Epoch, Geometry, SlotId, SubBlockMask};

use super::Volume;
use super::layers::{LayerInfo, LayerNumber};
use super::slots::{ADDED, Below, Bits, CLEAN, CURRENT, FREQUENCY_ONE, TOP};
use crate::fast_tier::delta::{Delta, Holds};
use crate::fast_tier::log::DeltaLog;

/// A sealed epoch that may not be written back yet, as the fast tier tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveredLayer {
    /// The epoch.
    pub epoch: Epoch,
    /// When it began, in microseconds since 1970.
    pub opened_us: u64,
    /// When it was sealed, in microseconds since 1970.
    pub sealed_us: u64,
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
        self.sealed.last().map_or(Epoch::FIRST, |layer| layer.epoch.next())
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
    /// The caller has checked that `recovered.open_epoch()` is newer than `written_back`, that there are
    /// at most as many live layers as there can be, and that slots and blocks are in range.
    pub fn begin(
        geometry: Geometry,
        slots: u32,
        log: Arc<dyn DeltaLog>,
        recovered: &'a Recovered,
        written_back: Epoch,
        now_us: u64,
    ) -> Self {
        let open = recovered.open_epoch();
        assert!(open > written_back, "the fast tier is not older than the capacity tier");
        let live: Vec<&RecoveredLayer> =
            recovered.sealed.iter().filter(|layer| layer.epoch > written_back).collect();
        let first = live.first().map_or(open, |layer| layer.epoch);
        let volume = Volume::bare(geometry, slots, log, first, now_us);
        volume.written_back.store(written_back.0, Ordering::SeqCst);
        let mut numbers = HashMap::from([(first, volume.layers.open())]);
        for layer in &live {
            let next = LayerInfo { opened_us: layer.sealed_us, ..LayerInfo::default() };
            let Some(number) = volume.layers.push(layer.epoch.next(), next) else { break };
            numbers.insert(layer.epoch.next(), number);
            if let Some(sealed) = numbers.get(&layer.epoch) {
                volume.layers.with_info(*sealed, |info| {
                    info.opened_us = layer.opened_us;
                    info.sealed_us = layer.sealed_us;
                    info.snapshot.clone_from(&layer.snapshot);
                });
            }
        }
        let newest_place = recovered.holds.iter().map(|holds| (holds.block, Epoch(0))).collect();
        Self { volume, recovered, numbers, newest_place }
    }

    /// Adds an entry of the capacity tier's layers, which come from the oldest to the newest: a block's
    /// place (`None`: deleted) and the epoch it is of.
    pub fn place(&mut self, block: BlockIndex, epoch: Epoch, place: Option<NonZeroU64>) {
        if block.0 >= self.volume.geometry.blocks() {
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
        self.volume.rebuild_chains(self.recovered, written_back, &self.numbers, &self.newest_place);
        self.volume
    }
}

impl Volume {
    fn rebuild_chains(
        &self,
        recovered: &Recovered,
        written_back: Epoch,
        numbers: &HashMap<Epoch, LayerNumber>,
        newest_place: &HashMap<BlockIndex, Epoch>,
    ) {
        for (block, epoch) in &recovered.deleted {
            if let Some(number) = numbers.get(epoch) {
                self.layers.with_info(*number, |info| info.deleted.push(*block));
                self.deletions.fetch_add(1, Ordering::Relaxed);
                let mut shard = self.shard(*block);
                let newest = shard.deleted.entry(*block).or_insert(*number);
                if self.layers.epoch(*newest) < *epoch {
                    *newest = *number;
                }
            }
        }
        let mut sorted: Vec<&Holds> = recovered.holds.iter().collect();
        sorted.sort_unstable_by_key(|holds| (holds.block, holds.epoch));
        let mut used = vec![false; self.slots.len() as usize];
        for versions in sorted.chunk_by(|a, b| a.block == b.block) {
            self.rebuild_chain(versions, written_back, numbers, newest_place, &mut used);
        }
        let mut stale = vec![false; used.len()];
        for holds in &recovered.holds {
            if let Some(word) = stale.get_mut(holds.slot.0 as usize) {
                *word = true;
            }
        }
        for ((slot, used), stale) in (0u32..).map(SlotId).zip(used).zip(stale) {
            match (used, stale) {
                (true, _) => {}
                (false, false) => self.allocator.give(&self.slots, slot),
                // What is durable still says that it holds something.
                (false, true) => self.allocator.retire(slot, self.log.append(&Delta::Free(slot))),
            }
        }
        self.count_mapped();
    }

    /// Links one block's versions, oldest first.
    fn rebuild_chain(
        &self,
        versions: &[&Holds],
        written_back: Epoch,
        numbers: &HashMap<Epoch, LayerNumber>,
        newest_place: &HashMap<BlockIndex, Epoch>,
        used: &mut [bool],
    ) {
        let Some(block) = versions.first().map(|holds| holds.block) else { return };
        let placed = newest_place.get(&block).copied().unwrap_or_default();
        let deleted_in = self.shard(block).deleted.get(&block).map(|layer| self.layers.epoch(*layer));
        let clean = versions
            .iter()
            .rfind(|holds| holds.epoch <= written_back)
            .filter(|holds| holds.epoch >= placed && self.places.get(block).is_some());
        let live = versions.iter().filter(|holds| holds.epoch > written_back);
        let mut chain: Option<(SlotId, Epoch)> = None;
        for holds in clean.into_iter().chain(live) {
            let is_clean = holds.epoch <= written_back;
            let layer = if is_clean { CLEAN } else { numbers.get(&holds.epoch).map_or(CLEAN, |n| n.0) };
            let record = self.slots.at(holds.slot);
            record.block.store(block.0, Ordering::SeqCst);
            record.layer.store(layer, Ordering::SeqCst);
            let dirty = if is_clean { SubBlockMask::EMPTY } else { holds.dirty };
            record.set_bits(Bits { valid: holds.valid, dirty });
            record.set_below(match chain {
                Some((older, _)) if holds.over_zero && !is_clean => {
                    self.slots.at(older).set(TOP);
                    Below::Zero
                }
                None if holds.over_zero && !is_clean => Below::Zero,
                Some((older, _)) => Below::Slot(older),
                None => Below::Place,
            });
            record.set(FREQUENCY_ONE | if holds.added && !is_clean { ADDED } else { 0 });
            if let Some(word) = used.get_mut(holds.slot.0 as usize) {
                *word = true;
            }
            if is_clean {
                self.queue_clean(holds.slot);
            }
            chain = Some((holds.slot, holds.epoch));
        }
        let Some((newest, epoch)) = chain else { return };
        // Deleted after it was last written: the slots stay for their layers only. A deletion and a
        // write of the same epoch: the write was the later, for a deletion frees the epoch's slot.
        if deleted_in.is_some_and(|deleted| deleted > epoch) {
            self.slots.at(newest).set(TOP);
            return;
        }
        self.slots.at(newest).set(CURRENT);
        let _shard = self.shard(block);
        self.index.insert(&self.slots, block, newest);
    }

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
