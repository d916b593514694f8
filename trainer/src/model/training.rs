//! Learning: a few steps of Adam after each epoch, within the CPU budget, and scoring.
//!
//! Adam (Kingma, Ba, 2014) with 7e-4, three times that on the linear path, gradients clipped to norm
//! 1, batches of 256: what did best in the measurements the design rests on. The loss is cross-entropy (binary for the
//! change and for the horizon, over three kinds for the kind), weighted by how many candidates a sample stands for. Weights
//! that become NaN are thrown away.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

use super::network::{CHANGE, HORIZON, KIND, KINDS, LINEAR_PATH, Network, OUTPUTS};
use super::replay::{Replay, Sample};
use crate::contexts::from_logit;
use crate::cpu::Budget;
use crate::rng::Rng;

const LEARNING_RATE: f64 = 7e-4;
const LINEAR_PATH_FACTOR: f64 = 3.0;
const CLIP_NORM: f32 = 1.0;
const BATCH: usize = 256;
/// How much the horizon and the kind count in the loss, the next epoch's change being 1: enough to be learned, too little to
/// take the place of what is served.
const HORIZON_SHARE: f32 = 0.5;
const KIND_SHARE: f32 = 0.2;

/// What an epoch's training did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrainingReport {
    /// Steps taken.
    pub steps: u32,
    /// Mean loss over them, in nats a candidate.
    pub loss: f32,
    /// Whether the weights became unusable and were made anew.
    pub restarted: bool,
}

/// The network, and what learning needs.
pub struct Trainer {
    network: Network,
    fast: AdamW,
    slow: AdamW,
    variables: Vec<Var>,
    rng: Rng,
    seed: u64,
}

impl Trainer {
    /// A network with first weights from `seed`.
    ///
    /// # Errors
    /// candle refuses, for want of memory at most.
    pub fn new(seed: u64) -> candle_core::Result<Self> {
        Self::of(Network::new(seed)?, seed)
    }

    /// Goes on with a network.
    ///
    /// # Errors
    /// candle refuses, for want of memory at most.
    pub fn of(network: Network, seed: u64) -> candle_core::Result<Self> {
        let (linear, rest): (Vec<_>, Vec<_>) =
            network.named().into_iter().partition(|(name, _)| name.starts_with(LINEAR_PATH));
        let optimizer = |named: &[(String, Var)], lr| {
            let params = ParamsAdamW { lr, weight_decay: 0.0, ..ParamsAdamW::default() };
            AdamW::new(named.iter().map(|(_, var)| var.clone()).collect(), params)
        };
        Ok(Self {
            fast: optimizer(&linear, LEARNING_RATE * LINEAR_PATH_FACTOR)?,
            slow: optimizer(&rest, LEARNING_RATE)?,
            variables: linear.into_iter().chain(rest).map(|(_, var)| var).collect(),
            network,
            rng: Rng::new(seed ^ 0x5eed),
            seed,
        })
    }

    /// The network that learns.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// Takes up to `steps` steps, until the budget is spent.
    ///
    /// # Errors
    /// candle refuses, for want of memory at most.
    pub fn train(
        &mut self,
        replay: &Replay,
        steps: u32,
        budget: &Budget,
    ) -> candle_core::Result<TrainingReport> {
        let mut report = TrainingReport::default();
        if replay.is_empty() {
            return Ok(report);
        }
        // A batch larger than what there is to learn would only repeat it.
        let batch = BATCH.min(replay.len().next_power_of_two()).max(32);
        let mut losses = 0.0;
        while report.steps < steps && !budget.spent() {
            let drawn = replay.draw(batch, &mut self.rng);
            let loss = self.step(&drawn)?;
            if !loss.is_finite() {
                *self = Self::new(self.seed.wrapping_add(1))?;
                return Ok(TrainingReport { restarted: true, ..report });
            }
            losses += loss;
            report.steps += 1;
        }
        report.loss = losses / report.steps.max(1) as f32;
        Ok(report)
    }

    fn step(&mut self, samples: &[&Sample]) -> candle_core::Result<f32> {
        let (loss, mut gradients) = self.loss(samples)?;
        if loss.is_finite() {
            self.clip(&mut gradients)?;
            self.fast.step(&gradients)?;
            self.slow.step(&gradients)?;
        }
        Ok(loss)
    }

