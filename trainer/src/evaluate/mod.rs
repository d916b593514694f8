//! Walks forward through a block trace: predict the next epoch, score, learn, go on.
//!
//! It runs the very learner that serves a volume, so that what it prints is what would have been served. There is no
//! look-ahead: an epoch is learned from only after every predictor was scored on it.

pub mod epochs;
pub mod trace;

use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::config::Config;
use crate::cpu::peak_memory_bytes;
use crate::learner::{Effort, Learner};
use crate::predictors::{PREDICTORS, Predictor};
use epochs::{EpochLength, change_vectors};

/// Bins of the calibration error.
const CALIBRATION_BINS: usize = 10;

/// One trace's results.
#[derive(Clone, Debug, Serialize)]
pub struct TraceReport {
    /// The trace's file.
    pub trace: String,
    /// Epochs, those with changes, and changes.
    pub epochs: usize,
    /// Epochs that predictors were scored on in the last fifth.
    pub scored_epochs: usize,
    /// Changed blocks, over all epochs.
    pub changes: usize,
    /// The share of changes that were candidates, in the last fifth.
    pub reach: f64,
    /// What was served, epoch by epoch.
    pub served: PredictorReport,
    /// The last predictor that served, and why.
    pub serving: String,
    /// Why.
    pub reason: String,
    /// Whether predictions were said to pay at the end.
    pub pays: bool,
    /// Expected calibration error of what was served at 0.05 and above, in the last fifth.
    pub calibration_error: f64,
    /// Of what was served at 0.7 to 0.9 there, how many there were and the share that changed.
    pub at_0_7_to_0_9: (usize, f64),
    /// CPU seconds an epoch, mean.
    pub training_seconds: f64,
    /// CPU seconds an epoch, mean.
    pub scoring_seconds: f64,
    /// The most candidates.
    pub most_candidates: usize,
    /// Peak memory of the process, in bytes.
    pub peak_memory_bytes: u64,
    /// Every predictor.
    pub predictors: Vec<PredictorReport>,
}

/// One predictor's results: over the last fifth of the epochs, and over all that were scored.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PredictorReport {
    /// Its name.
    pub name: String,
    /// Mean average precision in the last fifth.
    pub mean_average_precision: f64,
    /// Mean coverage with as many predictions as changed in the epoch before, in the last fifth.
    pub coverage_100: f64,
    /// Mean average precision over all epochs.
    pub mean_average_precision_all: f64,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    last: (f64, f64, usize),
    all: (f64, usize),
}

impl Sum {
    fn add(&mut self, average_precision: f64, coverage: f64, in_last: bool) {
        self.all = (self.all.0 + average_precision, self.all.1 + 1);
        if in_last {
            self.last = (self.last.0 + average_precision, self.last.1 + coverage, self.last.2 + 1);
        }
    }

    fn report(&self, name: &str) -> PredictorReport {
        let last = self.last.2.max(1) as f64;
        PredictorReport {
            name: name.to_owned(),
            mean_average_precision: self.last.0 / last,
            coverage_100: self.last.1 / last,
            mean_average_precision_all: self.all.0 / self.all.1.max(1) as f64,
        }
    }
}

/// Evaluates a trace; `progress` is told the epochs done and all of them.
///
/// # Errors
/// A trace that cannot be read or has fewer than three epochs.
pub fn evaluate(
    path: &Path,
    length: EpochLength,
    config: &Config,
    mut progress: impl FnMut(usize, usize),
) -> Result<TraceReport> {
    let requests = trace::read(path)?;
    let (vectors, blocks) = change_vectors(&requests, length)?;
    drop(requests);
    let used: Vec<_> = vectors.iter().filter(|vector| !vector.changes().is_empty()).collect();
    if used.len() < 3 {
        bail!("{} has {} epochs with changes; take shorter epochs", path.display(), used.len());
    }
    let mut learner = Learner::new(config.clone(), blocks)?;
    let mut sums = [Sum::default(); PREDICTORS];
    let mut served = Sum::default();
    let mut probabilities: Vec<(f32, bool)> = Vec::new();
    let (mut reach, mut training, mut scoring, mut most) = (0.0, 0.0, 0.0, 0);
    for (index, vector) in vectors.iter().enumerate() {
        let report = learner.observe(vector, Effort::Full)?;
        let in_last = index >= vectors.len() - vectors.len() / 5;
        training += report.training_time.as_secs_f64();
        scoring += report.scoring_time.as_secs_f64();
        most = most.max(report.candidates);
        progress(index + 1, vectors.len());
        // An epoch without changes has nothing to be found.
        if vector.changes().is_empty() {
            continue;
        }
        if let Some(predictor) = report.served {
            let quality = report.qualities.get(predictor as usize).copied().flatten().unwrap_or_default();
            served.add(quality.average_precision, quality.coverage, in_last);
            if in_last {
                reach += report.reach;
                probabilities.extend(&report.served_probabilities);
            }
        }
        for (sum, quality) in sums.iter_mut().zip(report.qualities) {
            if let Some(quality) = quality {
                sum.add(quality.average_precision, quality.coverage, in_last);
            }
        }
    }
    let middle: Vec<_> = probabilities.iter().filter(|(p, _)| (0.7..0.9).contains(p)).collect();
    let happened = middle.iter().filter(|(_, changed)| *changed).count();
    let count = vectors.len() as f64;
    Ok(TraceReport {
        trace: path.display().to_string(),
        epochs: vectors.len(),
        scored_epochs: served.last.2,
        changes: vectors.iter().map(|vector| vector.changes().len()).sum(),
        reach: reach / served.last.2.max(1) as f64,
        served: served.report("served"),
        serving: learner.scoreboard().serving().name().to_owned(),
        reason: learner.reason(),
        pays: learner.scoreboard().pays(),
        calibration_error: calibration_error(&probabilities),
        at_0_7_to_0_9: (middle.len(), happened as f64 / middle.len().max(1) as f64),
        training_seconds: training / count,
        scoring_seconds: scoring / count,
        most_candidates: most,
        peak_memory_bytes: peak_memory_bytes(),
        predictors: Predictor::ALL
            .into_iter()
            .zip(sums)
            .map(|(predictor, sum)| sum.report(predictor.name()))
            .collect(),
    })
}

