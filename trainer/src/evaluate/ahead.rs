//! How good predictions for a horizon of several epochs are: by the network's own head, and by the formula that stands in
//! for it.

use std::collections::VecDeque;

use forerun::change_vector::ChangeVector;
use forerun::prediction::{Horizon, Prediction};
use roaring::RoaringBitmap;
use serde::Serialize;

use crate::learner::{HorizonBy, Learner};
use crate::score::{Quality, Reliability, Truth, qualities};

/// Results for a horizon, in the last fifth of the epochs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HorizonReport {
    /// The horizon, in epochs.
    pub epochs: u32,
    /// Predictions that were scored.
    pub scored: usize,
    /// Mean average precision of what is served.
    pub mean_average_precision: f64,
    /// Its expected calibration error at 0.05 and above.
    pub calibration_error: f64,
    /// Mean average precision of the formula alone.
    pub formula_mean_average_precision: f64,
    /// Its expected calibration error at 0.05 and above.
    pub formula_calibration_error: f64,
}

/// What was predicted after an epoch, and what has changed since.
struct Waiting {
    /// The index of the last epoch that it is about.
    last: usize,
    counts: bool,
    predictions: [Vec<Prediction>; 2],
    changed: RoaringBitmap,
}

/// Predictions whose horizon goes on, and what came of the others.
pub(super) struct Ahead {
    horizon: Horizon,
    waiting: VecDeque<Waiting>,
    sums: [(Quality, Reliability); 2],
    scored: usize,
}

impl Ahead {
    pub fn new(horizon: Horizon) -> Self {
        Self { horizon, waiting: VecDeque::new(), sums: Default::default(), scored: 0 }
    }

    /// Takes what is predicted after the epoch with this index; `counts` if it is in the part that is reported.
    pub fn predicted(&mut self, index: usize, counts: bool, learner: &Learner) {
        let predictions = [HorizonBy::Network, HorizonBy::Formula].map(|by| {
            let (_, mut predictions) = learner.predictions_by(self.horizon, by);
            predictions.sort_unstable_by_key(|prediction| prediction.block);
            predictions
        });
        let last = index + self.horizon.epochs() as usize;
        self.waiting.push_back(Waiting { last, counts, predictions, changed: RoaringBitmap::new() });
    }

    /// Takes what changed in the epoch with this index.
    pub fn happened(&mut self, index: usize, vector: &ChangeVector) {
        for waiting in &mut self.waiting {
            waiting.changed.extend(vector.changes().iter().map(|change| change.block.0));
        }
        while self.waiting.front().is_some_and(|waiting| waiting.last <= index) {
            let Some(ended) = self.waiting.pop_front() else { break };
            if ended.counts && !ended.changed.is_empty() {
                self.scored += 1;
                for ((quality, reliability), predictions) in self.sums.iter_mut().zip(&ended.predictions) {
                    score(predictions, &ended.changed, quality, reliability);
                }
            }
        }
    }

    pub fn report(&self) -> HorizonReport {
        let [network, formula] = &self.sums;
        let mean = |quality: &Quality| quality.average_precision / self.scored.max(1) as f64;
        HorizonReport {
            epochs: self.horizon.epochs(),
            scored: self.scored,
            mean_average_precision: mean(&network.0),
            calibration_error: network.1.error(),
            formula_mean_average_precision: mean(&formula.0),
            formula_calibration_error: formula.1.error(),
        }
    }
}

fn score(
    predictions: &[Prediction],
    changed: &RoaringBitmap,
    sum: &mut Quality,
    reliability: &mut Reliability,
) {
    let truth = Truth {
        changed: predictions.iter().map(|prediction| changed.contains(prediction.block.0)).collect(),
        total: changed.len() as usize,
        empty: vec![false; predictions.len()],
        added: 0,
    };
    let scores: Vec<f32> = predictions.iter().map(|prediction| prediction.probability.get()).collect();
    let [all, _] = qualities(&scores, &truth, [0, 0]);
    sum.average_precision += all.unwrap_or_default().average_precision;
    for (score, changed) in scores.iter().zip(&truth.changed) {
        reliability.take(*score, *changed);
    }
}
