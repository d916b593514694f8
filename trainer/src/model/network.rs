//! The network's shape and forward pass.
//!
//! ```text
//! sequence [B, T, PER_EPOCH] -> LSTM, 32 -> last state [B, 32] --+-- [B, 32 + WIDE] -> 48, ReLU -> 5 --+
//! wide     [B, WIDE] --------------------------------------------+                                     + -> logits [B, 5]
//!                     \-------------------------------- linear -> 5 -----------------------------------+
//! ```
//!
//! Logit 0 says whether the block changes in the next epoch, 1 to 3 how if it does (added, modified, deleted: softmax), 4
//! whether it changes within the horizon.
//!
//! The weights' names and gate order are PyTorch's. First weights come from a seed, because candle
//! cannot be seeded on the CPU: uniform within 1/sqrt(fan-in) as PyTorch's, the forget gate's bias 1
//! (Jozefowicz, Zaremba, Sutskever, 2015), the linear path 0.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::rnn::{LSTM, LSTMConfig, RNN};
use candle_nn::{Linear, Module, VarBuilder, VarMap};
use forerun::change_vector::ChangeKind;

use crate::epochs::SEQUENCE_EPOCHS;
use crate::inputs::{PER_EPOCH, WIDE};
use crate::rng::Rng;

/// The LSTM's state size.
pub const HIDDEN: usize = 32;
/// The head's width.
pub const HEAD: usize = 48;
/// The logits of a candidate.
pub const OUTPUTS: usize = 5;
/// That of a change in the next epoch.
pub(super) const CHANGE: usize = 0;
/// Those of the kinds, in the order of [`KINDS`].
pub(super) const KIND: std::ops::Range<usize> = 1..4;
/// That of a change within the horizon.
pub(super) const HORIZON: usize = 4;
/// The kinds of change that the network tells apart.
pub(super) const KINDS: [ChangeKind; 3] = [ChangeKind::Added, ChangeKind::Modified, ChangeKind::Deleted];
/// The weights of the linear path: they learn faster than the rest.
pub(super) const LINEAR_PATH: &str = "linear.";

/// The network with its weights.
pub struct Network {
    variables: VarMap,
    lstm: LSTM,
    head: Linear,
    out: Linear,
    linear: Linear,
}

impl Network {
    /// A network with first weights from `seed`.
    ///
    /// # Errors
    /// candle refuses, for want of memory at most.
    pub fn new(seed: u64) -> candle_core::Result<Self> {
        let variables = VarMap::new();
        let from = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let lstm = LSTM::new(PER_EPOCH, HIDDEN, LSTMConfig::default(), from.pp("lstm"))?;
        let head = candle_nn::linear(HIDDEN + WIDE, HEAD, from.pp("head"))?;
        let out = candle_nn::linear(HEAD, OUTPUTS, from.pp("out"))?;
        let linear = candle_nn::linear(WIDE, OUTPUTS, from.pp("linear"))?;
        let network = Self { variables, lstm, head, out, linear };
        network.set_first_weights(seed)?;
        Ok(network)
    }

    fn set_first_weights(&self, seed: u64) -> candle_core::Result<()> {
        for (name, variable) in self.named() {
            // Of its own stream each, so that the order does not matter.
            let mut rng = Rng::new(seed ^ u64::from(crc_of(&name)));
            let count = variable.elem_count();
            let fan_in = match name.split('.').next() {
                Some("lstm") => HIDDEN,
                Some("head") => HIDDEN + WIDE,
                _ => HEAD,
            };
            let bound = 1.0 / (fan_in as f32).sqrt();
            let mut values: Vec<f32> = (0..count).map(|_| rng.symmetric(bound)).collect();
            if name.starts_with(LINEAR_PATH) {
                values.fill(0.0);
            }
            if name == "lstm.bias_ih_l0" {
                // Gates in order: input, forget, cell, output.
                values.iter_mut().skip(HIDDEN).take(HIDDEN).for_each(|value| *value = 1.0);
            }
            if name == "out.bias" {
                // Changes are rare; of which kind they are is open.
                values.fill(0.0);
                for at in [CHANGE, HORIZON] {
                    if let Some(bias) = values.get_mut(at) {
                        *bias = -2.0;
                    }
                }
            }
            variable.set(&Tensor::from_vec(values, variable.shape(), &Device::Cpu)?)?;
        }
        Ok(())
    }

    /// The weights by name, in the order of names.
    #[must_use]
    pub fn named(&self) -> Vec<(String, Var)> {
        let data = self.variables.data().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut named: Vec<_> = data.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named
    }

    /// Copies of the weights by name.
    ///
    /// # Errors
    /// candle refuses, for want of memory at most.
    pub fn snapshot(&self) -> candle_core::Result<HashMap<String, Tensor>> {
        self.named().into_iter().map(|(name, var)| Ok((name, var.as_tensor().copy()?))).collect()
    }

