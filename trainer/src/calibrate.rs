//! Online calibration: what a score has meant lately.
//!
//! Scores are cut into bins of equal width in logits; each bin counts, with decay, candidates and those that
//! changed. The shares are made monotonous by pooling adjacent violators (isotonic regression; Ayer et
//! al., 1955; Zadrozny, Elkan, 2002) and read by linear interpolation between the bins' mean
//! logits. While a bin has seen little, its score's own value counts.

use serde::{Deserialize, Serialize};

use crate::contexts::{from_logit, to_logit};

const BINS: usize = 28;
/// The logits that the outer bins begin at.
const MAX_LOGIT: f32 = 7.0;
/// What the counts keep from one epoch to the next: about 20 epochs are remembered.
const KEPT: f32 = 0.95;
/// Candidates' worth of weight of a score's own value.
const PRIOR: f32 = 2.0;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Bin {
    changed: f32,
    all: f32,
    logits: f32,
}

/// What the scores of one predictor have meant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Calibration {
    bins: Vec<Bin>,
    /// (mean logit, share) by bin, monotonous.
    curve: Vec<(f32, f32)>,
}

impl Default for Calibration {
    fn default() -> Self {
        let mut new = Self { bins: vec![Bin::default(); BINS], curve: Vec::new() };
        new.fit();
        new
    }
}

impl Calibration {
    /// Takes an epoch's scores and what became of them.
    pub fn learn(&mut self, scores: &[f32], changed: &[bool]) {
        self.learn_weighted(scores.iter().zip(changed).map(|(score, changed)| (*score, *changed, 1.0)));
    }

    /// Takes (score, whether it happened, for how many it stands).
    pub fn learn_weighted(&mut self, epoch: impl Iterator<Item = (f32, bool, f32)>) {
        for bin in &mut self.bins {
            *bin = Bin { changed: bin.changed * KEPT, all: bin.all * KEPT, logits: bin.logits * KEPT };
        }
        for (score, changed, weight) in epoch {
            if score > 0.0 {
                let logit = to_logit(score);
                if let Some(bin) = self.bins.get_mut(bin_of(logit)) {
                    bin.changed += f32::from(u8::from(changed)) * weight;
                    bin.all += weight;
                    bin.logits += logit * weight;
                }
            }
        }
        self.fit();
    }

    fn fit(&mut self) {
        // Pools: (sum of shares' weights, weight, bins in it).
        let mut pools: Vec<(f32, f32, usize)> = Vec::new();
        for (index, bin) in self.bins.iter().enumerate() {
            let weight = bin.all + PRIOR;
            let mut pool = (bin.changed + PRIOR * from_logit(centre(index)), weight, 1);
            while let Some(last) = pools.last().filter(|last| last.0 / last.1 > pool.0 / pool.1) {
                pool = (pool.0 + last.0, pool.1 + last.1, pool.2 + last.2);
                pools.pop();
            }
            pools.push(pool);
        }
        let shares = pools.iter().flat_map(|pool| std::iter::repeat_n(pool.0 / pool.1, pool.2));
        let logits = self.bins.iter().enumerate().map(|(index, bin)| {
            let low = index as f32 * width() - MAX_LOGIT;
            ((bin.logits + PRIOR * centre(index)) / (bin.all + PRIOR)).clamp(low, low + width())
        });
        self.curve = logits.zip(shares).collect();
        debug_assert_eq!(self.curve.len(), BINS);
        debug_assert!(self.curve.is_sorted_by(|a, b| a.0 <= b.0), "logits ascend: {:?}", self.curve);
        debug_assert!(
            self.curve.is_sorted_by(|a, b| a.1 <= b.1 + 1e-6),
            "shares do not fall: {:?}",
            self.curve
        );
    }

    /// The probability that a score has meant; 0 for no score.
    #[must_use]
    pub fn probability(&self, score: f32) -> f32 {
        if score <= 0.0 || score.is_nan() { 0.0 } else { self.probability_at(to_logit(score)) }
    }

    /// The probability that the score with this logit has meant.
    #[must_use]
    pub fn probability_at(&self, logit: f32) -> f32 {
        let above = self.curve.partition_point(|(at, _)| *at < logit);
        let probability =
            match (above.checked_sub(1).and_then(|at| self.curve.get(at)), self.curve.get(above)) {
                (Some((from, low)), Some((to, high))) => {
                    low + (high - low) * (logit - from) / (to - from).max(1e-6)
                }
                (Some((_, share)), None) | (None, Some((_, share))) => *share,
                (None, None) => 0.0,
            };
        probability.clamp(0.0, 1.0)
    }

    /// The same with all its logits moved by `shift`.
    #[must_use]
    pub fn shifted(&self, shift: f64) -> Self {
        let factor = shift.exp() as f32;
        let moved = |share: f32| share * factor / (1.0 - share + share * factor);
        let curve = self.curve.iter().map(|(logit, share)| (*logit, moved(*share).clamp(0.0, 1.0)));
        Self { bins: self.bins.clone(), curve: curve.collect() }
    }

    /// Whether what was read from a file is a calibration.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let finite = |bin: &Bin| bin.changed.is_finite() && bin.all.is_finite() && bin.logits.is_finite();
        self.bins.len() == BINS
            && self.bins.iter().all(finite)
            && self.curve.len() == BINS
            && self.curve.iter().all(|(logit, share)| logit.is_finite() && (0.0..=1.0).contains(share))
    }
}

const fn width() -> f32 {
    2.0 * MAX_LOGIT / BINS as f32
}

fn centre(bin: usize) -> f32 {
    (bin as f32 + 0.5) * width() - MAX_LOGIT
}

fn bin_of(logit: f32) -> usize {
    (((logit + MAX_LOGIT) / width()) as usize).min(BINS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::*;

    #[test]
    fn of_what_is_given_point_eight_about_eighty_percent_happens() {
        let (mut calibration, mut rng) = (Calibration::default(), Rng::new(4));
        // A predictor that is far too sure of itself: the truth is the square of its score.
        let mut draw = |count: usize| -> (Vec<f32>, Vec<bool>) {
            let scores: Vec<f32> = (0..count).map(|_| rng.unit()).collect();
            let changed = scores.iter().map(|score| rng.unit() < score * score).collect();
            (scores, changed)
        };
        for _ in 0..30 {
            let (scores, changed) = draw(500);
            calibration.learn(&scores, &changed);
        }
        let (scores, changed) = draw(20_000);
        let (mut hits, mut all) = (0, 0);
        for (score, changed) in scores.iter().zip(changed) {
            if (0.7..0.9).contains(&calibration.probability(*score)) {
                all += 1;
                hits += u32::from(changed);
            }
        }
        let share = f64::from(hits) / f64::from(all);
        assert!((0.75..0.85).contains(&share), "{share}");
        assert!((calibration.probability(0.5) - 0.25).abs() < 0.05);
    }

    proptest! {
        #[test]
        fn probabilities_are_in_range_and_keep_the_order(
            scores in proptest::collection::vec((0.0f32..=1.0, any::<bool>()), 0..300),
        ) {
            let mut calibration = Calibration::default();
            let (values, changed): (Vec<f32>, Vec<bool>) = scores.into_iter().unzip();
            calibration.learn(&values, &changed);
            prop_assert!(calibration.is_sound());
            let curve: Vec<f32> = (0..=100).map(|at| calibration.probability(at as f32 / 100.0)).collect();
            prop_assert!(curve.iter().all(|p| (0.0..=1.0).contains(p)));
            prop_assert!(curve.is_sorted(), "{:?}", curve);
        }
    }
}
