//! Boosted trees over the wide inputs, made anew every few epochs from samples of all epochs so far.
//!
//! What the network forgets after 24 epochs, they keep: samples are replaced by chance, so that old epochs fade and never go all at
//! once. Trees by gradient boosting over binned inputs (Friedman, "Greedy function approximation", 2001; Chen, Guestrin,
//! "XGBoost", 2016), by the crate forust-ml. Its time cannot be cut off, so that it is foretold from the last time, and
//! saved up for over the epochs between. The last three makings count alike: which samples and inputs each was made from is
//! partly chance, and their mean is wrong by less than each of them (Breiman, "Bagging predictors", 1996).

use std::collections::VecDeque;

use forust_ml::objective::ObjectiveType;
use forust_ml::sampler::SampleMethod;
use forust_ml::{GradientBooster, Matrix};

use crate::contexts::from_logit;
use crate::cpu::Budget;
use crate::inputs::WIDE;
use crate::model::Sample;
use crate::rng::Rng;

/// The most samples kept: 5 MB, and by reckoning 15 MB more while trees are made.
const MAX_SAMPLES: usize = 24_576;
/// The most samples that an epoch adds of what changed.
const CHANGED: usize = 256;
/// Of what did not change, at least so many that were thought likeliest, and so many others; as many of either as changed.
const UNCHANGED: usize = 64;
/// The most candidates that one sample stands for.
const MAX_WEIGHT: f32 = 16.0;
/// Epochs from one making to the next, at least.
const EPOCHS_BETWEEN: u32 = 5;
/// Samples of what changed that there have to be: leaves of fewer would be chance.
const MIN_CHANGED: usize = 32;
/// The makings that count.
const MAKINGS: usize = 3;
/// The size of one, chosen on real traces (docs/prediction.md), where half as deep and fewer did nearly as well.
const TREES: usize = 200;
const DEPTH: usize = 6;
const LEAVES: usize = 31;
const BINS: u16 = 63;
const RATE: f32 = 0.03;
/// The share of the inputs, and of the samples, that a tree may look at.
const SHARE: f32 = 0.7;
/// CPU seconds a sample, before it has been measured.
const SECONDS_A_SAMPLE: f64 = 4e-5;

/// A sample as it is kept.
#[derive(Clone, Debug)]
struct Kept {
    wide: [f32; WIDE],
    changed: bool,
    weight: f32,
}

/// The trees, and what they are made from.
pub struct Trees {
    kept: Vec<Kept>,
    /// Oldest first.
    makings: VecDeque<GradientBooster>,
    epochs_since: u32,
    /// CPU seconds saved up; below 0 where the last making took more.
    saved: f64,
    seconds_a_sample: f64,
    rng: Rng,
}

