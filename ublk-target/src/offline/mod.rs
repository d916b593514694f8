//! Tools for a volume that is not in use: check, dump, repair.
//!
//! They read both tiers without opening the volume. Check and dump change nothing; repair makes new tiers at new places
//! and leaves the old ones as they are.

pub mod check;
mod cross;
pub mod dump;
pub mod repair;
