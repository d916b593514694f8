//! Who serves: the predictor that scored best on this volume lately, if any is good enough; and who is in the pool.
//!
//! Scores come only from predictions that were made before the epoch they are scored by. Recent epochs
//! count more; a change of the best single predictor takes a margin, so that noise does not make it flap. The pool serves in
//! its place where it is about as good in the order, and its probabilities are better: by log loss, which is least for
//! true ones (a proper score), whatever the order.

use serde::{Deserialize, Serialize};

use crate::predictors::{CALIBRATED, PREDICTORS, Predictor};
use crate::score::Outcome;

/// What a score keeps from one epoch to the next.
const KEPT: f64 = 0.9;
/// The epochs that most of a score comes from: what is reported as its window.
pub const WINDOW_EPOCHS: u32 = 12;
/// By how much another predictor has to be better to take over.
const MARGIN: f64 = 0.01;
/// Epochs that must have been scored before anything is said to pay.
const MIN_EPOCHS: u32 = 2;
/// Having paid, it goes on paying down to this share of the bound.
const STAYS_ABOVE: f64 = 0.8;
/// By how much the pool's mean average precision may be below that of the single one whose place it takes.
const POOL_BELOW: f64 = 0.01;
/// How far below the best a member of the pool may be.
const MEMBER_BELOW: f64 = 0.01;
/// A member's share in the pool falls by a factor of e with each so many nats of log loss, per candidate that changed.
const MEMBER_NATS: f64 = 1.0 / 3.0;
/// Epochs after which a predictor is known as well as one that was always there.
const KNOWN_EPOCHS: u32 = 3;
/// Who serves before anything was scored.
const FIRST: Predictor = Predictor::DecayedRate3;

/// One predictor's results, decayed.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    average_precision: f64,
    log_loss: f64,
    weight: f64,
    /// Predicted at the threshold and above; of those, changed; changed in all.
    predicted: f64,
    right: f64,
    changed: f64,
    /// Epochs scored.
    pub epochs: u32,
}

impl Tally {
    /// Mean average precision over the window, 0 to 1.
    #[must_use]
    pub fn mean_average_precision(&self) -> f64 {
        if self.weight > 0.0 { self.average_precision / self.weight } else { 0.0 }
    }

    /// Log loss over the window, in nats for each candidate that changed.
    #[must_use]
    pub fn log_loss(&self) -> f64 {
        if self.weight > 0.0 { self.log_loss / self.weight } else { f64::INFINITY }
    }

    /// Of what was predicted at the threshold and above, the share that changed.
    #[must_use]
    pub fn precision(&self) -> f64 {
        if self.predicted > 0.0 { self.right / self.predicted } else { 0.0 }
    }

    /// Of what changed, the share predicted at the threshold and above.
    #[must_use]
    pub fn recall(&self) -> f64 {
        if self.changed > 0.0 { self.right / self.changed } else { 0.0 }
    }

    fn is_sound(&self) -> bool {
        [self.average_precision, self.log_loss, self.weight, self.predicted, self.right, self.changed]
            .iter()
            .all(|value| value.is_finite() && *value >= 0.0)
    }
}

/// What one epoch said of one predictor.
#[derive(Clone, Copy, Debug, Default)]
pub struct EpochScore {
    /// Average precision.
    pub average_precision: f64,
    /// Log loss, in nats for each candidate that changed.
    pub log_loss: f64,
    /// What was predicted at the threshold and above.
    pub outcome: Outcome,
}

/// All predictors' results, and who serves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scoreboard {
    tallies: Vec<Tally>,
    /// The single predictor that is chosen, and whether the pool takes its place.
    single: usize,
    pools: bool,
    pays: bool,
}

impl Default for Scoreboard {
    fn default() -> Self {
        Self {
            tallies: vec![Tally::default(); PREDICTORS],
            single: FIRST as usize,
            pools: false,
            pays: false,
        }
    }
}

impl Scoreboard {
    /// Takes what an epoch said of one predictor.
    pub fn learn(&mut self, predictor: Predictor, score: EpochScore) {
        debug_assert!((0.0..=1.0).contains(&score.average_precision), "{score:?}");
        debug_assert!(score.log_loss >= 0.0 && score.outcome.right <= score.outcome.predicted, "{score:?}");
        if let Some(tally) = self.tallies.get_mut(predictor as usize) {
            tally.average_precision = tally.average_precision * KEPT + score.average_precision;
            tally.log_loss = tally.log_loss * KEPT + score.log_loss;
            tally.weight = tally.weight * KEPT + 1.0;
            tally.predicted = tally.predicted * KEPT + score.outcome.predicted as f64;
            tally.right = tally.right * KEPT + score.outcome.right as f64;
            tally.changed = tally.changed * KEPT + score.outcome.changed as f64;
            tally.epochs = tally.epochs.saturating_add(1);
        }
    }

