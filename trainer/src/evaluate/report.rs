//! What an evaluation says, as JSON and as a table for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::ahead::HorizonReport;
use super::chains::{ChainReport, WithoutChains};
use crate::learner::{Costs, EpochReport, Judgement};
use crate::predictors::Predictor;
use crate::score::{Outcome, Quality, Reliability};

/// One trace's results.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TraceReport {
    /// The trace's file.
    pub trace: String,
    /// Epochs that it was cut into.
    pub epochs: usize,
    /// Epochs with changes that predictors were scored on in the last fifth.
    pub scored_epochs: usize,
    /// Changed blocks, over all epochs.
    pub changes: usize,
    /// The share of changes that were candidates, in the last fifth.
    pub reach: f64,
    /// From this probability on, something counts as predicted in precision, recall and F1.
    pub threshold: f64,
    /// What was served, epoch by epoch.
    pub served: PredictorReport,
    /// The last predictor that served.
    pub serving: String,
    /// Why.
    pub reason: String,
    /// Whether predictions were said to pay at the end.
    pub pays: bool,
    /// CPU seconds an epoch, mean.
    pub cost: CostReport,
    /// The most candidates of an epoch.
    pub most_candidates: usize,
    /// Peak memory of the process, in bytes; of all traces so far, where there are several.
    pub peak_memory_bytes: u64,
    /// Every predictor.
    pub predictors: Vec<PredictorReport>,
    /// The same epoch by epoch.
    pub by_epoch: Vec<EpochLine>,
    /// Predictions for several epochs ahead, where they were asked for.
    pub horizon: Option<HorizonReport>,
    /// The chains at the end.
    pub chains: Vec<ChainReport>,
    /// The same without chains, where it was asked for.
    pub without_chains: Option<WithoutChains>,
}

/// What one epoch with changes said of the predictors.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EpochLine {
    /// Which one, from 0 on.
    pub epoch: usize,
    /// Blocks that changed.
    pub changes: usize,
    /// The share of them that were candidates.
    pub reach: f64,
    /// Who served.
    pub served: &'static str,
    /// Each predictor's average precision and log loss, in nats for each candidate that changed.
    pub scores: BTreeMap<&'static str, [f64; 2]>,
}

impl EpochLine {
    pub(super) fn new(index: usize, changes: usize, epoch: &EpochReport, served: Predictor) -> Self {
        let judged = Predictor::ALL.iter().zip(&epoch.judgements);
        let score = |own: &Judgement| [own.quality.average_precision, own.log_loss];
        Self {
            epoch: index,
            changes,
            reach: epoch.reach,
            served: served.name(),
            scores: judged
                .filter_map(|(predictor, own)| Some((predictor.name(), score(own.as_ref()?))))
                .collect(),
        }
    }
}

/// CPU seconds an epoch, mean.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct CostReport {
    /// Training the network.
    pub training_network: f64,
    /// Training everything else.
    pub training_others: f64,
    /// Of the boosted trees.
    pub training_trees: f64,
    /// Finding candidates, and what is known of each.
    pub facts: f64,
    /// Scoring by all predictors without weights.
    pub simple: f64,
    /// Scoring by the context tables and the linear predictor.
    pub tables: f64,
    /// Scoring by the boosted trees.
    pub trees: f64,
    /// Scoring by the network, the blend and the pool.
    pub network: f64,
}

impl CostReport {
    pub(super) fn add(&mut self, costs: &Costs) {
        self.training_network += costs.training_network.as_secs_f64();
        self.training_trees += costs.training_trees.as_secs_f64();
        self.training_others += costs.training_others.as_secs_f64();
        self.facts += costs.facts.as_secs_f64();
        self.simple += costs.simple.as_secs_f64();
        self.tables += costs.tables.as_secs_f64();
        self.trees += costs.trees.as_secs_f64();
        self.network += costs.network.as_secs_f64();
    }

    pub(super) fn divide(&mut self, epochs: usize) {
        let all = [
            &mut self.training_network,
            &mut self.training_trees,
            &mut self.training_others,
            &mut self.facts,
            &mut self.simple,
            &mut self.tables,
            &mut self.trees,
            &mut self.network,
        ];
        for seconds in all {
            *seconds /= epochs.max(1) as f64;
        }
    }

