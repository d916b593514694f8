//! Samples to learn from: candidates of past epochs with what then happened to them.
//!
//! From each epoch come all positives up to a bound, the negatives that were thought likeliest,
//! and some others by chance; each counts for as many as it stands for. Bounded in epochs and samples.

use std::collections::VecDeque;

use forerun::change_vector::{ChangeKind, ChangeVector};

use crate::inputs::WIDE;
use crate::rng::Rng;

/// Epochs of samples kept.
pub const EPOCHS: usize = 24;
/// The longest horizon that is learned, in epochs: its samples have to be there when it ends.
pub const LEARNED_HORIZON_EPOCHS: u32 = 16;
/// The most candidates that one sample stands for in training: more would let it drown the others of its batch.
const MAX_WEIGHT: f32 = 16.0;
/// The share of a batch that comes from the newest epoch.
const NEWEST_SHARE: f32 = 0.4;

/// One candidate of one epoch, and what happened to it in the next.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its block.
    pub block: u32,
    /// Sequence inputs, `SEQUENCE_EPOCHS * PER_EPOCH`.
    pub sequence: Vec<f32>,
    /// Wide inputs.
    pub wide: [f32; WIDE],
    /// How likely it was thought, by the network or, before that has scored, by the linear predictor.
    pub score: f32,
    /// How it changed, if it did.
    pub changed: Option<ChangeKind>,
    /// For how many candidates it stands.
    pub stands_for: f32,
    /// Whether it changed within the horizon; `None` before the horizon has ended.
    pub within: Option<bool>,
    /// The network's score for the horizon, made when it was a candidate; 0 where it made none.
    pub within_score: f32,
    /// The same by the formula of [`crate::publish::within`].
    pub formula_score: f32,
}

impl Sample {
    /// How much it counts in training.
    #[must_use]
    pub fn weight(&self) -> f32 {
        self.stands_for.min(MAX_WEIGHT)
    }
}

/// The samples of one epoch.
#[derive(Debug)]
struct EpochSamples {
    /// The step that they are about.
    step: u32,
    samples: Vec<Sample>,
    /// Which of them have changed since; empty where the horizon is over, or was another one.
    hits: Vec<bool>,
}

/// The samples of the latest epochs.
#[derive(Debug, Default)]
pub struct Replay {
    epochs: VecDeque<EpochSamples>,
}

impl Replay {
    /// Takes the samples about the epoch of `step`; the oldest epoch's go when there are too many.
    pub fn push(&mut self, step: u32, samples: Vec<Sample>) {
        if !samples.is_empty() {
            let hits = samples.iter().map(|sample| sample.changed.is_some()).collect();
            self.epochs.push_back(EpochSamples { step, samples, hits });
        }
        if self.epochs.len() > EPOCHS {
            self.epochs.pop_front();
        }
    }

    /// Takes note of what changed in the epoch of `step`, for samples whose horizon goes on; returns those whose horizon
    /// of so many epochs ends with it.
    pub fn happened(&mut self, step: u32, vector: &ChangeVector, horizon: u32) -> &[Sample] {
        let mut ended = None;
        for (at, epoch) in self.epochs.iter_mut().enumerate().filter(|(_, epoch)| !epoch.hits.is_empty()) {
            if epoch.step < step {
                let mut changes = vector.changes().iter().map(|change| change.block.0).peekable();
                for (sample, hit) in epoch.samples.iter().zip(&mut epoch.hits) {
                    while changes.next_if(|block| *block < sample.block).is_some() {}
                    *hit |= changes.peek() == Some(&sample.block);
                }
            }
            if epoch.step + horizon <= step + 1 {
                for (sample, hit) in epoch.samples.iter_mut().zip(std::mem::take(&mut epoch.hits)) {
                    sample.within = Some(hit);
                }
                ended = Some(at);
            }
        }
        ended.and_then(|at| self.epochs.get(at)).map_or(&[], |epoch| epoch.samples.as_slice())
    }

    /// Forgets what is known of the horizon, because it is another one from now on.
    pub fn forget_horizon(&mut self) {
        for epoch in &mut self.epochs {
            epoch.hits = Vec::new();
            epoch.samples.iter_mut().for_each(|sample| sample.within = None);
        }
    }

    /// How many samples there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.epochs.iter().map(|epoch| epoch.samples.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }

    /// Draws `count` samples, a good part of them from the newest epoch, later epochs more often.
    pub fn draw(&self, count: usize, rng: &mut Rng) -> Vec<&Sample> {
        let mut batch = Vec::with_capacity(count);
        for _ in 0..count {
            let newest = self.epochs.len().saturating_sub(1);
            let epoch = if rng.unit() < NEWEST_SHARE {
                newest
            } else {
                // The larger of two draws: later epochs come up more often.
                rng.below(self.epochs.len()).max(rng.below(self.epochs.len()))
            };
            if let Some(EpochSamples { samples, .. }) = self.epochs.get(epoch) {
                batch.extend(samples.get(rng.below(samples.len())));
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::vector_of;

    fn samples_of(blocks: &[u32], changed: &[u32]) -> Vec<Sample> {
        let sample = |block: &u32| Sample {
            block: *block,
            sequence: Vec::new(),
            wide: [0.0; WIDE],
            score: 0.0,
            changed: changed.contains(block).then_some(ChangeKind::Modified),
            stands_for: 1.0,
            within: None,
            within_score: 0.0,
            formula_score: 0.0,
        };
        blocks.iter().map(sample).collect()
    }

    #[test]
    fn a_horizon_is_known_when_it_has_ended() {
        let mut replay = Replay::default();
        let blocks = [1, 5, 9, 12];
        replay.push(1, samples_of(&blocks, &[1]));
        assert!(replay.happened(1, &vector_of(1, &[1]), 3).is_empty());
        assert!(replay.happened(2, &vector_of(2, &[5, 100]), 3).is_empty());
        replay.push(2, samples_of(&blocks, &[5]));
        let ended: Vec<_> = replay.happened(3, &vector_of(3, &[4, 9]), 3).iter().map(|s| s.within).collect();
        assert_eq!(ended, [Some(true), Some(true), Some(true), Some(false)]);
        let ended: Vec<_> = replay.happened(4, &vector_of(4, &[]), 3).iter().map(|s| s.within).collect();
        assert_eq!(ended, [Some(false), Some(true), Some(true), Some(false)]);
        replay.push(5, samples_of(&blocks, &[]));
        replay.forget_horizon();
        assert!(replay.happened(7, &vector_of(7, &[1]), 2).is_empty());
        assert!(replay.draw(50, &mut Rng::new(1)).iter().all(|sample| sample.within.is_none()));
    }
}
