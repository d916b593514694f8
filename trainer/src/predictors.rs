//! The predictors that run beside each other on the same candidates, always.
//!
//! Each gives a score in 0 to 1 that orders the candidates; only calibration makes a probability of it.

use crate::facts::Facts;

/// How many predictors there are.
pub const PREDICTORS: usize = 12;

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
    /// The context tables together.
    ContextTables,
    /// Logistic regression on the wide inputs.
    Linear,
    /// The network.
    Lstm,
    /// The mean of the linear predictor's, the network's and the context tables' logits.
    Blend,
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
        Self::ContextTables,
        Self::Linear,
        Self::Lstm,
        Self::Blend,
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
            Self::ContextTables => "context-tables",
            Self::Linear => "linear",
            Self::Lstm => "lstm",
            Self::Blend => "blend",
        }
    }

    /// Whether it is one of those that need no weights: what the others have to beat.
    #[must_use]
    pub const fn is_simple(self) -> bool {
        !matches!(self, Self::ContextTables | Self::Linear | Self::Lstm | Self::Blend)
    }
}

/// The scores of the predictors that are computed from a candidate's facts alone, in the order of
/// [`Predictor::ALL`]; 0 for the others.
#[must_use]
pub fn simple_scores(facts: &Facts) -> [f32; PREDICTORS] {
    let [rate_1, rate_3, rate_12, rate_48] = facts.rates;
    let lifetime = facts.count as f32 / (facts.age + 1) as f32;
    let recency_frequency = if facts.count == 0 { 0.0 } else { lifetime / (1.0 + facts.since as f32).sqrt() };
    let mut scores = [0.0; PREDICTORS];
    let own = [
        (facts.history & 1) as f32,
        rate_1,
        rate_3,
        rate_12,
        rate_48,
        recency_frequency.min(1.0),
        growth(facts).max(rate_3 * 0.9),
        facts.similar,
    ];
    for (to, from) in scores.iter_mut().zip(own) {
        *to = from;
    }
    scores
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
