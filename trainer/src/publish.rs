//! From a scored candidate to a prediction in the table.
//!
//! What a predictor says is about the next epoch. For a longer horizon of `h` epochs, a block that is known to
//! change with the rate `r` (decayed, half-life 12 epochs) is expected within it with `1 - (1 - p) (1 - min(r, p'))^(h - 1)`,
//! `p'` being at least the calibrated p: as if later epochs were independent of each other. That overstates
//! blocks that change in bursts. A block never written before gets what growth adds: the frontier
//! is expected `h` times as far ahead. Neither is calibrated for the horizon itself.

use crate::facts::Facts;

/// Below this, a prediction is of no use to anybody: no threshold reaches that far down.
pub const MIN_PROBABILITY: f32 = 0.01;

/// The probability of a change within `horizon` epochs, from that of one in the next.
#[must_use]
pub fn within(horizon: u32, next: f32, facts: &Facts) -> f32 {
    if horizon <= 1 {
        return next;
    }
    let later = (horizon - 1) as i32;
    if facts.count > 0 {
        let [_, _, rate, _] = facts.rates;
        return 1.0 - (1.0 - next) * (1.0 - rate.clamp(0.0, 1.0)).powi(later);
    }
    // How much likelier exponential growth reaches here with `horizon` times the extension.
    let distance = facts.past_frontier.max(0) as f32;
    let extension = facts.frontier.extension.max(1.0);
    let gain = (distance / extension - distance / (extension * horizon as f32)).exp();
    let steady = if facts.frontier.moves > 0 { gain.min(f32::from(u16::MAX)) } else { 1.0 };
    (next * steady).min(next.max(0.9)).clamp(0.0, 1.0)
}
