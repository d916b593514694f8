//! Walks forward through a block trace: predict the next epoch, score, learn, go on.
//!
//! It runs the very learner that serves a volume, so that what it prints is what would have been served. There is no
//! look-ahead: an epoch is learned from only after every predictor was scored on it.

pub mod ahead;
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
use crate::learner::{Effort, EpochReport, Judgement, Learner};
use crate::predictors::Predictor;
use ahead::Ahead;
use epochs::{BlockSize, EpochLength, change_vectors};
use report::{PredictorReport, Sum, TraceReport};

/// How a trace is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// How long an epoch is.
    pub epoch: EpochLength,
    /// How large a block is.
    pub block: BlockSize,
    /// For how many epochs ahead predictions are scored besides those for the next.
    pub horizon: Horizon,
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
    walk(&path.display().to_string(), &vectors, blocks, cut.horizon, config, progress)
}

fn walk(
    name: &str,
    vectors: &[ChangeVector],
    blocks: u32,
    horizon: Horizon,
    config: &Config,
    mut progress: impl FnMut(usize, usize),
) -> Result<TraceReport> {
    let mut learner = Learner::new(config.clone(), blocks)?;
    learner.set_horizon(horizon);
    let mut ahead = (horizon.epochs() > 1).then(|| Ahead::new(horizon));
    let mut sums: Vec<Sum> = Predictor::ALL.iter().map(|_| Sum::default()).collect();
    let (mut served, mut reach) = (Sum::default(), 0.0);
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
        if let Some(ahead) = &mut ahead {
            ahead.happened(index, vector);
            ahead.predicted(index, in_last_fifth, &learner);
        }
        // An epoch without changes has nothing to be found.
        let Some(serving) = epoch.served.filter(|_| !vector.changes().is_empty()) else { continue };
        reach += if in_last_fifth { epoch.reach } else { 0.0 };
        if let Some(judgement) = judged(&epoch, serving) {
            served.add(&judgement, in_last_fifth);
        }
        for (sum, judgement) in sums.iter_mut().zip(epoch.judgements) {
            if let Some(judgement) = judgement {
                sum.add(&judgement, in_last_fifth);
            }
        }
    }
    report.cost.divide(vectors.len());
    report.served = served.report("served");
    report.scored_epochs = served.scored_epochs();
    report.reach = reach / report.scored_epochs.max(1) as f64;
    report.serving = learner.scoreboard().serving().name().to_owned();
    report.reason = learner.reason();
    report.pays = learner.scoreboard().pays();
    report.peak_memory_bytes = peak_memory_bytes();
    report.predictors = predictor_reports(&sums);
    report.horizon = ahead.map(|ahead| ahead.report());
    Ok(report)
}

fn judged(epoch: &EpochReport, predictor: Predictor) -> Option<Judgement> {
    epoch.judgements.get(predictor as usize).copied().flatten()
}

fn predictor_reports(sums: &[Sum]) -> Vec<PredictorReport> {
    Predictor::ALL.iter().zip(sums).map(|(predictor, sum)| sum.report(predictor.name())).collect()
}
