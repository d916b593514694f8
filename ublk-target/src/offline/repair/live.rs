//! What a new fast tier begins with: the epochs that are not on the capacity tier yet, under new numbers.
//!
//! The numbers begin far beyond all that the old tier can have had ([`SEAM_EPOCHS`]), and there is always at least one
//! sealed epoch, empty if need be. It is written back at the first opening; from then on the old fast tier is refused
//! as too old, so that what it holds can never be laid over what comes after the repair.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use forerun::geometry::{BlockIndex, Epoch, SlotId, SubBlockMask};

use crate::capacity_tier::BlockSet;
use crate::fast_tier::delta::{Delta, Holds, Sealed};
use crate::volume::{Recovered, SEAM_EPOCHS};

/// A slot of the new tier, and what it is put together from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NewSlot {
    pub block: BlockIndex,
    /// The old slots, and which sub-blocks of each.
    pub pieces: Vec<(SlotId, SubBlockMask)>,
    pub valid: SubBlockMask,
    pub dirty: SubBlockMask,
    pub added: bool,
}

/// An epoch of the new tier.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct NewLayer {
    /// Its epoch on the old tier; 0 for none.
    pub old_epoch: Epoch,
    pub opened_us: u64,
    pub sealed_us: u64,
    pub snapshot: Option<String>,
    /// The snapshot's name before, where it has another now.
    pub old_name: Option<String>,
    pub slots: Vec<NewSlot>,
    pub deleted: Vec<BlockIndex>,
}

/// The epochs of a tier that fits its capacity tier, as they are.
pub(super) fn as_they_are(recovered: &Recovered, written_back: Epoch, now_us: u64) -> Vec<NewLayer> {
    let mut layers: BTreeMap<Epoch, NewLayer> = BTreeMap::new();
    let mut opened_us = now_us;
    for layer in recovered.sealed.iter().filter(|layer| layer.sealed.epoch > written_back) {
        let Sealed { epoch, opened_us: opened, sealed_us, .. } = layer.sealed;
        let snapshot = layer.snapshot.clone();
        opened_us = sealed_us;
        layers.insert(
            epoch,
            NewLayer { old_epoch: epoch, opened_us: opened, sealed_us, snapshot, ..NewLayer::default() },
        );
    }
    let open = recovered.open_epoch();
    let open_layer =
        || NewLayer { old_epoch: open, opened_us, sealed_us: now_us.max(opened_us), ..NewLayer::default() };
    for holds in recovered.holds.iter().filter(|holds| holds.epoch > written_back && !holds.dirty.is_empty())
    {
        let Holds { slot, block, epoch, valid, dirty, added } = *holds;
        let slot = NewSlot { block, pieces: vec![(slot, valid)], valid, dirty, added };
        layers.entry(epoch).or_insert_with(open_layer).slots.push(slot);
    }
    for (block, epoch) in recovered.deleted.iter().filter(|(_, epoch)| *epoch > written_back) {
        layers.entry(*epoch).or_insert_with(open_layer).deleted.push(*block);
    }
    layers.into_values().collect()
}

/// One epoch with the newest of everything that is newer than `written_back`: for a tier whose epochs in between are
/// lost on the capacity tier.
pub(super) fn as_one(recovered: &Recovered, written_back: Epoch, mapped: &BlockSet, now_us: u64) -> NewLayer {
    let mut versions: BTreeMap<BlockIndex, Vec<&Holds>> = BTreeMap::new();
    for holds in recovered.holds.iter().filter(|holds| holds.epoch > written_back) {
        versions.entry(holds.block).or_default().push(holds);
    }
    let mut gone: HashMap<BlockIndex, Epoch> = HashMap::new();
    for (block, epoch) in recovered.deleted.iter().filter(|(_, epoch)| *epoch > written_back) {
        let newest = gone.entry(*block).or_default();
        *newest = (*newest).max(*epoch);
    }
    let mut layer = NewLayer { opened_us: now_us, sealed_us: now_us, ..NewLayer::default() };
    layer.deleted = gone.keys().filter(|block| mapped.get(**block)).copied().collect();
    layer.deleted.sort_unstable();
    for (block, mut of_block) in versions {
        // A write and a deletion of the same epoch: the write was the later one.
        let since = gone.get(&block).copied().unwrap_or_default();
        of_block.retain(|holds| holds.epoch >= since);
        of_block.sort_unstable_by_key(|holds| std::cmp::Reverse(holds.epoch));
        let (mut valid, mut pieces) = (SubBlockMask::EMPTY, Vec::new());
        for holds in of_block {
            let more = holds.valid.minus(valid);
            if !more.is_empty() {
                pieces.push((holds.slot, more));
                valid = valid.union(more);
            }
        }
        if !valid.is_empty() {
            layer.slots.push(NewSlot { block, pieces, valid, dirty: valid, added: !mapped.get(block) });
        }
    }
    layer
}

