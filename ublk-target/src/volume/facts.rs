//! The whole map as deltas, for the fast tier's checkpoint.
//!
//! Told while requests go on. Each fact is taken under its shard's lock, so it is one that held after the walk began;
//! whatever changed since the walk began is in the log behind it and is replayed over it. No lock is held while a fact
//! is told: the sink may write to the device.
//!
//! Which epoch is open is not told: it is the one after the newest sealed one, which the fast tier remembers by itself.

use forerun::geometry::{BlockIndex, SlotId};

use super::Volume;
use super::layers::{LayerInfo, LayerNumber};
use super::slots::{CLEAN, NO_BLOCK, TOP};
use crate::fast_tier::delta::{Delta, Sealed};
use crate::sync::atomic::Ordering;

impl Volume {
    /// Tells every fact that a recovery needs.
    pub fn facts(&self, sink: &mut dyn FnMut(&Delta)) {
        let live = self.layers.live();
        self.layer_facts(&live, sink);
        for (slot, record) in self.slots.iter() {
            let block = BlockIndex(record.block.load(Ordering::SeqCst));
            if block.0 == NO_BLOCK {
                continue;
            }
            if let Some(fact) = self.slot_fact(slot, block) {
                sink(&fact);
            }
        }
        for layer in live {
            let epoch = self.layers.epoch(layer);
            for block in self.deleted_in(layer) {
                sink(&Delta::Deleted { block, epoch });
            }
        }
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

    fn layer_facts(&self, live: &[LayerNumber], sink: &mut dyn FnMut(&Delta)) {
        for layer in live {
            let epoch = self.layers.epoch(*layer);
            let (sealed, name) = self.layers.with_info(*layer, |info| {
                let LayerInfo { opened_us, sealed_us, mapped_blocks, .. } = *info;
                let sealed = Sealed { epoch, opened_us, sealed_us, mapped_blocks };
                (sealed, info.snapshot.clone())
            });
            if Some(layer) != live.last() {
                sink(&Delta::Sealed(sealed));
            }
            // Of the open layer too: its name may be in the log already, and its end may come after this walk began.
            if let Some(name) = name {
                sink(&Delta::Named { epoch, name });
            }
        }
    }
}
