//! What is remembered of every block that changed lately: when, how often, and in which rhythm.
//!
//! One small record a block, bounded in number: the blocks longest unchanged are forgotten first.
//! Decayed values are brought up to date only when they are read, so that an epoch costs what it changed.

use std::collections::HashMap;

use forerun::change_vector::{ChangeKind, ChangeVector};

use crate::association::Leaders;
use crate::block_map::BlockMap;
use crate::rng::Rng;

/// The half-lives of the decayed rates, in epochs.
pub const HALF_LIVES_EPOCHS: [f32; 4] = [1.0, 3.0, 12.0, 48.0];
/// Blocks in the groups whose activity is remembered as a whole, and their half-life in epochs.
const GROUP_BLOCKS: [u32; 3] = [8, 64, 512];
const GROUP_HALF_LIFE_EPOCHS: f32 = 6.0;
/// A group's weight under which it is forgotten.
const GROUP_FORGOTTEN: f32 = 0.01;

/// One block's past.
#[derive(Clone, Copy, Debug)]
pub struct BlockActivity {
    /// Bit `i`: whether it changed `i` epochs before its last change.
    pub history: u64,
    /// The step of its first change remembered, and of its last.
    pub first: u32,
    /// The step of its last change.
    pub last: u32,
    /// Changes remembered.
    pub count: u32,
    /// Mean of the gaps between changes, in epochs, the latest counting most.
    pub mean_gap: f32,
    /// The last gap, in epochs.
    pub last_gap: u32,
    /// What happened last.
    pub kind: ChangeKind,
    /// Of its changes while it held data, the decayed share that deleted it.
    pub deleted_share: f32,
    /// How often it began to change: it did, and had not in the epoch before.
    pub begun: u32,
    /// What begins to change an epoch before it does.
    leaders: Leaders,
    rates: [f32; 4],
}

impl BlockActivity {
    /// The history as of `step`: bit 0 is the epoch of that step.
    #[must_use]
    pub fn history_at(&self, step: u32) -> u64 {
        self.history.checked_shl(step.saturating_sub(self.last)).unwrap_or(0)
    }

    /// The share of epochs in which it changed, decayed with each half-life, as of `step`.
    #[must_use]
    pub fn rates_at(&self, step: u32, decays: &Decays) -> [f32; 4] {
        let mut rates = self.rates;
        for ((rate, base), known) in rates.iter_mut().zip(decays.per_epoch).zip(decays.known) {
            *rate = (*rate * power(base, step.saturating_sub(self.last)) / known).clamp(0.0, 1.0);
        }
        rates
    }
}

/// The decay of each rate, and how much of each one's weight the epochs seen so far make up.
#[derive(Clone, Copy, Debug)]
pub struct Decays {
    per_epoch: [f32; 4],
    known: [f32; 4],
}

/// All blocks remembered.
#[derive(Clone, Debug)]
pub struct Activity {
    blocks: BlockMap<BlockActivity>,
    groups: [HashMap<u32, (f32, u32)>; 3],
    /// The blocks that began to change in the newest epoch, ascending.
    began: Vec<u32>,
    rng: Rng,
    step: u32,
    limit: usize,
}

