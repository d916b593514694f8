//! How much the volume will grow: the blocks added in the coming epochs, for which free slots are kept.
//!
//! The larger of two: what has been added lately (an exponentially weighted mean and the mean deviation from it, the
//! estimator of Jacobson, "Congestion avoidance and control", 1988), and what the table in force expects to be
//! added, which sees a nightly load coming that the mean has forgotten.

use forerun::change_vector::{ChangeKind, ChangeVector};
use forerun::prediction::{Horizon, PredictedKind};
use forerun::prediction_table::Table;

/// The weight of a new epoch in the mean.
const GAIN: f64 = 0.125;
/// Mean deviations that are added to the mean.
const DEVIATIONS: f64 = 1.0;

/// Blocks added an epoch.
#[derive(Default, Debug)]
pub(super) struct Growth {
    mean: f64,
    deviation: f64,
    epochs: u32,
    /// The sum of the probabilities of what the table in force expects to be added within its horizon.
    expected: f64,
    expected_epochs: u32,
}

impl Growth {
    /// A sealed epoch's additions.
    pub fn happened(&mut self, vector: &ChangeVector) {
        let added = vector.changes().iter().filter(|change| change.kind == ChangeKind::Added).count() as f64;
        // The first epoch is all there is to go by.
        let gain = if self.epochs == 0 { 1.0 } else { GAIN };
        let error = added - self.mean;
        self.deviation += if self.epochs == 0 { 0.0 } else { gain * (error.abs() - self.deviation) };
        self.mean += gain * error;
        self.epochs = self.epochs.saturating_add(1);
    }

    /// Another table is in force.
    pub fn expect(&mut self, table: &Table) {
        let added = table.predictions.iter().filter(|prediction| prediction.kind == PredictedKind::Added);
        self.expected = added.map(|prediction| f64::from(prediction.probability.get())).sum();
        self.expected_epochs = table.info.horizon.epochs();
    }

    /// No table is in force.
    pub fn expect_nothing(&mut self) {
        self.expected = 0.0;
    }

    /// Blocks that are going to be added within the horizon.
    pub fn forecast(&self, horizon: Horizon) -> u64 {
        let epochs = f64::from(horizon.epochs());
        let lately = (self.mean + DEVIATIONS * self.deviation) * epochs;
        let expected = self.expected * epochs / f64::from(self.expected_epochs.max(1));
        lately.max(expected).ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use forerun::change_vector::Change;
    use forerun::geometry::{BlockIndex, Epoch};
    use forerun::prediction::{Prediction, Probability};
    use forerun::prediction_table::TableInfo;

    use super::*;

    fn vector(added: u32) -> ChangeVector {
        let change = |block, kind| Change { block: BlockIndex(block), kind, sub_blocks: 1 };
        let mut changes: Vec<Change> = (0..added).map(|block| change(block, ChangeKind::Added)).collect();
        changes.extend((added..added + 50).map(|block| change(block, ChangeKind::Modified)));
        ChangeVector::new(Epoch(1), 1, 2, changes).expect("a sound vector")
    }

    fn table(added: u32, horizon: Horizon) -> Table {
        let prediction = |block, kind| Prediction {
            block: BlockIndex(block),
            kind,
            probability: Probability::new(0.5).expect("in range"),
        };
        let mut predictions: Vec<Prediction> =
            (0..added).map(|block| prediction(block, PredictedKind::Added)).collect();
        predictions.push(prediction(added, PredictedKind::Modified));
        let info =
            TableInfo { model: String::new(), epoch: Epoch(1), horizon, generation: 1, published_us: 1 };
        Table { info, predictions }
    }

    #[test]
    fn steady_growth_goes_on_and_a_predicted_load_is_seen() {
        let horizon = |epochs| Horizon::new(epochs).expect("in range");
        let mut growth = Growth::default();
        assert_eq!(growth.forecast(horizon(1)), 0);
        (0..20).for_each(|_| growth.happened(&vector(100)));
        assert_eq!((growth.forecast(horizon(1)), growth.forecast(horizon(4))), (100, 400));
        // 1,000 blocks at 0.5 within two epochs.
        growth.expect(&table(1000, horizon(2)));
        assert_eq!((growth.forecast(horizon(2)), growth.forecast(horizon(1))), (500, 250));
        growth.expect_nothing();
        (0..60).for_each(|_| growth.happened(&vector(0)));
        assert!(growth.forecast(horizon(1)) < 10, "{}", growth.forecast(horizon(1)));
    }

    #[test]
    fn what_varies_gets_more_room_than_its_mean() {
        let mut growth = Growth::default();
        (0..200).for_each(|at| growth.happened(&vector(200 * (at % 2))));
        let forecast = growth.forecast(Horizon::DEFAULT);
        assert!((180..220).contains(&forecast), "{forecast}");
    }
}
