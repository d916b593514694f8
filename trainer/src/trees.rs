//! Boosted trees over the wide inputs, made anew every few epochs from samples of all epochs so far.
//!
//! What the network forgets in a day, they keep: samples are replaced by chance, so that old epochs fade and never go all at
//! once. Trees by gradient boosting over binned inputs (Friedman, "Greedy function approximation", 2001; Chen, Guestrin,
//! "XGBoost", 2016), by the crate forust-ml. Its time cannot be cut off, so that it is foretold from the last time, and
//! saved up for over the epochs between.

use forust_ml::objective::ObjectiveType;
use forust_ml::{GradientBooster, Matrix};

use crate::contexts::from_logit;
use crate::cpu::Budget;
use crate::inputs::WIDE;
use crate::model::Sample;
use crate::rng::Rng;

/// The most samples kept: 5 MB, and 13 MB more while trees are made.
const MAX_SAMPLES: usize = 24_576;
/// The most samples that an epoch adds of what changed, and of what did not.
const SAMPLES_A_SORT: usize = 256;
/// Epochs from one making to the next, at least.
const EPOCHS_BETWEEN: u32 = 5;
/// Samples of what changed that there have to be: leaves of fewer would be chance.
const MIN_CHANGED: usize = 32;
/// The size of the model: more trees, larger ones and finer bins were no better on the traces.
const TREES: usize = 150;
const DEPTH: usize = 4;
const LEAVES: usize = 15;
const BINS: u16 = 63;
const RATE: f32 = 0.05;
/// The share of the inputs that a tree may look at.
const INPUTS_SHARE: f64 = 0.7;
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
    model: Option<GradientBooster>,
    epochs_since: u32,
    /// CPU seconds saved up; below 0 where the last making took more.
    saved: f64,
    seconds_a_sample: f64,
    rng: Rng,
    seed: u64,
}

impl Trees {
    /// No tree yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            kept: Vec::new(),
            model: None,
            epochs_since: 0,
            saved: 0.0,
            seconds_a_sample: SECONDS_A_SAMPLE,
            rng: Rng::new(seed ^ 0x7eee5),
            seed,
        }
    }

    /// Keeps some of an epoch's samples, in place of others where there are too many.
    pub fn remember(&mut self, samples: &[Sample]) {
        for changed in [true, false] {
            // A number that is not finite would stop the making of trees; no input of ours should be one.
            let finite = |sample: &&Sample| sample.wide.iter().all(|input| input.is_finite());
            let sort = |sample: &&Sample| sample.changed.is_some() == changed;
            let mut own: Vec<&Sample> = samples.iter().filter(sort).filter(finite).collect();
            let count = own.len().min(SAMPLES_A_SORT);
            let stands_for = own.len() as f32 / count.max(1) as f32;
            for at in 0..count {
                let other = at + self.rng.below(own.len() - at);
                own.swap(at, other);
            }
            for sample in own.into_iter().take(count) {
                let kept = Kept { wide: sample.wide, changed, weight: sample.weight() * stands_for };
                if self.kept.len() < MAX_SAMPLES {
                    self.kept.push(kept);
                } else {
                    let at = self.rng.below(self.kept.len());
                    if let Some(old) = self.kept.get_mut(at) {
                        *old = kept;
                    }
                }
            }
        }
        self.epochs_since = self.epochs_since.saturating_add(1);
    }

    /// Makes the trees anew, if it is time and so many CPU seconds an epoch, with those saved up, are enough. Returns
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
            .set_colsample_bytree(INPUTS_SHARE)
            .set_initialize_base_score(true)
            .set_parallel(false)
            .set_seed(self.seed);
        match model.fit(&Matrix::new(&inputs, self.kept.len(), WIDE), &truth, &weights, None) {
            Ok(()) => self.model = Some(model),
            Err(error) => tracing::warn!("the boosted trees stay as they were: {error}"),
        }
        let took = budget.used().as_secs_f64();
        self.seconds_a_sample = took / self.kept.len() as f64;
        self.saved = (self.saved - took).min(0.0);
        self.epochs_since = 0;
        true
    }

    /// Whether there are trees.
    #[must_use]
    pub const fn are_there(&self) -> bool {
        self.model.is_some()
    }

    /// Scores candidates by their wide inputs, 0 to 1; none where there are no trees yet.
    #[must_use]
    pub fn score(&self, wides: &[[f32; WIDE]]) -> Vec<f32> {
        let Some(model) = &self.model else { return Vec::new() };
        let inputs = columns(wides.iter(), wides.len());
        let logits = model.predict(&Matrix::new(&inputs, wides.len(), WIDE), false);
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
