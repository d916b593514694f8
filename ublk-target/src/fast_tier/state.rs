//! Putting a state together from deltas: what the checkpoint says, then what each record changed.
//!
//! Always true: each slot is held at most once, slot and block numbers are within the tier and the volume.
//! It does not know what is dirty or current; that follows from the capacity tier.

use std::collections::{BTreeMap, BTreeSet};

use forerun::geometry::{BlockIndex, Epoch};

use super::delta::{Delta, Holds, Sealed};
use crate::volume::{Recovered, RecoveredLayer};

/// A state in the making.
pub(super) struct State {
    blocks: u32,
    slots: Vec<Option<Holds>>,
    deleted: BTreeSet<(BlockIndex, Epoch)>,
    sealed: BTreeMap<Epoch, Sealed>,
    names: BTreeMap<Epoch, String>,
    problem: Option<String>,
}

impl State {
    /// The empty state of a tier of `slots` slots and a volume of `blocks` blocks.
    pub fn new(slots: u32, blocks: u32) -> Self {
        Self {
            blocks,
            slots: vec![None; slots as usize],
            deleted: BTreeSet::new(),
            sealed: BTreeMap::new(),
            names: BTreeMap::new(),
            problem: None,
        }
    }

    /// What of a delta cannot be in this tier and volume.
    pub fn problem_of(&self, delta: &Delta) -> Option<String> {
        let (slot, block, epoch) = match delta {
            Delta::Holds(holds) => (Some(holds.slot), Some(holds.block), Some(holds.epoch)),
            Delta::Free(slot) => (Some(*slot), None, None),
            Delta::Deleted { block, epoch } => (None, Some(*block), Some(*epoch)),
            Delta::Sealed(sealed) => (None, None, Some(sealed.epoch)),
            Delta::Named { epoch, .. } | Delta::Unnamed { epoch } => (None, None, Some(*epoch)),
        };
        let (slots, blocks) = (self.slots.len(), self.blocks);
        if let Some(slot) = slot.filter(|slot| slot.0 as usize >= slots) {
            return Some(format!("slot {slot} of a tier of {slots} slots"));
        }
        if let Some(block) = block.filter(|block| block.0 >= blocks) {
            return Some(format!("block {block} of a volume of {blocks} blocks"));
        }
        // There is always a next epoch.
        epoch
            .filter(|epoch| epoch.0 == u32::MAX)
            .map(|epoch| format!("epoch {epoch}, after which there is none"))
    }

    /// Applies a delta; one that cannot be is noted as the problem, and changes nothing.
    pub fn apply(&mut self, delta: Delta) {
        if let Some(problem) = self.problem_of(&delta) {
            self.problem.get_or_insert(problem);
            return;
        }
        match delta {
            Delta::Holds(holds) => {
                if let Some(slot) = self.slots.get_mut(holds.slot.0 as usize) {
                    *slot = Some(holds);
                }
            }
            Delta::Free(slot) => {
                if let Some(slot) = self.slots.get_mut(slot.0 as usize) {
                    *slot = None;
                }
            }
            Delta::Deleted { block, epoch } => {
                self.deleted.insert((block, epoch));
            }
            Delta::Sealed(sealed) => {
                self.sealed.insert(sealed.epoch, sealed);
            }
            Delta::Named { epoch, name } => {
                self.names.insert(epoch, name);
            }
            Delta::Unnamed { epoch } => {
                self.names.remove(&epoch);
            }
        }
    }

    /// What cannot be, if there was anything.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Forgets deletions and layers up to the epoch `written_back`, which the capacity tier holds; the
    /// newest sealed epoch stays, for it tells which one is open.
    pub fn forget(&mut self, written_back: Epoch) {
        let newest = self.sealed.last_key_value().map(|(epoch, _)| *epoch);
        self.deleted.retain(|(_, epoch)| *epoch > written_back);
        self.sealed.retain(|epoch, _| *epoch > written_back || Some(*epoch) == newest);
        self.names.retain(|epoch, _| *epoch > written_back || Some(*epoch) == newest);
    }

    /// The whole state as deltas.
    pub fn walk(&self, emit: &mut dyn FnMut(&Delta)) {
        for holds in self.slots.iter().flatten() {
            emit(&Delta::Holds(*holds));
        }
        for (block, epoch) in &self.deleted {
            emit(&Delta::Deleted { block: *block, epoch: *epoch });
        }
        for (epoch, name) in &self.names {
            emit(&Delta::Named { epoch: *epoch, name: name.clone() });
        }
        for sealed in self.sealed.values() {
            emit(&Delta::Sealed(*sealed));
        }
    }

    /// The newest sealed epoch.
    pub fn newest_sealed(&self) -> Option<Delta> {
        self.sealed.last_key_value().map(|(_, sealed)| Delta::Sealed(*sealed))
    }

    /// Epochs with a name that are not sealed: the crash came between the two.
    pub fn unsealed_names(&self) -> Vec<Epoch> {
        self.names.keys().filter(|epoch| !self.sealed.contains_key(epoch)).copied().collect()
    }

    /// What the engine starts from. A name whose epoch was not sealed is dropped: the crash came
    /// between the two.
    pub fn finish(mut self) -> Recovered {
        let names = &mut self.names;
        let layer =
            |sealed: &Sealed| RecoveredLayer { sealed: *sealed, snapshot: names.remove(&sealed.epoch) };
        let sealed = self.sealed.values().map(layer);
        Recovered {
            sealed: sealed.collect(),
            holds: self.slots.into_iter().flatten().collect(),
            deleted: self.deleted.into_iter().collect(),
        }
    }
}
