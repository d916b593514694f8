//! Ending the open epoch and beginning the next: one step in the map, however much was written.

use forerun::geometry::{BlockIndex, Epoch};
use thiserror::Error;

use super::Volume;
use super::layers::{LIVE_LAYERS_MAX, LayerInfo, LayerNumber};
use crate::fast_tier::delta::{Delta, Sealed};

/// Why an epoch cannot be sealed now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SealError {
    /// Too many sealed layers wait for the capacity tier.
    #[error(
        "{0} sealed epochs wait to be written back, the most there may be: \
         see that the capacity tier is there, has room and keeps up, then try again"
    )]
    TooManyLayers(usize),
    /// Overwrites would wait for slots: they take new ones after an epoch's end.
    #[error(
        "the fast tier is full of data that waits to be written back ({available} of {slots} slots are free or clean, \
         {least} are needed), and overwrites would have to wait: \
         see that the capacity tier is there, has room and keeps up, then try again"
    )]
    NoRoom {
        /// Slots that are free or can be given up.
        available: u32,
        /// All slots.
        slots: u32,
        /// So many have to be available.
        least: u32,
    },
}

impl Volume {
    /// Seals the open epoch at `now_us`, keeps it under `snapshot` if that is given, and opens the next.
    ///
    /// What was written before the call is in the sealed epoch; it is durable once the log is. The layer
    /// is complete when [`super::layers::Layers::drained`] says so. One at a time: the caller sees to that.
    ///
    /// # Errors
    /// Too many layers wait for write-back.
    pub fn seal(&self, now_us: u64, snapshot: Option<&str>) -> Result<(LayerNumber, Epoch), SealError> {
        let live = self.layers.live_count();
        if live >= LIVE_LAYERS_MAX {
            return Err(SealError::TooManyLayers(live));
        }
        let layer = self.layers.open();
        let epoch = self.layers.epoch(layer);
        let mapped_blocks = u32::try_from(self.mapped_blocks()).unwrap_or(u32::MAX);
        let opened_us = self.layers.with_info(layer, |info| {
            info.sealed_us = now_us;
            info.snapshot = snapshot.map(str::to_owned);
            info.mapped_blocks = mapped_blocks;
            info.opened_us
        });
        // In the order in which a crash may cut them off. A name alone is dropped when the open epoch is recovered. The
        // end of the epoch is in the log before any write can belong to the next one, so that no record of the log
        // speaks of an epoch that the log does not know; late writes of the sealed epoch carry its number.
        if let Some(name) = snapshot {
            self.log.append(&Delta::Named { epoch, name: name.to_owned() });
        }
        self.log.append(&Delta::Sealed(Sealed { epoch, opened_us, sealed_us: now_us, mapped_blocks }));
        let info = LayerInfo { opened_us: now_us, ..LayerInfo::default() };
        self.layers.push(epoch.next(), info);
        Ok((layer, epoch))
    }

    /// Whether the open epoch has changed anything.
    pub fn open_epoch_changed(&self) -> bool {
        let layer = self.layers.open();
        self.layers.with_info(layer, |info| !info.deleted.is_empty())
            || self.slots.iter().any(|(_, slot)| {
                slot.layer.load(crate::sync::atomic::Ordering::Relaxed) == layer.0
                    && !slot.bits().dirty.is_empty()
            })
    }

    /// Says that the layer is about to be named on the capacity tier, and gives the name: from here on it cannot be
    /// taken off by [`Volume::unname`].
    pub fn begin_leaving(&self, layer: LayerNumber) -> Option<String> {
        self.layers.with_info(layer, |info| {
            info.leaving = true;
            info.snapshot.clone()
        })
    }

    /// Says that the capacity tier did not take the layer.
    pub fn stay(&self, layer: LayerNumber) {
        self.layers.with_info(layer, |info| info.leaving = false);
    }

    /// Takes the snapshot's name off a sealed epoch that is not written back yet; false if it has none, or if the
    /// capacity tier is about to have it.
    pub fn unname(&self, epoch: Epoch, name: &str) -> bool {
        for layer in self.layers.live() {
            if self.layers.epoch(layer) != epoch {
                continue;
            }
            let removed = self.layers.with_info(layer, |info| {
                let ours = !info.leaving && info.snapshot.as_deref() == Some(name);
                if ours {
                    info.snapshot = None;
                }
                ours
            });
            if removed {
                self.log.append(&Delta::Unnamed { epoch });
            }
            return removed;
        }
        false
    }

    /// Blocks deleted in a layer, sorted, each once.
    pub(super) fn deleted_in(&self, layer: LayerNumber) -> Vec<BlockIndex> {
        let mut deleted = self.layers.with_info(layer, |info| info.deleted.clone());
        deleted.sort_unstable();
        deleted.dedup();
        deleted
    }
}
