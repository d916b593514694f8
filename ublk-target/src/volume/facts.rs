//! The whole map as deltas, for the fast tier's checkpoint.
//!
//! Told while requests go on. Each fact is taken under its shard's lock, so it is one that held after the walk began;
//! whatever changed since the walk began is in the log behind it and is replayed over it. No lock is held between
//! two facts: whoever takes them may write to the device.
//!
//! Which epoch is open is not told: it is the one after the newest sealed one, which the fast tier remembers by itself.

use forerun::geometry::{BlockIndex, SlotId};

use super::Volume;
use super::layers::{LayerInfo, LayerNumber};
use super::slots::{CLEAN, NO_BLOCK, TOP};
use crate::fast_tier::delta::{Delta, Sealed};
use crate::sync::atomic::Ordering;

impl Volume {
    /// Every fact that a recovery needs, one after the other.
    pub fn facts(&self) -> impl Iterator<Item = Delta> + '_ {
        let live = self.layers.live();
        let layers = self.layer_facts(&live);
        let slots = self.slots.iter().filter_map(|(slot, record)| {
            let block = BlockIndex(record.block.load(Ordering::SeqCst));
            if block.0 == NO_BLOCK { None } else { self.slot_fact(slot, block) }
        });
        let deletions = live.into_iter().flat_map(|layer| {
            let epoch = self.layers.epoch(layer);
            self.deleted_in(layer).into_iter().map(move |block| Delta::Deleted { block, epoch })
        });
        layers.into_iter().chain(slots).chain(deletions)
    }

    /// What a slot holds of a block; `None` where it does not any more.
    fn slot_fact(&self, slot: SlotId, block: BlockIndex) -> Option<Delta> {
        let _shard = self.shard(block);
        let record = self.slots.at(slot);
        if record.block.load(Ordering::SeqCst) != block.0 {
            return None;
        }
        let epoch = match record.layer.load(Ordering::SeqCst) {
            // Current, or right below what is not written back yet: so it is the block as of that epoch.
            CLEAN => {
                debug_assert!(!record.has(TOP), "slot {slot} is clean and older than a deletion");
                self.written_back()
            }
            layer => self.layers.epoch(LayerNumber(layer)),
        };
        Some(Delta::Holds(self.holds(slot, block, epoch)))
    }

    fn layer_facts(&self, live: &[LayerNumber]) -> Vec<Delta> {
        let mut facts = Vec::new();
        for layer in live {
            let epoch = self.layers.epoch(*layer);
            let (sealed, name) = self.layers.with_info(*layer, |info| {
                let LayerInfo { opened_us, sealed_us, mapped_blocks, .. } = *info;
                let sealed = Sealed { epoch, opened_us, sealed_us, mapped_blocks };
                (sealed, info.snapshot.clone())
            });
            if Some(layer) != live.last() {
                facts.push(Delta::Sealed(sealed));
            }
            // Of the open layer too: its name may be in the log already, and its end may come after this walk began.
            if let Some(name) = name {
                facts.push(Delta::Named { epoch, name });
            }
        }
        facts
    }
}
