//! How good a prediction was, once the epoch it was for is known.

use forerun::change_vector::{ChangeKind, ChangeVector};

/// Bins of equal width that probabilities are cut into.
const RELIABILITY_BINS: usize = 20;
/// Bins below this one do not count in the calibration error: what is under 0.05 is hardly a prediction, but nearly all
/// candidates are there, and would hide everything else.
const FIRST_RELIABILITY_BIN: usize = 1;

/// Which candidates changed, and how many blocks changed in all, candidates or not.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// By candidate.
    pub changed: Vec<bool>,
    /// Changed blocks in the epoch; those that were no candidates lower every score.
    pub total: usize,
    /// By candidate: whether it held no data before, as far as is known. Only such a block can be added.
    pub empty: Vec<bool>,
    /// Blocks added in the epoch.
    pub added: usize,
}

impl Truth {
    /// Compares candidates, ascending, with what changed; `empty` says of each candidate whether it held no data.
    #[must_use]
    pub fn new(candidates: &[u32], empty: Vec<bool>, vector: &ChangeVector) -> Self {
        debug_assert!(candidates.is_sorted_by(|a, b| a < b), "candidates ascend");
        debug_assert_eq!(candidates.len(), empty.len(), "each candidate held data or not");
        let mut changed = vector.changes().iter().map(|change| change.block.0).peekable();
        let label = |candidate: &u32| {
            while changed.next_if(|block| block < candidate).is_some() {}
            changed.peek() == Some(candidate)
        };
        Self {
            changed: candidates.iter().map(label).collect(),
            total: vector.changes().len(),
            empty,
            added: vector.changes().iter().filter(|change| change.kind == ChangeKind::Added).count(),
        }
    }

    /// The share of changes that were candidates at all.
    #[must_use]
    pub fn reach(&self) -> f64 {
        self.changed.iter().filter(|changed| **changed).count() as f64 / self.total.max(1) as f64
    }
}

/// A ranking's quality.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// Average precision, 0 to 1.
    pub average_precision: f64,
    /// The share of the changes among the first candidates, a tenth of `budget` of them.
    pub coverage_10: f64,
    /// The share of the changes among the first `budget` candidates.
    pub coverage_100: f64,
}

/// The quality of `scores` for all changes, and for those alone that add a block; `None` where there are none. The
/// budgets are for each of the two: blocks that changed, and that were added, in the epoch before.
#[must_use]
pub fn qualities(scores: &[f32], truth: &Truth, budgets: [usize; 2]) -> [Option<Quality>; 2] {
    debug_assert_eq!(scores.len(), truth.changed.len(), "one score for each candidate");
    debug_assert!(truth.added <= truth.total);
    let [for_all, for_added] = budgets;
    let labelled = || scores.iter().copied().zip(truth.changed.iter().copied());
    let all = || ranked(labelled());
    let empty =
        || ranked(labelled().zip(&truth.empty).filter(|(_, empty)| **empty).map(|(labelled, _)| labelled));
    [
        (truth.total > 0).then(|| quality(all(), truth.total, for_all)),
        (truth.added > 0).then(|| quality(empty(), truth.added, for_added)),
    ]
}

/// Best first. Those given no score at all are left out: that is no prediction.
fn ranked(labelled: impl Iterator<Item = (f32, bool)>) -> impl Iterator<Item = (f32, bool)> {
    // The bits of positive numbers are in the order of the numbers, and leave the sign's place free: half the memory of pairs.
    let mut keys: Vec<u32> = labelled
        .filter(|(score, _)| *score > 0.0)
        .map(|(score, changed)| (score.to_bits() << 1) | u32::from(changed))
        .collect();
    keys.sort_unstable();
    keys.into_iter().rev().map(|key| (f32::from_bits(key >> 1), key & 1 == 1))
}

/// The quality of a ranking of (score, changed), best first, when `total` blocks changed.
///
/// Equal scores are one step: the precision after all of them counts for each, so that the order of ties
/// neither helps nor harms (as scikit-learn's `average_precision_score`). A budget that ends within ties
/// takes its share of them.
fn quality(ranking: impl Iterator<Item = (f32, bool)>, total: usize, budget: usize) -> Quality {
    let (mut taken, mut hits, mut sum, mut covered) = (0usize, 0usize, 0.0, [0.0; 2]);
    let mut ranking = ranking.peekable();
    while let Some((score, changed)) = ranking.next() {
        let (mut ties, mut new) = (1, usize::from(changed));
        while let Some((_, changed)) = ranking.next_if(|next| next.0 == score) {
            ties += 1;
            new += usize::from(changed);
        }
        for (covered, budget) in covered.iter_mut().zip([budget / 10, budget]) {
            let room = budget.saturating_sub(taken).min(ties);
            *covered += new as f64 * room as f64 / ties as f64;
        }
        taken += ties;
        hits += new;
        sum += new as f64 * hits as f64 / taken as f64;
    }
    debug_assert!(hits <= total, "{hits} of {total} changes were candidates");
    let of_total = |value: f64| value / total as f64;
    let [coverage_10, coverage_100] = covered.map(of_total);
    Quality { average_precision: of_total(sum), coverage_10, coverage_100 }
}