    /// All of training.
    #[must_use]
    pub fn training(&self) -> f64 {
        self.training_network + self.training_trees + self.training_others
    }

    /// All of scoring.
    #[must_use]
    pub fn scoring(&self) -> f64 {
        self.facts + self.simple + self.tables + self.trees + self.network
    }
}

/// One predictor's results: in the last fifth of the epochs, but where it says otherwise.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PredictorReport {
    /// Its name.
    pub name: String,
    /// Mean average precision.
    pub mean_average_precision: f64,
    /// Mean average precision over all epochs.
    pub mean_average_precision_all: f64,
    /// Mean coverage with a tenth as many predictions as blocks changed in the epoch before.
    pub coverage_10: f64,
    /// Mean coverage with as many predictions as blocks changed in the epoch before.
    pub coverage_100: f64,
    /// The same three for added blocks alone, over the epochs that added any.
    pub added: AddedReport,
    /// Of what was predicted at the threshold, the share that changed.
    pub precision: f64,
    /// Of what changed, the share that was predicted at the threshold.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
    /// Expected calibration error of what was given 0.05 and more.
    pub calibration_error: f64,
    /// What it would be by chance alone, were every probability true.
    pub calibration_error_by_chance: f64,
    /// Expected calibration error of all candidates.
    pub calibration_error_of_all: f64,
    /// Of what was given 0.7 to 0.9, how many there were.
    pub at_0_7_to_0_9: u64,
    /// And the share of them that changed.
    pub at_0_7_to_0_9_changed: f64,
}

/// Results for added blocks alone.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AddedReport {
    /// Epochs that added any.
    pub epochs: usize,
    /// Mean average precision among the blocks that held no data.
    pub mean_average_precision: f64,
    /// Mean coverage with a tenth as many predictions as blocks were added in the epoch before.
    pub coverage_10: f64,
    /// Mean coverage with as many predictions as blocks were added in the epoch before.
    pub coverage_100: f64,
}

/// Sums of qualities, and how many they are of.
#[derive(Clone, Copy, Default)]
struct Mean {
    sum: Quality,
    count: usize,
}

impl Mean {
    fn add(&mut self, quality: &Quality) {
        self.sum.average_precision += quality.average_precision;
        self.sum.coverage_10 += quality.coverage_10;
        self.sum.coverage_100 += quality.coverage_100;
        self.count += 1;
    }

    fn mean(&self) -> Quality {
        let count = self.count.max(1) as f64;
        Quality {
            average_precision: self.sum.average_precision / count,
            coverage_10: self.sum.coverage_10 / count,
            coverage_100: self.sum.coverage_100 / count,
        }
    }
}

/// One predictor's results so far.
#[derive(Default)]
pub(super) struct Sum {
    last: Mean,
    all: Mean,
    added: Mean,
    outcome: Outcome,
    reliability: Reliability,
}

impl Sum {
    pub fn add(&mut self, judgement: &Judgement, in_last_fifth: bool) {
        self.all.add(&judgement.quality);
        if in_last_fifth {
            self.last.add(&judgement.quality);
            if let Some(added) = &judgement.added {
                self.added.add(added);
            }
            self.outcome.add(&judgement.outcome);
            self.reliability.add(&judgement.reliability);
        }
    }

    pub const fn scored_epochs(&self) -> usize {
        self.last.count
    }

    pub fn report(&self, name: &str) -> PredictorReport {
        let (last, added) = (self.last.mean(), self.added.mean());
        let (at_0_7_to_0_9, at_0_7_to_0_9_changed) = self.reliability.at_0_7_to_0_9();
        PredictorReport {
            name: name.to_owned(),
            mean_average_precision: last.average_precision,
            mean_average_precision_all: self.all.mean().average_precision,
            coverage_10: last.coverage_10,
            coverage_100: last.coverage_100,
            added: AddedReport {
                epochs: self.added.count,
                mean_average_precision: added.average_precision,
                coverage_10: added.coverage_10,
                coverage_100: added.coverage_100,
            },
            precision: self.outcome.precision(),
            recall: self.outcome.recall(),
            f1: self.outcome.f1(),
            calibration_error: self.reliability.error(),
            calibration_error_by_chance: self.reliability.error_by_chance(),
            calibration_error_of_all: self.reliability.error_of_all(),
            at_0_7_to_0_9,
            at_0_7_to_0_9_changed,
        }
    }
}

