//! What to do for the predictions in force: lists, and how far they have been worked off.
//!
//! Made anew when the table, the probability from which acting pays, or the open epoch is another one; worked off
//! a little at a time.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::{PredictedKind, Prediction};
use forerun::prediction_table::Table;

use crate::volume::{Reservation, Volume};

/// The share of all slots that may be held for predicted writes, as a divisor: a quarter.
const RESERVED_SHARE: u32 = 4;
/// The share of all slots whose blocks eviction leaves alone because they are predicted: a half.
const KEPT_SHARE: u32 = 2;
/// Predictions looked at in one step, at most.
const STEP_PREDICTIONS: usize = 1024;
/// What was acted on stays so down to this share of the probability from which others are.
const STAYS_ABOVE: f32 = 0.8;
/// One predicted block in so many is left alone, to measure what acting on the others is worth: while that is open, and
/// once it is clear. More would show in the 99th percentile of what waits, and the smaller group is part of the larger.
const CONTROL_SHARES: [u64; 2] = [32, 512];
/// A block is in the control group, or not, for so many epochs: longer than the longest horizon, so that it is not fetched
/// by one table and counted as left alone by the next.
const CONTROL_EPOCHS: u32 = 128;

/// What a plan is made from; another key makes another plan.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Key {
    pub generation: u64,
    /// The probability from which acting pays: the threshold or more.
    pub from: f32,
    /// False: everything is left alone, and only scored.
    pub acting: bool,
    /// It is clear that acting pays.
    pub proven: bool,
    pub open: Epoch,
}

/// Predictions that pay, and what is still to be done for them.
#[derive(Debug)]
pub(super) struct Plan {
    pub key: Key,
    /// Those acted on, the most probable first.
    acting: Vec<Prediction>,
    /// All blocks that are expected to change: those acted on, and the control group.
    pub changes: Arc<HashSet<BlockIndex>>,
    /// The same for those that are expected to be read.
    pub reads: Arc<HashSet<BlockIndex>>,
    /// The blocks acted on.
    pub acted_on: Arc<HashSet<BlockIndex>>,
    /// Predicted as well, and left alone.
    pub control: HashSet<BlockIndex>,
    /// So many of `acting` have been looked at: for a slot, and for data that has to be fetched.
    reserved: usize,
    looked: usize,
    /// Blocks to be fetched, the most probable first.
    fetches: VecDeque<BlockIndex>,
}

impl Plan {
    /// The plan for a table; `before` is the one it replaces.
    pub fn new(key: Key, table: &Table, slots: u32, before: Option<&Self>) -> Self {
        let stays =
            |block| before.is_some_and(|plan| plan.changes.contains(&block) || plan.reads.contains(&block));
        // Sorted by probability: those that count are in front.
        let predicted: Vec<Prediction> = table
            .predictions
            .iter()
            .take_while(|prediction| prediction.probability.get() >= key.from * STAYS_ABOVE)
            .filter(|prediction| prediction.probability.get() >= key.from || stays(prediction.block))
            .take((slots / KEPT_SHARE) as usize)
            .copied()
            .collect();
        let those = |change| {
            let of = predicted.iter().filter(move |prediction| prediction.kind.change().is_some() == change);
            Arc::new(of.map(|prediction| prediction.block).collect())
        };
        let (changes, reads) = (those(true), those(false));
        let (acting, control): (Vec<_>, Vec<_>) =
            predicted.into_iter().partition(|prediction| key.acting && !is_control(prediction.block, &key));
        let acted_on = Arc::new(acting.iter().map(|prediction| prediction.block).collect());
        let control = control.iter().map(|prediction| prediction.block).collect();
        Self {
            key,
            acting,
            changes,
            reads,
            acted_on,
            control,
            reserved: 0,
            looked: 0,
            fetches: VecDeque::new(),
        }
    }

    /// Reserves for some of what is predicted, as long as more than `keep_free` slots are free, and notes in `held` for
    /// which blocks; finds blocks to be fetched. Returns whether there is more to do at once.
    pub fn step(&mut self, volume: &Volume, keep_free: u32, held: &mut Vec<BlockIndex>) -> bool {
        // Both, always.
        let reserving = self.reserve(volume, keep_free, held);
        let looking = self.find_fetches(volume);
        reserving || looking
    }

    fn reserve(&mut self, volume: &Volume, keep_free: u32, held: &mut Vec<BlockIndex>) -> bool {
        let most = volume.slot_count() / RESERVED_SHARE;
        for prediction in self.acting.iter().skip(self.reserved).take(STEP_PREDICTIONS) {
            if matches!(prediction.kind, PredictedKind::Added | PredictedKind::Modified) {
                if volume.reserved_slots() >= most {
                    return false;
                }
                match volume.reserve(prediction.block, keep_free) {
                    Reservation::Made => held.push(prediction.block),
                    Reservation::NotNeeded => {}
                    Reservation::NoRoom => return false,
                }
            }
            self.reserved += 1;
        }
        self.reserved < self.acting.len()
    }