/// What came of everything that was predicted at a threshold and above.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Predicted.
    pub predicted: usize,
    /// Of those, changed.
    pub right: usize,
    /// Changed in all.
    pub changed: usize,
}

impl Outcome {
    /// The share of what was predicted that changed; 0 where nothing was.
    #[must_use]
    pub fn precision(&self) -> f64 {
        self.right as f64 / self.predicted.max(1) as f64
    }

    /// The share of what changed that was predicted.
    #[must_use]
    pub fn recall(&self) -> f64 {
        self.right as f64 / self.changed.max(1) as f64
    }

    /// The harmonic mean of both.
    #[must_use]
    pub fn f1(&self) -> f64 {
        2.0 * self.right as f64 / (self.predicted + self.changed).max(1) as f64
    }

    /// Adds another epoch's.
    pub const fn add(&mut self, other: &Self) {
        self.predicted += other.predicted;
        self.right += other.right;
        self.changed += other.changed;
    }
}

/// The loss of a probability whose truth is known, in nats; no more than that of a probability of 1 in 100,000.
#[must_use]
pub fn log_loss(probability: f32, changed: bool) -> f64 {
    debug_assert!(!probability.is_nan());
    let told = f64::from(probability).clamp(1e-5, 1.0 - 1e-5);
    match changed {
        true => -told.ln(),
        // Nearly all candidates; the logarithm's first term is right to a thousandth, and costs nothing.
        false if told < 2e-3 => told,
        false => -(-told).ln_1p(),
    }
}

/// How often what was given a probability happened, by probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reliability {
    /// By twentieth.
    bins: [ReliabilityBin; RELIABILITY_BINS],
}

/// What was given about the same probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct ReliabilityBin {
    /// Of the probabilities.
    sum: f64,
    /// Of the numbers that change, if the probabilities are true.
    variance: f64,
    hits: u64,
    all: u64,
}

impl Reliability {
    /// Counts a candidate.
    pub fn take(&mut self, probability: f32, changed: bool) {
        // A mean of probabilities may be above 1 by its rounding.
        debug_assert!((0.0..=1.0 + 1e-5).contains(&probability), "{probability}");
        let at = ((probability * RELIABILITY_BINS as f32) as usize).min(RELIABILITY_BINS - 1);
        if let Some(bin) = self.bins.get_mut(at) {
            let told = f64::from(probability);
            bin.sum += told;
            bin.variance += told * (1.0 - told);
            bin.hits += u64::from(changed);
            bin.all += 1;
        }
    }

    /// Adds another epoch's.
    pub fn add(&mut self, other: &Self) {
        for (own, others) in self.bins.iter_mut().zip(&other.bins) {
            own.sum += others.sum;
            own.variance += others.variance;
            own.hits += others.hits;
            own.all += others.all;
        }
    }

    /// Expected calibration error of what was given 0.05 and more: the mean distance of probability and share, each
    /// bin weighted by its number (Naeini, Cooper, Hauskrecht, AAAI 2015).
    #[must_use]
    pub fn error(&self) -> f64 {
        let bins = self.bins.iter().skip(FIRST_RELIABILITY_BIN);
        let apart: f64 = bins.clone().map(|bin| (bin.sum - bin.hits as f64).abs()).sum();
        let all: u64 = bins.map(|bin| bin.all).sum();
        apart / all.max(1) as f64
    }

    /// The same of all candidates: the usual definition, in which those that hardly anybody expects decide.
    #[must_use]
    pub fn error_of_all(&self) -> f64 {
        let apart: f64 = self.bins.iter().map(|bin| (bin.sum - bin.hits as f64).abs()).sum();
        apart / self.bins.iter().map(|bin| bin.all).sum::<u64>().max(1) as f64
    }

    /// The calibration error of what was given 0.05 and more that is expected if every probability is true and candidates change
    /// independently of each other: chance alone, which is the more the fewer there are.
    #[must_use]
    pub fn error_by_chance(&self) -> f64 {
        let bins = self.bins.iter().skip(FIRST_RELIABILITY_BIN);
        // The mean distance of a normal variable from its mean.
        let apart: f64 = bins.clone().map(|bin| (bin.variance * std::f64::consts::FRAC_2_PI).sqrt()).sum();
        apart / bins.map(|bin| bin.all).sum::<u64>().max(1) as f64
    }

