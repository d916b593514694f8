//! Samples to learn from: candidates of past epochs with what then happened to them.
//!
//! From each epoch come all positives up to a bound, the negatives that were thought likeliest,
//! and some others by chance; each counts for as many as it stands for. Bounded in epochs and samples.

use std::collections::VecDeque;

use crate::inputs::WIDE;
use crate::rng::Rng;

/// Epochs of samples kept.
const EPOCHS: usize = 24;
/// The share of a batch that comes from the newest epoch.
const NEWEST_SHARE: f32 = 0.4;

/// One candidate of one epoch, and whether it changed in the next.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Sequence inputs, `SEQUENCE_EPOCHS * PER_EPOCH`.
    pub sequence: Vec<f32>,
    /// Wide inputs.
    pub wide: [f32; WIDE],
    /// Whether it changed.
    pub changed: bool,
    /// For how many candidates it stands.
    pub weight: f32,
}

/// The samples of the latest epochs.
#[derive(Debug, Default)]
pub struct Replay {
    epochs: VecDeque<Vec<Sample>>,
}

impl Replay {
    /// Takes an epoch's samples; the oldest epoch's go when there are too many.
    pub fn push(&mut self, samples: Vec<Sample>) {
        if !samples.is_empty() {
            self.epochs.push_back(samples);
        }
        if self.epochs.len() > EPOCHS {
            self.epochs.pop_front();
        }
    }

    /// The newest epoch's samples.
    #[must_use]
    pub fn newest(&self) -> &[Sample] {
        self.epochs.back().map_or(&[], Vec::as_slice)
    }

    /// How many samples there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.epochs.iter().map(Vec::len).sum()
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
            if let Some(samples) = self.epochs.get(epoch) {
                batch.extend(samples.get(rng.below(samples.len())));
            }
        }
        batch
    }
}
