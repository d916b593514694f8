//! All that is remembered of a volume's past, advanced one epoch at a time.

use forerun::change_vector::{ChangeKind, ChangeVector};

use crate::activity::Activity;
use crate::chain::{Chains, after_chain};
use crate::config::Config;
use crate::epochs::RecentEpochs;
use crate::frontier::Frontiers;
use crate::similar::{AfterSimilar, Weights, after_similar_epochs};

/// A share of deletions from which a block's next change is expected to be a deletion.
const DELETES_FROM: f32 = 0.5;

/// What the predictors' facts are made from.
#[derive(Clone, Debug)]
pub struct VolumeState {
    /// Every block's past.
    pub activity: Activity,
    /// The latest epochs.
    pub recent: RecentEpochs,
    /// Where growth goes on.
    pub frontiers: Frontiers,
    /// Epochs that are alike.
    pub chains: Chains,
    /// What changed after epochs like the last one.
    pub similar: AfterSimilar,
    /// What the chains that follow the last epoch's change.
    pub chained: Weights,
    /// The horizon that is looked ahead, in epochs.
    pub horizon_epochs: u32,
    /// Whether the two are made.
    predict_by_chains: bool,
}

impl VolumeState {
    /// Nothing yet; the configuration bounds the memory.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            activity: Activity::new(config.tracked_blocks),
            recent: RecentEpochs::default(),
            frontiers: Frontiers::default(),
            chains: Chains::new(config.chain.clone()),
            similar: AfterSimilar::default(),
            horizon_epochs: 1,
            chained: Weights::new(),
            predict_by_chains: config.chain.predict,
        }
    }

    /// Takes the next epoch.
    pub fn push(&mut self, vector: &ChangeVector) {
        self.activity.push(vector);
        let chain = self.chains.push(vector);
        self.recent.push(vector, chain);
        if let Some(view) = self.recent.last() {
            self.frontiers.push(&view.runs, self.activity.step());
        }
        if self.predict_by_chains {
            self.similar = after_similar_epochs(&self.recent, self.horizon_epochs);
            self.chained = after_chain(&self.recent);
        }
    }

    /// The blocks worth scoring, ascending, each once: all that are remembered, and where growth may go on.
    #[must_use]
    pub fn candidates(&self, frontier_candidates: usize, volume_blocks: u32) -> Vec<u32> {
        let known = self.activity.blocks();
        let inside = known.partition_point(|block| *block < volume_blocks);
        let mut candidates = known.get(..inside).unwrap_or_default().to_vec();
        candidates.extend(self.frontiers.continuations(frontier_candidates, volume_blocks));
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }

    /// What will happen to a block if it changes: added where it holds nothing as far as is known; else deleted where that
    /// is likelier than not (as `deleted` says, or else its own past), else modified.
    #[must_use]
    pub fn expected_kind(&self, block: u32, deleted: Option<f32>) -> ChangeKind {
        match self.activity.get(block) {
            None => ChangeKind::Added,
            Some(past) if past.kind == ChangeKind::Deleted => ChangeKind::Added,
            Some(past) if deleted.unwrap_or(past.deleted_share) > DELETES_FROM => ChangeKind::Deleted,
            Some(_) => ChangeKind::Modified,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun::change_vector::Change;
    use forerun::geometry::{BlockIndex, Epoch};

    #[test]
    fn kinds_follow_a_block_s_own_past() {
        let mut state = VolumeState::new(&Config { tracked_blocks: 1024, ..Config::default() });
        let kinds = [ChangeKind::Added, ChangeKind::Deleted];
        for epoch in 1..=12u32 {
            let change = |block, kind| Change { block: BlockIndex(block), kind, sub_blocks: 16 };
            let changes = vec![change(1, kinds[(epoch as usize - 1) % 2]), change(2, ChangeKind::Modified)];
            state.push(&ChangeVector::new(Epoch(epoch), 0, 1, changes).expect("sorted"));
            if epoch == 11 {
                assert_eq!(state.expected_kind(1, None), ChangeKind::Deleted);
            }
        }
        assert_eq!(state.expected_kind(1, None), ChangeKind::Added);
        assert_eq!(state.expected_kind(2, None), ChangeKind::Modified);
        assert_eq!(state.expected_kind(3, None), ChangeKind::Added);
    }

    #[test]
    fn candidates_are_the_past_and_its_continuation_within_the_volume() {
        let mut state = VolumeState::new(&Config { tracked_blocks: 1024, ..Config::default() });
        state.push(&crate::testing::vector_of(1, &[5, 100, 101]));
        let candidates = state.candidates(1000, 120);
        assert!(candidates.is_sorted() && candidates.iter().all(|block| *block < 120));
        assert!([4, 5, 6, 37, 100, 119].iter().all(|block| candidates.contains(block)));
        assert!(!candidates.contains(&50));
        assert_eq!(state.candidates(0, 120), [5, 100, 101]);
    }
}
