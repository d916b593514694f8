//! Check, dump and repair against damage of every kind, block by block, compared with the plain truth.
//!
//! A volume is written once, with snapshots that are written back, one that is not, and an open epoch. Its files are
//! copied as a clean stop and as a power cut leave them. Each case damages a copy; then `check` has to find it, `dump`
//! has to go on, and `repair` has to give a volume that checks clean and whose every sub-block is what it was, or is told.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

#[path = "repair/capacity.rs"]
mod capacity;
#[path = "repair/cases.rs"]
mod cases;
#[path = "repair/fast.rs"]
mod fast;
#[path = "repair/places.rs"]
mod places;
mod support;
#[path = "repair/template.rs"]
mod template;
