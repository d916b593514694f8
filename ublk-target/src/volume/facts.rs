//! The whole map as deltas, for the fast tier's checkpoint.
//!
//! Told while requests go on. Each fact is sound at the moment it is told; whatever changes afterwards is in
//! the log behind the checkpoint's beginning and is replayed over it.

use std::sync::atomic::Ordering;

use forerun::geometry::{BlockIndex, Epoch};

use super::Volume;
use super::layers::LayerNumber;
use super::slots::{CLEAN, NO_BLOCK};
use crate::fast_tier::delta::Delta;

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
            let _shard = self.shard(block);
            if record.block.load(Ordering::SeqCst) != block.0 {
                continue;
            }
            let epoch = match record.layer.load(Ordering::SeqCst) {
                CLEAN => self.written_back(),
                layer => self.layers.epoch(LayerNumber(layer)),
            };
            sink(&Delta::Holds(self.holds(slot, block, epoch)));
        }
        for layer in live {
            let epoch = self.layers.epoch(layer);
            for block in self.deleted_in(layer) {
                sink(&Delta::Deleted { block, epoch });
            }
        }
    }

    fn layer_facts(&self, live: &[LayerNumber], sink: &mut dyn FnMut(&Delta)) {
        let Some((open, sealed)) = live.split_last() else { return };
        let open_epoch = self.layers.epoch(*open);
        if sealed.is_empty() && open_epoch > Epoch::FIRST {
            // Nothing waits for write-back: the last sealed epoch still says which one is open.
            let sealed_us = self.layers.with_info(*open, |info| info.opened_us);
            let epoch = Epoch(open_epoch.0 - 1);
            sink(&Delta::Sealed { epoch, opened_us: sealed_us, sealed_us });
        }
        for layer in sealed {
            let epoch = self.layers.epoch(*layer);
            let info = self.layers.with_info(*layer, |info| info.clone());
            sink(&Delta::Sealed { epoch, opened_us: info.opened_us, sealed_us: info.sealed_us });
            if let Some(name) = info.snapshot {
                sink(&Delta::Named { epoch, name });
            }
        }
    }
}
