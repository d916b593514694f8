//! From a scored candidate to a prediction in the table.
//!
//! What a predictor says, `p`, is about the next epoch. For a longer horizon of `h` epochs that the network has not learned,
//! a block that is known to change with the rate `r` (decayed, half-life 12 epochs) is expected within it with
//! `1 - (1 - p) (1 - r)^(h - 1)`, one that never changed with `1 - (1 - p)^h`: as if epochs were independent of each other. Where more
//! epochs like the last one were followed by its change later in such a horizon, their share stands in the place of the
//! rate's: so a rhythm is seen more than one epoch ahead. What comes of it is calibrated on horizons that have ended, up to 16
//! epochs; for a longer one it is not, and overstates blocks that change in bursts.

use std::collections::HashMap;

use forerun::geometry::BlockIndex;
use forerun::prediction::{PredictedKind, Prediction};

use crate::facts::Facts;

/// Below this, a prediction is of no use to anybody: no threshold reaches that far down.
pub const MIN_PROBABILITY: f32 = 0.01;

/// The probability of a change within `horizon` epochs, from that of one in the next. `looked_ahead`: the facts tell what
/// changed after similar epochs within just this horizon.
#[must_use]
pub fn within(horizon: u32, next: f32, facts: &Facts, looked_ahead: bool) -> f32 {
    if horizon <= 1 {
        return next;
    }
    let similar = if looked_ahead { facts.similar_later.clamp(0.0, 1.0) } else { 0.0 };
    let [_, _, rate, _] = facts.rates;
    let rate = if facts.count > 0 { rate.clamp(0.0, 1.0) } else { next };
    let later = 1.0 - (1.0 - rate).powi((horizon - 1) as i32);
    1.0 - (1.0 - next) * (1.0 - later.max(similar))
}

/// Changes that are expected, and reads, as one list: of a block that is in both, what is more probable.
#[must_use]
pub fn together(mut changes: Vec<Prediction>, reads: &[Prediction]) -> Vec<Prediction> {
    let at: HashMap<BlockIndex, usize> =
        changes.iter().enumerate().map(|(at, prediction)| (prediction.block, at)).collect();
    for read in reads {
        let read = Prediction { kind: PredictedKind::Read, ..*read };
        match at.get(&read.block).and_then(|at| changes.get_mut(*at)) {
            Some(change) if change.probability.get() >= read.probability.get() => {}
            Some(change) => *change = read,
            None => changes.push(read),
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use forerun::prediction::Probability;

    use super::*;

    #[test]
    fn of_two_expectations_of_a_block_the_more_probable_one_counts() {
        let some = |block, kind, probability| Prediction {
            block: BlockIndex(block),
            kind,
            probability: Probability::new(probability).expect("in range"),
        };
        use PredictedKind::{Added, Modified, Read};
        let changes = vec![some(1, Modified, 0.5), some(2, Added, 0.5), some(3, Modified, 0.5)];
        // As the learner makes them: it calls every event a modification.
        let reads = [some(2, Modified, 0.4), some(3, Modified, 0.6), some(4, Modified, 0.1)];
        let expected = [some(1, Modified, 0.5), some(2, Added, 0.5), some(3, Read, 0.6), some(4, Read, 0.1)];
        assert_eq!(together(changes, &reads), expected);
    }
}