/// Mean distance of probability and share, over bins of a tenth, weighted by their number.
fn calibration_error(probabilities: &[(f32, bool)]) -> f64 {
    let mut bins = [(0.0, 0.0, 0.0); CALIBRATION_BINS];
    for (probability, changed) in probabilities {
        let at = ((probability * CALIBRATION_BINS as f32) as usize).min(CALIBRATION_BINS - 1);
        if let Some((sum, hits, all)) = bins.get_mut(at) {
            *sum += f64::from(*probability);
            *hits += f64::from(u8::from(*changed));
            *all += 1.0;
        }
    }
    let apart: f64 = bins.iter().map(|(sum, hits, _): &(f64, f64, f64)| (sum - hits).abs()).sum();
    apart / (probabilities.len() as f64).max(1.0)
}

impl TraceReport {
    /// The report as a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}\n  {} epochs, {} changes; the last fifth ({} epochs with changes): reach {:.2}\n\n  {:<20} {:>6} {:>7} {:>9}\n",
            self.trace,
            self.epochs,
            self.changes,
            self.scored_epochs,
            self.reach,
            "predictor",
            "mAP",
            "cov100",
            "mAP (all)"
        );
        for predictor in self.predictors.iter().chain(std::iter::once(&self.served)) {
            text += &format!(
                "  {:<20} {:>6.3} {:>7.3} {:>9.3}\n",
                predictor.name,
                predictor.mean_average_precision,
                predictor.coverage_100,
                predictor.mean_average_precision_all
            );
        }
        let (count, share) = self.at_0_7_to_0_9;
        text += &format!(
            "\n  serving: {}; pays: {}\n  calibration error {:.3}; of {count} served at 0.7 to 0.9, {share:.2} changed\n",
            self.reason,
            if self.pays { "yes" } else { "no" },
            self.calibration_error,
        );
        text += &format!(
            "  CPU seconds an epoch: {:.3} training, {:.3} scoring up to {} candidates; peak memory {} MiB\n",
            self.training_seconds,
            self.scoring_seconds,
            self.most_candidates,
            self.peak_memory_bytes >> 20,
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Real traces lie beside the workspace where there are any; they are not part of it.
    #[test]
    fn on_a_real_trace_what_is_learned_beats_the_simple_predictors() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces/fin1_excerpt.csv.zst");
        if !path.exists() {
            eprintln!("skipped 1 test: there is no trace {}", path.display());
            return;
        }
        // Without the network's training, which a debug build takes a minute for.
        let config = Config { steps_per_epoch: 0, ..Config::default() };
        let report = evaluate(&path, EpochLength::Count(150), &config, |_, _| {}).expect("evaluated");
        let of = |name: &str| report.predictors.iter().find(|predictor| predictor.name == name);
        let map = |name: &str| of(name).map_or(0.0, |predictor| predictor.mean_average_precision);
        assert!(map("linear") >= map("decayed-rate-3"), "{}", report.table());
        assert!(report.served.mean_average_precision > 0.45 && report.pays, "{}", report.table());
        assert!(report.reach > 0.95 && report.calibration_error < 0.1, "{}", report.table());
    }

    #[test]
    fn calibration_error_is_the_mean_distance() {
        let apart = calibration_error(&[(0.75, true), (0.75, false), (0.15, false), (0.15, false)]);
        assert!((apart - (0.5 + 0.3) / 4.0).abs() < 1e-6, "{apart}");
        assert_eq!(calibration_error(&[]), 0.0);
    }
}
