//! forerun's data path: a volume engine over a fast and a capacity tier, and the ublk device in front.

pub mod aligned;
pub mod background;
pub mod capacity_tier;
pub mod control;
pub mod daemon;
pub mod device;
pub mod engine;
pub mod fast_tier;
pub mod memory;
pub mod offline;
pub mod priority;
pub mod request;
#[cfg(test)]
mod simulation;
pub mod sync;
pub mod volume;

/// What `tests/fuzz` calls: one function for each parser, which panics where a promise does not hold.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    pub use crate::capacity_tier::fuzzing as capacity_tier;
    pub use crate::control::fuzzing as control;
    pub use crate::fast_tier::fuzzing as fast_tier;
}