    /// Chooses anew, after an epoch's scores were taken; predictions pay from `bound` on.
    pub fn choose(&mut self, bound: f64) {
        let best = self.best(|predictor| predictor != Predictor::Pool);
        // A predictor with one lucky epoch does not push out one with many.
        let experienced = self.tally(best).epochs >= self.tally(self.single()).epochs.min(KNOWN_EPOCHS);
        let better = self.map(best) > self.map(self.single()) + MARGIN;
        if experienced && better {
            self.single = best as usize;
        }
        let (pool, single) = (self.tally(Predictor::Pool), self.tally(self.single()));
        self.pools = pool.epochs > 0
            && pool.mean_average_precision() >= single.mean_average_precision() - POOL_BELOW
            && pool.log_loss() < single.log_loss();
        let bound = if self.pays { bound * STAYS_ABOVE } else { bound };
        self.pays = self.tally(self.serving()).epochs >= MIN_EPOCHS && self.map(self.serving()) >= bound;
    }

    /// Who serves.
    #[must_use]
    pub fn serving(&self) -> Predictor {
        if self.pools { Predictor::Pool } else { self.single() }
    }

    fn single(&self) -> Predictor {
        Predictor::ALL.get(self.single).copied().unwrap_or(FIRST)
    }

    /// The members of the pool among `these`, each with its share: all that are nearly as good as the best, the more so the
    /// better their probabilities are.
    #[must_use]
    pub fn members(&self, these: impl Fn(Predictor) -> bool) -> Vec<(Predictor, f32)> {
        let longest = self.tallies.iter().map(|tally| tally.epochs).max().unwrap_or(0);
        let known = |predictor: &Predictor| self.tally(*predictor).epochs >= longest.clamp(1, KNOWN_EPOCHS);
        let mut members: Vec<Predictor> =
            Predictor::ALL.into_iter().filter(|predictor| these(*predictor)).filter(known).collect();
        let best = members.iter().map(|predictor| self.map(*predictor)).fold(0.0, f64::max);
        members.retain(|predictor| self.map(*predictor) >= best - MEMBER_BELOW);
        if members.is_empty() {
            members.push(FIRST);
        }
        let loss = |predictor: &Predictor| self.tally(*predictor).log_loss().min(f64::MAX);
        let least = members.iter().map(loss).fold(f64::MAX, f64::min);
        let parts: Vec<f64> = members.iter().map(|own| ((least - loss(own)) / MEMBER_NATS).exp()).collect();
        let all: f64 = parts.iter().sum();
        // The one with the least loss has a part of 1.
        debug_assert!((1.0..=members.len() as f64).contains(&all), "{parts:?}");
        members.into_iter().zip(parts).map(|(predictor, part)| (predictor, (part / all) as f32)).collect()
    }

    /// Whether acting on predictions is advised.
    #[must_use]
    pub const fn pays(&self) -> bool {
        self.pays
    }

    /// A predictor's results.
    #[must_use]
    pub fn tally(&self, predictor: Predictor) -> Tally {
        self.tallies.get(predictor as usize).copied().unwrap_or_default()
    }

    /// Why who serves serves, or why nothing pays, for people.
    #[must_use]
    pub fn reason(&self, bound: f64) -> String {
        let serving = self.serving();
        let tally = self.tally(serving);
        if tally.epochs < MIN_EPOCHS {
            return format!("too early to say: {} of {MIN_EPOCHS} epochs scored", tally.epochs);
        }
        let own = format!("{} {:.2}", serving.name(), self.map(serving));
        let window = format!("over the last {} epochs", tally.epochs.min(WINDOW_EPOCHS));
        if !self.pays {
            return format!("nothing predicts well enough: the best is {own} {window}, {bound:.2} is wanted");
        }
        // Set against the best of the other sort: the simple ones are what a learned one has to beat.
        let rival = self.best(|other| other != serving && other.is_simple() != serving.is_simple());
        format!("{own} against {} {:.2} {window}", rival.name(), self.map(rival))
    }