/// Which sub-blocks of a block all these layers have, so that nothing below them shows.
pub(super) struct Cover {
    valid: HashMap<BlockIndex, SubBlockMask>,
}

impl Cover {
    /// By the layers up to and with the one of index `upto`.
    pub fn by(layers: &[NewLayer], upto: usize) -> Self {
        let mut valid: HashMap<BlockIndex, SubBlockMask> = HashMap::new();
        for layer in layers.iter().take(upto + 1) {
            for block in &layer.deleted {
                valid.insert(*block, SubBlockMask::FULL);
            }
            for slot in &layer.slots {
                let mask = valid.entry(slot.block).or_default();
                *mask = mask.union(slot.valid);
            }
        }
        Self { valid }
    }

    /// The sub-blocks of a block that show nothing older.
    pub fn of(&self, block: BlockIndex) -> SubBlockMask {
        self.valid.get(&block).copied().unwrap_or_default()
    }

    /// The blocks of which all is covered.
    pub fn whole(&self) -> BTreeSet<BlockIndex> {
        let whole = self.valid.iter().filter(|(_, mask)| **mask == SubBlockMask::FULL);
        whole.map(|(block, _)| *block).collect()
    }
}

/// The first epoch of a repaired tier: a seam beyond `newest`, and beyond what a lost tier can have had.
pub(in crate::offline) const fn first_epoch(newest: Epoch) -> Epoch {
    // Fewer epochs than this are live at once.
    const BEYOND: u32 = 1_024;
    Epoch(((newest.0 + BEYOND) / SEAM_EPOCHS + 1) * SEAM_EPOCHS)
}

/// The facts of a tier with these layers; slots are numbered in the order of the layers.
pub(super) fn facts(layers: &[NewLayer], first: Epoch, mapped: &BlockSet) -> Vec<Delta> {
    let (mut facts, mut slot, mut mapped) = (Vec::new(), 0u32, mapped.clone());
    for (epoch, layer) in (first.0..).map(Epoch).zip(layers) {
        for block in &layer.deleted {
            mapped.set(*block, false);
            facts.push(Delta::Deleted { block: *block, epoch });
        }
        for NewSlot { block, valid, dirty, added, .. } in &layer.slots {
            mapped.set(*block, true);
            let (block, valid, dirty, added) = (*block, *valid, *dirty, *added);
            facts.push(Delta::Holds(Holds { slot: SlotId(slot), block, epoch, valid, dirty, added }));
            slot += 1;
        }
        if let Some(name) = &layer.snapshot {
            facts.push(Delta::Named { epoch, name: name.clone() });
        }
        let (opened_us, sealed_us, mapped_blocks) = (layer.opened_us, layer.sealed_us, mapped.count());
        facts.push(Delta::Sealed(Sealed { epoch, opened_us, sealed_us, mapped_blocks }));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_epoch_is_a_seam_beyond_all_that_was() {
        for newest in [0, 1, 60_000, 65_000, 65_535, 65_536, 200_000] {
            let first = first_epoch(Epoch(newest)).0;
            assert!(first.is_multiple_of(SEAM_EPOCHS) && first > newest + 1_000, "{newest}");
        }
    }

    #[test]
    fn one_layer_holds_the_newest_of_every_sub_block() {
        let holds = |slot, block, epoch, valid| Holds {
            slot: SlotId(slot),
            block: BlockIndex(block),
            epoch: Epoch(epoch),
            valid: SubBlockMask(valid),
            dirty: SubBlockMask(valid),
            added: false,
        };
        let recovered = Recovered {
            holds: vec![
                holds(0, 1, 3, 0b0111),
                holds(1, 1, 5, 0b0100),
                holds(2, 2, 3, 0xFFFF),
                holds(3, 2, 5, 1),
            ],
            deleted: vec![(BlockIndex(2), Epoch(5)), (BlockIndex(9), Epoch(4))],
            sealed: Vec::new(),
        };
        let mut mapped = BlockSet::new(1024);
        mapped.set(BlockIndex(2), true);
        let layer = as_one(&recovered, Epoch(2), &mapped, 7);
        assert_eq!(layer.deleted, [BlockIndex(2)], "what holds nothing is not deleted");
        let pieces: Vec<_> = layer.slots.iter().map(|slot| (slot.block.0, slot.pieces.clone())).collect();
        let of_first = vec![(SlotId(1), SubBlockMask(0b0100)), (SlotId(0), SubBlockMask(0b0011))];
        assert_eq!(pieces, [(1, of_first), (2, vec![(SlotId(3), SubBlockMask(1))])]);
    }
}