    /// Of what was given 0.7 to 0.9: how many there were, and the share that changed.
    #[must_use]
    pub fn at_0_7_to_0_9(&self) -> (u64, f64) {
        let bins = self.bins.iter().skip(14).take(4);
        let (hits, all) = bins.fold((0, 0), |(hits, all), bin| (hits + bin.hits, all + bin.all));
        (all, hits as f64 / all.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::vector_of;

    fn truth(changed: &[bool]) -> Truth {
        let total = changed.iter().filter(|changed| **changed).count();
        Truth { changed: changed.to_vec(), total, empty: vec![false; changed.len()], added: 0 }
    }

    #[test]
    fn average_precision_is_what_the_formula_says() {
        // Ranks of the hits: 1 and 3, so (1/1 + 2/3) / 2.
        let quality_of =
            |scores: &[f32], truth: &Truth| qualities(scores, truth, [2, 0])[0].unwrap_or_default();
        let found = quality_of(&[0.9, 0.8, 0.7, 0.1], &truth(&[true, false, true, false]));
        assert!((found.average_precision - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        assert_eq!(found.coverage_100, 0.5);
        let ties = quality_of(&[0.5; 4], &truth(&[true, false, true, false]));
        assert_eq!((ties.average_precision, ties.coverage_100), (0.5, 0.5));
        assert_eq!(quality_of(&[0.0; 2], &truth(&[true, true])), Quality::default());
        let missed = Truth { total: 4, ..truth(&[true]) };
        assert_eq!(quality_of(&[1.0], &missed).average_precision, 0.25);
        assert_eq!(qualities(&[1.0], &truth(&[false]), [2, 0]), [None, None]);
        let many = qualities(&[0.9, 0.8, 0.7], &truth(&[true, true, true]), [20, 0])[0].unwrap_or_default();
        assert_eq!((many.coverage_10, many.coverage_100), (2.0 / 3.0, 1.0));
    }

    #[test]
    fn what_is_added_is_ranked_among_empty_blocks_alone() {
        let truth = Truth { empty: vec![false, true, true], added: 1, ..truth(&[true, false, true]) };
        let [all, added] = qualities(&[0.9, 0.8, 0.7], &truth, [2, 1]).map(Option::unwrap_or_default);
        assert!((all.average_precision - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        assert_eq!((added.average_precision, added.coverage_100), (0.5, 0.0));
    }

    #[test]
    fn truth_is_the_intersection() {
        let vector = vector_of(1, &[0, 5, 6, 10]);
        let truth = Truth::new(&[1, 5, 9, 10], vec![false; 4], &vector);
        assert_eq!(truth.changed, [false, true, false, true]);
        assert_eq!((truth.total, truth.reach()), (4, 0.5));
    }

    #[test]
    fn the_error_by_chance_is_what_true_probabilities_come_to() {
        let mut rng = crate::rng::Rng::new(5);
        let (mut error, mut by_chance) = (0.0, 0.0);
        for _ in 0..200 {
            let mut reliability = Reliability::default();
            for _ in 0..500 {
                let told = rng.unit();
                reliability.take(told, rng.unit() < told);
            }
            error += reliability.error() / 200.0;
            by_chance += reliability.error_by_chance() / 200.0;
        }
        assert!((error / by_chance - 1.0).abs() < 0.05, "{error} and {by_chance}");
    }

    #[test]
    fn log_loss_is_the_negative_logarithm() {
        for told in [0.0f32, 1e-4, 1.9e-3, 2.1e-3, 0.3, 1.0] {
            let bounded = f64::from(told).clamp(1e-5, 1.0 - 1e-5);
            assert!((log_loss(told, true) + bounded.ln()).abs() < 1e-9);
            assert!((log_loss(told, false) / -(1.0 - bounded).ln() - 1.0).abs() < 2e-3, "{told}");
        }
    }

    #[test]
    fn calibration_error_is_the_mean_distance() {
        let mut reliability = Reliability::default();
        for (probability, changed) in
            [(0.75, true), (0.75, false), (0.15, false), (0.15, false), (0.01, true)]
        {
            reliability.take(probability, changed);
        }
        assert!((reliability.error() - (0.5 + 0.3) / 4.0).abs() < 1e-6, "{}", reliability.error());
        assert!((reliability.error_of_all() - (0.5 + 0.3 + 0.99) / 5.0).abs() < 1e-6);
        assert_eq!(reliability.at_0_7_to_0_9(), (2, 0.5));
        let mut twice = reliability;
        twice.add(&reliability);
        assert_eq!((twice.error(), twice.at_0_7_to_0_9().0), (reliability.error(), 4));
        assert_eq!(Reliability::default().error(), 0.0);
    }
}
