//! What a number of candidates costs, in CPU time and memory: a volume that changes at random until all that grows with time is
//! full (the epochs remembered, the samples, the blocks tracked), and then one more epoch.

use anyhow::Result;
use forerun::change_vector::{Change, ChangeKind, ChangeVector};
use forerun::geometry::{BlockIndex, Epoch};

use super::report::CostReport;
use crate::config::Config;
use crate::cpu::peak_memory_bytes;
use crate::epochs::SIMILAR_WINDOW_EPOCHS;
use crate::learner::{Effort, Learner};
use crate::model::REPLAY_EPOCHS;
use crate::rng::Rng;

/// Epochs in which as much changes as there are candidates.
const SPREAD_EPOCHS: u32 = 24;
/// The last epochs are learned from, as many as samples are kept of; those before are only remembered, as many as are at all.
const LEARNED_EPOCHS: u32 = REPLAY_EPOCHS as u32 + 1;
const EPOCHS: u32 = SIMILAR_WINDOW_EPOCHS as u32 + LEARNED_EPOCHS;
/// Blocks of the volume for each candidate: changes are neither dense nor alone.
const BLOCKS_A_CANDIDATE: u32 = 4;
const EPOCH_US: u64 = 300_000_000;

/// What the last epoch took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Candidates scored.
    pub candidates: usize,
    /// Of those, by the network.
    pub by_network: usize,
    /// CPU seconds.
    pub cost: CostReport,
    /// Peak memory of the process, in bytes.
    pub peak_memory_bytes: u64,
}

/// Measures an epoch with `candidates` candidates, or up to a fifteenth more: the blocks longest unchanged are forgotten by the sixteenth.
///
/// # Errors
/// candle refuses, for want of memory at most.
pub fn measure(candidates: u32, config: &Config) -> Result<Cost> {
    let blocks = candidates.saturating_mul(BLOCKS_A_CANDIDATE).max(1024);
    let config = Config {
        tracked_blocks: (candidates + candidates / 15) as usize,
        // Growth is bounded by itself: here all candidates are to be blocks with a past.
        frontier_candidates: 0,
        ..config.clone()
    };
    let (mut learner, mut rng) = (Learner::new(config, blocks)?, Rng::new(1));
    let mut last = (0, 0, CostReport::default());
    for epoch in 1..=EPOCHS {
        let mut changed: Vec<u32> =
            (0..candidates / SPREAD_EPOCHS).map(|_| rng.below(blocks as usize) as u32).collect();
        changed.sort_unstable();
        changed.dedup();
        let change = |block| Change { block: BlockIndex(block), kind: ChangeKind::Modified, sub_blocks: 4 };
        let opened_us = u64::from(epoch) * EPOCH_US;
        let changes = changed.into_iter().map(change).collect();
        let vector = ChangeVector::new(Epoch(epoch), opened_us, opened_us + EPOCH_US, changes)?;
        let learned = epoch + LEARNED_EPOCHS > EPOCHS;
        let report = learner.observe(&vector, if learned { Effort::Full } else { Effort::Remember })?;
        let mut cost = CostReport::default();
        cost.add(&report.costs);
        last = (report.candidates, report.scored_by_network, cost);
    }
    let (candidates, by_network, cost) = last;
    Ok(Cost { candidates, by_network, cost, peak_memory_bytes: peak_memory_bytes() })
}

impl Cost {
    /// A line for people.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{} candidates ({} by the network): scoring {:.2} CPU seconds (facts {:.2}, simple {:.2}, tables and linear {:.2}, trees {:.2}, network {:.2}), \
             training {:.2}; peak memory of the process {} MiB",
            self.candidates,
            self.by_network,
            self.cost.scoring(),
            self.cost.facts,
            self.cost.simple,
            self.cost.tables,
            self.cost.trees,
            self.cost.network,
            self.cost.training(),
            self.peak_memory_bytes >> 20,
        )
    }
}
