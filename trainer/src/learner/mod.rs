//! One volume's learning, an epoch at a time.
//!
//! [`Learner::observe`] does for each sealed epoch, in this order: score what was predicted for it;
//! take samples, with inputs as they were before it; learn; only then remember the epoch
//! itself; score the candidates for the next. So nothing that a prediction is made from has seen what it is
//! about. With the same epochs, settings and enough CPU time, two learners predict the same.
//!
//! Memory: about 300 bytes a block remembered or candidate, and some 50 MB of samples at most; nothing grows
//! with the volume's size.

mod candidates;
mod samples;
mod saved;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use forerun::change_vector::ChangeVector;
use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::{Horizon, Prediction, Probability};

use crate::calibrate::Calibration;
use crate::chain::Chains;
use crate::config::Config;
use crate::contexts::ContextTables;
use crate::cpu::Budget;
use crate::facts::FactSource;
use crate::linear::Linear;
use crate::model::{Network, Replay, Trainer, TrainingReport, WeightsError};
use crate::predictors::{PREDICTORS, Predictor};
use crate::publish::{MIN_PROBABILITY, within};
use crate::rng::Rng;
use crate::score::{Quality, Truth, quality};
use crate::select::{EpochScore, Scoreboard};
use crate::state::VolumeState;

use candidates::Scored;
pub use saved::SavedError;

/// Passes of the linear predictor over an epoch's samples.
const LINEAR_PASSES: usize = 2;
/// From this probability on, something counts as predicted in precision and recall.
const PREDICTED_FROM: f32 = 0.5;
/// The share of the CPU time that training may use; the rest is for scoring.
const TRAINING_SHARE: f64 = 0.5;

/// How much is done for an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// Everything: the epoch is the newest.
    Full,
    /// All but the network, which takes nearly all the time: more epochs are waiting.
    CatchUp,
    /// Only remember: the epoch is old.
    Remember,
}

/// What an epoch brought.
#[derive(Clone, Debug, Default)]
pub struct EpochReport {
    /// The quality of each predictor on it, in the order of [`Predictor::ALL`]; `None` where it had predicted nothing.
    pub qualities: [Option<Quality>; PREDICTORS],
    /// Who served.
    pub served: Option<Predictor>,
    /// The share of its changes that were candidates.
    pub reach: f64,
    /// Candidates scored for the epoch after it, and how many of them the network scored.
    pub candidates: usize,
    /// Candidates that the network scored.
    pub scored_by_network: usize,
    /// What training did.
    pub training: TrainingReport,
    /// CPU time of training.
    pub training_time: Duration,
    /// CPU time of making candidates, facts and scores.
    pub scoring_time: Duration,
    /// (Probability served, whether it changed) of the candidates served with 0.05 and more.
    pub served_probabilities: Vec<(f32, bool)>,
}

/// All that is learned about a volume.
pub struct Learner {
    config: Config,
    volume_blocks: u32,
    state: VolumeState,
    chains: Chains,
    contexts: ContextTables,
    linear: Linear,
    trainer: Trainer,
    replay: Replay,
    calibrations: Vec<Calibration>,
    scoreboard: Scoreboard,
    scored: Option<Scored>,
    rng: Rng,
    last: Option<Epoch>,
    /// CPU seconds that the network takes a candidate, as measured; `None` before it has been.
    network_seconds: Option<f64>,
}

impl Learner {
    /// Nothing learned yet.
    ///
    /// # Errors
    /// candle refuses, for want of memory at most.
    pub fn new(config: Config, volume_blocks: u32) -> candle_core::Result<Self> {
        Ok(Self {
            volume_blocks,
            state: VolumeState::new(config.tracked_blocks),
            chains: Chains::new(config.chain.clone()),
            contexts: ContextTables::default(),
            linear: Linear::default(),
            trainer: Trainer::new(config.seed)?,
            replay: Replay::default(),
            calibrations: vec![Calibration::default(); PREDICTORS],
            scoreboard: Scoreboard::default(),
            scored: None,
            rng: Rng::new(config.seed),
            last: None,
            network_seconds: None,
            config,
        })
    }

    /// The newest epoch taken.
    #[must_use]
    pub const fn last(&self) -> Option<Epoch> {
        self.last
    }

    /// Results and choice of the predictors.
    #[must_use]
    pub const fn scoreboard(&self) -> &Scoreboard {
        &self.scoreboard
    }

    /// The chains.
    #[must_use]
    pub const fn chains(&self) -> &Chains {
        &self.chains
    }

    /// Why who serves serves, for people.
    #[must_use]
    pub fn reason(&self) -> String {
        self.scoreboard.reason(self.config.pays_from_mean_average_precision)
    }

    /// Goes on with the weights in a file, if there is one.
    ///
    /// # Errors
    /// The file cannot be used; the first weights stay.
    pub fn load_weights(&mut self, path: &Path) -> Result<bool, WeightsError> {
        let Some(network) = Network::load(path)? else { return Ok(false) };
        self.trainer = Trainer::of(network, self.config.seed)?;
        Ok(true)
    }