    /// The weighted loss of samples, and its gradients.
    fn loss(&self, samples: &[&Sample]) -> candle_core::Result<(f32, GradStore)> {
        let sequence = samples.iter().flat_map(|sample| sample.sequence.iter().copied()).collect();
        let wide = samples.iter().flat_map(|sample| sample.wide).collect();
        let logits = self.network.forward(sequence, wide, samples.len())?;
        let values: Vec<f32> = logits.flatten_all()?.to_vec1()?;
        let total: f32 = samples.iter().map(|sample| sample.weight()).sum();
        let (mut loss, mut slopes) = (0.0, Vec::with_capacity(values.len()));
        for (logits, sample) in values.chunks_exact(OUTPUTS).zip(samples) {
            let (own, own_slopes) = loss_of(logits, sample);
            let weight = sample.weight() / total;
            loss += weight * own;
            slopes.extend(own_slopes.map(|slope| weight * slope));
        }
        // The loss's slope at each logit is known in closed form; its product with the logits has the
        // same gradients as the loss, without exponentials and logarithms in the graph.
        let slopes = Tensor::from_vec(slopes, (samples.len(), OUTPUTS), &Device::Cpu)?;
        Ok((loss, (logits * slopes)?.sum_all()?.backward()?))
    }

    fn clip(&self, gradients: &mut GradStore) -> candle_core::Result<()> {
        let mut square = 0.0;
        for variable in &self.variables {
            if let Some(gradient) = gradients.get(variable) {
                square += gradient.sqr()?.sum_all()?.to_scalar::<f32>()?;
            }
        }
        let norm = square.sqrt();
        if norm <= CLIP_NORM {
            return Ok(());
        }
        for variable in &self.variables {
            if let Some(gradient) = gradients.remove(variable) {
                let scaled = (gradient * f64::from(CLIP_NORM / norm))?;
                gradients.insert(variable, scaled);
            }
        }
        Ok(())
    }

    /// What the network says of candidates, from their inputs in rows.
    ///
    /// # Errors
    /// Inputs of another length than `batch` rows have.
    pub fn score(
        &self,
        sequence: Vec<f32>,
        wide: Vec<f32>,
        batch: usize,
    ) -> candle_core::Result<Vec<Scores>> {
        let logits: Vec<f32> = self.network.forward(sequence, wide, batch)?.flatten_all()?.to_vec1()?;
        Ok(logits.chunks_exact(OUTPUTS).map(Scores::of).collect())
    }
}

/// What the network says of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// The probability of a change in the next epoch.
    pub change: f32,
    /// Of a deletion, if it changes and is not added.
    pub deleted: f32,
    /// Of a change within the horizon.
    pub within: f32,
}

impl Scores {
    fn of(logits: &[f32]) -> Self {
        let at = |output: usize| logits.get(output).copied().unwrap_or(0.0);
        let probability = |logit: f32| if logit.is_nan() { 0.0 } else { from_logit(logit) };
        Self {
            change: probability(at(CHANGE)),
            // Of two outputs of a softmax, one's share is the logistic function of their difference.
            deleted: probability(at(KIND.start + 2) - at(KIND.start + 1)),
            within: probability(at(HORIZON)),
        }
    }
}

/// A sample's loss, in nats, and its slope at each logit.
fn loss_of(logits: &[f32], sample: &Sample) -> (f32, [f32; OUTPUTS]) {
    let at = |output: usize| logits.get(output).copied().unwrap_or(0.0);
    let mut slopes = [0.0; OUTPUTS];
    let (mut loss, slope) = cross_entropy(at(CHANGE), sample.changed.is_some());
    slopes[CHANGE] = slope;
    if let Some(within) = sample.within {
        let (own, slope) = cross_entropy(at(HORIZON), within);
        loss += HORIZON_SHARE * own;
        slopes[HORIZON] = HORIZON_SHARE * slope;
    }
    if let Some(kind) = sample.changed {
        let most = KIND.map(at).fold(f32::MIN, f32::max);
        let sum: f32 = KIND.map(|output| (at(output) - most).exp()).sum();
        for (output, other) in KIND.zip(KINDS) {
            let log_share = at(output) - most - sum.ln();
            let wanted = f32::from(u8::from(other == kind));
            loss -= KIND_SHARE * wanted * log_share;
            slopes[output] = KIND_SHARE * (log_share.exp() - wanted);
        }
    }
    (loss, slopes)
}

