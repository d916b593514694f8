//! From predicted blocks to ranges: neighbours of one kind and about the same probability are told together.

use forerun::files::ByteRange;
use forerun::geometry::BLOCK_BYTES;
use forerun::prediction::{PredictedKind, Prediction};

/// How far apart the probabilities within a range may be.
const SPREAD_MAX: f32 = 0.05;

/// A range that is expected to change.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Expected {
    /// Where it lies on the volume.
    pub range: ByteRange,
    /// What is expected to happen to it.
    pub kind: PredictedKind,
    /// The mean of its blocks' probabilities: the share of them that is expected to change.
    pub probability: f64,
}

/// The ranges of what is predicted at `from` or above, the most probable first.
pub fn ranges(predictions: &[Prediction], from: f32) -> Vec<Expected> {
    let mut predictions: Vec<&Prediction> =
        predictions.iter().filter(|prediction| prediction.probability.get() >= from).collect();
    predictions.sort_unstable_by_key(|prediction| prediction.block);
    let is_alike = |first: &&Prediction, next: &&Prediction| {
        first.block.0.checked_add(1) == Some(next.block.0) && first.kind == next.kind
    };
    let mut ranges: Vec<Expected> =
        predictions.chunk_by(is_alike).flat_map(alike_in_probability).map(merged).collect();
    // By what is shown, so that ranges that look equally probable come in the volume's order.
    let shown = |expected: &Expected| (expected.probability * 100.0).round();
    ranges
        .sort_by(|a, b| shown(b).total_cmp(&shown(a)).then(a.range.offset_bytes.cmp(&b.range.offset_bytes)));
    ranges
}

/// Cuts a run where a probability is too far from one before it.
fn alike_in_probability<'p, 'r>(run: &'r [&'p Prediction]) -> Vec<&'r [&'p Prediction]> {
    let mut parts = Vec::new();
    let mut rest = run;
    while !rest.is_empty() {
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        let fits = |prediction: &&&Prediction| {
            let probability = prediction.probability.get();
            (low, high) = (low.min(probability), high.max(probability));
            high - low <= SPREAD_MAX
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (part, others) = rest.split_at(count);
        parts.push(part);
        rest = others;
    }
    parts
}

fn merged(run: &[&Prediction]) -> Expected {
    let sum: f64 = run.iter().map(|prediction| f64::from(prediction.probability.get())).sum();
    let (offset_bytes, kind) =
        run.first().map_or((0, PredictedKind::Added), |first| (first.block.offset_bytes(), first.kind));
    let blocks = run.len() as u64;
    Expected {
        range: ByteRange { offset_bytes, length_bytes: blocks * BLOCK_BYTES },
        kind,
        // As many decimals as the table's numbers have.
        probability: (sum / run.len().max(1) as f64 * 1e6).round() / 1e6,
    }
}
