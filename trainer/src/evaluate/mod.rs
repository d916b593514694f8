//! Walks forward through a block trace: predict the next epoch, score, learn, go on.
//!
//! It runs the very learner that serves a volume, so that what it prints is what would have been served. There is no
//! look-ahead: an epoch is learned from only after every predictor was scored on it.

pub mod ahead;
pub mod chains;
pub mod cost;
pub mod epochs;
pub mod report;
#[cfg(test)]
mod tests;
pub mod trace;

use std::path::Path;

use anyhow::{Result, bail};
use forerun::change_vector::ChangeVector;
use forerun::prediction::Horizon;

use crate::config::Config;
use crate::cpu::peak_memory_bytes;
use crate::learner::{Effort, EpochReport, Learner};
use crate::predictors::{PREDICTORS, Predictor};
use ahead::Ahead;
use chains::{ChainReport, WithoutChains};
use epochs::{BlockSize, EpochLength, change_vectors};
use report::{EpochLine, PredictorReport, Sum, TraceReport};

/// How a trace is cut, and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// How long an epoch is.
    pub epoch: EpochLength,
    /// How large a block is.
    pub block: BlockSize,
    /// For how many epochs ahead predictions are scored besides those for the next.
    pub horizon: Horizon,
    /// Whether another learner goes beside that predicts nothing from chains and similar epochs.
    pub without_chains: bool,
}

/// Evaluates a trace; `progress` is told the epochs done and all of them.
///
/// # Errors
/// A trace that cannot be read or has fewer than three epochs.
pub fn evaluate(
    path: &Path,
    cut: Cut,
    config: &Config,
    progress: impl FnMut(usize, usize),
) -> Result<TraceReport> {
    let requests = trace::read(path)?;
    let (vectors, blocks) = change_vectors(&requests, cut.epoch, cut.block)?;
    drop(requests);
    let used = vectors.iter().filter(|vector| !vector.changes().is_empty()).count();
    if used < 3 {
        bail!("{} has {used} epochs with changes; take shorter epochs", path.display());
    }
    walk(&path.display().to_string(), &vectors, blocks, cut, config, progress)
}

fn walk(
    name: &str,
    vectors: &[ChangeVector],
    blocks: u32,
    cut: Cut,
    config: &Config,
    mut progress: impl FnMut(usize, usize),
) -> Result<TraceReport> {
    let mut learner = Learner::new(config.clone(), blocks)?;
    let horizon = cut.horizon;
    learner.set_horizon(horizon);
    let mut without = cut.without_chains.then(|| Beside::new(config, blocks)).transpose()?;
    let mut ahead = (horizon.epochs() > 1).then(|| Ahead::new(horizon));
    let (mut sums, mut reach) = (Sums::default(), 0.0);
    let mut report = TraceReport {
        trace: name.to_owned(),
        epochs: vectors.len(),
        changes: vectors.iter().map(|vector| vector.changes().len()).sum(),
        threshold: config.threshold,
        ..TraceReport::default()
    };
    for (index, vector) in vectors.iter().enumerate() {
        let epoch = learner.observe(vector, Effort::Full)?;
        report.cost.add(&epoch.costs);
        report.most_candidates = report.most_candidates.max(epoch.candidates);
        progress(index + 1, vectors.len());
        let in_last_fifth = index >= vectors.len() - vectors.len() / 5;
        if let Some(without) = &mut without {
            without.observe(vector, in_last_fifth)?;
        }
        if let Some(ahead) = &mut ahead {
            ahead.happened(index, vector);
            ahead.predicted(index, in_last_fifth, &learner);
        }
        // An epoch without changes has nothing to be found.
        let Some(serving) = epoch.served.filter(|_| !vector.changes().is_empty()) else { continue };
        reach += if in_last_fifth { epoch.reach } else { 0.0 };
        sums.add(&epoch, serving, in_last_fifth);
        report.by_epoch.push(EpochLine::new(index, vector.changes().len(), &epoch, serving));
    }
    report.cost.divide(vectors.len());
    report.served = sums.served.report("served");
    report.scored_epochs = sums.served.scored_epochs();
    report.reach = reach / report.scored_epochs.max(1) as f64;
    report.serving = learner.scoreboard().serving().name().to_owned();
    report.reason = learner.reason();
    report.pays = learner.scoreboard().pays();
    report.peak_memory_bytes = peak_memory_bytes();
    report.predictors = sums.predictors();
    report.chains = learner.chains().list().iter().map(ChainReport::new).collect();
    report.without_chains = without.map(|without| WithoutChains {
        served: without.sums.served.report("served"),
        predictors: without.sums.predictors(),
    });
    report.horizon = ahead.map(|ahead| ahead.report());
    Ok(report)
}

/// The results of every predictor and of what was served.
#[derive(Default)]
struct Sums {
    served: Sum,
    predictors: [Sum; PREDICTORS],
}

impl Sums {
    fn add(&mut self, epoch: &EpochReport, serving: Predictor, in_last_fifth: bool) {
        if let Some(judgement) = epoch.judgements.get(serving as usize).and_then(Option::as_ref) {
            self.served.add(judgement, in_last_fifth);
        }
        for (sum, judgement) in self.predictors.iter_mut().zip(&epoch.judgements) {
            if let Some(judgement) = judgement {
                sum.add(judgement, in_last_fifth);
            }
        }
    }

    fn predictors(&self) -> Vec<PredictorReport> {
        let pairs = Predictor::ALL.iter().zip(&self.predictors);
        pairs.map(|(predictor, sum)| sum.report(predictor.name())).collect()
    }
}

/// The learner without chains.
struct Beside {
    learner: Learner,
    sums: Sums,
}

impl Beside {
    fn new(config: &Config, blocks: u32) -> Result<Self> {
        let mut config = config.clone();
        config.chain.predict = false;
        Ok(Self { learner: Learner::new(config, blocks)?, sums: Sums::default() })
    }

    fn observe(&mut self, vector: &ChangeVector, in_last_fifth: bool) -> Result<()> {
        let epoch = self.learner.observe(vector, Effort::Full)?;
        if let Some(serving) = epoch.served.filter(|_| !vector.changes().is_empty()) {
            self.sums.add(&epoch, serving, in_last_fifth);
        }
        Ok(())
    }
}
