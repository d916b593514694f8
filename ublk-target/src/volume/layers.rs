//! The live layers: the open epoch's and those of sealed epochs that are not yet written back.
//!
//! A layer's number (1 to 63) stands in each slot of the layer, which is all that says what the layer
//! holds. Numbers are used again once a layer is written back; epochs are not.
//!
//! Sealing is one store: the number of the open layer changes. A write counts itself in flight on the
//! open layer, then looks again whether it still is the open one; so after the store no write can join
//! the old layer, and it has drained once its count is zero.

use std::collections::VecDeque;

use forerun::geometry::{BlockIndex, Epoch};

use super::lock;
use super::slots::CLEAN;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Layer numbers, 0 (clean) included.
pub(super) const LAYERS: usize = 64;
/// Counters of writes in flight, so that queue threads do not share one: threads beyond share.
pub(super) const LANES: usize = 16;
/// Live layers from which no snapshot is taken any more and sealing waits for write-back.
pub const LIVE_LAYERS_MAX: usize = LAYERS - 8;

/// A counter alone in its cache line.
#[repr(align(64))]
#[derive(Default)]
struct InFlight(AtomicU32);

/// One layer number's state.
struct Layer {
    epoch: AtomicU32,
    in_flight: [InFlight; LANES],
    info: Mutex<LayerInfo>,
}

/// What is known of a live layer beside its slots.
#[derive(Clone, Default, Debug)]
pub struct LayerInfo {
    /// When its epoch began, in microseconds since 1970.
    pub opened_us: u64,
    /// When its epoch was sealed; 0 while it is open.
    pub sealed_us: u64,
    /// The snapshot that its epoch is kept as.
    pub snapshot: Option<String>,
    /// The capacity tier is about to take it: the name stays.
    pub leaving: bool,
    /// Blocks deleted in it; some may have been written again in the same epoch.
    pub deleted: Vec<BlockIndex>,
    /// Blocks the volume held when the epoch was sealed.
    pub mapped_blocks: u32,
}

/// The number of a live layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LayerNumber(pub(super) u8);

/// All live layers.
pub struct Layers {
    open: AtomicU8,
    table: Box<[Layer]>,
    /// Live layers, oldest first; the last is the open one.
    order: Mutex<VecDeque<LayerNumber>>,
}

impl Layers {
    /// One open layer for `epoch`.
    pub fn new(epoch: Epoch, opened_us: u64) -> Self {
        let layers = Self {
            open: AtomicU8::new(0),
            table: (0..LAYERS)
                .map(|_| Layer {
                    epoch: AtomicU32::new(0),
                    in_flight: Default::default(),
                    info: Mutex::default(),
                })
                .collect(),
            order: Mutex::default(),
        };
        layers.push(epoch, LayerInfo { opened_us, ..LayerInfo::default() });
        layers
    }

    #[allow(clippy::indexing_slicing, reason = "a LayerNumber is only made from this table's own numbers")]
    fn at(&self, layer: LayerNumber) -> &Layer {
        &self.table[usize::from(layer.0)]
    }

    /// Adds the next layer and makes it the open one. The caller sees to it that fewer than all numbers are in use.
    pub(super) fn push(&self, epoch: Epoch, info: LayerInfo) -> LayerNumber {
        let mut order = lock(&self.order);
        assert!(order.len() < LAYERS - 1, "layers are refused long before their numbers run out");
        let used = |number: &u8| order.iter().any(|layer| layer.0 == *number);
        let number = (1..LAYERS as u8).find(|number| !used(number)).unwrap_or(CLEAN);
        let layer = LayerNumber(number);
        let record = self.at(layer);
        record.epoch.store(epoch.0, Ordering::SeqCst);
        *lock(&record.info) = info;
        order.push_back(layer);
        self.open.store(number, Ordering::SeqCst);
        layer
    }

    /// The open layer.
    pub fn open(&self) -> LayerNumber {
        LayerNumber(self.open.load(Ordering::SeqCst))
    }

    /// The epoch of a live layer.
    pub fn epoch(&self, layer: LayerNumber) -> Epoch {
        Epoch(self.at(layer).epoch.load(Ordering::SeqCst))
    }

    /// The open epoch.
    pub fn open_epoch(&self) -> Epoch {
        self.epoch(self.open())
    }

    /// Live layers, oldest first, the open one last.
    pub fn live(&self) -> Vec<LayerNumber> {
        lock(&self.order).iter().copied().collect()
    }

    /// How many layers are live, the open one included.
    pub fn live_count(&self) -> usize {
        lock(&self.order).len()
    }

    /// Works on a layer's info under its lock.
    pub fn with_info<T>(&self, layer: LayerNumber, work: impl FnOnce(&mut LayerInfo) -> T) -> T {
        work(&mut lock(&self.at(layer).info))
    }

    /// Counts a write in flight on the open layer, which it belongs to until [`Layers::leave`]; and whether it was counted
    /// on a layer that was sealed just then before: that one may have drained now, and somebody have seen that it had not.
    pub(super) fn join(&self, lane: usize) -> (LayerNumber, bool) {
        let mut strayed = false;
        loop {
            let layer = self.open();
            let counter = self.counter(layer, lane % LANES);
            counter.fetch_add(1, Ordering::SeqCst);
            if self.open() == layer {
                return (layer, strayed);
            }
            counter.fetch_sub(1, Ordering::SeqCst);
            strayed = true;
        }
    }

    /// Ends a write's membership; whether its layer has been sealed meanwhile, and may have drained now.
    pub(super) fn leave(&self, layer: LayerNumber, lane: usize) -> bool {
        let before = self.counter(layer, lane % LANES).fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "a write leaves its layer once");
        self.open() != layer
    }

    #[allow(clippy::indexing_slicing, reason = "`lane` is below LANES")]
    fn counter(&self, layer: LayerNumber, lane: usize) -> &AtomicU32 {
        &self.at(layer).in_flight[lane].0
    }

    /// Whether no write is in flight on a sealed layer any more.
    pub fn drained(&self, layer: LayerNumber) -> bool {
        self.at(layer).in_flight.iter().all(|lane| lane.0.load(Ordering::SeqCst) == 0)
    }

    /// Takes the oldest layer away, after it was written back; its number may then be used again.
    pub fn retire(&self, layer: LayerNumber) {
        let mut order = lock(&self.order);
        debug_assert_eq!(order.front(), Some(&layer), "layers are written back in order");
        order.retain(|live| *live != layer);
        *lock(&self.at(layer).info) = LayerInfo::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_drains_when_its_writes_have_left() {
        let layers = Layers::new(Epoch(1), 0);
        let (first, _) = layers.join(3);
        let second = layers.push(Epoch(2), LayerInfo::default());
        assert_ne!(first, second);
        assert!(!layers.drained(first));
        assert_eq!(layers.join(3), (second, false));
        assert!(layers.leave(first, 3), "the layer was sealed meanwhile");
        assert!(!layers.leave(second, 3), "the open layer does not drain");
        assert!(layers.drained(first));
        layers.retire(first);
        assert_eq!(layers.live(), vec![second]);
    }

    #[test]
    fn numbers_come_back() {
        let layers = Layers::new(Epoch(1), 0);
        for epoch in 2..LAYERS as u32 {
            layers.push(Epoch(epoch), LayerInfo::default());
        }
        assert_eq!(layers.live_count(), LAYERS - 1);
        let oldest = layers.live()[0];
        layers.retire(oldest);
        assert_eq!(layers.push(Epoch(LAYERS as u32), LayerInfo::default()), oldest);
    }
}