/// The loss of a logit whose truth is known, in nats, and its slope.
fn cross_entropy(logit: f32, truth: bool) -> (f32, f32) {
    let target = f32::from(u8::from(truth));
    let loss = logit.max(0.0) - logit * target + (-logit.abs()).exp().ln_1p();
    (loss, from_logit(logit) - target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epochs::SEQUENCE_EPOCHS;
    use crate::inputs::{PER_EPOCH, WIDE};
    use crate::model::network::tests::{reference, weights_of};
    use forerun::change_vector::ChangeKind;

    #[test]
    fn it_learns_what_only_the_sequence_tells() {
        let mut rng = Rng::new(11);
        let mut sample = || {
            let phase = rng.below(3);
            let mut sequence = vec![0.0; SEQUENCE_EPOCHS * PER_EPOCH];
            for epoch in 0..SEQUENCE_EPOCHS {
                sequence[epoch * PER_EPOCH] = f32::from(u8::from((epoch + phase).is_multiple_of(3)));
            }
            Sample {
                sequence,
                wide: [0.1; WIDE],
                block: 0,
                score: 0.0,
                changed: (SEQUENCE_EPOCHS + phase).is_multiple_of(3).then_some(ChangeKind::Modified),
                stands_for: 1.0,
                within: None,
                within_score: 0.0,
                formula_score: 0.0,
            }
        };
        let mut replay = Replay::default();
        replay.push(1, (0..256).map(|_| sample()).collect());
        let mut trainer = Trainer::new(1).expect("made");
        let budget = Budget::start(300.0);
        let first = trainer.train(&replay, 1, &budget).expect("ran");
        let mut losses = (0..80).map(|_| trainer.train(&replay, 10, &budget).expect("ran").loss);
        // The share of those that change is a third: without the sequence, 0.64 is the best there is.
        assert!(losses.any(|loss| loss < 0.2), "from {} to {:?}", first.loss, losses.last());
        assert_eq!(trainer.train(&replay, 10, &Budget::start(0.0)).expect("ran").steps, 0);
    }

    #[test]
    fn gradients_are_the_slopes_of_the_loss() {
        let mut rng = Rng::new(3);
        let samples: Vec<Sample> = (0..6)
            .map(|at| Sample {
                sequence: (0..SEQUENCE_EPOCHS * PER_EPOCH).map(|_| rng.symmetric(1.0)).collect(),
                wide: std::array::from_fn(|_| rng.symmetric(1.0)),
                block: at,
                score: 0.0,
                changed: (at % 3 == 0).then(|| KINDS[at as usize / 3]),
                stands_for: 1.0 + at as f32,
                within: (at != 1).then_some(at % 2 == 0),
                within_score: 0.0,
                formula_score: 0.0,
            })
            .collect();
        let samples: Vec<&Sample> = samples.iter().collect();
        let trainer = Trainer::new(2).expect("made");
        let (_, gradients) = trainer.loss(&samples).expect("ran");
        let mut weights = weights_of(trainer.network());
        let total: f64 = samples.iter().map(|sample| f64::from(sample.weight())).sum();
        for (name, variable) in trainer.network().named() {
            let gradient = gradients.get(&variable).expect("each weight has one");
            let flat: Vec<f32> = gradient.flatten_all().expect("flat").to_vec1().expect("numbers");
            for _ in 0..6 {
                let at = rng.below(flat.len());
                // Central differences of the loss over the plain forward pass in f64.
                let mut loss_with = |delta: f64| {
                    weights.get_mut(&name).expect("there")[at] += delta;
                    let losses = samples.iter().map(|sample| {
                        let logits = reference(&weights, &sample.sequence, &sample.wide);
                        let of = |logit: f64, truth: bool| if truth { -logit } else { logit }.exp().ln_1p();
                        let mut loss = of(logits[CHANGE], sample.changed.is_some());
                        loss += sample.within.map_or(0.0, |within| 0.5 * of(logits[HORIZON], within));
                        if let Some(kind) = sample.changed {
                            let all: f64 = logits[KIND].iter().map(|logit| logit.exp()).sum();
                            let own = KINDS.iter().position(|other| *other == kind).expect("a kind");
                            loss -= 0.2 * (logits[KIND][own] - all.ln());
                        }
                        f64::from(sample.weight()) / total * loss
                    });
                    let loss: f64 = losses.sum();
                    weights.get_mut(&name).expect("there")[at] -= delta;
                    loss
                };
                let slope = (loss_with(1e-5) - loss_with(-1e-5)) / 2e-5;
                assert!((slope - f64::from(flat[at])).abs() < 1e-5, "{name}: {slope}, {}", flat[at]);
            }
        }
    }
}
