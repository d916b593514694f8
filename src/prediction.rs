//! A prediction: a block that is expected to change, what will happen to it, and how likely.
//!
//! Probability, threshold and horizon have types of their own whose ranges hold everywhere.

use crate::change_vector::ChangeKind;
use crate::geometry::BlockIndex;
use thiserror::Error;

/// What is expected of a block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum PredictedKind {
    /// It will hold data, and holds none.
    Added = 1,
    /// It will hold other data.
    Modified = 2,
    /// It will be discarded or zeroed as a whole.
    Deleted = 3,
    /// It will be read, and not changed.
    Read = 4,
}

impl PredictedKind {
    /// Reads the kind's number in a prediction table; `None` where it is unknown.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Added),
            2 => Some(Self::Modified),
            3 => Some(Self::Deleted),
            4 => Some(Self::Read),
            _ => None,
        }
    }

    /// The kind's name in text and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
            Self::Read => "read",
        }
    }

    /// The change that is expected; `None` for a read.
    #[must_use]
    pub const fn change(self) -> Option<ChangeKind> {
        match self {
            Self::Added => Some(ChangeKind::Added),
            Self::Modified => Some(ChangeKind::Modified),
            Self::Deleted => Some(ChangeKind::Deleted),
            Self::Read => None,
        }
    }
}

impl From<ChangeKind> for PredictedKind {
    fn from(kind: ChangeKind) -> Self {
        match kind {
            ChangeKind::Added => Self::Added,
            ChangeKind::Modified => Self::Modified,
            ChangeKind::Deleted => Self::Deleted,
        }
    }
}

/// A block expected to change, or to be read, within the horizon.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Prediction {
    /// Which block.
    pub block: BlockIndex,
    /// What is expected to happen to it.
    pub kind: PredictedKind,
    /// How likely, calibrated: of what is predicted at 0.8, about 80 % happens.
    pub probability: Probability,
}

/// A value outside of its range.
#[derive(Debug, Error, PartialEq)]
pub enum RangeError {
    /// A probability or threshold.
    #[error("{what} is {value}; the range is {min} to {max}")]
    Fraction {
        /// What was given.
        what: &'static str,
        /// The value given.
        value: f64,
        /// The smallest allowed.
        min: f64,
        /// The largest allowed.
        max: f64,
    },
    /// A horizon.
    #[error("the prediction horizon is {value} epochs; the range is {min} to {max}")]
    Horizon {
        /// The value given, in epochs.
        value: u32,
        /// The smallest allowed.
        min: u32,
        /// The largest allowed.
        max: u32,
    },
}

/// A probability, 0.0 to 1.0, never NaN.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub struct Probability(f32);

impl Probability {
    /// Checks and takes a probability.
    ///
    /// # Errors
    /// NaN, or a value outside of 0 to 1.
    pub fn new(value: f32) -> Result<Self, RangeError> {
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(RangeError::Fraction { what: "the probability", value: f64::from(value), min: 0.0, max: 1.0 })
        }
    }

    /// The value, 0.0 to 1.0.
    #[must_use]
    pub const fn get(self) -> f32 {
        self.0
    }
}

/// The probability from which a prediction is acted on, 0.05 to 1.0.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub struct Threshold(f32);

impl Threshold {
    /// The lowest threshold: below it, nearly everything would be reserved for.
    pub const MIN: f64 = 0.05;
    /// The highest threshold: only what is certain.
    pub const MAX: f64 = 1.0;
    /// The threshold of a new volume.
    pub const DEFAULT: Self = Self(0.5);

    /// Checks and takes a threshold.
    ///
    /// # Errors
    /// NaN, or a value outside of 0.05 to 1.
    pub fn new(value: f64) -> Result<Self, RangeError> {
        if (Self::MIN..=Self::MAX).contains(&value) {
            Ok(Self(value as f32))
        } else {
            Err(RangeError::Fraction {
                what: "the prediction threshold",
                value,
                min: Self::MIN,
                max: Self::MAX,
            })
        }
    }

    /// The value, 0.05 to 1.0.
    #[must_use]
    pub const fn get(self) -> f32 {
        self.0
    }

    /// The value with as many decimals as it was given with: 0.7, not 0.699999988079071.
    ///
    /// For files, messages and the API, where people compare it with what they typed.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.0.to_string().parse().unwrap_or(f64::from(self.0))
    }

    /// Whether a prediction of this probability is acted on.
    #[must_use]
    pub fn admits(self, probability: Probability) -> bool {
        probability.0 >= self.0
    }
}

/// How many epochs ahead a prediction looks, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Horizon(u32);

impl Horizon {
    /// The shortest horizon, in epochs.
    pub const MIN: u32 = 1;
    /// The longest horizon, in epochs.
    pub const MAX: u32 = 64;
    /// The horizon of a new volume: the next epoch.
    pub const DEFAULT: Self = Self(1);

    /// Checks and takes a horizon in epochs.
    ///
    /// # Errors
    /// A value outside of 1 to 64.
    pub fn new(epochs: u32) -> Result<Self, RangeError> {
        if (Self::MIN..=Self::MAX).contains(&epochs) {
            Ok(Self(epochs))
        } else {
            Err(RangeError::Horizon { value: epochs, min: Self::MIN, max: Self::MAX })
        }
    }

    /// The horizon in epochs.
    #[must_use]
    pub const fn epochs(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_and_messages_name_them() {
        assert!(Probability::new(f32::NAN).is_err());
        assert!(Probability::new(1.0).is_ok());
        let error = Threshold::new(1.5).expect_err("above the range");
        assert_eq!(error.to_string(), "the prediction threshold is 1.5; the range is 0.05 to 1");
        assert!(Horizon::new(0).is_err());
        assert!(Horizon::new(64).is_ok());
        assert!(Horizon::new(65).is_err());
    }
}
