//! The predictors that run beside each other on the same candidates, always.
//!
//! Each gives a score in 0 to 1 that orders the candidates; only calibration makes a probability of it. The pool's are
//! probabilities: they are means of calibrated ones.

use crate::facts::Facts;

/// How many predictors there are.
pub const PREDICTORS: usize = 16;
/// How many of them are calibrated: all but the pool, which is the last.
pub const CALIBRATED: usize = PREDICTORS - 1;

/// A predictor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Predictor {
    /// What changed in the last epoch changes again.
    LastEpoch,
    /// Decayed share of epochs with a change; half-life 1 epoch.
    DecayedRate1,
    /// Half-life 3 epochs.
    DecayedRate3,
    /// Half-life 12 epochs.
    DecayedRate12,
    /// Half-life 48 epochs.
    DecayedRate48,
    /// Changes in its life over the time since the last.
    RecencyFrequency,
    /// Growth goes on where it ended.
    GrowthFrontier,
    /// What changed after epochs like the last one.
    SimilarEpochs,
    /// What the chains change that usually follow the last epoch's.
    Chains,
    /// What follows the blocks that have just begun to change.
    Association,
    /// The context tables together.
    ContextTables,
    /// Logistic regression on the wide inputs.
    Linear,
    /// Boosted trees on the wide inputs.
    BoostedTrees,
    /// The network.
    Lstm,
    /// Logistic regression on the others' probabilities.
    Blend,
    /// The mean of those that are good on this volume.
    Pool,
}

impl Predictor {
    /// All of them.
    pub const ALL: [Self; PREDICTORS] = [
        Self::LastEpoch,
        Self::DecayedRate1,
        Self::DecayedRate3,
        Self::DecayedRate12,
        Self::DecayedRate48,
        Self::RecencyFrequency,
        Self::GrowthFrontier,
        Self::SimilarEpochs,
        Self::Chains,
        Self::Association,
        Self::ContextTables,
        Self::Linear,
        Self::BoostedTrees,
        Self::Lstm,
        Self::Blend,
        Self::Pool,
    ];

    /// Its name in the API, in tables and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LastEpoch => "last-epoch",
            Self::DecayedRate1 => "decayed-rate-1",
            Self::DecayedRate3 => "decayed-rate-3",
            Self::DecayedRate12 => "decayed-rate-12",
            Self::DecayedRate48 => "decayed-rate-48",
            Self::RecencyFrequency => "recency-frequency",
            Self::GrowthFrontier => "growth-frontier",
            Self::SimilarEpochs => "similar-epochs",
            Self::Chains => "chains",
            Self::Association => "association",
            Self::ContextTables => "context-tables",
            Self::Linear => "linear",
            Self::BoostedTrees => "boosted-trees",
            Self::Lstm => "lstm",
            Self::Blend => "blend",
            Self::Pool => "pool",
        }
    }

    /// Whether it is one of those that need no weights: what the others have to beat.
    #[must_use]
    pub const fn is_simple(self) -> bool {
        !matches!(
            self,
            Self::ContextTables | Self::Linear | Self::BoostedTrees | Self::Lstm | Self::Blend | Self::Pool
        )
    }
}

/// The score of a predictor that needs no weights; 0 for the others.
#[must_use]
pub fn simple_score(predictor: Predictor, facts: &Facts) -> f32 {
    let [rate_1, rate_3, rate_12, rate_48] = facts.rates;
    match predictor {
        Predictor::LastEpoch => (facts.history & 1) as f32,
        Predictor::DecayedRate1 => rate_1,
        Predictor::DecayedRate3 => rate_3,
        Predictor::DecayedRate12 => rate_12,
        Predictor::DecayedRate48 => rate_48,
        Predictor::RecencyFrequency => recency_frequency(facts),
        Predictor::GrowthFrontier => growth(facts).max(rate_3 * 0.9),
        Predictor::SimilarEpochs => facts.similar,
        Predictor::Chains => facts.chained,
        // Where nothing speaks, the rate decides: an order for all candidates.
        Predictor::Association => (facts.association * 0.9).max(rate_12 * 0.5),
        Predictor::ContextTables
        | Predictor::Linear
        | Predictor::BoostedTrees
        | Predictor::Lstm
        | Predictor::Blend
        | Predictor::Pool => 0.0,
    }
}

fn recency_frequency(facts: &Facts) -> f32 {
    let lifetime = facts.count as f32 / (facts.age + 1) as f32;
    if facts.count == 0 { 0.0 } else { (lifetime / (1.0 + facts.since as f32).sqrt()).min(1.0) }
}

/// How likely growth reaches a block: falls with the distance in units of the usual extension, and
/// with the time since the frontier moved.
fn growth(facts: &Facts) -> f32 {
    let ahead = facts.past_frontier;
    if !(-1..4096).contains(&ahead) {
        return 0.0;
    }
    let frontier = &facts.frontier;
    let idle = facts.step - frontier.last.min(facts.step);
    let trust = match frontier.moves {
        0 => 0.25,
        1 => 0.6,
        _ => 0.9,
    };
    let reach = (-(ahead.max(0) as f32 + 0.5) / frontier.extension.max(1.0)).exp();
    trust * reach / (1 + idle) as f32
}