impl Trees {
    /// No tree yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            kept: Vec::new(),
            makings: VecDeque::new(),
            epochs_since: 0,
            saved: 0.0,
            seconds_a_sample: SECONDS_A_SAMPLE,
            rng: Rng::new(seed ^ 0x7eee5),
        }
    }

    /// Keeps some of an epoch's samples, in place of others where there are too many.
    pub fn remember(&mut self, samples: &[Sample]) {
        let changed = samples.iter().filter(|sample| sample.changed.is_some()).count();
        let unchanged = changed.clamp(UNCHANGED, CHANGED);
        for (changed, likeliest, others) in [(true, 0, CHANGED), (false, unchanged, unchanged)] {
            // A number that is not finite would stop the making of trees; no input of ours should be one.
            let finite = |sample: &&Sample| sample.wide.iter().all(|input| input.is_finite());
            let sort = |sample: &&Sample| sample.changed.is_some() == changed;
            let mut own: Vec<&Sample> = samples.iter().filter(sort).filter(finite).collect();
            own.sort_by(|a, b| b.score.total_cmp(&a.score));
            let likeliest = likeliest.min(own.len());
            let (likeliest, rest) = own.split_at_mut(likeliest);
            let stand_for: f32 = rest.iter().map(|sample| sample.stands_for).sum();
            let count = others.min(rest.len());
            let weight = (stand_for / count.max(1) as f32).min(MAX_WEIGHT);
            for at in 0..count {
                rest.swap(at, at + self.rng.below(rest.len() - at));
            }
            let rest = rest.iter().take(count).map(|sample| (*sample, weight));
            for (sample, weight) in likeliest.iter().map(|sample| (*sample, 1.0)).chain(rest) {
                self.keep(Kept { wide: sample.wide, changed, weight });
            }
        }
        self.epochs_since = self.epochs_since.saturating_add(1);
    }

    fn keep(&mut self, sample: Kept) {
        if self.kept.len() < MAX_SAMPLES {
            self.kept.push(sample);
        } else {
            let at = self.rng.below(self.kept.len());
            if let Some(old) = self.kept.get_mut(at) {
                *old = sample;
            }
        }
    }

    /// Makes trees, if it is time and so many CPU seconds an epoch, with those saved up, are enough. Returns
    /// whether it did.
    pub fn learn(&mut self, seconds: f64) -> bool {
        self.saved += seconds;
        let enough = self.saved >= self.seconds_a_sample * self.kept.len() as f64;
        let changed = self.kept.iter().filter(|kept| kept.changed).count();
        let both = changed >= MIN_CHANGED && changed < self.kept.len();
        if !(enough && both && self.epochs_since >= EPOCHS_BETWEEN) {
            return false;
        }
        let budget = Budget::start(0.0);
        let inputs = columns(self.kept.iter().map(|kept| &kept.wide), self.kept.len());
        let truth: Vec<f64> = self.kept.iter().map(|kept| f64::from(u8::from(kept.changed))).collect();
        let weights: Vec<f64> = self.kept.iter().map(|kept| f64::from(kept.weight)).collect();
        let mut model = GradientBooster::default()
            .set_objective_type(ObjectiveType::LogLoss)
            .set_iterations(TREES)
            .set_max_depth(DEPTH)
            .set_max_leaves(LEAVES)
            .set_nbins(BINS)
            .set_learning_rate(RATE)
            .set_colsample_bytree(f64::from(SHARE))
            .set_sample_method(SampleMethod::Random)
            .set_subsample(SHARE)
            .set_initialize_base_score(true)
            .set_parallel(false)
            .set_seed(self.rng.next_u64());
        match model.fit(&Matrix::new(&inputs, self.kept.len(), WIDE), &truth, &weights, None) {
            Ok(()) => self.makings.push_back(model),
            Err(error) => tracing::warn!("the boosted trees stay as they were: {error}"),
        }
        if self.makings.len() > MAKINGS {
            self.makings.pop_front();
        }
        let took = budget.used().as_secs_f64();
        self.seconds_a_sample = took / self.kept.len() as f64;
        self.saved = (self.saved - took).min(0.0);
        self.epochs_since = 0;
        true
    }

    /// Whether there are trees.
    #[must_use]
    pub fn are_there(&self) -> bool {
        !self.makings.is_empty()
    }

    /// Scores candidates by their wide inputs, 0 to 1; half where there are no trees yet.
    #[must_use]
    pub fn score(&self, wides: &[[f32; WIDE]]) -> Vec<f32> {
        let inputs = columns(wides.iter(), wides.len());
        let inputs = Matrix::new(&inputs, wides.len(), WIDE);
        let mut logits = vec![0.0; wides.len()];
        for making in &self.makings {
            for (sum, logit) in logits.iter_mut().zip(making.predict(&inputs, false)) {
                *sum += logit / self.makings.len() as f64;
            }
        }
        logits.into_iter().map(|logit| from_logit(logit as f32)).collect()
    }
}

