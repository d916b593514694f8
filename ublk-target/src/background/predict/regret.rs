//! What a slot is worth otherwise: how often a block that eviction gave up was missed again before long.
//!
//! A prediction takes a slot from the block that eviction likes least. If such blocks are asked for again as often
//! as predicted ones come true, nothing is gained by the exchange. A sample of the evicted blocks is watched for a
//! horizon; the sample is by the block's number, so that the same block is always or never in it.

use std::collections::{HashMap, VecDeque};

use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::Horizon;

/// One block in so many is watched.
const SAMPLED: u64 = 16;
/// Blocks watched at once, at most.
const WATCHED_MAX: usize = 16_384;
/// What the counts keep from one epoch to the next: most of them comes from the last ten.
const KEPT: f64 = 0.9;
/// Evictions' worth of doubt: before so many were seen, a slot's other use counts for little.
const PRIOR: f64 = 8.0;

/// How often evicted blocks come back.
#[derive(Default, Debug)]
pub(super) struct Regret {
    watched: HashMap<BlockIndex, Epoch>,
    /// In the order of eviction; those of a block that has come back since are stale.
    order: VecDeque<(BlockIndex, Epoch)>,
    evicted: f64,
    missed: f64,
}

impl Regret {
    /// A block was given up in the open epoch.
    pub fn evicted(&mut self, block: BlockIndex, open: Epoch) {
        if !super::sampled(block, 0, SAMPLED) || self.order.len() >= WATCHED_MAX {
            return;
        }
        self.evicted += 1.0;
        self.watched.insert(block, open);
        self.order.push_back((block, open));
    }

    /// A request had to wait for a block.
    pub fn missed(&mut self, block: BlockIndex) {
        self.missed += f64::from(u8::from(self.watched.remove(&block).is_some()));
    }

    /// An epoch is over; what was evicted a horizon before `open` is not watched any more.
    pub fn epoch_over(&mut self, open: Epoch, horizon: Horizon) {
        while let Some((block, at)) = self.order.front().copied()
            && at.0.saturating_add(horizon.epochs()) < open.0
        {
            self.order.pop_front();
            if self.watched.get(&block) == Some(&at) {
                self.watched.remove(&block);
            }
        }
        self.evicted *= KEPT;
        self.missed *= KEPT;
    }

    /// The share of evicted blocks that were missed within the horizon, 0 to 1.
    pub fn share(&self) -> f64 {
        (self.missed / (self.evicted + PRIOR)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_come_back_within_the_horizon_are_regretted() {
        let horizon = Horizon::new(2).expect("in range");
        let mut regret = Regret::default();
        assert_eq!(regret.share(), 0.0);
        for epoch in 1..40 {
            let evicted = || (0..3200).map(|at| BlockIndex(at + 10_000 * (epoch % 7)));
            evicted().for_each(|block| regret.evicted(block, Epoch(epoch)));
            evicted().filter(|block| block.0 % 2 == 0).for_each(|block| regret.missed(block));
            // Long after its horizon: not regretted.
            if epoch > 4 {
                (0..3200).for_each(|at| regret.missed(BlockIndex(at + 10_000 * ((epoch - 4) % 7))));
            }
            regret.epoch_over(Epoch(epoch + 1), horizon);
        }
        assert!((0.4..0.6).contains(&regret.share()), "{}", regret.share());
        assert!(regret.watched.len() <= regret.order.len() && regret.order.len() < 3 * 3200 / 8);
    }

    #[test]
    fn what_is_watched_is_bounded() {
        let mut regret = Regret::default();
        (0..1_000_000).for_each(|block| regret.evicted(BlockIndex(block), Epoch(1)));
        assert_eq!(regret.order.len(), WATCHED_MAX);
        (0..1_000_000).for_each(|block| regret.missed(BlockIndex(block)));
        assert!(regret.share() > 0.99 && regret.watched.is_empty());
    }
}