impl Activity {
    /// Remembers at most `limit` blocks.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            blocks: BlockMap::default(),
            groups: Default::default(),
            began: Vec::new(),
            rng: Rng::new(0xA550),
            step: 0,
            limit,
        }
    }

    /// Epochs taken so far; the newest one's step.
    #[must_use]
    pub const fn step(&self) -> u32 {
        self.step
    }

    /// The blocks remembered, ascending.
    #[must_use]
    pub fn blocks(&self) -> &[u32] {
        self.blocks.blocks()
    }

    /// What is remembered of them, in the same order.
    #[must_use]
    pub fn pasts(&self) -> &[BlockActivity] {
        self.blocks.values()
    }

    /// How many blocks are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.blocks().len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.blocks().is_empty()
    }

    /// What is remembered of a block.
    #[must_use]
    pub fn get(&self, block: u32) -> Option<&BlockActivity> {
        self.blocks.get(block)
    }

    /// The decays as of the newest epoch.
    #[must_use]
    pub fn decays(&self) -> Decays {
        let per_epoch = HALF_LIVES_EPOCHS.map(|half_life| 0.5f32.powf(1.0 / half_life));
        // Early on the weights do not add up to 1: without this, a block that changed in
        // each of the first three epochs would seem to change rarely.
        let known = per_epoch.map(|base| (1.0 - power(base, self.step)).max(1e-6));
        Decays { per_epoch, known }
    }

    /// Decayed changes an epoch in the groups of 8, 64 and 512 blocks that a block is in.
    #[must_use]
    pub fn group_rates(&self, block: u32) -> [f32; 3] {
        let mut rates = [0.0; 3];
        for ((rate, groups), size) in rates.iter_mut().zip(&self.groups).zip(GROUP_BLOCKS) {
            if let Some((weight, at)) = groups.get(&(block / size)) {
                *rate = weight * power(group_decay(), self.step - at) * (1.0 - group_decay());
            }
        }
        rates
    }

    /// How much the blocks that began to change in the newest epoch speak for this one, 0 to 1, and how many do.
    #[must_use]
    pub fn association(&self, past: &BlockActivity) -> (f32, u32) {
        past.leaders.speak(&self.began, |leader| self.get(leader).map_or(0, |leader| leader.begun))
    }

    /// Takes the next epoch.
    pub fn push(&mut self, vector: &ChangeVector) {
        self.step += 1;
        let step = self.step;
        let decays = self.decays();
        let new = BlockActivity {
            history: 0,
            first: step,
            last: step,
            count: 0,
            mean_gap: 0.0,
            last_gap: 0,
            kind: ChangeKind::Added,
            deleted_share: 0.0,
            begun: 0,
            leaders: Leaders::default(),
            rates: [0.0; 4],
        };
        let blocks = vector.changes().iter().map(|change| change.block.0);
        debug_assert!(self.began.is_sorted(), "those that began before ascend");
        self.blocks.add_missing(blocks.clone(), new);
        let mut began = Vec::new();
        let mut changes = vector.changes().iter();
        let (groups, rng, began_before) = (&mut self.groups, &mut self.rng, &self.began);
        self.blocks.visit(blocks, |block, entry| {
            // All blocks are there by now: they come in step with the changes.
            let Some(change) = changes.next() else { return };
            debug_assert_eq!(change.block.0, block, "blocks come in step with the changes");
            debug_assert!(entry.first <= entry.last && entry.last <= step);
            let gap = step - entry.last;
            if entry.count == 0 || gap > 1 {
                began.push(block);
                entry.begun = entry.begun.saturating_add(1);
                entry.leaders.follow(block, began_before, rng);
            }
            if entry.count > 0 {
                let weight = 1.0 / entry.count.min(8) as f32;
                entry.mean_gap += weight * (gap as f32 - entry.mean_gap);
                entry.last_gap = gap;
                if entry.kind != ChangeKind::Deleted {
                    let deleted = f32::from(u8::from(change.kind == ChangeKind::Deleted));
                    entry.deleted_share += 0.25 * (deleted - entry.deleted_share);
                }
            }
            entry.history = entry.history_at(step) | 1;
            for (rate, base) in entry.rates.iter_mut().zip(decays.per_epoch) {
                *rate = *rate * power(base, gap) + 1.0 - base;
            }
            entry.last = step;
            entry.count = entry.count.saturating_add(1);
            entry.kind = change.kind;
            for (groups, size) in groups.iter_mut().zip(GROUP_BLOCKS) {
                let (weight, at) = groups.entry(block / size).or_insert((0.0, step));
                *weight = *weight * power(group_decay(), step - *at) + 1.0;
                *at = step;
            }
        });
        self.began = began;
        self.forget();
    }

    fn forget(&mut self) {
        let step = self.step;
        if step.is_multiple_of(16) {
            for groups in &mut self.groups {
                groups.retain(|_, (weight, at)| *weight * power(group_decay(), step - *at) > GROUP_FORGOTTEN);
            }
        }
        let count = self.len();
        if count <= self.limit {
            return;
        }
        // A sixteenth more than needed, so that this does not come back in each epoch.
        let surplus = count - self.limit + self.limit / 16;
        let mut lasts: Vec<u32> = self.pasts().iter().map(|activity| activity.last).collect();
        let (_, &mut oldest_kept, _) = lasts.select_nth_unstable(surplus.min(count - 1));
        let mut over = count - self.limit;
        self.blocks.retain(|activity| {
            let goes = activity.last < oldest_kept || (activity.last == oldest_kept && over > 0);
            over = over.saturating_sub(usize::from(goes));
            !goes
        });
        debug_assert!(self.len() <= self.limit, "{} of {} blocks", self.len(), self.limit);
    }
}

fn group_decay() -> f32 {
    0.5f32.powf(1.0 / GROUP_HALF_LIFE_EPOCHS)
}

fn power(base: f32, epochs: u32) -> f32 {
    base.powi(i32::try_from(epochs).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::vector_of;

    #[test]
    fn rates_are_shares_from_the_first_epoch_on() {
        let mut activity = Activity::new(1024);
        for epoch in 1..=3 {
            activity.push(&vector_of(epoch, if epoch == 2 { &[7] } else { &[7, 9] }));
        }
        let rates = |block| activity.get(block).expect("known").rates_at(3, &activity.decays());
        assert!(rates(7).iter().all(|rate| *rate > 0.999), "{:?}", rates(7));
        assert!(rates(9).iter().all(|rate| (0.6..0.8).contains(rate)), "{:?}", rates(9));
        assert_eq!(activity.get(9).expect("known").history_at(3), 0b101);
        assert_eq!(activity.get(9).expect("known").history_at(5), 0b10100);
    }

    #[test]
    fn the_longest_unchanged_are_forgotten() {
        let mut activity = Activity::new(1024);
        for epoch in 0..20 {
            let blocks: Vec<u32> = (epoch * 100..epoch * 100 + 200).collect();
            activity.push(&vector_of(epoch + 1, &blocks));
            assert!(activity.len() <= 1024);
        }
        assert!(activity.get(0).is_none());
        assert!(activity.get(2050).is_some());
    }
}
