//! Calibration for the epoch at hand: the long memory's curve, moved to as many changes as are expected now.
//!
//! What a score means relative to others is stable; how much changes an epoch is not, and shifts faster than the curve of
//! [`Calibration`] forgets. So there are two forecasts of the number of candidates that change: the sum of the curve's
//! probabilities, and a mean of the last epochs' numbers, of which each counts half as much as the next. Both are
//! combined in logarithms, weighted by the inverse of their mean squared errors lately (Bates, Granger, "The combination
//! of forecasts", 1969), and all odds are multiplied by one factor such that the probabilities add up to that. The order
//! of the candidates stays.

use serde::{Deserialize, Serialize};

use crate::calibrate::Calibration;
use crate::contexts::to_logit;

/// What the mean of the last epochs' numbers keeps from one epoch to the next.
const VOLUME_KEPT: f64 = 0.5;
/// What the forecasts' errors keep.
const ERRORS_KEPT: f64 = 0.9;
/// The squared errors that the two begin with: the curve is trusted more until it is known better.
const FIRST_ERRORS: [f64; 2] = [2.0, 4.0];
/// Added to numbers of changes before their logarithm is taken: below about ten, a factor means little.
const SMALL: f64 = 10.0;
/// The most that logits are moved by.
const MAX_SHIFT: f64 = 2.0;
/// The scores' logits are counted in bins of this width when their probabilities are added up.
const BIN: f32 = 0.05;
const MAX_LOGIT: f32 = 7.0;

/// What the scores of one predictor mean, with the level of the epoch that they are for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Leveled {
    curve: Calibration,
    /// The curve with the level of the epoch that is predicted.
    leveled: Calibration,
    /// Decayed number of changes, and of epochs.
    volume: [f64; 2],
    /// Decayed squared errors of the curve's forecast and of the volume's.
    errors: [f64; 2],
    /// What both said of the epoch that is predicted; `None` before scores were given.
    forecasts: Option<[f64; 2]>,
}

impl Default for Leveled {
    fn default() -> Self {
        let curve = Calibration::default();
        Self { leveled: curve.clone(), curve, volume: [0.0; 2], errors: FIRST_ERRORS, forecasts: None }
    }
}

impl Leveled {
    /// Sets the level for the epoch that these scores are for.
    pub fn prepare(&mut self, scores: &[f32]) {
        let mut counts = vec![0u32; (2.0 * MAX_LOGIT / BIN) as usize + 1];
        for score in scores.iter().filter(|score| **score > 0.0) {
            if let Some(count) = counts.get_mut(((to_logit(*score) + MAX_LOGIT) / BIN) as usize) {
                *count += 1;
            }
        }
        // (probability by the curve, how many).
        let expected: Vec<(f64, f64)> = counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bin, count)| {
                let logit = (bin as f32 + 0.5) * BIN - MAX_LOGIT;
                (f64::from(self.curve.probability_at(logit)), f64::from(*count))
            })
            .collect();
        let by_curve = sum_with(&expected, 0.0);
        let [changes, epochs] = self.volume;
        let by_volume = if epochs > 0.0 { changes / epochs } else { by_curve };
        self.forecasts = Some([by_curve, by_volume]);
        let [curve_error, volume_error] = self.errors.map(|error| error.max(1e-6));
        let volume_share = curve_error / (curve_error + volume_error);
        let log = |count: f64| (count + SMALL).ln();
        let wanted = (log(by_curve) * (1.0 - volume_share) + log(by_volume) * volume_share).exp() - SMALL;
        self.leveled = self.curve.shifted(shift_to(&expected, wanted));
    }

    /// The probability that a score means in the epoch that is predicted; 0 for no score.
    #[must_use]
    pub fn probability(&self, score: f32) -> f32 {
        self.leveled.probability(score)
    }

    /// The curve of the long memory, whatever the epoch.
    #[must_use]
    pub const fn curve(&self) -> &Calibration {
        &self.curve
    }

    /// Takes an epoch's scores and what became of them.
    pub fn learn(&mut self, scores: &[f32], changed: &[bool]) {
        let happened = scores.iter().zip(changed).filter(|(score, changed)| **score > 0.0 && **changed);
        let happened = happened.count() as f64;
        if let Some(forecasts) = self.forecasts.take() {
            for (error, forecast) in self.errors.iter_mut().zip(forecasts) {
                let apart = ((happened + SMALL) / (forecast + SMALL)).ln();
                *error = *error * ERRORS_KEPT + apart * apart;
            }
        }
        let [changes, epochs] = self.volume;
        self.volume = [changes * VOLUME_KEPT + happened, epochs * VOLUME_KEPT + 1.0];
        self.curve.learn(scores, changed);
        self.leveled = self.curve.clone();
    }

    /// Whether what was read from a file is such a calibration.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let sound = |value: &f64| value.is_finite() && *value >= 0.0;
        self.curve.is_sound()
            && self.leveled.is_sound()
            && self.volume.iter().chain(&self.errors).chain(self.forecasts.iter().flatten()).all(sound)
    }
}

