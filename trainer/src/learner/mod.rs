//! One volume's learning, an epoch at a time.
//!
//! [`Learner::observe`] does for each sealed epoch, in this order: score what was predicted for it;
//! take samples, with inputs as they were before it; learn; only then remember the epoch
//! itself; score the candidates for the next. So nothing that a prediction is made from has seen what it is
//! about. With the same epochs, settings and enough CPU time, two learners predict the same.
//!
//! Memory, by reckoning: about 200 bytes a block remembered or candidate; at most some 55 MB of samples, 50 MB of chains and 40 MB
//! of recent epochs; nothing grows with the volume's size.

mod blend;
mod candidates;
mod pool;
mod samples;
mod saved;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use forerun::change_vector::{ChangeKind, ChangeVector};
use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::{Horizon, Prediction, Probability};

use crate::calibrate::Calibration;
use crate::chain::Chains;
use crate::config::Config;
use crate::contexts::ContextTables;
use crate::cpu::{Budget, thread_time};
use crate::facts::{FactSource, Facts};
use crate::inputs::WIDE;
use crate::level::Leveled;
use crate::logistic::Logistic;
use crate::model::{
    LEARNED_HORIZON_EPOCHS, Network, Replay, Sample, Scores, Trainer, TrainingReport, WeightsError,
};
use crate::predictors::{CALIBRATED, PREDICTORS, Predictor};
use crate::publish::{MIN_PROBABILITY, within};
use crate::rng::Rng;
use crate::score::{Outcome, Quality, Reliability, Truth, log_loss, qualities};
use crate::select::{EpochScore, Scoreboard};
use crate::state::VolumeState;
use crate::trees::Trees;

use candidates::Scored;
pub use saved::SavedError;

/// Epochs whose horizon must have ended before the network's word on the horizon counts.
const MIN_HORIZON_EPOCHS: u32 = 4;
/// The length of the linear predictor's first steps.
const LINEAR_RATE: f32 = 0.06;
/// Passes of the linear predictor over an epoch's samples.
const LINEAR_PASSES: usize = 2;
/// The share of the CPU time that training may use; the rest is for scoring.
const TRAINING_SHARE: f64 = 0.5;
/// The share of the CPU time, of that for training, that goes to the boosted trees in the mean of the epochs.
const TREES_SHARE: f64 = 0.125;

/// How much is done for an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// Everything: the epoch is the newest.
    Full,
    /// All but the network, which takes nearly all the time: more epochs are waiting.
    CatchUp,
    /// Only remember: the epoch is old, or nothing pays.
    Remember,
}

/// What a horizon of several epochs is predicted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HorizonBy {
    /// The network, where it has learned this horizon and serves; else the formula.
    Network,
    /// The formula of [`within`], calibrated, alone.
    Formula,
}

/// What an epoch said of one predictor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judgement {
    /// The quality of its ranking.
    pub quality: Quality,
    /// That for added blocks alone; `None` where none was.
    pub added: Option<Quality>,
    /// What it predicted at the threshold and above.
    pub outcome: Outcome,
    /// What its probabilities meant.
    pub reliability: Reliability,
    /// Their log loss, in nats for each candidate that changed.
    pub log_loss: f64,
}

/// CPU time that an epoch took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Costs {
    /// Training of the network.
    pub training_network: Duration,
    /// Training of the linear predictor, the context tables and the calibrations, the choice of samples included.
    pub training_others: Duration,
    /// Training of the boosted trees: nothing in most epochs, and what was saved up in one of several.
    pub training_trees: Duration,
    /// Finding the candidates, and what is known of each.
    pub facts: Duration,
    /// The scores of the predictors without weights.
    pub simple: Duration,
    /// The scores of the context tables and of the linear predictor.
    pub tables: Duration,
    /// The scores of the boosted trees.
    pub trees: Duration,
    /// The scores of the network, the blend and the pool.
    pub network: Duration,
}

impl Costs {
    /// All of training.
    #[must_use]
    pub fn training(&self) -> Duration {
        self.training_network + self.training_trees + self.training_others
    }