impl TraceReport {
    /// The best single predictor of the last fifth: all but the pool of several.
    #[must_use]
    pub fn best(&self) -> Option<&PredictorReport> {
        let map = |own: &PredictorReport| own.mean_average_precision;
        let single = |own: &&PredictorReport| own.name != Predictor::Pool.name();
        self.predictors.iter().filter(single).max_by(|a, b| map(a).total_cmp(&map(b)))
    }

    /// The report as a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}\n  {} epochs, {} changes; below: the last fifth, {} epochs with changes, of which {:.2} were candidates\n\n",
            self.trace, self.epochs, self.changes, self.scored_epochs, self.reach,
        );
        let threshold = format!("at {:.2} and above", self.threshold);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {:<18} {:^24} {:^21} {:^20} {:>6}",
            "", "all changes", "added alone", threshold, "calib."
        );
        let _ = writeln!(
            text,
            "  {:<18} {:>6} {:>5} {:>5} {:>5} {:>7} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6}",
            "predictor",
            "mAP",
            "c10",
            "c100",
            "(all)",
            "mAP",
            "c10",
            "c100",
            "prec.",
            "recall",
            "F1",
            "error"
        );
        for own in self.predictors.iter().chain(std::iter::once(&self.served)) {
            let added = &own.added;
            let of_added =
                |value: f64| if added.epochs == 0 { "-".to_owned() } else { format!("{value:.3}") };
            let _ = writeln!(
                text,
                "  {:<18} {:>6.3} {:>5.2} {:>5.2} {:>5.2} {:>7} {:>6} {:>6} {:>6.2} {:>6.2} {:>6.2} {:>6.3}",
                own.name,
                own.mean_average_precision,
                own.coverage_10,
                own.coverage_100,
                own.mean_average_precision_all,
                of_added(added.mean_average_precision),
                of_added(added.coverage_10),
                of_added(added.coverage_100),
                own.precision,
                own.recall,
                own.f1,
                own.calibration_error,
            );
        }
        if let Some(ahead) = &self.horizon {
            let _ = writeln!(
                text,
                "\n  within {} epochs ({} predictions): mAP {:.3}, calibration error {:.3}; by the formula alone {:.3}, {:.3}",
                ahead.epochs,
                ahead.scored,
                ahead.mean_average_precision,
                ahead.calibration_error,
                ahead.formula_mean_average_precision,
                ahead.formula_calibration_error,
            );
        }
        if let Some(without) = &self.without_chains {
            text += &without.lines(&self.served, &self.predictors);
        }
        let (served, cost) = (&self.served, &self.cost);
        if let Some(best) = self.best() {
            let apart = served.mean_average_precision - best.mean_average_precision;
            let _ = write!(text, "\n  served minus the best single one ({}): mAP {apart:+.3}", best.name);
        }
        let _ = write!(
            text,
            "\n  serving: {}; pays: {}\n  of {} served at 0.7 to 0.9, {:.2} changed; of its calibration error {:.3} by chance; error of all candidates {:.4}\n\
             \x20 CPU seconds an epoch: training {:.3} (network {:.3}, trees {:.3}); scoring {:.3} (facts {:.3}, simple {:.3}, tables and linear {:.3}, trees {:.3}, network {:.3})\n\
             \x20 up to {} candidates; peak memory {} MiB\n",
            self.reason,
            if self.pays { "yes" } else { "no" },
            served.at_0_7_to_0_9,
            served.at_0_7_to_0_9_changed,
            served.calibration_error_by_chance,
            served.calibration_error_of_all,
            cost.training(),
            cost.training_network,
            cost.training_trees,
            cost.scoring(),
            cost.facts,
            cost.simple,
            cost.tables,
            cost.trees,
            cost.network,
            self.most_candidates,
            self.peak_memory_bytes >> 20,
        );
        // Most chains of a volume without a rhythm are single epochs, of which there is nothing to be seen.
        let (long, short): (Vec<_>, Vec<_>) = self.chains.iter().partition(|chain| chain.epochs >= 3);
        long.iter().for_each(|chain| text += &chain.line());
        let _ = writeln!(text, "  {} chains of three epochs and more, {} shorter", long.len(), short.len());
        text
    }
}
