//! A write's membership in the layer that was open when it was planned.
//!
//! A sealed layer has drained when its last member has left. Whoever waits for that is woken by the member.

use super::Volume;
use super::layers::LayerNumber;

/// Membership in a layer; dropping it leaves the layer.
pub(super) struct Joined<'a> {
    volume: &'a Volume,
    layer: LayerNumber,
    lane: usize,
}

impl Joined<'_> {
    /// The layer joined.
    pub const fn layer(&self) -> LayerNumber {
        self.layer
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        // Whoever found the layer not drained had seen it sealed before, and so does this.
        if self.volume.layers.leave(self.layer, self.lane) {
            self.volume.room.wake_all();
        }
    }
}

impl Volume {
    /// Joins the open layer for the length of a write; `lane` tells queue threads apart.
    pub(super) fn join(&self, lane: usize) -> Joined<'_> {
        let (layer, strayed) = self.layers.join(lane);
        if strayed {
            self.room.wake_all();
        }
        Joined { volume: self, layer, lane }
    }
}