/// The inputs, one input after the other, as the crate wants them.
fn columns<'a>(rows: impl Iterator<Item = &'a [f32; WIDE]> + Clone, count: usize) -> Vec<f64> {
    let mut columns = Vec::with_capacity(count * WIDE);
    for input in 0..WIDE {
        columns.extend(rows.clone().map(|wide| wide.get(input).map_or(0.0, |value| f64::from(*value))));
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun::change_vector::ChangeKind;

    /// Changes where two inputs are on the same side: nothing that a sum of inputs could say.
    fn sample(rng: &mut Rng) -> Sample {
        let wide: [f32; WIDE] = std::array::from_fn(|_| rng.unit());
        let changed = ((wide[3] > 0.5) == (wide[7] > 0.5)).then_some(ChangeKind::Modified);
        Sample {
            block: 0,
            sequence: Vec::new(),
            wide,
            score: 0.0,
            changed,
            stands_for: 1.0,
            within: None,
            within_score: 0.0,
            formula_score: 0.0,
        }
    }

    fn epoch(rng: &mut Rng) -> Vec<Sample> {
        (0..300).map(|_| sample(rng)).collect()
    }

    #[test]
    fn it_learns_what_no_sum_of_inputs_says() {
        let (mut trees, mut rng) = (Trees::new(1), Rng::new(5));
        for at in 1..=15 {
            trees.remember(&epoch(&mut rng));
            assert_eq!(trees.learn(1e3), at % EPOCHS_BETWEEN == 0, "epoch {at}");
        }
        assert_eq!(trees.makings.len(), MAKINGS);
        let unseen = epoch(&mut rng);
        let wides: Vec<_> = unseen.iter().map(|sample| sample.wide).collect();
        let scores = trees.score(&wides);
        let right =
            unseen.iter().zip(scores).filter(|(sample, score)| sample.changed.is_some() == (*score > 0.5));
        assert!(right.count() > 270);
    }

    #[test]
    fn time_is_saved_up_for_and_owed() {
        let (mut trees, mut rng) = (Trees::new(1), Rng::new(5));
        for _ in 0..2 * EPOCHS_BETWEEN {
            trees.remember(&epoch(&mut rng));
            assert!(!trees.learn(0.0), "no time at all");
        }
        assert!(trees.learn(trees.seconds_a_sample * trees.kept.len() as f64));
        trees.saved = -10.0;
        for _ in 0..EPOCHS_BETWEEN {
            trees.remember(&epoch(&mut rng));
            assert!(!trees.learn(1.0), "the last making took ten seconds too long");
        }
    }

    #[test]
    fn it_wants_both_sorts_and_numbers() {
        let (mut trees, mut rng) = (Trees::new(1), Rng::new(5));
        let mut samples = epoch(&mut rng);
        samples.retain(|sample| sample.changed.is_some());
        for _ in 0..EPOCHS_BETWEEN {
            trees.remember(&samples);
        }
        assert!(!trees.learn(1e3) && !trees.are_there(), "nothing that did not change");
        samples = epoch(&mut rng);
        samples.iter_mut().for_each(|sample| sample.wide[2] = f32::NAN);
        let before = trees.kept.len();
        trees.remember(&samples);
        assert_eq!(trees.kept.len(), before);
        trees.remember(&epoch(&mut rng));
        assert!(trees.learn(1e3));
    }

    #[test]
    fn old_samples_fade_and_never_go_all_at_once() {
        let (mut trees, mut rng) = (Trees::new(1), Rng::new(5));
        let mut old = epoch(&mut rng);
        old.iter_mut().for_each(|sample| sample.wide[0] = 2.0);
        let new = epoch(&mut rng);
        let old_ones = |trees: &Trees| trees.kept.iter().filter(|kept| kept.wide[0] > 1.0).count();
        while trees.kept.len() < MAX_SAMPLES {
            trees.remember(&old);
        }
        for _ in 0..MAX_SAMPLES / 300 {
            trees.remember(&new);
        }
        assert_eq!(trees.kept.len(), MAX_SAMPLES);
        let left = old_ones(&trees) as f32 / MAX_SAMPLES as f32;
        assert!((0.25..0.5).contains(&left), "{left} left, a share of 1/e is expected");
    }
}
