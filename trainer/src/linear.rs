//! Logistic regression on the wide inputs, learning online: nearly free, and useful after few epochs.
//!
//! Steps by AdaGrad (Duchi, Hazan, Singer, 2011), so that rare inputs learn as fast as frequent ones.

use crate::contexts::from_logit;
use crate::inputs::WIDE;

const LEARNING_RATE: f32 = 0.06;
/// Weights shrink by this share a step, against drift on inputs that say the same.
const SHRINK: f32 = 1e-5;

/// The weights, and what their steps add up to.
#[derive(Clone, Debug)]
pub struct Linear {
    weights: [f32; WIDE],
    bias: f32,
    squares: [f32; WIDE],
    bias_square: f32,
}

impl Default for Linear {
    fn default() -> Self {
        Self { weights: [0.0; WIDE], bias: -2.0, squares: [1e-2; WIDE], bias_square: 1e-2 }
    }
}

impl Linear {
    /// The logit of a candidate.
    #[must_use]
    pub fn logit(&self, wide: &[f32; WIDE]) -> f32 {
        self.bias + self.weights.iter().zip(wide).map(|(weight, input)| weight * input).sum::<f32>()
    }

    /// One step on one example, which counts `weight` times.
    pub fn learn(&mut self, wide: &[f32; WIDE], changed: bool, weight: f32) {
        let error = (from_logit(self.logit(wide)) - f32::from(u8::from(changed))) * weight;
        for ((own, square), input) in self.weights.iter_mut().zip(&mut self.squares).zip(wide) {
            let gradient = error * input;
            *square += gradient * gradient;
            *own -= LEARNING_RATE * gradient / square.sqrt() + SHRINK * *own;
        }
        self.bias_square += error * error;
        self.bias -= LEARNING_RATE * error / self.bias_square.sqrt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn it_finds_the_input_that_matters() {
        let (mut linear, mut rng) = (Linear::default(), Rng::new(3));
        let mut draw = || {
            let mut wide = [0.0; WIDE];
            wide.iter_mut().for_each(|input| *input = rng.unit());
            wide
        };
        for _ in 0..3000 {
            let wide = draw();
            linear.learn(&wide, wide[5] > 0.5, 1.0);
        }
        let right = (0..500).filter(|_| {
            let wide = draw();
            (linear.logit(&wide) > 0.0) == (wide[5] > 0.5)
        });
        assert!(right.count() > 440);
    }
}
