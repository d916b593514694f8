//! The fast tier: superblocks, journal, checkpoint and slots.
//!
//! It keeps bytes and facts, not policy: it does not know what a read or a prediction is.

pub mod delta;
pub mod log;
