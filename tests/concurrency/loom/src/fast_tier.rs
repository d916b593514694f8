//! What the engine knows of the fast tier.

#[path = "../../../../ublk-target/src/fast_tier/delta.rs"]
pub mod delta;
#[path = "../../../../ublk-target/src/fast_tier/log.rs"]
pub mod log;
