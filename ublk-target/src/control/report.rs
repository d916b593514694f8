//! The trainer's report: checked when it arrives, shown by the calls that show prediction.
//!
//! The trainer is not trusted with more than advice: a report that is out of bounds is refused whole.

use forerun::api::v1;
use tonic::Status;

use super::check::refused;
use super::status::{Chain, PredictorScore, TrainerReport};

/// The most predictors in a report.
const PREDICTORS_MAX: usize = 64;
/// The most chains in a report.
const CHAINS_MAX: usize = 10_000;
/// The most epochs of one chain in a report.
const CHAIN_EPOCHS_MAX: usize = 1_000;
/// The longest name or reason, in bytes.
const TEXT_BYTES_MAX: usize = 4_096;

/// Checks a report that arrived at `received_us`.
pub(super) fn check(request: v1::ReportTrainerRequest, received_us: u64) -> Result<TrainerReport, Status> {
    at_most("predictors", request.predictors.len(), PREDICTORS_MAX)?;
    at_most("chains", request.chains.len(), CHAINS_MAX)?;
    at_most("bytes of serving_predictor", request.serving_predictor.len(), TEXT_BYTES_MAX)?;
    at_most("bytes of serving_reason", request.serving_reason.len(), TEXT_BYTES_MAX)?;
    Ok(TrainerReport {
        received_us,
        serving_predictor: request.serving_predictor,
        serving_reason: request.serving_reason,
        pays: request.pays,
        predictors: request.predictors.into_iter().map(predictor).collect::<Result<_, _>>()?,
        chains: request.chains.into_iter().map(chain).collect::<Result<_, _>>()?,
        epoch: request.epoch,
        score_window_epochs: request.score_window_epochs,
    })
}

fn at_most(what: &str, count: usize, limit: usize) -> Result<(), Status> {
    if count <= limit { Ok(()) } else { Err(refused(format!("{count} {what}; the limit is {limit}"))) }
}

fn fraction(what: &str, value: f64) -> Result<f64, Status> {
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err(refused(format!("{what} is {value}; the range is 0 to 1")))
    }
}

fn predictor(score: v1::PredictorScore) -> Result<PredictorScore, Status> {
    at_most("bytes of a predictor's name", score.name.len(), TEXT_BYTES_MAX)?;
    Ok(PredictorScore {
        mean_average_precision: fraction("mean_average_precision", score.mean_average_precision)?,
        precision: fraction("precision", score.precision)?,
        recall: fraction("recall", score.recall)?,
        name: score.name,
        epochs: score.epochs,
    })
}

fn chain(chain: v1::Chain) -> Result<Chain, Status> {
    at_most("epochs of one chain", chain.epochs.len(), CHAIN_EPOCHS_MAX)?;
    let parts = |own: v1::ChainLikeness| -> Result<[f64; 5], Status> {
        Ok([
            fraction("a chain's likeness in blocks", own.blocks)?,
            fraction("a chain's likeness in regions", own.regions)?,
            fraction("a chain's likeness in run lengths", own.run_lengths)?,
            fraction("a chain's likeness in kinds", own.kinds)?,
            fraction("a chain's likeness in volume", own.volume)?,
        ])
    };
    Ok(Chain {
        likeness: chain.likeness.map(parts).transpose()?,
        similarity_limits: [
            fraction("linked_from_similarity", chain.linked_from_similarity)?,
            fraction("pruned_below_similarity", chain.pruned_below_similarity)?,
        ],
        age_and_number_limits: [chain.pruned_after_hours, chain.pruned_above_epochs],
        pruned_by_number: chain.pruned_by_number,
        similarity: fraction("similarity", chain.similarity)?,
        id: chain.id,
        epochs: chain.epochs,
        first_us: chain.first_us,
        last_us: chain.last_us,
        mean_changed_blocks: chain.mean_changed_blocks,
        pruned_by_age: chain.pruned_by_age,
        pruned_by_divergence: chain.pruned_by_divergence,
    })
}