    /// All of scoring.
    #[must_use]
    pub fn scoring(&self) -> Duration {
        self.facts + self.simple + self.tables + self.trees + self.network
    }
}

/// What an epoch brought.
#[derive(Clone, Debug, Default)]
pub struct EpochReport {
    /// What it said of each predictor, in the order of [`Predictor::ALL`]; `None` where it had predicted nothing.
    pub judgements: [Option<Judgement>; PREDICTORS],
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
    /// What it cost.
    pub costs: Costs,
}

/// All that is learned about a volume.
pub struct Learner {
    config: Config,
    volume_blocks: u32,
    state: VolumeState,
    contexts: ContextTables,
    linear: Logistic<WIDE>,
    trees: Trees,
    blending: blend::Weights,
    trainer: Trainer,
    replay: Replay,
    /// By predictor; the pool has none.
    calibrations: Vec<Leveled>,
    scoreboard: Scoreboard,
    scored: Option<Scored>,
    rng: Rng,
    last: Option<Epoch>,
    /// The horizon that is learned, what its scores have meant, and over how many epochs that is known.
    horizon: Horizon,
    horizon_calibration: Calibration,
    /// The same for what the formula says.
    formula_calibration: Calibration,
    horizon_epochs: u32,
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
            state: VolumeState::new(&config),
            contexts: ContextTables::default(),
            linear: Logistic::new([0.0; WIDE], -2.0, LINEAR_RATE),
            trees: Trees::new(config.seed),
            blending: blend::first_weights(),
            trainer: Trainer::new(config.seed)?,
            replay: Replay::default(),
            calibrations: vec![Leveled::default(); CALIBRATED],
            scoreboard: Scoreboard::default(),
            scored: None,
            rng: Rng::new(config.seed),
            last: None,
            horizon: Horizon::DEFAULT,
            horizon_calibration: Calibration::default(),
            formula_calibration: Calibration::default(),
            horizon_epochs: 0,
            network_seconds: None,
            config,
        })
    }

    /// Gives each epoch from now on so many CPU seconds.
    pub const fn set_cpu_seconds(&mut self, seconds: f64) {
        self.config.cpu_seconds_per_epoch = seconds;
    }

    /// The volume has so many blocks from now on.
    pub const fn grow(&mut self, volume_blocks: u32) {
        self.volume_blocks = volume_blocks;
    }

    /// Whether some predictor ranked this one epoch well enough to pay, if it did so in all.
    #[must_use]
    pub fn might_pay(&self, report: &EpochReport) -> bool {
        let bound = self.config.pays_from_mean_average_precision;
        report.judgements.iter().flatten().any(|judged| judged.quality.average_precision >= bound)
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
        &self.state.chains
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
        let whole = self.config.cpu_seconds_per_epoch;
        let started = thread_time();
        if let Some(scored) = self.scored.take() {
            self.judge(&scored, vector, &mut report);
        }
        self.learn_horizon(vector);
        report.costs.training_others = thread_time().saturating_sub(started);
        if effort == Effort::Full {
            let share = TRAINING_SHARE - TREES_SHARE;
            let budget = Budget::start(whole * share - report.costs.training_others.as_secs_f64());
            report.training = self.trainer.train(&self.replay, self.config.steps_per_epoch, &budget)?;
            report.costs.training_network = budget.used();
            let budget = Budget::start(0.0);
            self.trees.learn(whole * TREES_SHARE);
            report.costs.training_trees = budget.used();
        }
        self.state.push(vector);
        self.last = Some(vector.epoch);
        if effort != Effort::Remember {
            // What the trees take was saved up in the epochs before.
            let trained = report.costs.training_network + report.costs.training_others;
            let left = whole * (1.0 - TREES_SHARE) - trained.as_secs_f64();
            let budget = Budget::start(left.max(whole * (1.0 - TRAINING_SHARE)));
            let scored = self.score_candidates(effort == Effort::Full, &budget, &mut report.costs)?;
            report.candidates = scored.blocks.len();
            report.scored_by_network = scored.by_network();
            self.scored = Some(scored);
        }
        Ok(report)
    }

    /// Scores the candidates again, the network included: after catching up, or with other weights.
    ///
    /// # Errors
    /// candle refuses, for want of memory at most; nothing is predicted until the next epoch then.
    pub fn score_again(&mut self) -> candle_core::Result<()> {
        // The old scores go first: both at once would be a quarter of all memory.
        if self.scored.take().is_some() {
            let budget = Budget::start(self.config.cpu_seconds_per_epoch);
            self.scored = Some(self.score_candidates(true, &budget, &mut Costs::default())?);
        }
        Ok(())
    }

    /// Learns from what became of the candidates.
    fn judge(&mut self, scored: &Scored, vector: &ChangeVector, report: &mut EpochReport) {
        let truth = Truth::new(&scored.blocks, scored.empty.clone(), vector);
        report.reach = truth.reach();
        let serving = self.scoreboard.serving();
        report.served = Some(serving);
        let chosen = self.choose_samples(scored, &truth);
        // Before the calibrations learn: with those, the scores were blended.
        self.learn_to_blend(scored, &truth.changed, &chosen);
        if truth.total > 0 {
            self.take_scores(scored, &truth, report);
            self.scoreboard.choose(self.config.pays_from_mean_average_precision);
        }
        debug_assert_eq!(scored.cells.len(), scored.blocks.len(), "each candidate has its cells");
        let samples = self.samples(scored, vector, &chosen);
        for sample in std::iter::repeat_n(&samples, LINEAR_PASSES).flatten() {
            self.linear.learn(&sample.wide, sample.changed.is_some(), sample.stands_for.min(4.0));
        }
        self.trees.remember(&samples);
        self.replay.push(self.state.activity.step() + 1, samples);
        self.contexts.fade();
        for (cells, changed) in scored.cells.iter().zip(&truth.changed) {
            self.contexts.learn(cells, *changed);
        }
    }

    fn take_scores(&mut self, scored: &Scored, truth: &Truth, report: &mut EpochReport) {
        // As many as in the epoch before: what a fixed reservation would hold.
        let budgets = self.state.recent.last().map_or([0; 2], |view| {
            [view.blocks.len(), view.kinds.iter().filter(|kind| **kind == ChangeKind::Added).count()]
        });
        let threshold = self.config.threshold as f32;
        let happened = truth.changed.iter().filter(|changed| **changed).count().max(1) as f64;
        for predictor in Predictor::ALL {
            let mut calibration = self.calibrations.get_mut(predictor as usize);
            let Some(scores) = scored.of(predictor) else { continue };
            let [all, added] = qualities(scores, truth, budgets);
            let mut judgement = Judgement { quality: all.unwrap_or_default(), added, ..Judgement::default() };
            judgement.outcome.changed = truth.total;
            let mut losses = 0.0;
            for (value, changed) in scores.iter().zip(&truth.changed) {
                let probability = probability_by(calibration.as_deref(), *value);
                judgement.reliability.take(probability, *changed);
                losses += log_loss(probability, *changed);
                if probability >= threshold {
                    judgement.outcome.predicted += 1;
                    judgement.outcome.right += usize::from(*changed);
                }
            }
            let average_precision = judgement.quality.average_precision;
            judgement.log_loss = losses / happened;
            let (log_loss, outcome) = (judgement.log_loss, judgement.outcome);
            let score = EpochScore { average_precision, log_loss, outcome };
            self.scoreboard.learn(predictor, score);
            if let Some(calibration) = &mut calibration {
                calibration.learn(scores, &truth.changed);
            }
            if let Some(slot) = report.judgements.get_mut(predictor as usize) {
                *slot = Some(judgement);
            }
        }
    }

    /// Learns to predict for this horizon as well, from now on.
    pub fn set_horizon(&mut self, horizon: Horizon) {
        if horizon != self.horizon {
            self.horizon = horizon;
            self.state.horizon_epochs = horizon.epochs();
            self.replay.forget_horizon();
            (self.horizon_calibration, self.horizon_epochs) = (Calibration::default(), 0);
            self.formula_calibration = Calibration::default();
        }
    }

    /// Learns from what became of candidates within the horizon that ends with this epoch.
    fn learn_horizon(&mut self, vector: &ChangeVector) {
        let epochs = self.horizon.epochs();
        if !(2..=LEARNED_HORIZON_EPOCHS).contains(&epochs) {
            return;
        }
        let ended = self.replay.happened(self.state.activity.step() + 1, vector, epochs);
        if !ended.is_empty() {
            let known = |score: fn(&Sample) -> f32| {
                ended
                    .iter()
                    .map(move |sample| (score(sample), sample.within == Some(true), sample.stands_for))
            };
            self.horizon_calibration.learn_weighted(known(|sample| sample.within_score));
            self.formula_calibration.learn_weighted(known(|sample| sample.formula_score));
            self.horizon_epochs = self.horizon_epochs.saturating_add(1);
        }
    }

    /// The probability of a change within the horizon, from that in the next epoch: by the network where it has learned
    /// this horizon, else as [`within`] makes it.
    fn expected(&self, horizon: Horizon, next: f32, facts: &Facts, by_net: Option<&Scores>) -> f32 {
        let learned = horizon == self.horizon && self.horizon_epochs >= MIN_HORIZON_EPOCHS;
        match by_net.filter(|scores| learned && scores.within > 0.0) {
            // A change in the next epoch is one within the horizon.
            Some(scores) => self.horizon_calibration.probability(scores.within).max(next),
            None => {
                let ahead = within(horizon.epochs(), next, facts, horizon == self.horizon);
                if learned { self.formula_calibration.probability(ahead).max(next) } else { ahead }
            }
        }
    }

    /// What is expected to change within the horizon, by who serves; empty before the first epoch.
    #[must_use]
    pub fn predictions(&self, horizon: Horizon) -> (Predictor, Vec<Prediction>) {
        self.predictions_by(horizon, HorizonBy::Network)
    }

    /// As [`Self::predictions`], with a choice of what a horizon of several epochs is predicted by.
    #[must_use]
    pub fn predictions_by(&self, horizon: Horizon, by: HorizonBy) -> (Predictor, Vec<Prediction>) {
        let serving = self.scoreboard.serving();
        let Some(scored) = &self.scored else { return (serving, Vec::new()) };
        // While catching up the network has not scored; the pool always has.
        let serving = if scored.of(serving).is_some() { serving } else { Predictor::Pool };
        let calibration = self.calibrations.get(serving as usize);
        let Some(scores) = scored.of(serving) else { return (serving, Vec::new()) };
        // Of the network's other outputs nothing is taken where it does not serve.
        let uses_net = !serving.is_simple();
        let mut source = FactSource::new(&self.state);
        let mut predictions = Vec::new();
        for (at, (block, score)) in scored.blocks.iter().zip(scores).enumerate() {
            let next = probability_by(calibration, *score);
            let by_net = scored.net(at).filter(|_| uses_net);
            let expected = match source.facts(*block) {
                Some(facts) if horizon.epochs() > 1 => {
                    self.expected(horizon, next, &facts, by_net.filter(|_| by == HorizonBy::Network))
                }
                _ => next,
            };
            if expected >= MIN_PROBABILITY
                && let Ok(probability) = Probability::new(expected)
            {
                let kind = self.state.expected_kind(*block, by_net.map(|scores| scores.deleted)).into();
                predictions.push(Prediction { block: BlockIndex(*block), kind, probability });
            }
        }
        (serving, predictions)
    }
}

/// The probability that a predictor's score means; the pool's scores, which have no calibration, are probabilities.
fn probability_by(calibration: Option<&Leveled>, score: f32) -> f32 {
    calibration.map_or(score, |calibration| calibration.probability(score))
}