    fn find_fetches(&mut self, volume: &Volume) -> bool {
        for prediction in self.acting.iter().skip(self.looked).take(STEP_PREDICTIONS) {
            if prediction.kind != PredictedKind::Deleted && volume.is_incomplete(prediction.block) {
                self.fetches.push_back(prediction.block);
            }
            self.looked += 1;
        }
        self.looked < self.acting.len()
    }

    /// Up to `count` blocks to be fetched now.
    pub fn take_fetches(&mut self, count: usize) -> Vec<BlockIndex> {
        self.fetches.drain(..count.min(self.fetches.len())).collect()
    }

    /// Blocks that are to be fetched.
    pub fn fetches(&self) -> usize {
        self.fetches.len()
    }

    /// Predictions that are acted on, or would be.
    pub fn above(&self) -> u64 {
        (self.acted_on.len() + self.control.len()) as u64
    }

    /// Predicted blocks that still wait for a slot or for data.
    pub fn waiting(&self) -> u64 {
        (self.acting.len() - self.reserved.min(self.looked) + self.fetches.len()) as u64
    }
}

fn is_control(block: BlockIndex, key: &Key) -> bool {
    let [open, proven] = CONTROL_SHARES;
    super::sampled(block, 1 + key.open.0 / CONTROL_EPOCHS, if key.proven { proven } else { open })
}

#[cfg(test)]
pub(super) mod tests {
    use forerun::prediction::{Horizon, Probability};
    use forerun::prediction_table::TableInfo;

    use super::*;

    fn table(probabilities: impl Iterator<Item = f32>) -> Table {
        let info = TableInfo {
            model: String::new(),
            epoch: Epoch(1),
            horizon: Horizon::DEFAULT,
            generation: 1,
            published_us: 1,
        };
        let prediction = |(block, probability): (usize, f32)| Prediction {
            block: BlockIndex(block as u32),
            kind: PredictedKind::Modified,
            probability: Probability::new(probability).expect("in range"),
        };
        Table { info, predictions: probabilities.enumerate().map(prediction).collect() }
    }

    fn key(open: u32, acting: bool) -> Key {
        Key { generation: 1, from: 0.5, acting, proven: false, open: Epoch(open) }
    }

    /// A plan for the first blocks of a volume.
    pub fn plan_of(blocks: usize, open: u32, acting: bool) -> Plan {
        let table = table(std::iter::repeat_n(0.9, blocks));
        Plan::new(key(open, acting), &table, u32::MAX, None)
    }

    #[test]
    fn a_small_share_is_left_alone_the_same_for_many_epochs_and_another_one_later() {
        let share = |plan: &Plan| plan.control.len() as f64 / plan.changes.len() as f64;
        let (first, same, later) =
            (plan_of(20_000, 10, true), plan_of(20_000, 100, true), plan_of(20_000, 200, true));
        assert!((0.025..0.038).contains(&share(&first)), "{}", share(&first));
        assert_eq!(first.control, same.control);
        assert!(first.control.intersection(&later.control).count() < first.control.len() / 8);
        assert_eq!(first.acted_on.len() + first.control.len(), first.changes.len());
        let table = table(std::iter::repeat_n(0.9, 20_000));
        let proven = Plan::new(Key { proven: true, ..key(10, true) }, &table, u32::MAX, None);
        assert!((20..60).contains(&proven.control.len()) && proven.control.is_subset(&first.control));
        let shadow = plan_of(100, 10, false);
        assert_eq!((shadow.acted_on.len(), shadow.control.len()), (0, 100));
    }

    #[test]
    fn what_was_acted_on_stays_a_little_below() {
        let first = Plan::new(key(1, true), &table([0.9, 0.6, 0.45].into_iter()), 100, None);
        assert_eq!(first.changes.len(), 2);
        let second = table([0.9, 0.45, 0.44, 0.3].into_iter());
        let plan = Plan::new(key(2, true), &second, 100, Some(&first));
        // The second was acted on and stays; the third was not.
        assert_eq!(*plan.changes, [BlockIndex(0), BlockIndex(1)].into());
        assert_eq!(Plan::new(key(2, true), &second, 100, None).changes.len(), 1);
        // No more than half of the slots are given to predictions.
        assert_eq!(Plan::new(key(1, true), &table([0.9; 10].into_iter()), 10, None).changes.len(), 5);
    }
}