    /// Whether what was read from a file is a scoreboard.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.tallies.len() == PREDICTORS
            && self.single < CALIBRATED
            && self.tallies.iter().all(Tally::is_sound)
    }

    fn map(&self, predictor: Predictor) -> f64 {
        self.tally(predictor).mean_average_precision()
    }

    fn best(&self, wanted: impl Fn(Predictor) -> bool) -> Predictor {
        let among = Predictor::ALL.into_iter().filter(|predictor| wanted(*predictor));
        among.max_by(|a, b| self.map(*a).total_cmp(&self.map(*b))).unwrap_or(FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(board: &mut Scoreboard, scores: &[(Predictor, f64)]) {
        for (predictor, average_precision) in scores {
            board.learn(
                *predictor,
                EpochScore { average_precision: *average_precision, ..Default::default() },
            );
        }
        board.choose(0.1);
    }

    #[test]
    fn the_best_lately_serves_and_says_why() {
        let mut board = Scoreboard::default();
        assert!(!board.pays() && board.reason(0.1).contains("too early"));
        for _ in 0..12 {
            learn(&mut board, &[(Predictor::Lstm, 0.61), (Predictor::DecayedRate12, 0.55)]);
        }
        assert_eq!((board.serving(), board.pays()), (Predictor::Lstm, true));
        assert_eq!(board.reason(0.1), "lstm 0.61 against decayed-rate-12 0.55 over the last 12 epochs");
        learn(&mut board, &[(Predictor::Lstm, 0.50), (Predictor::DecayedRate12, 0.55)]);
        assert_eq!(board.serving(), Predictor::Lstm, "one bad epoch is not enough");
        for _ in 0..12 {
            learn(&mut board, &[(Predictor::Lstm, 0.40), (Predictor::DecayedRate12, 0.55)]);
        }
        assert_eq!(board.serving(), Predictor::DecayedRate12);
    }

    /// Scores of (predictor, average precision, log loss) in each of twelve epochs.
    fn learn_losses(board: &mut Scoreboard, scores: &[(Predictor, f64, f64)]) {
        for _ in 0..12 {
            for &(predictor, average_precision, log_loss) in scores {
                board.learn(predictor, EpochScore { average_precision, log_loss, ..Default::default() });
            }
            board.choose(0.1);
        }
    }

    #[test]
    fn the_pool_serves_where_it_is_no_worse_and_truer() {
        use Predictor::{Lstm, Pool};
        let served = |pool: f64, loss: f64| {
            let mut board = Scoreboard::default();
            learn_losses(&mut board, &[(Lstm, 0.5, 2.0), (Pool, pool, loss)]);
            board.serving()
        };
        assert_eq!(served(0.495, 1.9), Pool);
        assert_eq!(served(0.495, 2.1), Lstm, "its probabilities are worse");
        assert_eq!(served(0.48, 1.9), Lstm, "its order is worse");
        assert_eq!(served(0.6, 2.1), Lstm, "who is single is compared with single ones");
    }

    #[test]
    fn in_the_pool_is_who_is_close_to_the_best_and_true() {
        use Predictor::{Association, Chains, DecayedRate3, Linear, Lstm};
        let mut board = Scoreboard::default();
        let all = |_: Predictor| true;
        assert_eq!(board.members(all), [(DecayedRate3, 1.0)], "before anything was scored");
        learn_losses(&mut board, &[(Lstm, 0.5, 2.0), (Linear, 0.495, 2.0), (Chains, 0.47, 1.0)]);
        assert_eq!(board.members(all), [(Linear, 0.5), (Lstm, 0.5)]);
        learn_losses(&mut board, &[(Lstm, 0.5, 2.0), (Linear, 0.495, 2.0), (Chains, 0.45, 1.0)]);
        assert_eq!(board.members(|predictor| predictor != Lstm), [(Linear, 1.0)]);
        board.learn(Association, EpochScore { average_precision: 0.9, ..Default::default() });
        assert_eq!(board.members(all).len(), 2, "one lucky epoch is none");
        let mut board = Scoreboard::default();
        learn_losses(&mut board, &[(Lstm, 0.5, 2.0), (Linear, 0.5, 3.0)]);
        let shares = board.members(all);
        assert!(shares[0].1 < 0.06 && (shares[0].1 + shares[1].1 - 1.0).abs() < 1e-6, "{shares:?}");
    }

    #[test]
    fn where_nothing_predicts_it_says_so_and_comes_back() {
        let mut board = Scoreboard::default();
        for _ in 0..5 {
            learn(&mut board, &[(Predictor::Lstm, 0.03), (Predictor::LastEpoch, 0.02)]);
        }
        assert!(!board.pays());
        assert!(board.reason(0.1).contains("nothing predicts"), "{}", board.reason(0.1));
        for _ in 0..5 {
            learn(&mut board, &[(Predictor::Lstm, 0.5), (Predictor::LastEpoch, 0.02)]);
        }
        assert!(board.pays());
    }
}
