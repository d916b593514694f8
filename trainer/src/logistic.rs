//! Logistic regression, learning online: nearly free, and useful after few epochs.
//!
//! Steps by AdaGrad (Duchi, Hazan, Singer, 2011), so that rare inputs learn as fast as frequent ones.

use crate::contexts::from_logit;

/// Weights shrink towards where they began by this share a step, against drift on inputs that say the same.
const SHRINK: f32 = 1e-5;

/// The weights of `N` inputs, and what their steps add up to.
#[derive(Clone, Debug)]
pub struct Logistic<const N: usize> {
    first: [f32; N],
    weights: [f32; N],
    bias: f32,
    squares: [f32; N],
    bias_square: f32,
    rate: f32,
}

impl<const N: usize> Logistic<N> {
    /// Begins with these weights; `rate` is the length of the first steps.
    #[must_use]
    pub const fn new(first: [f32; N], bias: f32, rate: f32) -> Self {
        Self { first, weights: first, bias, squares: [1e-2; N], bias_square: 1e-2, rate }
    }

    /// The logit of a candidate.
    #[must_use]
    pub fn logit(&self, inputs: &[f32; N]) -> f32 {
        self.bias + self.weights.iter().zip(inputs).map(|(weight, input)| weight * input).sum::<f32>()
    }

    /// One step on one example, which counts `weight` times.
    pub fn learn(&mut self, inputs: &[f32; N], changed: bool, weight: f32) {
        let error = (from_logit(self.logit(inputs)) - f32::from(u8::from(changed))) * weight;
        let own = self.weights.iter_mut().zip(&mut self.squares).zip(&self.first);
        for (((own, square), first), input) in own.zip(inputs) {
            let gradient = error * input;
            *square += gradient * gradient;
            *own -= self.rate * gradient / square.sqrt() + SHRINK * (*own - first);
        }
        self.bias_square += error * error;
        self.bias -= self.rate * error / self.bias_square.sqrt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn it_finds_the_input_that_matters() {
        let (mut logistic, mut rng) = (Logistic::new([0.0; 40], -2.0, 0.06), Rng::new(3));
        let mut draw = || {
            let mut inputs = [0.0; 40];
            inputs.iter_mut().for_each(|input| *input = rng.unit());
            inputs
        };
        for _ in 0..3000 {
            let inputs = draw();
            logistic.learn(&inputs, inputs[5] > 0.5, 1.0);
        }
        let right = (0..500).filter(|_| {
            let inputs = draw();
            (logistic.logit(&inputs) > 0.0) == (inputs[5] > 0.5)
        });
        assert!(right.count() > 440);
    }
}
