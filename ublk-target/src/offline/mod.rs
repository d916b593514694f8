//! Tools for a volume that is not in use: check, dump, repair, restore, clone.
//!
//! They read both tiers without opening the volume. Check and dump change nothing; repair makes new tiers at new places
//! and leaves the old ones as they are; restore makes a fresh fast tier over a capacity tier, and
//! clone a new volume over the objects of another one.

pub mod check;
pub mod clone;
mod cross;
pub mod dump;
pub mod repair;
pub mod restore;
