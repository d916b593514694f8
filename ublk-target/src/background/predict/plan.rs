//! What to do for the predictions in force: a list, and how far it has been worked off.
//!
//! Made anew when the table, the threshold or the open epoch is another one; worked off a little at a time.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use forerun::change_vector::ChangeKind;
use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::{Prediction, Threshold};
use forerun::prediction_table::Table;

use crate::volume::{Reservation, Volume};

/// The share of all slots that may be held for predicted writes, as a divisor: a quarter.
const RESERVED_SHARE: u32 = 4;
/// The share of all slots whose blocks eviction leaves alone because they are predicted: a half.
const KEPT_SHARE: u32 = 2;
/// Predictions looked at in one step, at most.
const STEP_PREDICTIONS: usize = 1024;

/// What a plan is made from; another key makes another plan.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Key {
    pub generation: u64,
    pub threshold: Threshold,
    pub open: Epoch,
}

/// Predictions above the threshold, and what is still to be done for them.
#[derive(Debug)]
pub(super) struct Plan {
    pub key: Key,
    /// The most probable first.
    above: Vec<Prediction>,
    /// The blocks of `above`.
    pub blocks: Arc<HashSet<BlockIndex>>,
    /// So many of `above` have been looked at.
    done: usize,
    /// Blocks to be fetched, the most probable first.
    prefetch: VecDeque<BlockIndex>,
}

impl Plan {
    pub fn new(key: Key, table: &Table, slots: u32) -> Self {
        // Sorted by probability: those above the threshold are in front.
        let above: Vec<Prediction> = table
            .predictions
            .iter()
            .take_while(|prediction| key.threshold.admits(prediction.probability))
            .take((slots / KEPT_SHARE) as usize)
            .copied()
            .collect();
        let blocks = Arc::new(above.iter().map(|prediction| prediction.block).collect());
        Self { key, above, blocks, done: 0, prefetch: VecDeque::new() }
    }

    /// Reserves for some of what is predicted, as long as more than `keep_free` slots are free; notes in `held` for
    /// which blocks. Returns whether there is more to do at once.
    pub fn step(&mut self, volume: &Volume, keep_free: u32, held: &mut Vec<BlockIndex>) -> bool {
        let most = volume.slot_count() / RESERVED_SHARE;
        for prediction in self.above.iter().skip(self.done).take(STEP_PREDICTIONS) {
            let block = prediction.block;
            if prediction.kind != ChangeKind::Deleted {
                if volume.reserved_slots() >= most {
                    return false;
                }
                match volume.reserve(block, keep_free) {
                    Reservation::Made => held.push(block),
                    Reservation::NotNeeded => {}
                    Reservation::NoRoom => return false,
                }
            }
            if prediction.kind == ChangeKind::Modified && volume.is_incomplete(block) {
                self.prefetch.push_back(block);
            }
            self.done += 1;
        }
        self.done < self.above.len()
    }

    /// Up to `count` blocks to be fetched now.
    pub fn take_prefetches(&mut self, count: usize) -> Vec<BlockIndex> {
        self.prefetch.drain(..count.min(self.prefetch.len())).collect()
    }

    /// Predictions above the threshold.
    pub fn above(&self) -> u64 {
        self.above.len() as u64
    }

    /// Predicted blocks that still wait for a slot or for data.
    pub fn waiting(&self) -> u64 {
        (self.above.len() - self.done + self.prefetch.len()) as u64
    }
}
