//! Which candidates of an epoch are learned from.
//!
//! Inputs are made when the truth is known, from a state that has not seen it yet: that saves holding the
//! inputs of all candidates in between.

use forerun::change_vector::ChangeVector;

use super::candidates::Scored;
use super::{Learner, probability_by};
use crate::facts::FactSource;
use crate::inputs::{SequenceSource, wide};
use crate::model::Sample;
use crate::predictors::Predictor;
use crate::publish::within;
use crate::score::Truth;

/// Candidates that changed.
const POSITIVES: usize = 768;
/// Candidates that were thought likeliest and did not change.
const HARD_NEGATIVES: usize = 512;
/// Others that did not change, by chance.
const OTHER_NEGATIVES: usize = 512;

impl Learner {
    /// The candidates to learn from, ascending, each with the number that it stands for.
    pub(super) fn choose_samples(&mut self, scored: &Scored, truth: &Truth) -> Vec<(usize, f32)> {
        let by = scored.of(Predictor::Lstm).or_else(|| scored.of(Predictor::Linear)).unwrap_or_default();
        let (mut positives, mut negatives): (Vec<u32>, Vec<u32>) =
            (0..scored.blocks.len() as u32).partition(|at| truth.changed.get(*at as usize) == Some(&true));
        let mut chosen: Vec<(usize, f32)> = Vec::new();
        self.choose(&mut positives, POSITIVES, &mut chosen);
        let score = |at: &u32| by.get(*at as usize).copied().unwrap_or(0.0);
        if negatives.len() > HARD_NEGATIVES {
            negatives
                .select_nth_unstable_by(HARD_NEGATIVES, |a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
        }
        let hardest = HARD_NEGATIVES.min(negatives.len());
        let (hard, others) = negatives.split_at_mut(hardest);
        others.sort_unstable();
        chosen.extend(hard.iter().map(|at| (*at as usize, 1.0)));
        self.choose(others, OTHER_NEGATIVES, &mut chosen);
        chosen.sort_unstable_by_key(|(at, _)| *at);
        chosen
    }

    /// Their inputs, with what became of them.
    pub(super) fn samples(
        &self,
        scored: &Scored,
        vector: &ChangeVector,
        chosen: &[(usize, f32)],
    ) -> Vec<Sample> {
        let (mut facts, mut sequences) = (FactSource::new(&self.state), SequenceSource::new(&self.state));
        let mut samples = Vec::with_capacity(chosen.len());
        let serving = self.scoreboard.serving();
        let (calibration, scores) = (self.calibrations.get(serving as usize), scored.of(serving));
        let epochs = self.horizon.epochs();
        let likely = scored.of(Predictor::Lstm).or_else(|| scored.of(Predictor::Linear));
        for &(at, stands_for) in chosen {
            let Some((block, cells)) = scored.blocks.get(at).zip(scored.cells.get(at)) else { continue };
            let Some(known) = facts.facts(*block) else { continue };
            let mut sequence = Vec::new();
            sequences.append(*block, &mut sequence);
            let change = vector.changes().binary_search_by_key(block, |change| change.block.0);
            let next = scores.and_then(|scores| Some(probability_by(calibration, *scores.get(at)?)));
            samples.push(Sample {
                block: *block,
                score: likely.and_then(|scores| scores.get(at)).copied().unwrap_or(0.0),
                sequence,
                wide: wide(&known, &self.contexts.logits(cells)),
                changed: change.ok().and_then(|at| vector.changes().get(at)).map(|change| change.kind),
                stands_for,
                within: None,
                within_score: scored.net(at).map_or(0.0, |scores| scores.within),
                formula_score: next.map_or(0.0, |next| within(epochs, next, &known, true)),
            });
        }
        samples
    }

    /// Adds up to `most` of `from`, drawn by chance, each standing for its share of all.
    fn choose(&mut self, from: &mut [u32], most: usize, chosen: &mut Vec<(usize, f32)>) {
        let count = most.min(from.len());
        // The beginning of a Fisher-Yates shuffle.
        for at in 0..count {
            let other = at + self.rng.below(from.len() - at);
            from.swap(at, other);
        }
        let weight = from.len() as f32 / count.max(1) as f32;
        chosen.extend(from.iter().take(count).map(|at| (*at as usize, weight)));
    }
}
