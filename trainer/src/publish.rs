//! From a scored candidate to a prediction in the table.
//!
//! What a predictor says, `p`, is about the next epoch. For a longer horizon of `h` epochs that the network has not learned,
//! a block that is known to change with the rate `r` (decayed, half-life 12 epochs) is expected within it with
//! `1 - (1 - p) (1 - r)^(h - 1)`, one that never changed with `1 - (1 - p)^h`: as if epochs were independent of each other.
//! That overstates blocks that change in bursts, and it is not calibrated for the horizon itself.

use crate::facts::Facts;

/// Below this, a prediction is of no use to anybody: no threshold reaches that far down.
pub const MIN_PROBABILITY: f32 = 0.01;

/// The probability of a change within `horizon` epochs, from that of one in the next.
#[must_use]
pub fn within(horizon: u32, next: f32, facts: &Facts) -> f32 {
    if horizon <= 1 {
        return next;
    }
    if facts.count > 0 {
        let [_, _, rate, _] = facts.rates;
        return 1.0 - (1.0 - next) * (1.0 - rate.clamp(0.0, 1.0)).powi((horizon - 1) as i32);
    }
    1.0 - (1.0 - next).powi(horizon as i32)
}
