//! The pool: the mean of the probabilities of those predictors that are good on this volume.
//!
//! A linear opinion pool (Stone, "The opinion pool", 1961), of all whose mean average precision is close to the best one's
//! lately ([`Scoreboard::members`](crate::select::Scoreboard::members)). Which of them is the best of the next epochs nobody
//! knows, and each is wrong about the level of an epoch in a way of its own: their mean is wrong by less. It is made of
//! calibrated probabilities and not calibrated again, which was measured to be worse.

use super::candidates::Scored;
use super::{Learner, probability_by};
use crate::predictors::Predictor;

/// The share that a member's score itself has in what it says: breaks the ties of its probabilities.
const OWN_ORDER: f32 = 0.001;

impl Learner {
    /// The pool's scores, which are probabilities, from calibrations that were prepared for these candidates.
    pub(super) fn pool(&self, scored: &Scored) -> Vec<f32> {
        let members = self
            .scoreboard
            .members(|predictor| predictor != Predictor::Pool && scored.of(predictor).is_some());
        let mut pool = vec![0.0; scored.blocks.len()];
        for (predictor, share) in members {
            debug_assert!(predictor != Predictor::Pool && (0.0..=1.0).contains(&share));
            let calibration = self.calibrations.get(predictor as usize);
            for (sum, score) in pool.iter_mut().zip(scored.of(predictor).unwrap_or_default()) {
                let probability = probability_by(calibration, *score);
                *sum += share * (probability + OWN_ORDER * (*score - probability));
            }
        }
        pool
    }
}
