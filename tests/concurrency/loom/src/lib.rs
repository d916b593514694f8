//! The volume engine's own sources over loom's locks and atomics, in place of `std`'s.
//!
//! Nothing is copied: the modules are those of `ublk-target`, compiled here once more. All that differs is
//! [`sync`], where they take their locks and atomics from. The models that run on them are in `tests/models`;
//! what they show is in `docs/concurrency.md`.

pub mod sync;

#[path = "../../../../ublk-target/src/aligned.rs"]
pub mod aligned;
#[path = "../../../../ublk-target/src/request.rs"]
pub mod request;
#[path = "../../../../ublk-target/src/volume/mod.rs"]
pub mod volume;

pub mod fast_tier;
