//! What came of predictions: of those acted on, the share that happened; of what happened, the share predicted. Changes and
//! reads are scored apart.
//!
//! A table speaks of the epochs of its horizon together, so it is scored when the last of them has been sealed,
//! against everything that changed in them.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::Horizon;

/// Tables that precision and recall are over.
pub const SCORE_WINDOW_EPOCHS: usize = 32;
/// Tables whose horizon has not ended, at most: one an epoch, and the longest horizon.
const EXPECTATIONS_MAX: usize = 256;

/// What was predicted above the threshold by one table, and what happened since.
#[derive(Debug)]
struct Expectation {
    last: Epoch,
    blocks: Arc<HashSet<BlockIndex>>,
    happened: HashSet<BlockIndex>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Score {
    acted: u64,
    hit: u64,
    changed: u64,
}

/// Scores of the newest tables.
#[derive(Default, Debug)]
pub(super) struct Scores {
    /// By the epoch that the table was made after.
    waiting: BTreeMap<Epoch, Expectation>,
    window: VecDeque<Score>,
}

impl Scores {
    /// Takes note of what a table made after `made_after` predicts; the first word counts.
    pub fn expect(&mut self, made_after: Epoch, horizon: Horizon, blocks: &Arc<HashSet<BlockIndex>>) {
        let last = Epoch(made_after.0.saturating_add(horizon.epochs()));
        self.waiting.entry(made_after).or_insert_with(|| Expectation {
            last,
            blocks: blocks.clone(),
            happened: HashSet::new(),
        });
        while self.waiting.len() > EXPECTATIONS_MAX {
            self.waiting.pop_first();
        }
    }

    /// Takes note of the blocks to which it happened in a sealed epoch, and scores the tables whose horizon ends with it.
    pub fn happened(&mut self, epoch: Epoch, blocks: impl Iterator<Item = BlockIndex> + Clone) {
        for (_, expectation) in self.waiting.range_mut(..epoch) {
            expectation.happened.extend(blocks.clone());
        }
        let over = |expectation: &Expectation| expectation.last <= epoch;
        let (ended, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(_, expectation)| over(expectation));
        self.waiting = waiting;
        let ended: BTreeMap<Epoch, Expectation> = ended;
        for Expectation { blocks, happened, .. } in ended.into_values() {
            let hit = happened.iter().filter(|block| blocks.contains(block)).count() as u64;
            let (acted, changed) = (blocks.len() as u64, happened.len() as u64);
            self.window.push_back(Score { acted, hit, changed });
        }
        while self.window.len() > SCORE_WINDOW_EPOCHS {
            self.window.pop_front();
        }
    }

    /// How many predictions the window has, how many of them happened, and how many tables they are of.
    pub fn kept(&self) -> (u64, u64, u32) {
        let sum = |of: fn(&Score) -> u64| self.window.iter().map(of).sum();
        (sum(|score| score.acted), sum(|score| score.hit), self.window.len() as u32)
    }

    /// Precision, recall, and how many tables they are over; 0 where nothing was predicted, or nothing happened.
    pub fn totals(&self) -> (f64, f64, u32) {
        let (acted, hit, tables) = self.kept();
        let changed = self.window.iter().map(|score| score.changed).sum();
        let share = |of: u64| if of == 0 { 0.0 } else { hit as f64 / of as f64 };
        (share(acted), share(changed), tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(scores: &mut Scores, epoch: u32, blocks: &[u32]) {
        scores.happened(Epoch(epoch), blocks.iter().copied().map(BlockIndex));
    }

    fn blocks(blocks: &[u32]) -> Arc<HashSet<BlockIndex>> {
        Arc::new(blocks.iter().copied().map(BlockIndex).collect())
    }

    #[test]
    fn a_table_is_scored_over_its_whole_horizon() {
        let mut scores = Scores::default();
        let horizon = |epochs| Horizon::new(epochs).expect("in range");
        scores.expect(Epoch(4), horizon(2), &blocks(&[1, 2, 3, 4]));
        happened(&mut scores, 4, &[9]);
        happened(&mut scores, 5, &[1, 2]);
        assert_eq!(scores.totals(), (0.0, 0.0, 0), "its horizon goes on");
        scores.expect(Epoch(5), horizon(1), &blocks(&[3]));
        happened(&mut scores, 6, &[2, 3, 5, 6]);
        // The first: 1, 2 and 3 of four predicted, of 1, 2, 3, 5, 6. The second: 3 of one, of 2, 3, 5, 6.
        assert_eq!(scores.totals(), (4.0 / 5.0, 4.0 / 9.0, 2));
        assert!(scores.waiting.is_empty());
    }

    #[test]
    fn what_is_never_scored_is_forgotten() {
        let mut scores = Scores::default();
        let horizon = Horizon::new(1).expect("in range");
        (0..1000).for_each(|epoch| scores.expect(Epoch(epoch), horizon, &blocks(&[1])));
        assert_eq!(scores.waiting.len(), EXPECTATIONS_MAX);
    }
}