    /// The logits `[B, OUTPUTS]` of `batch` candidates, from their sequence and wide inputs in rows.
    ///
    /// # Errors
    /// Inputs of another length than `batch` rows have.
    pub fn forward(&self, sequence: Vec<f32>, wide: Vec<f32>, batch: usize) -> candle_core::Result<Tensor> {
        let sequence = Tensor::from_vec(sequence, (batch, SEQUENCE_EPOCHS, PER_EPOCH), &Device::Cpu)?;
        let wide = Tensor::from_vec(wide, (batch, WIDE), &Device::Cpu)?;
        let states = self.lstm.seq(&sequence)?;
        let last = states.last().ok_or_else(|| candle_core::Error::msg("no epochs"))?;
        let joined = Tensor::cat(&[last.h(), &wide], 1)?;
        let head = self.head.forward(&joined)?.relu()?;
        self.out.forward(&head)? + self.linear.forward(&wide)?
    }
}

fn crc_of(name: &str) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, name.as_bytes()) as u32
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The same network in plain loops, in f64, from the formulas and not from candle.
    pub fn reference(weights: &HashMap<String, Vec<f64>>, sequence: &[f32], wide: &[f32]) -> [f64; OUTPUTS] {
        let get = |name: &str, at: usize| weights[name][at];
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let (mut h, mut c) = ([0.0; HIDDEN], [0.0; HIDDEN]);
        for step in sequence.chunks(PER_EPOCH) {
            let mut gates = [[0.0; HIDDEN]; 4];
            for (gate, row) in gates.iter_mut().enumerate() {
                for (unit, sum) in row.iter_mut().enumerate() {
                    let at = gate * HIDDEN + unit;
                    *sum = get("lstm.bias_ih_l0", at) + get("lstm.bias_hh_l0", at);
                    for (input, value) in step.iter().enumerate() {
                        *sum += get("lstm.weight_ih_l0", at * PER_EPOCH + input) * f64::from(*value);
                    }
                    for (input, value) in h.iter().enumerate() {
                        *sum += get("lstm.weight_hh_l0", at * HIDDEN + input) * value;
                    }
                }
            }
            for unit in 0..HIDDEN {
                c[unit] = sigmoid(gates[1][unit]) * c[unit] + sigmoid(gates[0][unit]) * gates[2][unit].tanh();
                h[unit] = sigmoid(gates[3][unit]) * c[unit].tanh();
            }
        }
        let joined: Vec<f64> = h.iter().copied().chain(wide.iter().map(|value| f64::from(*value))).collect();
        let head: [f64; HEAD] = std::array::from_fn(|unit| {
            let inputs = joined.iter().enumerate();
            let sum: f64 =
                inputs.map(|(at, value)| get("head.weight", unit * joined.len() + at) * value).sum();
            (get("head.bias", unit) + sum).max(0.0)
        });
        std::array::from_fn(|output| {
            let by_head: f64 =
                (0..HEAD).map(|unit| get("out.weight", output * HEAD + unit) * head[unit]).sum();
            let by_wide = wide.iter().enumerate();
            let by_wide: f64 =
                by_wide.map(|(at, value)| get("linear.weight", output * WIDE + at) * f64::from(*value)).sum();
            get("out.bias", output) + get("linear.bias", output) + by_head + by_wide
        })
    }

    /// All weights as plain numbers.
    pub fn weights_of(network: &Network) -> HashMap<String, Vec<f64>> {
        let numbers = |var: &Var| {
            let flat: Vec<f32> = var.flatten_all().expect("flat").to_vec1().expect("numbers");
            flat.into_iter().map(f64::from).collect()
        };
        network.named().iter().map(|(name, var)| (name.clone(), numbers(var))).collect()
    }

    #[test]
    fn the_forward_pass_is_that_of_plain_loops() {
        let network = Network::new(7).expect("made");
        let mut rng = Rng::new(5);
        for (name, var) in network.named() {
            if name.starts_with(LINEAR_PATH) {
                let values: Vec<f32> = (0..var.elem_count()).map(|_| rng.symmetric(0.3)).collect();
                var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).expect("made")).expect("set");
            }
        }
        let weights = weights_of(&network);
        let batch = 5;
        let (per_sequence, per_wide) = (SEQUENCE_EPOCHS * PER_EPOCH, WIDE);
        let sequence: Vec<f32> = (0..batch * per_sequence).map(|_| rng.symmetric(1.5)).collect();
        let wide: Vec<f32> = (0..batch * per_wide).map(|_| rng.symmetric(1.5)).collect();
        let logits: Vec<Vec<f32>> =
            network.forward(sequence.clone(), wide.clone(), batch).expect("ran").to_vec2().expect("numbers");
        for (row, logits) in logits.iter().enumerate() {
            let expected = reference(
                &weights,
                &sequence[row * per_sequence..][..per_sequence],
                &wide[row * per_wide..][..per_wide],
            );
            for (logit, expected) in logits.iter().zip(expected) {
                assert!((f64::from(*logit) - expected).abs() < 1e-5, "{logit} against {expected}");
            }
        }
    }

    #[test]
    fn first_weights_come_from_the_seed_alone() {
        let values = |seed| {
            let network = Network::new(seed).expect("made");
            let all = network.named().into_iter();
            all.map(|(_, var)| var.flatten_all().expect("flat").to_vec1::<f32>().expect("numbers"))
                .collect::<Vec<_>>()
        };
        assert_eq!(values(1), values(1));
        assert_ne!(values(1), values(2));
    }
}
