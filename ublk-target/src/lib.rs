//! forerun's data path: a volume engine over a fast and a capacity tier, and the ublk device in front.

pub mod aligned;
pub mod background;
pub mod capacity_tier;
pub mod control;
pub mod daemon;
pub mod device;
pub mod engine;
pub mod fast_tier;
pub mod offline;
pub mod priority;
pub mod request;
pub mod volume;