/// The sum of probabilities whose logits are moved by `shift`.
fn sum_with(expected: &[(f64, f64)], shift: f64) -> f64 {
    let factor = shift.exp();
    expected.iter().map(|(p, count)| p * factor / (1.0 - p + p * factor) * count).sum()
}

/// The move of all logits with which the probabilities add up to `wanted`, within bounds; by halving.
fn shift_to(expected: &[(f64, f64)], wanted: f64) -> f64 {
    let (mut low, mut high) = (-MAX_SHIFT, MAX_SHIFT);
    for _ in 0..30 {
        let middle = f64::midpoint(low, high);
        if sum_with(expected, middle) < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::score::Reliability;
    use proptest::prelude::*;

    /// The same order of 1,000 candidates each epoch, but for phases of twenty epochs ten times as much changes.
    fn phases(epochs: u32, mut each: impl FnMut(u32, &[f32], &[bool])) {
        let mut rng = Rng::new(7);
        for epoch in 0..epochs {
            let scores: Vec<f32> = (0..1000).map(|_| rng.unit()).collect();
            let most = if epoch / 20 % 2 == 0 { 0.08 } else { 0.8 };
            let changed: Vec<bool> = scores.iter().map(|score| rng.unit() < score * score * most).collect();
            each(epoch, &scores, &changed);
        }
    }

    #[test]
    fn phases_of_another_volume_are_followed() {
        let (mut leveled, mut curve) = (Leveled::default(), Calibration::default());
        let (mut with, mut without) = (Reliability::default(), Reliability::default());
        let mut sums = [0.0; 2];
        phases(200, |epoch, scores, changed| {
            leveled.prepare(scores);
            // All but the first two epochs of each phase, of which the first cannot be known.
            if epoch >= 40 && epoch % 20 > 1 {
                let happened = changed.iter().filter(|changed| **changed).count() as f64;
                for (own, probability) in sums.iter_mut().zip([&leveled.leveled, &curve]) {
                    let said: f32 = scores.iter().map(|score| probability.probability(*score)).sum();
                    *own += (f64::from(said) / happened).ln().abs() / 144.0;
                }
                for (score, changed) in scores.iter().zip(changed) {
                    with.take(leveled.probability(*score), *changed);
                    without.take(curve.probability(*score), *changed);
                }
            }
            leveled.learn(scores, changed);
            curve.learn(scores, changed);
        });
        let [leveled, plain] = sums;
        assert!(leveled < 0.5 * plain, "the volume is wrong by {leveled} and {plain} in logarithms");
        let (count, share) = with.at_0_7_to_0_9();
        assert!(count > 50 && (0.6..0.95).contains(&share), "{count} at 0.7 to 0.9, {share} changed");
        assert!(without.at_0_7_to_0_9().0 < count / 2, "the curve alone never knows");
    }

    #[test]
    fn a_steady_volume_is_left_to_the_curve() {
        let (mut leveled, mut rng) = (Leveled::default(), Rng::new(1));
        let mut reliability = Reliability::default();
        for epoch in 0..60 {
            let scores: Vec<f32> = (0..1000).map(|_| rng.unit()).collect();
            let changed: Vec<bool> = scores.iter().map(|score| rng.unit() < score * score).collect();
            leveled.prepare(&scores);
            if epoch >= 20 {
                let pairs = scores.iter().zip(&changed);
                pairs.for_each(|(score, changed)| reliability.take(leveled.probability(*score), *changed));
            }
            leveled.learn(&scores, &changed);
        }
        assert!(reliability.error() < 0.02, "{}", reliability.error());
    }

    proptest! {
        #[test]
        fn the_order_stays(
            epochs in proptest::collection::vec(proptest::collection::vec((0.0f32..=1.0, any::<bool>()), 0..60), 1..6),
        ) {
            let mut leveled = Leveled::default();
            for epoch in epochs {
                let (scores, changed): (Vec<f32>, Vec<bool>) = epoch.into_iter().unzip();
                leveled.prepare(&scores);
                let said: Vec<f32> = (0..=200).map(|at| leveled.probability(at as f32 / 200.0)).collect();
                prop_assert!(said.is_sorted() && said.iter().all(|p| (0.0..=1.0).contains(p)), "{:?}", said);
                leveled.learn(&scores, &changed);
                prop_assert!(leveled.is_sound());
            }
        }
    }
}