    /// Writes the weights durably.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn save_weights(&self, path: &Path) -> Result<(), WeightsError> {
        self.trainer.network().save(path)
    }

    /// Takes the next sealed epoch. Blocks past the volume's end must have been refused before.
    ///
    /// # Errors
    /// candle refuses, for want of memory at most; the learner can go on being used.
    pub fn observe(&mut self, vector: &ChangeVector, effort: Effort) -> candle_core::Result<EpochReport> {
        let mut report = EpochReport::default();
        if let Some(scored) = self.scored.take() {
            self.judge(&scored, vector, &mut report);
        }
        if effort == Effort::Full {
            let budget = Budget::start(self.config.cpu_seconds_per_epoch * TRAINING_SHARE);
            report.training = self.trainer.train(&self.replay, self.config.steps_per_epoch, &budget)?;
            report.training_time = budget.used();
        }
        self.state.push(vector);
        self.chains.push(vector);
        self.last = Some(vector.epoch);
        if effort != Effort::Remember {
            let whole = self.config.cpu_seconds_per_epoch;
            let left = (whole - report.training_time.as_secs_f64()).max(whole * (1.0 - TRAINING_SHARE));
            let budget = Budget::start(left);
            let scored = self.score_candidates(effort == Effort::Full, &budget)?;
            report.candidates = scored.blocks.len();
            report.scored_by_network = scored.by_network;
            report.scoring_time = budget.used();
            self.scored = Some(scored);
        }
        Ok(report)
    }

    /// Scores the candidates again, the network included: after catching up, or with other weights.
    ///
    /// # Errors
    /// candle refuses, for want of memory at most.
    pub fn score_again(&mut self) -> candle_core::Result<()> {
        if self.scored.is_some() {
            let budget = Budget::start(self.config.cpu_seconds_per_epoch);
            self.scored = Some(self.score_candidates(true, &budget)?);
        }
        Ok(())
    }

    /// Learns from what became of the candidates.
    fn judge(&mut self, scored: &Scored, vector: &ChangeVector, report: &mut EpochReport) {
        let truth = Truth::new(&scored.blocks, vector.changes().iter().map(|change| change.block.0));
        report.reach = truth.reach();
        let serving = self.scoreboard.serving();
        report.served = Some(serving);
        if truth.total > 0 {
            self.take_scores(scored, &truth, serving, report);
            self.scoreboard.choose(self.config.pays_from_mean_average_precision);
        }
        let samples = self.samples(scored, &truth);
        for sample in std::iter::repeat_n(&samples, LINEAR_PASSES).flatten() {
            self.linear.learn(&sample.wide, sample.changed, sample.weight.min(4.0));
        }
        self.replay.push(samples);
        self.contexts.fade();
        for (cells, changed) in scored.cells.iter().zip(&truth.changed) {
            self.contexts.learn(cells, *changed);
        }
    }

    fn take_scores(&mut self, scored: &Scored, truth: &Truth, serving: Predictor, report: &mut EpochReport) {
        // As many as changed in the epoch before: what a fixed reservation would hold.
        let budget = self.state.recent.last().map_or(0, |view| view.blocks.len());
        for (predictor, calibration) in Predictor::ALL.into_iter().zip(&mut self.calibrations) {
            let Some(scores) = scored.of(predictor) else { continue };
            let found = quality(scores, truth, budget);
            if let Some(slot) = report.qualities.get_mut(predictor as usize) {
                *slot = Some(found);
            }
            let mut score = EpochScore {
                average_precision: found.average_precision,
                changed: truth.total,
                ..EpochScore::default()
            };
            for (value, changed) in scores.iter().zip(&truth.changed) {
                let probability = calibration.probability(*value);
                if probability >= PREDICTED_FROM {
                    score.predicted += 1;
                    score.right += usize::from(*changed);
                }
                if predictor == serving && probability >= 0.05 {
                    report.served_probabilities.push((probability, *changed));
                }
            }
            self.scoreboard.learn(predictor, score);
            calibration.learn(scores, &truth.changed);
        }
    }

    /// What is expected to change within the horizon, by who serves; empty before the first epoch.
    #[must_use]
    pub fn predictions(&self, horizon: Horizon) -> (Predictor, Vec<Prediction>) {
        let serving = self.scoreboard.serving();
        let Some(scored) = &self.scored else { return (serving, Vec::new()) };
        // While catching up the network has not scored; the simple ones always have.
        let serving = if scored.of(serving).is_some() { serving } else { Predictor::Linear };
        let calibration = self.calibrations.get(serving as usize);
        let (Some(calibration), Some(scores)) = (calibration, scored.of(serving)) else {
            return (serving, Vec::new());
        };
        let mut source = FactSource::new(&self.state);
        let mut predictions = Vec::new();
        for (block, score) in scored.blocks.iter().zip(scores) {
            let next = calibration.probability(*score);
            let expected = match source.facts(*block) {
                Some(facts) if horizon.epochs() > 1 => within(horizon.epochs(), next, &facts),
                _ => next,
            };
            if expected >= MIN_PROBABILITY
                && let Ok(probability) = Probability::new(expected)
            {
                let kind = self.state.expected_kind(*block);
                predictions.push(Prediction { block: BlockIndex(*block), kind, probability });
            }
        }
        (serving, predictions)
    }
}
