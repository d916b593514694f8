//! The blend: logistic regression on what the other predictors say, learning online.
//!
//! It begins as a mean of the four that learn, and finds out by itself which of them, and which of the simple ones,
//! say something on this volume that the others do not (stacking; Wolpert, "Stacked generalization", 1992). Its inputs
//! were made before what it learns from was known, as every score is.

use super::Learner;
use super::candidates::Scored;
use crate::contexts::{from_logit, to_logit};
use crate::logistic::Logistic;
use crate::predictors::Predictor;

/// The predictors that are blended, and the weight each begins with.
const BLENDED: [(Predictor, f32); 11] = [
    (Predictor::Lstm, 0.4),
    (Predictor::BoostedTrees, 0.2),
    (Predictor::Linear, 0.2),
    (Predictor::ContextTables, 0.2),
    (Predictor::DecayedRate1, 0.0),
    (Predictor::DecayedRate12, 0.0),
    (Predictor::DecayedRate48, 0.0),
    (Predictor::GrowthFrontier, 0.0),
    (Predictor::SimilarEpochs, 0.0),
    (Predictor::Chains, 0.0),
    (Predictor::Association, 0.0),
];
/// Logits, which reach from -7 to 7, come in as so much less.
const SCALE: f32 = 4.0;
/// The length of the first steps: shorter than for the linear predictor, as the blend begins near where it will end.
const RATE: f32 = 0.02;

/// The weights of the blend.
pub(super) type Weights = Logistic<{ BLENDED.len() }>;

/// Those that the blend begins with.
pub(super) fn first_weights() -> Weights {
    Logistic::new(BLENDED.map(|(_, weight)| weight * SCALE), 0.0, RATE)
}

/// A candidate's inputs to the blend, for all candidates.
struct Inputs<'a> {
    scores: [Option<(&'a [f32], &'a crate::calibrate::Calibration)>; BLENDED.len()],
}

impl<'a> Inputs<'a> {
    /// `None` where the network has not scored. Of the others one may not have: the trees have to grow first.
    fn new(learner: &'a Learner, scored: &'a Scored) -> Option<Self> {
        scored.of(Predictor::Lstm)?;
        let found = |(predictor, _)| {
            Some((scored.of(predictor)?, learner.calibrations.get(predictor as usize)?.curve()))
        };
        Some(Self { scores: BLENDED.map(found) })
    }

    fn of(&self, at: usize) -> [f32; BLENDED.len()] {
        self.scores.map(|scores| {
            let Some((scores, calibration)) = scores else { return 0.0 };
            let score = scores.get(at).copied().unwrap_or(0.0);
            // The calibrated value for the level, a little of the score itself to break its ties.
            (0.8 * to_logit(calibration.probability(score)) + 0.2 * to_logit(score)) / SCALE
        })
    }
}

impl Learner {
    /// The blend's scores; empty where the network has not scored.
    pub(super) fn blend(&self, scored: &Scored) -> Vec<f32> {
        let Some(inputs) = Inputs::new(self, scored) else { return Vec::new() };
        (0..scored.blocks.len()).map(|at| from_logit(self.blending.logit(&inputs.of(at)))).collect()
    }

    /// Learns from some of the candidates, (index, for how many it stands), with the calibrations that the scores were
    /// blended with.
    pub(super) fn learn_to_blend(&mut self, scored: &Scored, changed: &[bool], chosen: &[(usize, f32)]) {
        let mut weights = std::mem::replace(&mut self.blending, first_weights());
        if let Some(inputs) = Inputs::new(self, scored) {
            for (at, weight) in chosen {
                weights.learn(&inputs.of(*at), changed.get(*at) == Some(&true), *weight);
            }
        }
        self.blending = weights;
    }
}
